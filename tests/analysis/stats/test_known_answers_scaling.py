"""METHODOLOGY 15: K26 and K27; the per-agent laws against the figures of SYSTEMS 1.9."""

from __future__ import annotations

import math

import numpy as np
import pytest

from analysis.stats import scaling
from analysis.stats.scaling import fit_usl, knee, usl

LEVELS = (1, 2, 4, 8, 16, 32, 64, 128)
RATES = (95, 184.394, 347.858, 622.339, 1014.686, 1428.303, 1644.844, 1508.460)
TRUTH = (95.0, 0.03, 0.0002)


def law(levels):
    return usl(np.array(levels, float), *TRUTH)


# --- laws ---


def test_the_universal_scalability_law():
    assert law(LEVELS) == pytest.approx(RATES, abs=1e-3)  # K26
    assert scaling.usl_peak(*TRUTH) == (pytest.approx(69.641942, abs=1e-6), pytest.approx(1647.6814, abs=1e-4))
    assert scaling.usl_peak(95, 0.05, 0) == (math.inf, pytest.approx(1900))


# --- fit ---


def test_a_fit_of_exact_data_is_exact():
    fit = fit_usl(LEVELS, law(LEVELS))
    figures = (fit.gamma, fit.alpha, fit.beta, fit.peak_level, fit.peak_rate)
    assert [one.value for one in figures] == pytest.approx([*TRUTH, 69.641942, 1647.6814], rel=1e-6)  # K26
    assert all(one.low is None and "fewer than 3 runs" in one.sentences[0] for one in figures)


def test_intervals_of_a_noisy_fit_cover_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(26)
    levels = np.repeat(LEVELS, 3)
    truth = {"gamma": 95, "alpha": 0.03, "beta": 0.0002, "peak_level": 69.641942, "peak_rate": 1647.6814}
    hits = dict.fromkeys(truth, 0)
    for _ in range(150):
        fit = fit_usl(levels, law(levels) * rng.lognormal(0, 0.05, len(levels)))
        for name, value in truth.items():
            one = getattr(fit, name)
            hits[name] += one.low <= value <= one.high
    assert all(0.90 <= count / 150 <= 0.99 for count in hits.values()), hits


def test_intervals_are_those_of_curve_fit_on_logarithms():
    from scipy import optimize, stats

    levels = np.repeat(LEVELS, 3).astype(float)
    rates = law(levels) * np.random.default_rng(3).lognormal(0, 0.05, 24)
    logs, covariance = optimize.curve_fit(
        lambda n, g, a, b: np.log(usl(n, *np.exp([g, a, b]))), levels, np.log(rates), np.log([100, 0.05, 1e-3])
    )
    fit = fit_usl(levels, rates)
    for one, log, variance in zip((fit.gamma, fit.alpha, fit.beta), logs, np.diag(covariance), strict=True):
        assert one.value == pytest.approx(np.exp(log), rel=1e-4)
        assert one.high == pytest.approx(np.exp(log + stats.t.ppf(0.975, 21) * np.sqrt(variance)), rel=1e-3)


def test_a_peak_far_beyond_what_was_tried_is_refused():
    levels = (1, 2, 3, 4, 8, 16)
    fit = fit_usl(levels, law(levels))
    assert fit.alpha.value == pytest.approx(0.03, rel=1e-4)
    assert fit.peak_level.value is None
    assert fit.peak_level.sentences == ("no retrograde up to 16: plateau, most measured 1015",)
    assert fit.peak_rate.value is None


def test_saturation_without_retrograde_is_a_plateau_and_not_a_huge_peak():
    levels = np.repeat(LEVELS, 3)
    noise = np.random.default_rng(1).lognormal(0, 0.02, len(levels))
    fit = fit_usl(levels, usl(levels.astype(float), 95, 0.05, 0) * noise)
    assert fit.peak_level.value is None
    assert fit.peak_level.sentences[0].startswith("no retrograde up to 128: plateau, most measured 16")
    assert fit.alpha.low < 0.05 < fit.alpha.high


