"""METHODOLOGY 15: K28, K29 and K41, and what the rules of 5.1 and 5.2 see and do not see."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special

from analysis.stats.steady import (
    bin_quantiles,
    correlated_p,
    drift,
    energy_split,
    kendall_p,
    mser,
    shifts,
    stands_out,
    trend_inefficiency,
)


def steps(*levels: tuple[int, float]) -> np.ndarray:
    return np.concatenate([np.full(count, float(level)) for count, level in levels])


def sojourns(rng: np.random.Generator, n: int, load: float) -> np.ndarray:
    """The times inside of n successive customers of a steady M/M/1 queue, in mean service times (Lindley)."""
    before = 2000
    gaps, service = rng.exponential(1 / load, n + before), rng.exponential(1, n + before)
    walk = np.concatenate([[0], np.cumsum(service[:-1] - gaps[1:])])
    return (walk - np.minimum.accumulate(walk) + service)[before:]


# --- warm-up ---


def test_mser_cuts_a_transient_where_it_ends():
    assert mser(steps((20, 10), (80, 1))).cut == 20  # K28
    assert mser(steps((20, 10), (80, 1))).steady


def test_mser_minimises_the_standard_error_of_what_is_left():
    rng = np.random.default_rng(5)
    for _ in range(20):
        values = rng.normal(10, 3, 103) + 20 * np.exp(-np.arange(103) / 12)
        means = values[:100].reshape(20, 5).mean(axis=1)
        best = min(range(10), key=lambda d: means[d:].var() / (20 - d))
        assert mser(values).cut == 5 * best


def test_mser_of_a_long_transient_finds_no_steady_state():
    ramp = np.linspace(10, 1, 100)
    assert not mser(ramp).steady
    assert not mser(steps((48, 10), (52, 1))).steady  # a cut of 45 or 50 of the 50 that are searched
    assert not mser(np.ones(9)).steady


def test_mser_takes_next_to_nothing_from_what_is_steady():
    rng = np.random.default_rng(28)
    cut = [mser(rng.lognormal(0, 0.3, 1000)).cut for _ in range(200)]
    assert np.mean(cut) / 1000 < 0.06
    assert np.median(cut) / 1000 <= 0.02


def test_mser_does_not_see_drift():
    """METHODOLOGY 5.1: which is why there is a gate for it."""
    rng = np.random.default_rng(7)
    slow = rng.lognormal(0, 0.3, 1000) * np.linspace(1, 1.2, 1000)
    assert mser(slow).cut < 250
    assert drift(bin_quantiles(np.arange(1000.0), slow, 0, 1000)).drifting


def test_mser_leaves_what_does_not_fill_a_batch_aside():
    values = steps((20, 10), (80, 1))
    assert mser(np.append(values, [1000.0, 1000.0])).cut == mser(values).cut


def is_cut(values: np.ndarray) -> bool:
    found = mser(values)
    return found.steady and stands_out(values, found.cut)


@pytest.mark.parametrize(("load", "n"), [(0.5, 4800), (0.8, 1000), (0.8, 4800), (0.8, 24_000)])
def test_rushes_of_a_steady_queue_are_no_warm_up(load, n):
    queues = [sojourns(np.random.default_rng(seed), n, load) for seed in range(200)]
    # MSER-5 alone cuts one in three or more.
    assert sum(mser(queue).cut > 0 for queue in queues) > 66
    assert sum(is_cut(queue) for queue in queues) <= 10


def test_independent_values_are_left_whole():
    rng = np.random.default_rng(28)
    assert sum(is_cut(rng.lognormal(0, 0.6, 400)) for _ in range(200)) <= 2


@pytest.mark.parametrize("n", [400, 2000])
@pytest.mark.parametrize("share", [0.05, 0.1])
def test_a_cold_start_is_cut_whether_it_decays_fast_or_slowly(n, share):
    """From three times the level; fast: e-fold in a third of the share, slow: in a straight line over all of it."""
    place = np.arange(n) / (share * n)
    for decay in (np.exp(-3 * place), np.maximum(0, 1 - place)):
        values = [np.random.default_rng(seed).lognormal(0, 0.3, n) * (1 + 2 * decay) for seed in range(200)]
        assert sum(is_cut(one) for one in values) >= 190


def test_a_cold_start_before_a_queue_is_cut_as_well():
    decay = np.exp(-3 * np.arange(4800) / 480)
    queues = [sojourns(np.random.default_rng(seed), 4800, 0.5) * (1 + 5 * decay) for seed in range(100)]
    assert sum(is_cut(queue) for queue in queues) >= 95


def test_a_cut_stands_out_by_five_percent_or_not_at_all():
    assert stands_out(steps((20, 10), (80, 1)), 20)
    assert stands_out(steps((50, 105), (350, 100)), 50)
    assert not stands_out(steps((50, 104.9), (350, 100)), 50)
    assert not stands_out(steps((50, 10), (350, 10)), 50)
    assert not stands_out(steps((50, 10), (15, 1)), 50)  # too little is left to tell
    assert not stands_out(np.ones(100), 0)
    assert stands_out(steps((50, 0), (350, 3)), 50)  # no logarithm of zero is taken


# --- drift ---


def test_kendall_of_an_ascending_series_is_one_order_in_ten_factorial():
    assert kendall_p(np.arange(1.0, 11), "greater") == pytest.approx(2.755732e-7, rel=1e-6)  # K29
    assert kendall_p(np.ones(10)) == 1.0


def test_a_trend_of_a_tenth_is_drift_and_one_of_a_hundredth_is_not():
    risen = drift(np.linspace(100, 110, 10))
    assert risen.drifting
    assert risen.change == pytest.approx(10 / 105)
    assert drift(np.linspace(110, 100, 10)).change == pytest.approx(-10 / 105)
    small = drift(np.linspace(100, 101, 10))
    assert small.p < 0.05
    assert not small.drifting
    assert not drift(np.linspace(100, 110, 10), least_change=0.15).drifting  # as for a p99


def test_a_large_swing_without_order_is_no_drift():
    swing = drift(np.array([100, 140, 90, 150, 100, 80, 140, 100, 130, 95.0]))
    assert swing.p > 0.05
    assert not swing.drifting


def test_one_wild_bin_does_not_make_a_trend():
    bins = np.array([100, 101, 99, 100, 101, 99, 100, 101, 99, 900.0])
    assert abs(drift(bins).change) < 0.05


def test_bins_without_data_are_left_out_and_too_few_decide_nothing():
    bins = np.linspace(100, 118, 10)
    bins[3] = np.nan
    assert drift(bins).change == pytest.approx(18 / 110)  # the step a bin is still 2, the median is that of the rest
    bins[4:] = np.nan
    assert drift(bins) is None


def test_bins_are_of_equal_time_and_keep_to_the_window():
    at = np.array([-1, 0, 5, 9.99, 10, 55, 99.9, 100.0])
    medians = bin_quantiles(at, np.array([9, 1, 2, 3, 4, 5, 6, 9.0]), 0, 100)
    assert medians[[0, 1, 5, 9]].tolist() == [2, 4, 5, 6]
    assert np.isnan(medians[[2, 3, 4, 6, 7, 8]]).all()


def test_p_of_dependent_values_is_larger():
    assert correlated_p(0.01, 1.0) == 0.01
    assert correlated_p(0.01, 4.0) == pytest.approx(2 * special.ndtr(-2.575829 / 2))
    assert correlated_p(1.0, 4.0) == pytest.approx(1.0)


def test_the_trend_of_bins_is_as_sure_as_the_values_in_them_are_independent():
    def found(values: np.ndarray) -> float:
        at = np.arange(len(values), dtype=np.float64)
        return trend_inefficiency(at, values, 0, len(values), bin_quantiles(at, values, 0, len(values)))

    rng = np.random.default_rng(5)
    independent = rng.lognormal(0, 0.3, 2000)
    assert found(independent) == pytest.approx(1, abs=0.05)
    assert found(independent * np.linspace(1, 2, 2000)) == pytest.approx(1, abs=0.05)  # a trend is no dependence
    busy = [found(sojourns(np.random.default_rng(seed), 4800, 0.95)) for seed in range(50)]
    assert np.median(busy) > 1.15


@pytest.mark.parametrize("load", [0.8, 0.95])
def test_steady_queues_drift_as_rarely_as_independent_values(load):
    at = np.arange(4800, dtype=np.float64)
    ps = []
    for seed in range(300):
        values = sojourns(np.random.default_rng(seed), 4800, load)
        bins = bin_quantiles(at, values, 0, 4800)
        ps.append((drift(bins).p, trend_inefficiency(at, values, 0, 4800, bins)))
    assert np.mean([correlated_p(p, g) < 0.05 for p, g in ps]) < 0.075
    if load == 0.95:
        assert np.mean([p < 0.05 for p, _ in ps]) > 0.09  # as if independent


# --- level shifts ---


def test_the_energy_statistic_of_two_levels():
    assert energy_split(steps((20, 10), (20, 12))) == (20, pytest.approx(40))  # K41
    assert energy_split(np.array([0, 1, 2, 3, 4, 10, 11, 12, 13, 14.0])) == (5, pytest.approx(42))


def test_the_energy_statistic_is_that_of_its_definition():
    values = np.random.default_rng(41).normal(size=17)

    def q(tau: int) -> float:
        x, y = values[:tau], values[tau:]
        m, k = len(x), len(y)
        between = np.abs(x[:, None] - y).mean()
        return m * k / (m + k) * (2 * between - np.abs(x[:, None] - x).mean() - np.abs(y[:, None] - y).mean())

    best = max(range(1, 17), key=q)
    assert energy_split(values) == (best, pytest.approx(q(best)))
    with pytest.raises(ValueError, match="cannot split 5 values into two parts of 3"):
        energy_split(values[:5], 3)


def test_shifts_are_found_where_they_are_with_the_levels_on_either_side():
    rng = np.random.default_rng(1)
    noisy = steps((40, 100), (30, 130), (50, 90)) * rng.lognormal(0, 0.03, 120)
    found = shifts(noisy)
    assert [shift.at for shift in found] == [40, 70]
    assert [shift.before for shift in found] == pytest.approx([100, 130], rel=0.02)
    assert [shift.change for shift in found] == pytest.approx([0.3, 90 / 130 - 1], abs=0.03)


def test_a_step_below_five_percent_is_not_reported_however_sure():
    assert shifts(steps((20, 100), (20, 104.9))) == ()
    assert [shift.at for shift in shifts(steps((20, 100), (20, 105)))] == [20]


def test_a_burst_shorter_than_three_bins_is_no_level():
    bins = steps((30, 100), (2, 300), (30, 100)) * np.random.default_rng(4).lognormal(0, 0.01, 62)
    assert shifts(bins) == ()
    assert shifts(steps((2, 300), (60, 100))) == ()
    assert [shift.at for shift in shifts(steps((3, 300), (60, 100)))] == [3]


def test_fewer_than_thirty_bins_say_nothing_about_levels():
    assert shifts(steps((15, 10), (14, 20))) is None
    assert shifts(np.full(30, 7.0)) == ()


def test_steady_noise_has_hardly_any_shifts():
    """The place is chosen by looking, so that p is too good; the five percent are what holds back."""
    rng = np.random.default_rng(9)
    alarms = sum(bool(shifts(rng.lognormal(0, 0.05, 60))) for _ in range(100))
    assert alarms <= 10
