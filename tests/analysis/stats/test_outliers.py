"""Which values stand out: the scale by a known answer, and what is marked."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.stats.outliers import MAD_TO_SD, outliers, robust_z


def test_log_robust_z():  # K25
    baseline = np.array([400.0, 410, 390, 405, 395, 402, 398])
    assert robust_z(baseline, np.array([650.0, 430.0])) == pytest.approx([26.3610, 3.92670], rel=1e-5)
    logs = np.log(baseline)
    scaled = MAD_TO_SD * np.median(np.abs(logs - np.median(logs)))
    assert scaled == pytest.approx(0.01841766, abs=1e-8)


def test_outliers_need_five_runs_and_some_spread():
    assert outliers([100, 100.5, 99.5, 200]) == [False] * 4
    assert outliers([100.0, 100.0, 100.0, 100.0, 200.0]) == [False] * 5  # no scale to judge by
    assert outliers([100, 101, 99, 100.5, None, 200]) == [False] * 5 + [True]
    assert outliers([100, 101, 99, 100.5, 0.0, 99.5, 100.2])[4] is True  # nothing at all stands out
    assert outliers([400, 410, 390, 405, 395, 402, 398, 430]) == [False] * 7 + [True]
