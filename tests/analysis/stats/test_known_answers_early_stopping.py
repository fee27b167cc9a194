"""Known answers K7 to K9 (docs/methodology.md#known-answers; K5, the least n of a bound, is in test_quantiles.py)."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from analysis.stats import early_stopping
from analysis.stats.early_stopping import allowed_over, queries_needed
from analysis.stats.quantiles import SortedArray


def test_queries_that_settle_a_percentile():
    assert queries_needed(0.99) == 459  # K7
    assert queries_needed(0.99, over=1) == 662
    assert queries_needed(0.9, over=1) == 64
    assert [stats.binom.cdf(1, n, 0.01) for n in (661, 662)] == pytest.approx([0.0100010, 0.0099140], abs=1e-7)


def test_queries_that_may_be_over_the_limit():
    assert [allowed_over(n, 0.99) for n in (458, 459, 661, 662, 1000, 2000)] == [None, 0, 0, 1, 2, 9]  # K8
    for n in (500, 1234, 5000, 24_576):
        over = allowed_over(n, 0.99)
        assert stats.binom.cdf(over, n, 0.01) <= 0.01 < stats.binom.cdf(over + 1, n, 0.01)


@pytest.mark.parametrize("over", [0, 1, 2, 17])
@pytest.mark.parametrize("q", [0.5, 0.9, 0.99, 0.999])
def test_needed_and_allowed_are_each_others_inverse(q, over):
    n = queries_needed(q, over)
    assert allowed_over(n, q) == over
    assert (allowed_over(n - 1, q) or 0) == max(over - 1, 0)


def test_loadgen_reads_one_rank_above_the_exact_bound():
    values = SortedArray(np.arange(1.0, 1001))
    assert early_stopping.bounds(values, 0.99) == (998, 999)  # K8: cdf(997) = .99732, cdf(996) = .98993
    assert stats.binom.cdf([997, 996], 1000, 0.99) == pytest.approx([0.99732, 0.98993], abs=1e-5)
    assert early_stopping.bounds(SortedArray(np.arange(459.0)), 0.99) == (458, None)
    assert early_stopping.bounds(SortedArray(np.arange(458.0)), 0.99) == (None, None)


def test_the_older_fixed_sizes():
    sizes = [early_stopping.fixed_size(q) for q in (0.9, 0.95, 0.97, 0.99)]
    assert sizes == pytest.approx([23886, 50425.2, 85811.3, 262742], abs=0.5)  # K9
    assert sizes[1:3] == pytest.approx([50425.2, 85811.3], abs=0.05)
