"""Parts of a report that only some campaigns have: each is a key of the summary and a function of its own.

A part is put in where the summary has its key: before the general figures if the campaign was made for it, else after
them and before the state of the instrument. To add one, write a function that returns its sections (document.py says
how) and name it here. All of them are made from the summary alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from analysis.report.agents import agents_sections
from analysis.report.document import Section
from analysis.report.telemetry import energy_sections, telemetry_sections
from analysis.summary import Summary

__all__ = ["PARTS", "Part", "sections_of"]


@dataclass(frozen=True, slots=True)
class Part:
    """The sections of one key of the summary; none where it is unset. leading: before the general figures."""

    sections: Callable[[Summary], list[Section]]
    leading: bool = False


PARTS = {
    "agents": Part(lambda summary: agents_sections(summary.agents) if summary.agents else [], leading=True),
    "telemetry": Part(lambda summary: telemetry_sections(summary.telemetry) if summary.telemetry else []),
    "energy": Part(lambda summary: energy_sections(summary.energy) if summary.energy else []),
}


def sections_of(summary: Summary, *, leading: bool) -> Iterator[Section]:
    """The sections of what `summary` has, in the order of PARTS, the leading or the other ones."""
    for part in PARTS.values():
        if part.leading == leading:
            yield from part.sections(summary)
