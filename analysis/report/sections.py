"""Parts of a report that only some campaigns have: each is a key of the summary and a module of its own.

A section is put in where the summary has its key: before the general figures if the campaign was made for it, else
after them and before the state of the instrument. To add one, write its functions in a module beside this and name them
here. All of them are made from the summary alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

from analysis.report.agents import agents_charts, agents_html, agents_markdown, agents_text
from analysis.report.slots import slots_markdown, slots_text
from analysis.report.telemetry import (
    energy_html,
    energy_markdown,
    energy_text,
    telemetry_html,
    telemetry_markdown,
    telemetry_text,
)

__all__ = ["SECTIONS", "Section", "sections_of"]

Content = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Section:
    """How one key of the summary is shown."""

    title: str
    text: Callable[[Content], str]  # lines of 80 columns at most, without the title
    markdown: Callable[[Content], str]  # with a heading of the second level
    html: Callable[[Content], str] | None = None  # markup for the page; None: the text as it is
    charts: Callable[[Content], list[dict[str, Any]]] | None = None  # in the terms of charts.py
    leading: bool = False  # before the general figures

    def page(self, content: Content) -> str:
        return self.html(content) if self.html else f"<pre>{escape(self.text(content))}</pre>"


SECTIONS = {
    "agents": Section("Agents", agents_text, agents_markdown, agents_html, agents_charts, leading=True),
    "slots": Section("Slots", slots_text, slots_markdown),
    "telemetry": Section("Telemetry", telemetry_text, telemetry_markdown, telemetry_html),
    "energy": Section("Energy", energy_text, energy_markdown, energy_html),
}


def sections_of(summary: Mapping[str, Any], *, leading: bool) -> Iterator[tuple[Section, Content]]:
    """Yield the sections that `summary` has something for, in the order of SECTIONS, the leading or the other ones."""
    for key, section in SECTIONS.items():
        if section.leading == leading and summary.get(key):
            yield section, summary[key]
