"""Parts of a report that only some campaigns have: each is a key of the summary and a function of its own.

A part is put in where the summary has its key: before the general figures if the campaign was made for it, else after
them and before the state of the instrument. To add one, write a function that returns its sections (document.py says
how) and name it here. All of them are made from the summary alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from analysis.agents.section import AgentsSection
from analysis.probes.slots import SlotsResult
from analysis.report.agents import agents_sections
from analysis.report.document import Section
from analysis.report.slots import slots_sections
from analysis.report.telemetry import energy_sections, telemetry_sections
from analysis.telemetry.consumption import EnergySection
from analysis.telemetry.section import TelemetrySection

__all__ = ["PARTS", "Part", "sections_of"]

Content = Any  # the part of the summary; typed where it is made


@dataclass(frozen=True, slots=True)
class Part:
    """How one key of the summary is shown. leading: before the general figures."""

    sections: Callable[[Content], list[Section]]
    leading: bool = False


PARTS = {
    "agents": Part(lambda content: agents_sections(msgspec.convert(content, AgentsSection)), leading=True),
    "slots": Part(lambda content: slots_sections(msgspec.convert(content, SlotsResult))),
    "telemetry": Part(lambda content: telemetry_sections(msgspec.convert(content, TelemetrySection))),
    "energy": Part(lambda content: energy_sections(msgspec.convert(content, EnergySection))),
}


def sections_of(summary: Any, *, leading: bool) -> Iterator[Section]:
    """The sections of what `summary` has, in the order of PARTS, the leading or the other ones."""
    for key, part in PARTS.items():
        content = getattr(summary, key)
        if part.leading == leading and content:
            yield from part.sections(content)
