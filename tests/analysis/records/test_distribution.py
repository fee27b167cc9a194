import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.records.distribution import Binned, Distribution, bin_of, middle_of
from analysis.stats.quantiles import type7


@given(st.lists(st.integers(0, 10**15), min_size=1, max_size=50))
def test_a_bins_middle_is_within_half_a_thousandth(values):
    array = np.array(values, np.int64)
    bins = bin_of(array).tolist()
    for value, index in zip(values, bins, strict=True):
        assert abs(middle_of(index) - value) <= 0.0005 * value
    assert [index for _, index in sorted(zip(values, bins, strict=True))] == sorted(bins)  # monotone


def test_small_values_have_a_bin_each():
    values = np.arange(2048)
    assert np.array_equal(bin_of(values), values)
    assert [middle_of(int(index)) for index in bin_of(values)] == values.tolist()


@given(st.lists(st.integers(0, 10**10), min_size=2, max_size=200), st.integers(1, 7))
def test_binned_and_exact_tell_the_same_in_any_pieces(values, pieces):
    array = np.array(values, np.int64)
    exact, binned = Distribution(), Distribution(exact=0)
    exact.add(array)
    for piece in np.array_split(np.random.default_rng(1).permutation(array), pieces):
        binned.add(piece)
    assert exact.exact
    assert not binned.exact
    assert (exact.n, exact.sum, exact.least, exact.greatest) == (binned.n, binned.sum, binned.least, binned.greatest)
    for q in (0.0, 0.1, 0.5, 0.9, 1.0):
        assert type7(exact, q) == pytest.approx(float(np.quantile(array, q)))
        assert type7(binned, q) == pytest.approx(type7(exact, q), rel=0.001)
    assert exact.counts()[1] == binned.counts()[1]


def test_the_change_to_bins_comes_with_the_first_value_too_many():
    distribution = Distribution(exact=10)
    distribution.add(np.arange(10) * 1_000_000)
    assert distribution.exact
    before = distribution.at(5)
    distribution.add(np.array([5_000_000]))
    assert not distribution.exact
    assert distribution.at(5) == pytest.approx(before, rel=0.0005)
    assert distribution.n == 11


def test_standard_deviations_agree():
    values = np.random.default_rng(4).lognormal(17, 0.3, 20_000).astype(np.int64)
    exact, binned = Distribution(), Distribution(exact=100)
    exact.add(values)
    binned.add(values)
    assert exact.sd() == pytest.approx(float(values.std(ddof=1)))
    assert binned.sd() == pytest.approx(exact.sd(), rel=0.001)


def test_a_fixed_histogram_can_be_asked_by_rank():
    histogram = Binned([3, 7], [2, 1])
    assert [histogram.at(rank) for rank in (1, 2, 3)] == [3, 3, 7]
    assert Binned([], []).n == 0
