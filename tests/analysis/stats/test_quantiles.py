import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.stats.quantiles import SortedArray, bounds, least_n, name_of, quantile, ranks, type7


@pytest.mark.parametrize(
    ("n", "q", "expected"),
    [
        (100, 0.5, (40, 61)),
        (100, 0.9, (84, 96)),
        (200, 0.95, (184, 197)),
        (200, 0.99, (195, None)),
        (500, 0.99, (490, 500)),
        (1000, 0.99, (983, 997)),
    ],
)
def test_ranks_are_those_of_the_binomial_distribution(n, q, expected):
    assert ranks(n, q) == expected  # K3


def test_bounds_agree_with_scipys_quantile_test():
    from scipy import stats

    values = np.arange(1.0, 101)
    expected = stats.quantile_test(values, p=0.9).confidence_interval()
    low, high, _ = bounds(SortedArray(values), 0.9)
    assert (low, high) == (expected.low, expected.high) == (84, 96)  # K4


def test_least_n_that_a_percentile_needs():
    quantiles = (0.9, 0.95, 0.99, 0.999)  # K5
    assert [least_n(q) for q in quantiles] == [29, 59, 299, 2995]
    assert [least_n(q, two_sided=True) for q in quantiles] == [36, 72, 368, 3688]
    assert [least_n(q, 0.99) for q in quantiles] == [44, 90, 459, 4603]


@given(st.sampled_from([0.5, 0.9, 0.95, 0.99, 0.999]), st.integers(1, 5000))
def test_an_upper_limit_exists_exactly_from_least_n_on(q, n):
    assert (ranks(n, q)[1] is not None) == (n >= least_n(q, two_sided=True))


@given(st.integers(2, 400), st.sampled_from([0.05, 0.5, 0.9, 0.99]))
def test_ranks_are_the_tightest_that_cover(n, q):
    from scipy import stats

    lower, upper = ranks(n, q)
    if lower is not None:
        assert stats.binom.cdf(lower - 1, n, q) <= 0.025 < stats.binom.cdf(lower, n, q)
    if upper is not None:
        assert stats.binom.cdf(upper - 2, n, q) < 0.975 <= stats.binom.cdf(upper - 1, n, q)


def test_type7_known_answers():
    ten = SortedArray(np.arange(1.0, 11))
    assert type7(ten, 0.9) == pytest.approx(9.1)  # K6
    assert type7(ten, 0.99) == pytest.approx(9.91)


def test_harrell_davis_lies_beyond_type7_in_a_small_tail():
    """docs/methodology.md#percentiles: it is biased by 3 to 6 % there with no less error, and so not our estimator."""
    from scipy import stats

    values = np.arange(1.0, 11)
    p50, p90 = stats.mstats.hdquantiles(values, (0.5, 0.9))
    assert (float(p50), float(p90)) == pytest.approx((5.5, 9.435115), abs=1e-6)  # K6
    assert p90 > type7(SortedArray(values), 0.9)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60), st.floats(0, 1))
def test_type7_is_numpys_default(values, q):
    assert type7(SortedArray(np.array(values)), q) == pytest.approx(np.quantile(values, q), rel=1e-9, abs=1e-6)


def test_type7_of_infinities_is_not_nan():
    values = SortedArray(np.array([1.0, 2.0, np.inf, np.inf]))
    assert type7(values, 0.9) == np.inf
    assert type7(values, 0.5) == np.inf  # between 2 and infinity
    assert type7(values, 1 / 3) == 2.0


def test_a_percentile_that_is_only_the_maximum_is_refused_but_keeps_its_lower_bound():
    estimate = quantile(SortedArray(np.arange(400.0)), 0.999)
    assert estimate.value is None
    assert estimate.high is None
    assert estimate.low == 397  # X_(398): P(Bin(400, .999) <= 397) = .0078, one rank up .0616
    assert estimate.sentences == ("p99.9 of 400: fewer than one is expected beyond it",)
    assert estimate.confidence == pytest.approx(1 - 0.00783, abs=1e-4)


def test_too_few_for_an_upper_limit_leaves_the_interval_open():
    estimate = quantile(SortedArray(np.arange(367.0)), 0.99)
    assert estimate.value == pytest.approx(366 * 0.99)
    assert estimate.low is not None
    assert estimate.high is None
    assert estimate.sentences == ("few tail samples", "no upper limit below 368 samples")
    assert quantile(SortedArray(np.arange(368.0)), 0.99).high == 367


def test_few_tail_samples_are_marked_below_ten_expected():
    assert "few tail samples" in quantile(SortedArray(np.arange(999.0)), 0.99).sentences
    assert quantile(SortedArray(np.arange(1000.0)), 0.99).sentences == ()


@pytest.mark.parametrize(("n", "q"), [(100, 0.99), (10, 0.9), (1000, 0.999), (20, 0.95)])
def test_the_refusal_begins_exactly_below_one_expected_beyond(n, q):
    assert quantile(SortedArray(np.arange(float(n))), q).value is not None
    assert quantile(SortedArray(np.arange(n - 1.0)), q).value is None


def test_no_data_is_refused():
    assert quantile(SortedArray(np.empty(0)), 0.5).value is None
    with pytest.raises(ValueError, match="no data"):
        type7(SortedArray(np.empty(0)), 0.5)


def test_the_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(7)
    true = np.exp(0.6 * 2.3263478740408408)  # p99 of a lognormal with sigma .6
    hits = 0
    for _ in range(400):
        low, high, achieved = bounds(SortedArray(rng.lognormal(0, 0.6, 1000)), 0.99)
        hits += low <= true <= high
    assert achieved == pytest.approx(0.975, abs=0.005)  # docs/methodology.md#percentiles
    assert hits / 400 == pytest.approx(achieved, abs=0.025)


def test_names_are_those_people_use():
    assert [name_of(q) for q in (0.5, 0.99, 0.999)] == ["p50", "p99", "p99.9"]
