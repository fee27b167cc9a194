"""Known answers K29 and K40, and the checks of docs/methodology.md#how-many-runs.

See docs/methodology.md#known-answers.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from analysis.stats import planning, ratio
from analysis.stats.intervals import t_quantile
from analysis.stats.planning import LOOKS, look, minimum_detectable, power, runs_needed


def test_runs_an_arm_for_an_effect_of_one_sd():
    assert runs_needed(1.0, paired=False) == 17  # K29
    assert power(1.0, 17, 17) == pytest.approx(0.80704, abs=1e-5)
    assert power(1.0, 16, 16) < 0.8


@pytest.mark.parametrize(("n", "effect"), [(5, 1.682), (6, 1.435), (8, 1.16), (10, 0.996)])
def test_least_effect_that_pairs_find(n, effect):
    # K40; 8: docs/methodology.md#how-many-runs
    assert minimum_detectable(n) == pytest.approx(effect, abs=5e-3 if n == 8 else 6e-4)


@pytest.mark.parametrize(("n", "effect"), [(3, 3.071), (5, 2.024), (10, 1.325)])
def test_least_effect_that_two_arms_find(n, effect):
    assert minimum_detectable(n, n) == pytest.approx(effect, abs=6e-4)  # K40


def test_effects_and_runs_are_each_others_inverse():
    for n in (3, 5, 9, 30):
        assert runs_needed(minimum_detectable(n) * 1.0001, paired=True) == n
        assert runs_needed(minimum_detectable(n, n) * 1.0001, paired=False) == n


def test_power_is_that_of_simulated_tests():
    rng = np.random.default_rng(40)
    x = rng.normal(1.435, 1, (4000, 6))
    t = x.mean(axis=1) / (x.std(axis=1, ddof=1) / math.sqrt(6))
    assert np.mean(t > t_quantile(5)) == pytest.approx(0.8, abs=0.02)


@pytest.mark.parametrize("size", [0.10, 0.05, 0.05 / 3])
def test_what_is_detectable_is_found_four_times_in_five(size):
    """One-sided 5 %, two-sided 5 %, and one of three pairs: runs that differ by `least` are separated by t."""
    rng = np.random.default_rng(41)
    one, other = rng.normal(0.1, 0.03, 5), rng.normal(0.1, 0.03, 5)
    for paired in (True, False):
        seen = ratio.paired(one, other) if paired else ratio.welch(one, other)
        found = planning.detectable(seen, 5, None if paired else 5, wanted=0.05, size=size)
        sd = seen.se * math.sqrt(5 if paired else 2.5)
        a = rng.normal(found.least, sd, (8000, 5))
        b = np.zeros((8000, 5)) if paired else rng.normal(0, sd, (8000, 5))
        variance = a.var(axis=1, ddof=1) + b.var(axis=1, ddof=1)
        t = (a.mean(axis=1) - b.mean(axis=1)) / np.sqrt(variance / 5)
        assert np.mean(t > t_quantile(4 if paired else 8, 1 - size)) == pytest.approx(0.8, abs=0.015)
        assert power(0.05 / sd, found.runs_needed, None if paired else found.runs_needed, size) >= 0.8
        assert power(0.05 / sd, found.runs_needed - 1, None if paired else found.runs_needed - 1, size) < 0.8


def test_values_that_do_not_vary_have_no_least_effect():
    assert planning.detectable(ratio.paired([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]), 3, None, 0.05) is None


def test_unequal_arms_are_worth_less_than_equal_ones_of_the_same_total():
    assert minimum_detectable(3, 7) > minimum_detectable(5, 5)
    assert minimum_detectable(3, 7) == pytest.approx(minimum_detectable(7, 3))


def test_too_few_runs_to_test_have_no_least_effect():
    assert minimum_detectable(1) is None
    assert minimum_detectable(1, 1) is None
    assert minimum_detectable(2) > 5
    assert runs_needed(1e-9, paired=True) is None


# --- looks ---


def test_there_is_nothing_to_see_between_looks():
    assert look([100.0] * 6, 0.5) == planning.Look(6, None, reached=False, next_look=8)
    assert look([], 0.5).next_look == 5
    assert look([100.0] * 5, 0.5) == planning.Look(5, 0.0, reached=True, next_look=None)


def test_a_look_is_at_97_percent():
    logs = np.array([-0.02, -0.01, 0.0, 0.01, 0.02])
    seen = look(list(100 * np.exp(logs)), 0.02)
    half = 3.2976 * math.sqrt(0.001 / 4) / math.sqrt(5)  # K1: t_.985 of 4
    assert seen.half_width == pytest.approx(math.expm1(half), rel=1e-4)
    assert (seen.reached, seen.next_look) == (False, 8)
    assert look(list(100 * np.exp(logs)), 0.024).reached


def test_the_last_look_ends_it_whatever_it_shows():
    rng = np.random.default_rng(1)
    seen = look(list(rng.lognormal(0, 1, 55)), 0.05)
    assert not seen.reached
    assert seen.next_look is None
    assert look(list(rng.lognormal(0, 1, 60)), 0.05).half_width is not None


def test_values_of_zero_are_taken_on_the_raw_scale():
    values = [0.0, 1.0, 2.0, 3.0, 4.0]
    assert look(values, 0.05).half_width == pytest.approx(3.2976 * math.sqrt(2.5 / 5) / 2, rel=1e-4)
    assert look([-1.0, 0.0, 0.0, 0.0, 1.0], 0.05).half_width == math.inf


def test_intervals_at_the_stop_cover_what_they_say():
    """Checks at 97 % covered .955 with a mean of 16 runs where the CV is 1.5 times the width.

    See docs/methodology.md#how-many-runs.
    """
    rng = np.random.default_rng(6)
    hits, runs = 0, 0
    for _ in range(1500):
        values = list(rng.normal(100, 3, LOOKS[-1]))
        stopped = next(n for n in LOOKS if look(values[:n], 0.02).next_look is None)
        kept = np.log(values[:stopped])
        half = t_quantile(stopped - 1, planning.LOOK_CONFIDENCE) * kept.std(ddof=1) / math.sqrt(stopped)
        hits += abs(kept.mean() - (math.log(100) - 0.03**2 / 2)) <= half  # E log x = log mu - CV^2 / 2, nearly
        runs += stopped
    assert hits / 1500 == pytest.approx(0.955, abs=0.018)
    assert runs / 1500 == pytest.approx(16, abs=1)
