import math

import numpy as np
import pytest

from analysis import intervals
from analysis.estimate import Estimate
from analysis.quantiles import SortedArray


def test_t_quantiles():
    at = [intervals.t_quantile(df) for df in (2, 4, 8, 9)]
    assert at == pytest.approx([4.302653, 2.776445, 2.306004, 2.262157], abs=1e-6)  # K1
    at = [intervals.t_quantile(df, 0.97) for df in (4, 7, 12)]
    assert at == pytest.approx([3.2976, 2.7146, 2.4607], abs=1e-4)


def test_t_interval_of_run_means():
    assert intervals.t_interval([102, 98, 101, 99, 100]) == pytest.approx((98.036757, 101.963243), abs=1e-6)  # K2


def test_batch_means():
    means = np.arange(1.0, 101).reshape(10, 10).mean(axis=1)
    low, high = intervals.t_interval(means)
    assert ((low + high) / 2, (high - low) / 2) == pytest.approx((50.5, 21.658506), abs=1e-6)  # K28
    rate = intervals.rate(means, seconds=10.0, n=100)
    assert (rate.value, rate.low, rate.high) == pytest.approx((50.5, low, high))


@pytest.mark.parametrize(
    ("k", "low", "high"), [(12, 0.075377, 0.212118), (13, 0.083547, 0.224600), (22, 0.161727, 0.332292)]
)
def test_wilson(k, low, high):
    share = intervals.proportion(k, 93)  # K10
    assert (share.low, share.high) == pytest.approx((low, high), abs=1e-6)


def test_wilson_at_the_ends_stays_there():
    assert intervals.proportion(0, 50).low == 0
    assert intervals.proportion(50, 50).high == 1


def test_a_correlated_series_is_worth_less():
    rng = np.random.default_rng(3)
    noise = rng.normal(size=20_000)
    series = np.empty_like(noise)
    series[0] = noise[0]
    for i in range(1, len(noise)):
        series[i] = 0.8 * series[i - 1] + noise[i]
    assert intervals.inefficiency(noise) == pytest.approx(1, abs=0.15)
    assert intervals.inefficiency(series) == pytest.approx(9, rel=0.2)  # (1 + .8) / (1 - .8)


def test_a_constant_series_has_no_doubt_but_an_interval():
    estimate = intervals.mean(np.full(100, 0.05))
    assert (estimate.low, estimate.high) == pytest.approx((0.05, 0.05))


def test_short_series_get_no_interval_and_say_so():
    estimate = intervals.mean(np.arange(19.0))
    assert (estimate.value, estimate.low) == (9.0, None)
    assert estimate.notes == ("no interval from fewer than 20",)
    assert intervals.mean(np.empty(0)).value is None


def test_every_interval_is_labelled_within_run():
    assert intervals.mean(np.random.default_rng(1).normal(size=50)).notes == ("within-run",)
    assert "within-run" in intervals.percentile(SortedArray(np.arange(1000.0)), 0.5).notes


def test_the_mean_of_clusters_takes_the_cluster_as_the_unit():
    rng = np.random.default_rng(5)
    hits = 0
    for _ in range(300):  # METHODOLOGY 14: taking gaps as samples covered 55 % where requests differ by 10 %
        level = 20 * rng.lognormal(-0.005, 0.1, 200)
        sums = level * 100
        estimate = intervals.mean_of_clusters(sums, np.full(200, 100.0))
        hits += estimate.low <= 20 <= estimate.high
    assert hits / 300 == pytest.approx(0.95, abs=0.03)
    assert estimate.n == 20_000


def test_a_percentile_of_clustered_data_is_the_hull_of_what_its_groups_say():
    rng = np.random.default_rng(2)
    parts = [rng.lognormal(3 + shift, 0.1, 2000) for shift in np.linspace(-0.2, 0.2, 10)]
    pooled = SortedArray(np.concatenate(parts))
    alone = intervals.percentile(pooled, 0.5)
    grouped = intervals.percentile(pooled, 0.5, [SortedArray(part) for part in parts])
    assert grouped.value == alone.value
    assert grouped.high - grouped.low > 5 * (alone.high - alone.low)
    half = intervals.log_t_half_width([float(np.median(part)) for part in parts])
    assert grouped.high == pytest.approx(grouped.value * math.exp(half), rel=1e-9)


def test_groups_too_small_for_the_percentile_leave_it_without_an_interval():
    parts = [np.random.default_rng(i).lognormal(size=500) for i in range(10)]
    estimate = intervals.percentile(
        SortedArray(np.concatenate(parts)), 0.99, [SortedArray(part) for part in parts]
    )  # five beyond p99 in each
    assert estimate.value is not None
    assert (estimate.low, estimate.high, estimate.confidence) == (None, None, None)
    assert estimate.notes[-1] == "no interval: too few gaps in a tenth of the window"


def test_the_instruments_error_widens_and_marks():
    figure = Estimate(100.0, 97.0, 104.0, 0.95, 50)
    wide = intervals.with_instrument(figure, 4.0)
    assert (wide.value, wide.low, wide.high) == pytest.approx((100, 95, 100 + math.hypot(4, 4)))
    assert wide.notes == ()
    assert intervals.with_instrument(figure, 10.01).notes == ("instrument-limited",)
    assert intervals.with_instrument(figure, None) is figure


def test_a_rate_of_few_completions_has_no_interval():
    estimate = intervals.rate(np.ones(10), 5.0, 10)
    assert (estimate.value, estimate.low) == (2.0, None)
    assert intervals.rate(np.ones(10), 0.0, 10).value is None
