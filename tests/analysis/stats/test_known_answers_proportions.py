"""METHODOLOGY 15: K11 to K13 (K10, one rate, is in test_intervals.py)."""

from __future__ import annotations

import pytest

from analysis.stats.proportions import fisher_p, mcnemar_p, newcombe


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


def test_arms_may_differ_in_size_and_change_places():
    assert fisher_p(9, 10, 40, 80) == pytest.approx(fisher_p(40, 80, 9, 10))


def test_mcnemar_counts_only_tasks_on_which_the_arms_disagree():
    assert mcnemar_p(14, 4) == pytest.approx(0.0308838, abs=1e-7)  # K13
    assert mcnemar_p(4, 14) == mcnemar_p(14, 4)
    assert mcnemar_p(0, 0) == 1
