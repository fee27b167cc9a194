"""What the runs say of one metric: the ratio B/A, or the points between, with its test, interval and verdict.

Ratios are of geometric means: by paired t on the logarithms where runs are pairs, else by Welch's. Success rates differ
by points, not by ratios, and both the runs and the pooled counts must agree that they do: their p is the greater of
the two, and their interval the hull of both. A finding is made before the family of metrics is known; the verdict needs
the p of the family.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from analysis.catalogue import Direction, OfRun
from analysis.compare.comparison import (
    Change,
    Compared,
    EquivalenceTest,
    FiellerRatio,
    Interval,
    RunValues,
    Scale,
    Secondary,
    ShiftInterval,
)
from analysis.compare.sides import Side, Values
from analysis.estimate import Estimate, Note, NoteCode, note, sentences, significant
from analysis.stats import equivalence, planning, proportions, ranks, ratio
from analysis.stats.equivalence import ALPHA, ComparisonVerdict, Margin
from analysis.stats.intervals import CONFIDENCE, LEAST_RUNS
from analysis.stats.planning import Seen
from analysis.stats.ratio import Difference

__all__ = ["Finding", "change", "compared", "finding", "judge"]

FEW_TAIL = 10  # docs/methodology.md#what-is-printed: expected beyond a percentile
SURVIVORS = 0.99
ENOUGH_RUNS = 5


@dataclass(frozen=True, slots=True)
class Finding:
    """What the runs say of one metric. difference: of logarithms, or of points; None where nothing can be said."""

    metric: OfRun
    values: Values
    pooled: tuple[int, int, int, int] | None  # of points: successes and requests, B then A
    notes: tuple[Note, ...]
    limited: bool  # the difference of the means is less than two half-widths of the stamp error
    value: float | None = None  # ratio, or difference in points
    difference: Difference | None = None
    p: float = 1.0
    method: str = ""
    refusal: Note | None = None


def finding(metric: OfRun, values: Values, a: Side, b: Side, refusal: Note | None = None) -> Finding:
    """The finding on `metric`. refusal: why it cannot be compared, whatever its values."""
    pooled = (*b.successes, *a.successes) if metric.points else None
    bare = Finding(metric, values, pooled, _notes(metric, values, a, b), _limited(metric, values, a, b))
    few = values.fewest
    if refusal is None and few == 0:
        empty = [name for name, side in (("A", values.a), ("B", values.b)) if not side]
        refusal = note(NoteCode.NO_VALUE, sides=" and ".join(empty))
    if refusal is not None:
        return replace(bare, refusal=refusal)
    try:
        measured = _points(bare) if metric.points else _ratio(bare)
    except (ValueError, ZeroDivisionError):
        return replace(bare, refusal=note(NoteCode.NO_RATIO_OF_ZERO))
    if few < LEAST_RUNS:
        why = note(NoteCode.TOO_FEW_RUNS, runs=few, s="s" if few != 1 else "", least=LEAST_RUNS)
        return replace(measured, difference=None, refusal=why)
    assert measured.difference is not None
    p = measured.difference.p
    return replace(measured, p=p if pooled is None else max(p, proportions.fisher_p(*pooled)))


def _points(bare: Finding) -> Finding:
    a, b, paired = bare.values.a, bare.values.b, bare.values.paired
    method = "paired t, with Newcombe's interval" if paired else "Welch's t, with Newcombe's interval"
    difference = None
    if bare.values.fewest >= 2:
        difference = ratio.paired(b, a) if paired else ratio.welch(b, a)
    return replace(bare, value=float(np.mean(b) - np.mean(a)), difference=difference, method=method)


def _ratio(bare: Finding) -> Finding:
    a, b = bare.values.a, bare.values.b
    if bare.values.fewest < 2:
        return replace(bare, value=b[0] / a[0])
    of_means = ratio.log_paired(b, a) if bare.values.paired else ratio.log_welch(b, a)
    return replace(bare, value=of_means.value, difference=of_means.log, method=of_means.method)


def _notes(metric: OfRun, values: Values, a: Side, b: Side) -> tuple[Note, ...]:
    notes = []
    if LEAST_RUNS <= values.fewest < ENOUGH_RUNS:
        notes.append(note(NoteCode.FEW_RUNS))
    if metric.tail is not None:
        least = min(a.least_succeeded, b.least_succeeded)
        if least * metric.tail < FEW_TAIL:
            notes.append(note(NoteCode.FEW_TAIL_REQUESTS, least=least))
    if metric.unit == "ms":
        for name, side in (("A", a), ("B", b)):
            succeeded, due = side.successes
            if due and succeeded < SURVIVORS * due:
                notes.append(note(NoteCode.SURVIVORS_ONLY_ON, side=name, failed=1 - succeeded / due))
    return tuple(notes)


def _limited(metric: OfRun, values: Values, a: Side, b: Side) -> bool:
    if metric.unit != "ms" or not values.fewest:
        return False
    errors_us = [side.halfwidth_us(gaps=metric.per_token) for side in (a, b)]
    error_ms = max((error / 1e3 for error in errors_us if error is not None), default=0.0)
    return bool(abs(np.mean(values.b) - np.mean(values.a)) < 2 * error_ms)


# --- the verdict -----------------------------------------------------------------------------------------------------


def judge(finding: Finding, margin: Margin, p: float) -> ComparisonVerdict:
    """The verdict. p: adjusted for the family; where there is no difference to test, the verdict is inconclusive."""
    if finding.difference is None:
        return ComparisonVerdict.INCONCLUSIVE
    return equivalence.decide(p, _tost(finding, finding.difference, margin))


def change(finding: Finding) -> Change | None:
    """Whether B is better or worse by the estimate; None where they are the same or there is none."""
    neutral = 0.0 if finding.metric.points else 1.0
    if finding.value is None or finding.value == neutral:
        return None
    return Change.BETTER if (finding.value > neutral) == (finding.metric.better is Direction.HIGHER) else Change.WORSE


def _tost(finding: Finding, difference: Difference, margin: Margin) -> equivalence.Tost:
    test = equivalence.tost(difference, margin)
    if finding.pooled is None:
        return test
    low, high = _hull(finding, difference, 1 - 2 * ALPHA)
    return replace(test, low=low, high=high, passes=test.passes and margin.low < low and high < margin.high)


def _hull(finding: Finding, difference: Difference, confidence: float) -> tuple[float, float]:
    """The interval of the difference; of points, the hull of what the runs and the pooled counts say."""
    low, high = difference.at(confidence)
    if finding.pooled is None:
        return low, high
    pooled = proportions.newcombe(*finding.pooled, confidence=confidence)
    assert pooled.low is not None
    assert pooled.high is not None
    return min(low, pooled.low), max(high, pooled.high)


# --- as it is printed ------------------------------------------------------------------------------------------------


def compared(finding: Finding, margin: Margin, p_holm: float | None, size: int) -> Compared:
    """The finding with its verdict. p_holm: None where it is in no family. size: of the family."""
    metric, values, difference = finding.metric, finding.values, finding.difference
    verdict = judge(finding, margin, 1.0 if p_holm is None else p_holm)
    notes = list(finding.notes)
    if verdict in (ComparisonVerdict.DIFFERENT, ComparisonVerdict.NEGLIGIBLE) and finding.limited:
        notes.append(note(NoteCode.WITHIN_STAMP_ERROR))
    back = _as_points if metric.points else math.exp
    tested = difference is not None
    return Compared(
        label=metric.label,
        unit=metric.unit,
        scale=Scale.POINTS if metric.points else Scale.RATIO,
        higher_is_better=metric.better is Direction.HIGHER,
        a=_run_values(metric, values.a),
        b=_run_values(metric, values.b),
        b_to_a=_estimate(finding, back).figure(),
        method=finding.method or None,
        df=significant(difference.df) if difference else None,
        p=significant(finding.p) if tested else None,
        p_holm=significant(p_holm) if tested else None,
        family_interval=_family_interval(finding, difference, size, back) if difference else None,
        equivalence=_equivalence(finding, difference, margin, back) if difference else None,
        verdict=verdict,
        direction=change(finding),
        why=None if finding.refusal is None else finding.refusal.sentence,
        why_code=finding.refusal,
        detectable=_detectable(finding, difference, margin, back)
        if verdict is ComparisonVerdict.INCONCLUSIVE
        else None,
        secondary=_secondary(finding) if tested else None,
        notes=sentences(notes),
        note_codes=tuple(notes),
    )


Back = Callable[[float], float]  # from the scale of a difference to the one that is printed


def _as_points(points: float) -> float:
    return points


def _run_values(metric: OfRun, values: list[float]) -> RunValues:
    middle = None
    if values:
        geometric = not metric.points and min(values) > 0
        middle = math.exp(float(np.mean(np.log(values)))) if geometric else float(np.mean(values))
    return RunValues(value=significant(middle), n=len(values), values=tuple(significant(value) for value in values))


def _estimate(finding: Finding, back: Back) -> Estimate:
    n = finding.values.fewest
    if finding.difference is None:
        assert finding.refusal is not None
        return Estimate(finding.value, n=n, notes=(finding.refusal,))
    low, high = _hull(finding, finding.difference, CONFIDENCE)
    return Estimate(finding.value, back(low), back(high), CONFIDENCE, n)


def _family_interval(finding: Finding, difference: Difference, size: int, back: Back) -> Interval:
    """The interval at 1 - 0.05/k, which holds for all metrics of a family of k at once."""
    low, high = _hull(finding, difference, 1 - ALPHA / size)
    return Interval(low=significant(back(low)), high=significant(back(high)), confidence=round(1 - ALPHA / size, 4))


def _equivalence(finding: Finding, difference: Difference, margin: Margin, back: Back) -> EquivalenceTest:
    test = _tost(finding, difference, margin)
    return EquivalenceTest(
        p=significant(test.p),
        low=significant(back(test.low)),
        high=significant(back(test.high)),
        confidence=1 - 2 * ALPHA,
        margin=(significant(back(margin.low)), significant(back(margin.high))),
    )


def _detectable(finding: Finding, difference: Difference | None, margin: Margin, back: Back) -> Seen | None:
    if difference is None:
        return None
    values = finding.values
    detectable = planning.detectable(difference, len(values.b), None if values.paired else len(values.a), margin.high)
    return None if detectable is None else detectable.seen(back)


def _secondary(finding: Finding) -> Secondary:
    a, b, paired = finding.values.a, finding.values.b, finding.values.paired
    moved = ranks.shift_of_pairs(b, a) if paired else ranks.shift(b, a)
    p = ranks.sign_flip_p(b, a) if paired else ranks.rank_sum_p(b, a)
    least = ranks.least_p_sign_flip(len(b)) if paired else ranks.least_p_rank_sum(len(b), len(a))
    return Secondary(
        ratio_of_means=None if finding.metric.points else _fieller(finding.values),
        shift=ShiftInterval(
            value=significant(moved.value),
            low=significant(moved.low),
            high=significant(moved.high),
            confidence=None if moved.confidence is None else round(moved.confidence, 4),
        ),
        exact_test="sign flip" if paired else "rank sum",
        exact_p=significant(p),
        least_p=significant(least),
        permutation_p=None if paired else significant(ranks.permutation_p(b, a)),
        cliffs_delta=significant(ranks.cliffs_delta(b, a)),
        agrees=None if p is None or least >= ALPHA else (p < ALPHA) == (finding.p < ALPHA),
    )


def _fieller(values: Values) -> FiellerRatio:
    of_means = (ratio.fieller_paired if values.paired else ratio.fieller_unpaired)(values.b, values.a)
    return FiellerRatio(
        value=significant(of_means.value), low=significant(of_means.low), high=significant(of_means.high)
    )
