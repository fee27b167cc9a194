"""Which of the client's runtimes differ: an overall test, all pairs, and each against one named, of one figure.

docs/methodology.md#more-than-two. Values are logarithms of one figure per block, so differences are ratios. p and
intervals hold for the whole family of pairs, and equivalence, too, is adjusted for how many are asked.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import StrEnum

import numpy as np
from msgspec import Struct

from analysis.estimate import Estimate, Figure, Note, NoteCode, note, significant
from analysis.stats import equivalence, groups, intervals, planning, ratio
from analysis.stats.equivalence import ComparisonVerdict, Margin
from analysis.stats.planning import Seen
from analysis.stats.ratio import Difference

__all__ = ["FigureCompared", "FigureName", "PairCompared", "Statistic", "Values", "compared"]

Values = dict[int, float]  # by block


class FigureName(StrEnum):
    """The figures by which runtimes are compared."""

    EFFICIENCY = "efficiency"
    OVERLAP_EFFICIENCY = "overlap_efficiency"
    MAKESPAN = "makespan_s"


class Statistic(Struct, frozen=True, kw_only=True):
    """A test of no difference between any of the variants."""

    statistic: float | None
    p: float | None


class PairCompared(Struct, frozen=True, kw_only=True):
    """One variant over another. p and the interval hold for the family of pairs."""

    a: str
    b: str
    ratio: Figure
    p: float
    p_equivalence: float | None
    verdict: ComparisonVerdict
    detectable: Seen | None  # of an inconclusive one


class FigureCompared(Struct, frozen=True, kw_only=True):
    """The variants compared by one figure. Tests are null, and pairs none, with fewer than two variants to test."""

    figure: FigureName
    variants: tuple[str, ...]  # with enough runs
    not_tested: tuple[str, ...]
    runs: dict[str, int]
    alexander_govern: Statistic | None = None
    kruskal: Statistic | None = None
    pairs: tuple[PairCompared, ...] = ()
    against: str | None = None
    dunnett: tuple[PairCompared, ...] = ()
    separated: bool | None = None
    conclusion: str
    conclusion_code: Note


def compared(figure: FigureName, values: Mapping[str, Values], margin: float, against: str | None) -> FigureCompared:
    """The comparison by `figure`. values: of each variant, by block. against: compare the others with it as well."""
    names = [name for name, blocks in values.items() if len(blocks) >= intervals.LEAST_RUNS]
    runs = {name: len(values[name]) for name in names}
    left = tuple(name for name in values if name not in names)
    if len(names) < 2:
        conclusion = _untested(max((len(blocks) for blocks in values.values()), default=0))
        return FigureCompared(
            figure=figure,
            variants=tuple(names),
            not_tested=left,
            runs=runs,
            conclusion=conclusion.sentence,
            conclusion_code=conclusion,
        )
    logs = [np.log(list(values[name].values())).tolist() for name in names]
    overall = _statistic(groups.alexander_govern(logs))
    pairs = _judged(groups.all_pairs(logs), names, values, margin)
    named = against if against in names else None
    dunnett = () if named is None else _judged(groups.dunnett(logs, names.index(named)), names, values, margin)
    conclusion = _conclusion(len(names), pairs, overall, margin)
    return FigureCompared(
        figure=figure,
        variants=tuple(names),
        not_tested=left,
        runs=runs,
        alexander_govern=overall,
        kruskal=_statistic(groups.kruskal(logs)),
        pairs=pairs,
        against=named,
        dunnett=dunnett,
        separated=any(pair.p < equivalence.ALPHA for pair in pairs),
        conclusion=conclusion.sentence,
        conclusion_code=conclusion,
    )


def _untested(runs: int) -> Note:
    if runs < intervals.LEAST_RUNS:
        return note(NoteCode.NOT_TESTED_FEW_RUNS, runs=runs, least=intervals.LEAST_RUNS)
    return note(NoteCode.NOT_TESTED_ALONE)


def _statistic(test: groups.Test | None) -> Statistic | None:
    return None if test is None else Statistic(statistic=significant(test.statistic), p=significant(test.p))


def _judged(
    pairs: Sequence[groups.Pair], names: Sequence[str], values: Mapping[str, Values], margin: float
) -> tuple[PairCompared, ...]:
    """The pairs of a family, each with its verdict."""
    within = Margin.of_ratio(margin)
    logs = [_difference(values[names[pair.a]], values[names[pair.b]]) for pair in pairs]
    tests = [equivalence.tost(log, within) for log in logs]
    adjusted = equivalence.holm([test.p for test in tests])
    judged = []
    for pair, log, test, p in zip(pairs, logs, tests, adjusted, strict=True):
        fair = replace(test, p=p, passes=p < equivalence.ALPHA)
        verdict = equivalence.decide(pair.p, fair)
        seen = None
        if verdict is ComparisonVerdict.INCONCLUSIVE:
            n, other = (len(values[names[place]]) for place in (pair.a, pair.b))
            # Bonferroni's share of the error: a little more than the family's own tests need.
            detectable = planning.detectable(log, n, other, within.high, size=equivalence.ALPHA / len(pairs))
            seen = None if detectable is None else detectable.seen()
        judged.append(_pair(pair, fair.p, verdict, seen, names, values))
    return tuple(judged)


def _difference(a: Values, b: Values) -> Difference:
    log = ratio.log_welch(list(a.values()), list(b.values())).log
    assert log is not None
    return log


def _pair(
    pair: groups.Pair,
    p_equivalence: float,
    verdict: ComparisonVerdict,
    seen: Seen | None,
    names: Sequence[str],
    values: Mapping[str, Values],
) -> PairCompared:
    a, b = names[pair.a], names[pair.b]
    counts = len(values[a]), len(values[b])
    few = (note(NoteCode.FEW_RUNS),) if min(counts) < intervals.ENOUGH_RUNS else ()
    low, high = math.exp(pair.low), math.exp(pair.high)
    estimate = Estimate(math.exp(pair.difference), low, high, intervals.CONFIDENCE, sum(counts), few)
    p = significant(pair.p)
    assert p is not None
    return PairCompared(
        a=a,
        b=b,
        ratio=estimate.figure(),
        p=p,
        p_equivalence=significant(p_equivalence),
        verdict=verdict,
        detectable=seen,
    )


def _conclusion(variants: int, pairs: Sequence[PairCompared], overall: Statistic | None, margin: float) -> Note:
    test = "no overall test, a variant does not vary" if overall is None else f"Alexander-Govern p {overall.p:.2g}"
    apart = [f"{pair.a} and {pair.b}" for pair in pairs if pair.p < equivalence.ALPHA]
    if apart:
        names = ", ".join(apart)
        return note(NoteCode.PAIRS_SEPARATE, apart=len(apart), pairs=len(pairs), test=test, names=names)
    if overall is not None and overall.p is not None and overall.p < equivalence.ALPHA:
        return note(NoteCode.NOT_ALL_ALIKE, variants=variants, test=test)
    alike = sum(pair.verdict is ComparisonVerdict.EQUIVALENT for pair in pairs)
    return note(
        NoteCode.NONE_SEPARATES,
        variants=variants,
        test=test,
        alike=alike,
        pairs=len(pairs),
        margin=100 * margin,
        rest="" if alike == len(pairs) else "; of the rest these runs cannot tell",
    )
