"""Two sides of runs in, a comparison out: each metric of B over A, with its interval and a verdict under a margin.

sides.py says which runs are set against which, judging.py what they say of one metric, family.py what of all metrics
at once, fairness.py what else could be the reason.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from analysis.catalogue import OF_RUNS, OfRun
from analysis.compare import family
from analysis.compare.comparison import Comparison, Family
from analysis.compare.fairness import fairness
from analysis.compare.family import Margins
from analysis.compare.judging import finding
from analysis.compare.sides import Side, Values, aligned, has, pairing, side_notes
from analysis.estimate import Note, NoteCode, note, sentences
from analysis.stats.intervals import CONFIDENCE

__all__ = ["compare"]

MARGIN = 0.05


def compare(
    a: Side, b: Side, *, margin: float = MARGIN, metrics: Sequence[str] | None = None, paired: bool = False
) -> Comparison:
    """B compared with A. metrics: the declared ones, names of OF_RUNS; None: all that either side has.

    margin: 0.05 is a ratio within [1/1.05, 1.05], and 5 points of a success rate. Raises NotComparableError where a
    side is void, ValueError for a margin or a metric that is none.
    """
    for name in metrics or ():
        if name not in OF_RUNS:
            raise ValueError(f"{name}: no metric to compare; there is {', '.join(OF_RUNS)}")
    margins = Margins.of(margin)
    a.check()
    b.check()
    plan = pairing(a, b, asked=paired)
    fair = fairness(a.facts, b.facts, a.work, b.work)
    chosen = metrics or [name for name in OF_RUNS if has(name, a) or has(name, b)]
    values = {name: aligned(name, a, b, plan) for name in chosen}
    if not metrics and _alike(values.get("event_gap_mean_ms"), values.get("tpot_mean_ms")):
        del values["event_gap_mean_ms"]  # one token an event: the same figures twice would look like two findings
    findings = {
        name: finding(OF_RUNS[name], runs, a, b, _refusal(OF_RUNS[name], per_token_only=fair.per_token_only))
        for name, runs in values.items()
    }
    tested = family.members(findings)
    judged = family.judged(findings, margins)
    notes = side_notes(a, b, findings)
    return Comparison(
        a=a.described(),
        b=b.described(),
        margin=margin,
        confidence=CONFIDENCE,
        paired=plan.paired,
        pairing=plan.why.sentence,
        pairing_code=plan.why,
        family=Family(size=len(tested), metrics=tested, adjustment="Holm", declared=metrics is not None),
        metrics=judged,
        fairness=fair,
        gate=family.gate(findings, judged, margins),
        notes=sentences(notes),
        note_codes=tuple(notes),
    )


def _refusal(metric: OfRun, *, per_token_only: bool) -> Note | None:
    return note(NoteCode.UNEQUAL_LENGTHS) if per_token_only and not metric.per_token else None


def _alike(one: Values | None, other: Values | None) -> bool:
    """Whether two metrics have the same values on both sides."""
    if one is None or other is None:
        return False
    sides = ((one.a, other.a), (one.b, other.b))
    return all(len(x) == len(y) and np.allclose(x, y, rtol=1e-6, atol=0) for x, y in sides)
