import math

import numpy as np
import pytest
from scipy import stats

from analysis.estimate import Estimate
from analysis.stats import intervals
from analysis.stats.quantiles import SortedArray, bounds


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


def test_a_mean_like_figure_is_log_t_over_run_values():
    runs = [1.794418 * factor for factor in (0.99, 1.02, 1.0, 0.98, 1.01)]
    estimate = intervals.over_runs(runs, 1000)
    logs = np.log(runs)
    half = 2.776445 * logs.std(ddof=1) / math.sqrt(5)
    assert estimate.value == pytest.approx(math.exp(logs.mean()))
    assert (estimate.low, estimate.high) == pytest.approx(
        (estimate.value / math.exp(half), estimate.value * math.exp(half)), rel=1e-6
    )
    assert (estimate.n, estimate.confidence, estimate.sentences) == (1000, 0.95, ())


@pytest.mark.parametrize("runs", [[0.0, 98, 101, 99, 100], [-2.0, 98, 101, 99, 100]])
def test_values_that_are_zero_or_negative_stay_on_their_own_scale(runs):
    estimate = intervals.over_runs(runs, 5)
    assert estimate.value == pytest.approx(np.mean(runs))
    assert (estimate.low, estimate.high) == pytest.approx(intervals.t_interval(runs))


@pytest.mark.parametrize(
    ("runs", "note"),
    [
        ([], "no data"),
        ([5.0], "no interval from 1 run: ask for --runs 5"),
        ([5.0, 6.0], "no interval from 2 runs: ask for --runs 5"),
        ([5.0, 6.0, 7.0], "few runs"),
        ([5.0, 6.0, 7.0, 8.0], "few runs"),
        ([5.0, 6.0, 7.0, 8.0, 9.0], None),
    ],
)
def test_few_runs_say_so_and_fewer_get_no_interval(runs, note):
    estimate = intervals.over_runs(runs, len(runs))
    assert estimate.sentences == (() if note is None else (note,))
    assert (estimate.low is None) == (len(runs) < 3)


@pytest.mark.parametrize(("runs", "cv"), [(3, 0.03), (5, 0.03), (5, 0.10), (10, 0.05)])
def test_log_t_over_runs_covers_as_often_as_it_says(runs, cv):
    rng = np.random.default_rng(11)
    truth = 100 * np.exp(cv**2 / 2)  # the mean; the geometric one differs by 0.5 % at most
    hits = 0
    for _ in range(2000):
        estimate = intervals.over_runs((100 * rng.lognormal(0, cv, runs)).tolist(), runs)
        hits += estimate.low <= truth <= estimate.high
    assert hits / 2000 == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize(
    ("k", "low", "high"), [(12, 0.075377, 0.212118), (13, 0.083547, 0.224600), (22, 0.161727, 0.332292)]
)
def test_wilson(k, low, high):
    share = intervals.proportion(k, 93)  # K10
    assert (share.low, share.high) == pytest.approx((low, high), abs=1e-6)


@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
@pytest.mark.parametrize(("k", "n"), [(0, 1), (1, 1), (0, 20), (20, 20), (1, 7), (13, 93), (500, 1000), (1, 10**6)])
def test_wilson_is_scipys(k, n, confidence):
    share = intervals.proportion(k, n, confidence=confidence)
    known = stats.binomtest(k, n).proportion_ci(confidence, method="wilson")
    assert (share.low, share.high) == pytest.approx((known.low, known.high), abs=1e-12)


def test_wilson_at_the_ends_stays_there():
    assert intervals.proportion(0, 50).low == 0
    assert intervals.proportion(50, 50).high == 1


def test_equal_runs_have_no_doubt_but_an_interval():
    estimate = intervals.over_runs([0.05] * 5, 100)
    assert (estimate.value, estimate.low, estimate.high) == (0.05, 0.05, 0.05)


def runs_of(rng, runs, requests, cv):
    return [20 * rng.lognormal(0, cv) * rng.lognormal(0, 0.6, requests) for _ in range(runs)]


