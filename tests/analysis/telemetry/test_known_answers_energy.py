"""METHODOLOGY 15: K38."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.telemetry.energy import joules, net_of_idle


def test_energy_by_trapezoids_and_net_of_idle():
    energy = joules(np.array([0.0, 1, 2]), np.array([100.0, 200, 100]))
    assert energy == 300  # K38
    assert net_of_idle(energy, 40, 2) == 220


def test_samples_need_not_be_evenly_spaced():
    assert joules(np.array([0.0, 0.5, 3.5]), np.array([100.0, 100, 300])) == 50 + 600


@pytest.mark.parametrize(
    ("at_s", "watts", "reason"),
    [
        ([0.0], [100.0], "two samples or more"),
        ([0.0, 1], [100.0], "got 2 and 1"),
        ([0.0, 1, 1], [1.0, 1, 1], "must ascend"),
        ([0.0, 1, 2], [1.0, np.nan, 1], "missing"),
    ],
)
def test_what_gives_no_energy_says_why(at_s, watts, reason):
    with pytest.raises(ValueError, match=reason):
        joules(np.array(at_s), np.array(watts))
