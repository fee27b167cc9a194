"""METHODOLOGY 15: K11 to K13 (K10, one rate, is in test_intervals.py)."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.stats.proportions import boschloo_p, fisher_p, mcnemar_p, newcombe, zero_failures_bound


def test_newcombes_difference():
    difference = newcombe(22, 93, 12, 93)
    assert (difference.value, difference.low, difference.high) == pytest.approx(
        (0.107527, -0.004290, 0.217270), abs=1e-6
    )
    mirrored = newcombe(12, 93, 22, 93)  # K11
    assert (mirrored.low, mirrored.high) == pytest.approx((-0.217270, 0.004290), abs=1e-6)
    with pytest.raises(ValueError, match="no trials"):
        newcombe(0, 0, 1, 2)


def test_newcombes_difference_of_certain_rates_stays_within_one():
    assert newcombe(20, 20, 0, 20).high == 1
    assert newcombe(0, 20, 20, 20).low == -1


def test_exact_tests_of_two_independent_rates():
    assert fisher_p(22, 93, 12, 93) == pytest.approx(0.0867461, abs=1e-7)  # K12
    assert boschloo_p(22, 93, 12, 93) == pytest.approx(0.0665006, abs=1e-6)


def test_the_arms_of_boschloos_test_are_the_columns():
    from scipy import stats

    transposed = float(stats.boschloo_exact([[22, 71], [12, 81]]).pvalue)
    assert transposed == pytest.approx(0.0600988, abs=1e-6)  # K12: the wrong way round is another p
    assert boschloo_p(22, 93, 12, 93) != pytest.approx(transposed, abs=1e-3)


def test_arms_may_differ_in_size_and_change_places():
    assert boschloo_p(9, 10, 40, 80) == pytest.approx(boschloo_p(40, 80, 9, 10), abs=1e-6)
    assert boschloo_p(9, 10, 40, 80) <= fisher_p(9, 10, 40, 80)
    assert fisher_p(9, 10, 40, 80) == pytest.approx(fisher_p(40, 80, 9, 10))


def test_mcnemar_counts_only_tasks_on_which_the_arms_disagree():
    assert mcnemar_p(14, 4) == pytest.approx(0.0308838, abs=1e-7)  # K13
    assert mcnemar_p(4, 14) == mcnemar_p(14, 4)
    assert mcnemar_p(0, 0) == 1


def test_no_failure_in_n_leaves_about_three_in_n_open():
    assert zero_failures_bound(299) == pytest.approx(0.01, abs=5e-5)  # K5: .99^299 = .0495
    assert zero_failures_bound(299) < 0.01 < zero_failures_bound(298)
    assert np.exp(1000 * np.log1p(-zero_failures_bound(1000))) == pytest.approx(0.05)
    assert zero_failures_bound(10**9) == pytest.approx(2.9957e-9, rel=1e-4)  # not lost in rounding
    with pytest.raises(ValueError, match="n must be >= 1"):
        zero_failures_bound(0)
