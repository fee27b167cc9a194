"""The agents section graded as the multi-agent guide grades its own figures."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from analysis.agents.blocks import AgentRun
from analysis.agents.contention_section import Contention
from analysis.agents.differences import spread
from analysis.estimate import Figure
from analysis.formats.guide_grades import grade

__all__ = ["GUIDE_RULE", "Grades", "grades_of"]

GUIDE_RULE = "speedup<1.5"  # docs/agents.md#rules-of-earlier-tools: what the guide calls contended


class Grades(Struct, frozen=True, kw_only=True):
    """The grades of a campaign; None where there is no figure. cv: of the overlap over concurrent runs."""

    overlap_efficiency: str | None
    contended_share: str | None
    cv: str | None


def grades_of(overlap_efficiency: Figure, contention: Contention, runs: Sequence[AgentRun], concurrent: int) -> Grades:
    """The grades. runs: all that are listed; concurrent: how many concurrent ones the figures are over."""
    labelled = contention.rules_runs[GUIDE_RULE]
    overlaps = {run.run: run.overlap for run in runs if run.overlap and not run.left_out}
    return Grades(
        overlap_efficiency=grade("overlap_efficiency", overlap_efficiency.value),
        contended_share=grade("contended_share", None if labelled is None else labelled / concurrent),
        cv=grade("cv", spread(overlaps).cv),
    )
