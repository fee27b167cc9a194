"""Schedules: they hold their rate and their dispersion, follow ramps, and come from the seed alone."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from loadgen.engine.schedule import concurrency_steps, offsets
from loadgen.profile.loads import LOAD, Load

S = 1_000_000_000
SEEDS = st.integers(0, 2**63 - 1)


def a_load(**fields: Any) -> Load:
    return LOAD.validate_python(fields)


def gaps_s(offsets_ns: np.ndarray) -> np.ndarray:
    return np.diff(offsets_ns, prepend=0) / S


# --- known answers ---


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_poisson_gaps_are_exponential(seed):
    drawn = offsets(a_load(rate_per_s=4, requests=100_000), seed)
    assert stats.kstest(gaps_s(drawn), "expon", (0, 1 / 4)).pvalue > 0.001


@pytest.mark.parametrize("burstiness", [0.25, 0.5, 4.0])
def test_gamma_gaps_have_the_mean_and_cv_of_their_shape(burstiness):
    """docs/methodology.md#known-answers, K35: b = .25 at 4/s has mean gap .25 s and CV 2."""
    drawn = offsets(a_load(rate_per_s=4, burstiness=burstiness, requests=100_000), seed=7)
    gaps = gaps_s(drawn)
    assert gaps.mean() == pytest.approx(0.25, rel=4 / math.sqrt(burstiness * 100_000))
    assert gaps.std() / gaps.mean() == pytest.approx(1 / math.sqrt(burstiness), rel=0.04)
    assert stats.kstest(gaps, "gamma", (burstiness, 0, 1 / (4 * burstiness))).pvalue > 0.001


K35 = {"burst_s": 2, "calm_s": 10, "calm_share": 0.1}  # rates 10 and 1, left at .5 and .1 per s, at a mean of 2.5/s


