"""More than two sets of run values: known answers (METHODOLOGY 15) and published examples."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from analysis.stats.groups import alexander_govern, all_pairs, dunnett, kruskal

K24 = ([1, 2, 3, 4, 5], [3, 4, 5, 6, 7], [8, 9, 10, 11, 12])
K37 = (
    [24.5, 23.5, 26.4, 27.1, 29.9],
    [28.4, 34.2, 29.5, 32.2, 30.1],
    [26.1, 28.3, 24.3, 26.2, 27.8],
)
# Dunnett (1955): blood counts of a control and of two drugs.
DUNNETT = (
    [7.40, 8.50, 7.20, 8.24, 9.84, 8.32],
    [9.76, 8.80, 7.68, 9.36],
    [12.80, 9.68, 12.16, 9.20, 10.55],
)


def test_k24_kruskal():
    found = kruskal(K24)
    assert found is not None
    assert found.statistic == pytest.approx(10.712388, abs=5e-7)
    assert found.p == pytest.approx(0.00471883, abs=5e-9)


def test_k37_alexander_govern():
    found = alexander_govern(K37)
    assert found is not None
    assert found.statistic == pytest.approx(7.079470, abs=5e-7)
    assert found.p == pytest.approx(0.0290210, abs=5e-8)


def test_k37_tukey():
    pairs = all_pairs(K37, equal_variances=True)
    assert [(pair.a, pair.b) for pair in pairs] == [(0, 1), (0, 2), (1, 2)]
    assert [pair.p for pair in pairs] == pytest.approx([0.0144483, 0.980311, 0.0203311], abs=5e-7)


def test_games_howell_is_the_studentized_range_at_welchs_degrees_of_freedom():
    a, b, c = (np.array(group) for group in K37)
    part_a, part_b = a.var(ddof=1) / len(a), b.var(ddof=1) / len(b)
    df = (part_a + part_b) ** 2 / (part_a**2 / (len(a) - 1) + part_b**2 / (len(b) - 1))
    difference, se = a.mean() - b.mean(), np.sqrt((part_a + part_b) / 2)
    half = se * stats.studentized_range.ppf(0.9, 3, df)
    pair = all_pairs((a, b, c), 0.9)[0]
    assert pair.p == pytest.approx(stats.studentized_range.sf(abs(difference) / se, 3, df), rel=1e-6)
    assert (pair.difference, pair.low, pair.high) == pytest.approx((difference, difference - half, difference + half))


def test_games_howell_of_two_groups_is_welchs_test():
    from analysis.stats.ratio import welch

    a, b = K37[0], K37[1]
    (pair,) = all_pairs((a, b))
    known = welch(a, b)
    assert pair.difference == pytest.approx(known.value)
    assert pair.p == pytest.approx(known.p, rel=1e-4)
    assert (pair.low, pair.high) == pytest.approx((known.low, known.high), rel=1e-4)


def test_games_howell_of_three_groups_asks_for_more_than_welch_does():
    from analysis.stats.ratio import welch

    for pair in all_pairs(K37):
        known = welch(K37[pair.a], K37[pair.b])
        assert pair.p > known.p
        assert pair.low < known.low < known.high < pair.high
        assert (pair.p < 0.05) == (not pair.low <= 0 <= pair.high)


def test_dunnett_of_1955():
    first, second = dunnett(DUNNETT, 0)
    assert (first.a, first.b, second.a, second.b) == (1, 0, 2, 0)
    assert first.p == pytest.approx(0.620, abs=1e-3)
    assert second.p == pytest.approx(0.0059, abs=2e-4)
    assert dunnett(DUNNETT, 0) == [first, second]  # no chance in it


def test_groups_that_do_not_vary_are_not_weighed():
    same = ([1.0, 1.0], [1.0, 1.0], [1.0, 1.0])
    assert alexander_govern(same) is None
    assert kruskal(same) is None
    assert [pair.p for pair in all_pairs(same)] == [1.0, 1.0, 1.0]
    assert all_pairs(([1.0, 1.0], [2.0, 2.0]))[0].p == 0.0
    flat, varied = all_pairs(([1.0, 1.0], [2.0, 2.0], [1.0, 3.0]))[:2]
    assert (flat.p, flat.low, flat.high) == (0.0, -1.0, -1.0)
    assert 0 < varied.p < 1
    assert varied.low < varied.difference < varied.high


@pytest.mark.parametrize("bad", [([1.0, 2.0],), ([1.0], [1.0, 2.0]), ([1.0, math.nan], [1.0, 2.0])])
def test_what_cannot_be_tested_is_refused(bad):
    with pytest.raises(ValueError, match="run values"):
        all_pairs(bad)
