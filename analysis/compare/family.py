"""Many metrics at once: the declared ones are one family, and a difference counts if Holm's p says so.

With ten metrics and no difference between two servers, one p in every second comparison would lie under 5 % by chance.
Beside each metric's interval stands the one at 1 - 0.05/k, which holds for all k at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from analysis.catalogue import OfRun
from analysis.compare.comparison import Change, Compared, Gate, GateVerdict
from analysis.compare.judging import Finding, compared
from analysis.stats import equivalence
from analysis.stats.equivalence import ComparisonVerdict, Margin

__all__ = ["Margins", "gate", "judged", "members"]


@dataclass(frozen=True, slots=True)
class Margins:
    """What counts as no difference: a ratio within [1/(1 + m), 1 + m], and m as points of a share."""

    ratio: Margin
    points: Margin

    @staticmethod
    def of(margin: float) -> Margins:
        """Both margins. Raises ValueError unless 0 < margin < infinity."""
        return Margins(Margin.of_ratio(margin), Margin.of_points(margin))

    def on(self, metric: OfRun) -> Margin:
        """The margin in the scale of the metric's difference."""
        return self.points if metric.points else self.ratio


def members(findings: Mapping[str, Finding]) -> tuple[str, ...]:
    """The names of the metrics that are tested."""
    return tuple(name for name, finding in findings.items() if finding.difference is not None)


def judged(findings: Mapping[str, Finding], margins: Margins) -> dict[str, Compared]:
    """The findings with their verdicts, by Holm's p over all that are tested."""
    family = members(findings)
    adjusted = dict(zip(family, equivalence.holm([findings[name].p for name in family]), strict=True))
    return {
        name: compared(finding, margins.on(finding.metric), adjusted.get(name), len(family))
        for name, finding in findings.items()
    }


def gate(findings: Mapping[str, Finding], metrics: Mapping[str, Compared], margins: Margins) -> Gate:
    """The gate: shut by a metric that is worse beyond the margin, open if all are held, else undecided.

    A metric that is worse, but whether by more than the margin is not known, is undecided.
    """
    worse: list[str] = []
    undecided: list[str] = []
    for name, metric in metrics.items():
        difference, margin = findings[name].difference, margins.on(findings[name].metric)
        if difference is None or metric.verdict is ComparisonVerdict.INCONCLUSIVE:
            undecided.append(name)
        elif metric.verdict is ComparisonVerdict.DIFFERENT and metric.direction is Change.WORSE:
            beyond = not margin.low <= difference.value <= margin.high
            (worse if beyond else undecided).append(name)
    verdict = GateVerdict.WORSE if worse else GateVerdict.UNDECIDED if undecided else GateVerdict.HELD
    return Gate(verdict=verdict, worse=tuple(worse), undecided=tuple(undecided))