@pytest.mark.parametrize(
    ("levels", "reason"),
    [
        ((1, 2, 4, 8, 16), "5 levels; a fit needs 6"),
        ((2, 4, 6, 8, 16, 31), "levels from 2 to 31; a fit needs a factor of 16"),
        ((0, 1, 2, 4, 8, 16), "levels and throughputs must be above zero"),
    ],
)
def test_what_cannot_carry_a_fit_is_refused(levels, reason):
    fit = fit_usl(levels, [10.0] * len(levels))
    assert {one.sentences for one in (fit.gamma, fit.alpha, fit.beta, fit.peak_level)} == {(reason,)}
    assert fit.gamma.value is None


# --- knee ---


def test_the_knee_is_the_least_level_with_nine_tenths_and_has_neighbours():
    found = knee(LEVELS, RATES, [level / rate for level, rate in zip(LEVELS, RATES, strict=True)])
    assert (found.level, found.below, found.above) == (64, 32, 128)  # .9 x 1644.844 = 1480
    assert found.most_power == 16  # X/R = X^2/N: 64349 at 16, 63752 at 32, 42275 at 64
    assert knee([1, 2], [10, 10.5]).below is None
    assert knee([1, 2], [10, 20]).above is None
    with pytest.raises(ValueError, match="levels must ascend"):
        knee([2, 1], [1, 2])


# --- Little ---


def test_littles_law_of_a_steady_flow():
    # K27: X = 4/s, R = 2.5 s, so N = 10.
    starts = np.arange(0, 400) * 250_000_000
    ends = starts + 2_500_000_000
    held = np.diff(scaling.time_in_flight(starts, ends, np.array([10e9, 90e9])))[0] / 80e9
    assert held == pytest.approx(10)
    assert scaling.little_gap(starts, ends, 10_000_000_000, 90_000_000_000) == pytest.approx(0, abs=1e-9)


def test_a_window_that_cuts_requests_off_shows_in_the_gap():
    starts = np.arange(100) * 1_000_000_000
    ends = starts + 30_000_000_000
    assert scaling.little_gap(starts, ends, 0, 40_000_000_000) > scaling.LITTLE_GAP
    assert scaling.little_gap(starts, ends, 200_000_000_000, 300_000_000_000) is None


# --- per agent ---


def test_efficiency_is_of_one_agents_rate_and_needs_one_alone():
    eta = scaling.efficiency({1: 117.8, 8: 187.9 / 8, 2: 185.3 / 2})
    assert list(eta) == [1, 2, 8]
    assert eta[2] == pytest.approx(0.7865, abs=1e-4)
    assert scaling.halving_level(eta) == 8
    assert scaling.halving_level({1: 1.0, 2: 0.5}) is None
    with pytest.raises(ValueError, match="alone"):
        scaling.efficiency({2: 1.0})


def test_fits_of_exact_laws_are_exact():
    fit = scaling.fit_eta_amdahl({n: 1 / (0.54 + 0.46 * n) for n in (1, 2, 4, 8)})
    assert (fit.parameter.value, fit.r_squared) == pytest.approx((0.54, 1))
    fit = scaling.fit_eta_power({n: n**-0.3 for n in (1, 2, 4, 8)})
    assert (fit.parameter.value, fit.r_squared) == pytest.approx((0.3, 1))
    assert scaling.fit_eta_amdahl(dict.fromkeys(range(1, 9), 1.0)).parameter.value == pytest.approx(1, abs=1e-4)
    assert scaling.fit_eta_power({1: 1.0, 2: 0.6}).parameter.sentences == ("a fit needs two levels above one agent",)


def test_fits_tell_how_sure_they_are():
    rng = np.random.default_rng(5)
    hits = 0
    for _ in range(200):
        eta = {1: 1.0} | {n: n**-0.3 + rng.normal(0, 0.01) for n in range(2, 9)}
        found = scaling.fit_eta_power(eta).parameter
        hits += found.low <= 0.3 <= found.high
    assert hits / 200 == pytest.approx(0.95, abs=0.045)