def test_mmpp_counts_vary_as_much_as_theory_says():
    """docs/methodology.md#known-answers, K35: mean rate 2.5/s, limiting dispersion index 16."""
    load = a_load(rate_per_s=2.5, mmpp=K35, duration_s=200_000)
    assert load.arrivals == "mmpp"
    assert load.mmpp.dispersion(2.5) == pytest.approx(16)
    assert (load.mmpp.burst_rate * 2.5, load.mmpp.burst_rate * 2.5 * 0.1) == pytest.approx((10, 1))
    drawn = offsets(load, seed=35)
    assert len(drawn) / 200_000 == pytest.approx(2.5, abs=4 * math.sqrt(16 * 2.5 / 200_000))
    counts = np.bincount(drawn // (200 * S), minlength=1000)  # bins far longer than a burst and a calm
    # In finite bins of t it is 1 + 15 (1 - (1 - exp(-.6 t)) / .6 t) = 15.875; sd of the estimate is 16 sqrt(2/999).
    assert counts.var(ddof=1) / counts.mean() == pytest.approx(15.875, abs=4 * 16 * math.sqrt(2 / 999))


def test_mmpp_is_poisson_within_its_bursts_and_silent_between_if_the_calm_is_zero():
    drawn = offsets(a_load(rate_per_s=20, mmpp={"burst_s": 5, "calm_s": 15}, duration_s=40_000), seed=2)
    gaps = gaps_s(drawn)
    # A gap is one of the burst's, rate 80, unless the burst ends first, which it does once in 1 + 80 x 5.
    calms = gaps > 0.3
    assert calms.mean() == pytest.approx(1 / 401, rel=0.15)
    assert gaps[calms].mean() == pytest.approx(15.3, rel=0.08)
    assert gaps[~calms].mean() == pytest.approx(1 / 80, rel=0.02)


def test_mmpp_begins_in_either_state_as_often_as_it_is_in_it():
    load = a_load(rate_per_s=2.5, mmpp=K35, duration_s=1)
    first = np.array([len(offsets(load, seed)) for seed in range(2000)])
    assert first.mean() == pytest.approx(2.5, abs=4 * math.sqrt(first.var() / 2000))


def test_poisson_counts_vary_as_much_as_their_mean():
    drawn = offsets(a_load(rate_per_s=20, duration_s=5000), seed=3)
    counts, gaps = np.bincount(drawn // S, minlength=5000), np.diff(drawn)
    assert counts.var(ddof=1) / counts.mean() == pytest.approx(1, abs=0.1)  # sd of the estimate is sqrt(2/4999) = 0.02
    assert gaps.std(ddof=1) / gaps.mean() == pytest.approx(1, abs=0.02)


def test_the_rate_of_nearly_every_poisson_schedule_holds():
    """Three standard deviations leave out 1 schedule in 370."""
    load = a_load(rate_per_s=8, duration_s=60, warmup_s=10)
    counts = np.array([len(offsets(load, seed)) for seed in range(1000)])
    assert (np.abs(counts - 560) > 3 * math.sqrt(560)).sum() <= 10


def test_400_poisson_events_in_100_s_lie_within_the_exact_interval_as_often_as_it_says():
    """docs/methodology.md#known-answers, K34: 400 events in 100 s give 3.617563 .. 4.411866 per s at 95 %."""
    low, high = stats.chi2.ppf(0.025, 800) / 200, stats.chi2.ppf(0.975, 802) / 200
    assert (low, high) == pytest.approx((3.617563, 4.411866), abs=1e-6)
    load = a_load(rate_per_s=4, duration_s=100)
    counts = np.array([len(offsets(load, seed)) for seed in range(500)])
    assert counts.mean() == pytest.approx(400, abs=4 * 20 / math.sqrt(500))
    assert counts.var() == pytest.approx(400, rel=0.25)  # sd of the estimate is 6 %: counts are not held fixed


def test_constant_gaps_start_at_once_and_fill_the_duration():
    drawn = offsets(a_load(arrivals="constant", rate_per_s=8, duration_s=60), seed=0)
    assert drawn.tolist() == [k * S // 8 for k in range(480)]


def test_a_burst_is_all_at_zero():
    assert offsets(a_load(arrivals="burst", requests=3), seed=0).tolist() == [0, 0, 0]


# --- bounds ---


@given(seed=SEEDS, rate=st.floats(0.1, 1000), requests=st.integers(1, 500))
def test_a_load_bounded_by_requests_has_exactly_that_many(seed, rate, requests):
    drawn = offsets(a_load(rate_per_s=rate, requests=requests), seed)
    assert len(drawn) == requests
    assert (np.diff(drawn) >= 0).all()


@given(seed=SEEDS, rate=st.floats(0.1, 100), duration_s=st.floats(0.1, 60))
def test_a_load_bounded_by_time_stays_within_it(seed, rate, duration_s):
    drawn = offsets(a_load(rate_per_s=rate, duration_s=duration_s), seed)
    assert len(drawn) == 0 or (drawn[0] >= 0 and drawn[-1] <= duration_s * S)


@given(seed=SEEDS, arrivals=st.sampled_from(["poisson", "gamma", "constant", "mmpp"]), more=st.integers(1, 9000))
@settings(max_examples=30)
def test_a_longer_schedule_begins_with_the_shorter_one(seed, arrivals, more):
    """Rescaling gaps so that the last arrival lands on n/lambda (vLLM does) would move every one of them."""
    fields = {"arrivals": arrivals, "rate_per_s": 5} | ({"mmpp": K35} if arrivals == "mmpp" else {})
    short = offsets(a_load(**fields, requests=100), seed)
    assert np.array_equal(offsets(a_load(**fields, requests=100 + more), seed)[:100], short)


def test_the_last_of_n_arrivals_is_not_pinned_to_n_over_lambda():
    load = a_load(rate_per_s=10, requests=100)
    ends_s = np.array([offsets(load, seed)[-1] / S for seed in range(300)])
    assert ends_s.std() == pytest.approx(1.0, rel=0.2)  # Erlang: sqrt(n)/lambda


def test_with_requests_and_a_duration_the_first_bound_ends_the_load():
    assert len(offsets(a_load(rate_per_s=100, duration_s=1000, requests=50), seed=1)) == 50
    assert offsets(a_load(rate_per_s=100, duration_s=1, requests=50_000), seed=1)[-1] < S


def test_a_request_bound_keeps_a_huge_duration_from_being_drawn():
    assert len(offsets(a_load(rate_per_s=1e6, duration_s=1e9, requests=10), seed=1)) == 10


# --- warm-up ---


def test_warmup_comes_before_the_load_and_on_top_of_it():
    load = a_load(arrivals="constant", rate_per_s=10, requests=20, warmup_requests=5)
    assert offsets(load, seed=0).tolist() == [k * S // 10 for k in range(25)]


def test_warmup_by_time_lasts_that_long_at_the_first_rate():
    load = a_load(arrivals="constant", stages=[{"rate_per_s": 2, "duration_s": 10, "ramp_to": 6}], warmup_s=5)
    drawn = offsets(load, seed=0)
    assert (drawn < 5 * S).sum() == 10
    assert len(drawn) == 10 + 40


# --- stages and ramps ---


@given(seed=SEEDS, r0=st.floats(0.5, 50), r1=st.floats(0.5, 50), duration_s=st.floats(5, 100))
def test_a_ramp_of_constant_gaps_holds_its_integral_at_every_instant(seed, r0, r1, duration_s):
    load = a_load(arrivals="constant", stages=[{"rate_per_s": r0, "ramp_to": r1, "duration_s": duration_s}])
    at_s = offsets(load, seed) / S
    integral = r0 * at_s + (r1 - r0) * at_s**2 / (2 * duration_s)
    assert np.allclose(integral, np.arange(len(at_s)), atol=1e-5)
    assert abs(len(at_s) - (r0 + r1) / 2 * duration_s) <= 1


def test_a_poisson_ramp_is_poisson_in_operational_time():
    load = a_load(stages=[{"rate_per_s": 10, "ramp_to": 190, "duration_s": 1000}])
    at_s = offsets(load, seed=5) / S
    assert len(at_s) == pytest.approx(100_000, abs=4 * math.sqrt(100_000))
    unit = np.diff(10 * at_s + 180 * at_s**2 / 2000)
    assert stats.kstest(unit, "expon").pvalue > 0.001
    quarter = np.histogram(at_s, bins=4, range=(0, 1000))[0]
    expected = np.array([32.5, 77.5, 122.5, 167.5]) * 250  # mean rate of each quarter
    assert np.allclose(quarter, expected, atol=0, rtol=4 / math.sqrt(8125))


def test_a_bursty_ramp_keeps_its_cv_in_operational_time():
    load = a_load(burstiness=0.25, stages=[{"rate_per_s": 190, "ramp_to": 10, "duration_s": 500}])
    at_s = offsets(load, seed=5) / S
    unit = np.diff(190 * at_s - 180 * at_s**2 / 1000)
    assert unit.std() / unit.mean() == pytest.approx(2, rel=0.05)


def test_stages_follow_each_other_at_their_own_rates():
    stages = [
        {"rate_per_s": 2, "duration_s": 10},
        {"rate_per_s": 10, "requests": 30},
        {"rate_per_s": 1, "duration_s": 5},
    ]
    at_s = offsets(a_load(arrivals="constant", stages=stages), seed=0) / S
    # The middle stage ends with its last request, so the first of the slow ones comes a second after it.
    assert len(at_s) == 20 + 30 + 4
    assert (np.diff(at_s[:20]) == 0.5).all()
    assert np.allclose(np.diff(at_s[20:50]), 0.1)
    assert np.allclose(np.diff(at_s[49:]), 1)


def test_a_stage_bounded_by_requests_ramps_over_their_mean_time():
    load = a_load(arrivals="constant", stages=[{"rate_per_s": 1, "ramp_to": 3, "requests": 40}])
    at_s = offsets(load, seed=0) / S
    assert len(at_s) == 40
    assert at_s[-1] == pytest.approx(20, abs=0.5)  # 40 requests at a mean of 2/s
    assert np.diff(at_s)[-1] == pytest.approx(1 / 3, rel=0.02)


# --- reproducibility ---


@given(seed=SEEDS)
@settings(max_examples=20)
def test_the_schedule_comes_from_seed_and_run_alone(seed):
    load = a_load(burstiness=0.5, stages=[{"rate_per_s": 5, "ramp_to": 9, "duration_s": 20}])
    assert np.array_equal(offsets(load, seed), offsets(load, seed))
    assert not np.array_equal(offsets(load, seed)[:5], offsets(load, seed + 1)[:5])
    assert not np.array_equal(offsets(load, seed)[:5], offsets(load, seed, run=1)[:5])


# --- closed loops ---


def test_a_closed_loop_without_stages_is_one_step():
    assert concurrency_steps(a_load(concurrency=8, requests=10)) == [(0, 8)]


def test_stages_of_a_closed_loop_step_by_one_along_a_ramp():
    stages = [{"concurrency": 2, "ramp_to": 4, "duration_s": 10}, {"concurrency": 4, "duration_s": 5},
              {"concurrency": 1, "duration_s": 5}]  # fmt: skip
    # Two steps in 10 s after 3 s of warm-up: at 3 + 2.5 and 3 + 7.5; then 4 is already reached.
    assert concurrency_steps(a_load(stages=stages, warmup_s=3)) == [
        (0, 2), (5_500_000_000, 3), (10_500_000_000, 4), (18 * S, 1)]  # fmt: skip


@given(c0=st.integers(1, 60), c1=st.integers(1, 60), duration_s=st.integers(1, 100))
def test_a_ramp_of_concurrency_holds_its_integral(c0, c1, duration_s):
    steps = concurrency_steps(a_load(stages=[{"concurrency": c0, "ramp_to": c1, "duration_s": duration_s}]))
    ends = [at for at, _ in steps[1:]] + [duration_s * S]
    area = sum(level * (end - at) for (at, level), end in zip(steps, ends, strict=True)) / S
    assert area == pytest.approx((c0 + c1) / 2 * duration_s, rel=1e-6)
    assert steps[-1][1] == c1


def test_a_schedule_of_a_closed_loop_is_refused():
    with pytest.raises(ValueError, match="closed loop"):
        offsets(a_load(concurrency=1, requests=1), seed=0)
    with pytest.raises(ValueError, match="open loop"):
        concurrency_steps(a_load(rate_per_s=1, requests=1))