def test_a_percentile_is_of_all_requests_and_its_interval_the_hull_of_runs_and_order_statistics():
    runs = runs_of(np.random.default_rng(2), 5, 400, 0.2)
    data = SortedArray(np.concatenate(runs))
    estimate = intervals.percentile(data, 0.5, [SortedArray(run) for run in runs])
    assert estimate.value == pytest.approx(np.percentile(np.concatenate(runs), 50))
    half = intervals.log_t_half_width([float(np.median(run)) for run in runs])
    assert estimate.high == pytest.approx(estimate.value * math.exp(half))
    assert (estimate.confidence, estimate.sentences) == (0.95, ())
    alike = [SortedArray(np.concatenate(runs))] * 5  # runs that agree to the last digit
    low, high, _ = bounds(data, 0.5)
    told = intervals.percentile(data, 0.5, alike)
    assert (told.low, told.high) == (low, high)


@pytest.mark.parametrize(("runs", "cv", "q"), [(5, 0.03, 0.99), (5, 0.10, 0.99), (3, 0.05, 0.95)])
def test_the_hull_covers(runs, cv, q):
    rng = np.random.default_rng(7)
    truth = 20 * math.exp(0.6 * {0.99: 2.3263479, 0.95: 1.6448536}[q])
    hits = 0
    for _ in range(300):
        held = runs_of(rng, runs, 200, cv)
        estimate = intervals.percentile(SortedArray(np.concatenate(held)), q, [SortedArray(run) for run in held])
        hits += estimate.low <= truth <= estimate.high
    assert hits / 300 >= 0.94  # docs/methodology.md#percentiles: .991, .978, .985


@pytest.mark.parametrize("runs", [1, 2])
def test_percentiles_of_one_or_two_runs_keep_their_order_statistics_as_within_run(runs):
    held = runs_of(np.random.default_rng(3), runs, 400, 0.1)
    data = SortedArray(np.concatenate(held))
    estimate = intervals.percentile(data, 0.5, [SortedArray(run) for run in held])
    assert (estimate.low, estimate.high) == bounds(data, 0.5)[:2]
    assert estimate.sentences == ("within-run",)
    gaps = intervals.percentile(data, 0.5, [SortedArray(run) for run in held], clustered=True)
    assert (gaps.value, gaps.low, gaps.confidence) == (estimate.value, None, None)
    assert gaps.sentences == (intervals.no_interval(runs).sentence,)


def test_a_p99_has_no_upper_limit_below_368_requests_however_many_runs_there_are():
    held = runs_of(np.random.default_rng(3), 5, 73, 0.01)  # 365
    estimate = intervals.percentile(SortedArray(np.concatenate(held)), 0.99, [SortedArray(run) for run in held])
    assert (estimate.high, estimate.low is None) == (None, False)
    assert "no upper limit below 368 samples" in estimate.sentences
    held = runs_of(np.random.default_rng(3), 5, 74, 0.01)
    data, runs = SortedArray(np.concatenate(held)), [SortedArray(run) for run in held]
    assert intervals.percentile(data, 0.99, runs).high
    more = intervals.percentile(data, 0.99, runs, 0.97)  # 370 are enough for 95 %
    assert more.high is None
    assert "no upper limit below 418 samples" in more.sentences


def test_a_percentile_of_zeros_has_an_interval_on_its_own_scale():
    held = [np.zeros(100)] * 4 + [np.full(100, 3.0)]
    estimate = intervals.percentile(SortedArray(np.concatenate(held)), 0.5, [SortedArray(run) for run in held])
    assert (estimate.value, estimate.low) == (0.0, 0.0)  # 0 - 1.67 would be a negative duration
    assert estimate.high == pytest.approx(2.776445 * 3 / 5, abs=1e-4)


def test_a_share_over_runs_is_the_hull_of_wilsons_interval_and_of_what_runs_say():
    alike = intervals.proportion(13, 93, [13 / 93] * 3)
    assert (alike.low, alike.high) == pytest.approx((0.083547, 0.224600), abs=1e-6)
    apart = intervals.proportion(30, 300, [0.0, 0.0, 0.3])
    assert (apart.low, apart.high) == (0.0, pytest.approx(0.1 + 4.302653 * 0.1, abs=1e-6))


def test_the_instruments_error_widens_and_marks():
    figure = Estimate(100.0, 97.0, 104.0, 0.95, 50)
    wide = intervals.with_instrument(figure, 4.0)
    assert (wide.value, wide.low, wide.high) == pytest.approx((100, 95, 100 + math.hypot(4, 4)))
    assert wide.sentences == ()
    assert intervals.with_instrument(figure, 10.01).sentences == ("instrument-limited",)
    assert intervals.with_instrument(figure, None) is figure
