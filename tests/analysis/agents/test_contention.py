"""The detector: its parts by known answers, and the gate of docs/methodology.md#test-of-the-detector on few seeds.

The whole grid, with intervals, is tests/bench/bench_contention.py.
"""

from __future__ import annotations

import numpy as np
import pytest

from analysis.agents import contention
from analysis.agents.overlap import inside_and_touching
from analysis.estimate import Estimate
from tests.bench import bench_contention as bench

SEEDS = 10


def test_the_expected_ttft_follows_the_prompt():
    rng = np.random.default_rng(5)
    prompts = rng.integers(50, 2000, 60).astype(np.float64)
    ttft = (100e6 + 0.4e6 * prompts) * rng.lognormal(0, 0.1, 60)
    ttft[::20] *= 5  # a slow tail moves nothing
    found = contention.baseline_of(ttft, prompts)
    assert found.expected_ns(np.array([100.0, 1000.0])) == pytest.approx([140e6, 500e6], rel=0.08)
    assert found.scale == pytest.approx(0.1, rel=0.4)


def test_outside_the_lengths_seen_nothing_is_extrapolated():
    prompts = np.repeat([100.0, 200.0], 10)
    ttft = prompts * np.tile([1e6, 1.1e6], 10)
    found = contention.baseline_of(ttft, prompts)
    assert found.expected_ns(np.array([900.0])) == found.expected_ns(np.array([200.0]))
    assert found.expected_ns(np.array([np.nan])) == found.expected_ns(np.array([100.0]))


@pytest.mark.parametrize("values", [[5.0] * 30, [1.0, 2.0, 3.0], [np.nan] * 30, []])
def test_too_few_or_identical_solo_calls_are_no_yardstick(values):
    assert contention.baseline_of(np.array(values), np.ones(len(values))) is None


def test_a_thousandth_slower_is_no_contention_however_sure():
    assert contention.flag(np.array([1e-12, 1e-12]), np.array([1.001, 1.2])).tolist() == [False, True]


def test_gaps_are_inside_an_overlap_outside_or_across_its_end():
    busy = np.array([[10, 20], [30, 40]])
    begin, end = np.array([11, 19, 20, 25, 5, 40, 15]), np.array([12, 21, 30, 29, 45, 41, 35])
    inside, touching = inside_and_touching(begin, end, busy)
    assert inside.tolist() == [True, False, False, False, False, False, False]
    assert touching.tolist() == [True, True, False, False, True, False, True]


def stretch(value, lower, upper, n=5):
    return contention.Stretch(Estimate(value, lower, upper, 0.95, n), lower, upper)


@pytest.mark.parametrize(
    ("ttft", "tpot", "verdict"),
    [
        ((1.2, 1.1, 1.3), (1.0, 0.99, 1.01), "contention"),
        ((1.0, 0.99, 1.01), (1.2, 1.06, 1.3), "contention"),
        ((1.04, 1.03, 1.045), (1.0, 0.99, 1.01), "none"),
        ((1.05, 1.01, 1.09), (1.0, 0.99, 1.01), "inconclusive"),
    ],
)
def test_verdict_needs_a_lower_bound_above_five_percent(ttft, tpot, verdict):
    assert contention.verdict_of({"TTFT": stretch(*ttft), "TPOT": stretch(*tpot)})[0] == verdict


def test_old_rules_by_hand():
    overlap = np.array([1.49, 1.5, 2.0])
    ttft_s = np.array([[1.0, 4.5], [1.0, np.nan], [11.0, 12.0]])
    found = contention.legacy_rules(overlap, ttft_s)
    assert {name: labelled.tolist() for name, labelled in found.items()} == {
        "speedup<1.5": [True, False, False],
        "delta_ttft>3s": [True, False, False],
        "delta_ttft>10s": [False, False, False],
        "ttft>3s": [True, False, True],
        "ttft>10s": [False, False, True],
    }
    named = contention.legacy_rules(overlap, ttft_s, contention.Rules((1.8,), (2.5,), ()))
    assert list(named) == ["speedup<1.8", "delta_ttft>2.5s"]


def found(stretched, share, tail=0.0, sigma=0.15):
    return [bench.detect(seed, stretched, share, sigma, tail) for seed in range(SEEDS)]


def test_nothing_injected_is_seldom_flagged_and_never_called_contention():
    clean = found(1.0, 0.0)
    assert sum(one.runs_contended for one in clean) <= 0.05 * bench.BLOCKS * SEEDS
    assert sum(one.runs_flagged for one in clean) <= 0.15 * bench.BLOCKS * SEEDS  # 5 % of them, by the design of BH
    assert [one.verdict for one in clean] == ["none"] * SEEDS


def test_a_natural_tail_is_flagged_but_not_called_contention():
    tailed = found(1.0, 0.0, tail=0.02)
    assert sum(one.flagged for one in tailed) > 0
    assert sum(one.runs_contended for one in tailed) <= 0.1 * bench.BLOCKS * SEEDS
    assert "contention" not in [one.verdict for one in tailed]


@pytest.mark.parametrize("share", [0.05, 0.2])
def test_twofold_stretch_is_found(share):
    planted = found(2.0, share)
    right, flagged = sum(one.right for one in planted), sum(one.flagged for one in planted)
    assert right >= 0.9 * sum(one.injected for one in planted)
    assert right >= 0.85 * flagged
    assert [one.runs_contended for one in planted] == [bench.BLOCKS] * SEEDS


def test_twofold_stretch_of_a_fifth_is_contention():
    assert [one.verdict for one in found(2.0, 0.2)] == ["contention"] * SEEDS


def test_a_stretch_of_all_requests_has_the_size_that_was_set():
    calls, ttft, injected = bench.campaign(1, 1.2, 0.5, 0.05, 0.0)
    everything = np.where(calls.concurrent & ~injected, ttft * 1.2, ttft)
    one = contention.stretch_over_runs(calls, everything, calls.concurrent)
    assert one.estimate.low < 1.2 < one.estimate.high
    assert one.lower > 1.05
