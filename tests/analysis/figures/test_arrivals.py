import numpy as np
import pytest

import analysis
from tests.analysis.handmade import directory, plain, request, run

LOAD = {"arrivals": "poisson", "rate_per_s": 50}


def at(due, lasts=20.0):
    return [request(t, [t + lasts / 2, t + lasts], output=2) for t in due]


def poisson(seed, n=1000, rate=50):
    return np.cumsum(np.random.default_rng(seed).exponential(1000 / rate, n)).tolist()


def summarised(path, due, load=LOAD, **options):
    return analysis.summarise(
        directory(path, at(due, **options), load=load, runs=[run(open_loop=True, measured=(0, due[-1]))])
    )


def test_a_poisson_schedule_is_told_with_rate_cv_and_dispersion(tmp_path):
    summary = summarised(tmp_path, poisson(1))
    told = summary.arrivals[0]
    assert (told.run, told.asked_per_s, told.within) == (0, 50, True)
    assert told.rate_per_s == pytest.approx(50, rel=0.1)
    assert told.cv == pytest.approx(1, abs=0.1)
    assert told.dispersion == pytest.approx(1, abs=0.7)
    assert not any("schedule" in note for note in summary.notes)


def test_a_schedule_off_its_rate_by_more_than_three_deviations_is_told(tmp_path):
    # 1000 arrivals in 20 s: the rate has a standard deviation of sqrt(50/20) = 1.6; 55 is 3.2 of them away.
    spread = np.linspace(0, 20_000, 1100).tolist()
    summary = summarised(tmp_path, spread)
    assert summary.arrivals[0].within is False
    assert any("over three standard deviations from the 50 asked for" in note for note in summary.notes)
    assert summarised(tmp_path, spread, load=LOAD | {"arrivals": "constant"}).arrivals[0].within is None


def test_constant_gaps_have_no_spread_and_a_burst_has_no_gaps(tmp_path):
    told = summarised(tmp_path, np.arange(0, 20_000, 20.0).tolist(), load=LOAD | {"arrivals": "constant"}).arrivals
    assert told[0].cv == pytest.approx(0, abs=1e-9)
    assert told[0].dispersion == pytest.approx(0, abs=0.01)
    rows = at([0.0] * 20)
    burst = directory(tmp_path, rows, load={"arrivals": "burst"}, runs=[run(open_loop=True, measured=(0, 0))])
    assert plain(analysis.summarise(burst).arrivals) == [
        {"run": 0, "asked_per_s": None, "rate_per_s": None, "cv": None, "dispersion": None, "within": None}
    ]


def test_a_closed_loop_has_no_arrivals_of_its_own(tmp_path):
    assert analysis.summarise(directory(tmp_path, at([0.0, 30.0, 60.0]))).arrivals is None


def test_littles_law_holds_in_balance_and_a_load_out_of_balance_is_told(tmp_path):
    summary = summarised(tmp_path / "even", poisson(2))
    assert summary.littles_law[0].apart < 0.02
    assert not any("Little" in note for note in summary.notes)
    due = np.arange(0, 20_000, 20.0)
    stuck = at(due.tolist())
    stuck[100]["done_ns"] = 60_000 * 1_000_000  # one request held from 2 s to 60 s: in flight, and not counted as done
    path = directory(tmp_path / "stuck", stuck, load=LOAD, runs=[run(open_loop=True, measured=(0, 20_000))])
    summary = analysis.summarise(path)
    assert summary.littles_law[0].apart > 0.4
    assert any("(Little's law)" in note for note in summary.notes)


def test_a_window_of_few_residence_times_is_not_held_to_littles_law(tmp_path):
    assert summarised(tmp_path, poisson(1), lasts=1000.0).littles_law == ()
