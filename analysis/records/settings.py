"""The settings in a campaign's manifest that its figures depend on: the confidence, and the rule that stopped it."""

from __future__ import annotations

from msgspec import Struct

from analysis.stats.intervals import CONFIDENCE
from analysis.stats.planning import LOOK_CONFIDENCE
from loadgen.manifest import LookFacts, Manifest

__all__ = ["Stopping", "confidence_of", "stopping"]


class Stopping(Struct, frozen=True, kw_only=True):
    """The last look of a campaign that added runs until its intervals were narrow."""

    within: float  # the relative half-width asked for
    runs: int  # 0 before the first look
    half_width: dict[str, float | None]  # of each checked metric, relative, at LOOK_CONFIDENCE
    reached: bool


def confidence_of(manifest: Manifest) -> float:
    """The confidence of a campaign's intervals: 95 %, or 97 % where runs were added until they were narrow."""
    return CONFIDENCE if manifest.planned_design.until is None else LOOK_CONFIDENCE


def stopping(manifest: Manifest) -> Stopping | None:
    """The last look of a campaign; None if it did not add runs until its intervals were narrow."""
    within = manifest.planned_design.until
    if within is None:
        return None
    last = manifest.looks[-1] if manifest.looks else LookFacts(runs=0)
    return Stopping(within=within, runs=last.runs, half_width=last.half_width, reached=last.reached)
