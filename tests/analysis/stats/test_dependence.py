"""What dependent values of one run are worth.

See docs/methodology.md#dependence-within-a-run.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import signal

from analysis.stats.dependence import bin_inefficiency, inefficiency


def autoregressive(phi: float, n: int, seed: int) -> np.ndarray:
    """x_t = phi x_(t-1) + noise: rho_k = phi^k, hence g = (1 + phi) / (1 - phi)."""
    noise = np.random.default_rng(seed).normal(size=n + 1000)
    return np.asarray(signal.lfilter([1.0], [1.0, -phi], noise)[1000:])


@pytest.mark.parametrize("phi", [0.0, 0.5, 0.9])
def test_the_inefficiency_of_an_autoregressive_series(phi):
    found = [inefficiency(autoregressive(phi, 20_000, seed)) for seed in range(20)]
    assert np.mean(found) == pytest.approx((1 + phi) / (1 - phi), rel=0.1)


def test_values_that_alternate_or_do_not_vary_are_worth_their_number():
    assert inefficiency(np.tile([1.0, 2.0], 500)) == 1.0
    assert inefficiency(np.full(400, np.log(20.0))) == 1.0
    assert inefficiency(np.array([])) == inefficiency(np.array([3.0])) == 1.0
    assert inefficiency(np.array([1.0, 2.0])) == inefficiency(np.array([1.0, 5.0, 2.0])) == 1.0


def test_bins_that_outlast_the_dependence_are_independent():
    series = autoregressive(0.9, 100_000, 3)  # g = 19
    assert 1.0 <= bin_inefficiency(series, 10_000) < 1.05
    # Var(bin) = (1 + 2 sum (1 - k/10) 0.9^k) / 10 for bins of ten, and g / 10 if they were independent.
    within = 1 + 2 * sum((1 - k / 10) * 0.9**k for k in range(1, 10))
    assert bin_inefficiency(series, 10) == pytest.approx(19 / within, rel=0.15)
    assert bin_inefficiency(np.random.default_rng(1).normal(size=5000), 500) == pytest.approx(1.0, abs=0.01)
