"""Where a run has settled and whether it stayed there, on records whose truth is known."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import analysis
from analysis.records import settling
from tests.analysis.handmade import MS, SCHEMA, directory, request, run

OPEN = {"arrivals": "constant", "rate_per_s": 10}


def answers(ttft, tpot=20.0, every=100.0, number=0):
    """One request every `every` ms; ttft: shape (n,), ms."""
    tpot = np.broadcast_to(tpot, len(ttft))
    return [
        request(every * i, [every * i + t, every * i + t + gap], output=2, run=number, seq=i + 1)
        for i, (t, gap) in enumerate(zip(ttft.tolist(), tpot.tolist(), strict=True))
    ]


def noise(n, seed=0, sigma=0.3):
    return 100 * np.random.default_rng(seed).lognormal(0, sigma, n)


def summarised(path, rows, runs=1, load=OPEN):
    most = max(row["intended_ns"] for row in rows) / MS
    entries = [run(number, measured=(0, most), open_loop=True) for number in range(runs)]
    return analysis.summarise(directory(path, rows, load=load, runs=entries))


def test_a_transient_is_cut_from_the_window_and_both_windows_are_told(tmp_path):
    ttft = noise(600)
    ttft[:60] *= 3
    summary = summarised(tmp_path, answers(ttft))
    told = summary.per_run[0].settled
    assert told.steady is True
    assert 55 <= told.cut <= 70
    assert told.asked_s == (0, 59.9)
    assert told.measured_s == (pytest.approx(0.1 * told.cut), 59.9)
    assert summary.requests.measured == 600 - told.cut
    assert summary.metrics.event_gap_ms.p50.n == 600 - told.cut
    assert summary.metrics.ttft_ms.mean.value == pytest.approx(float(ttft[told.cut :].mean()))
    assert summary.window_s == pytest.approx(59.9 - 0.1 * told.cut)
    begins = f"run 0: measured from {0.1 * told.cut:.4g} s on instead of 0 s: the first {told.cut} answers cut"
    assert summary.notes[0].startswith(begins)
    assert summary.verdict == "ok"


def test_a_transient_of_the_tpot_alone_is_cut_as_well(tmp_path):
    tpot = np.where(np.arange(400) < 50, 60.0, 20.0)
    told = summarised(tmp_path, answers(noise(400, sigma=0.01), tpot)).per_run[0].settled
    assert told.cut == 50


def test_a_rush_that_came_early_is_kept_and_told(tmp_path):
    # It is as high as those later on, so it is no start-up.
    rush = 1 + 2 * (np.arange(1200) % 200 < 60)
    ttft = noise(1200, sigma=0.1) * rush
    ttft[-200:] = noise(200, seed=1, sigma=0.1)
    summary = summarised(tmp_path, answers(ttft))
    told = summary.per_run[0].settled
    assert (told.cut, told.steady) == (0, True)
    assert told.spared > 24
    note = f"run 0: MSER-5 would cut the first {told.spared} answers; not cut: no more than chance"
    assert note in summary.notes
    assert summary.requests.measured == 1200


def test_a_run_that_never_settles_is_marked_and_keeps_its_window(tmp_path):
    # It comes down until the middle, which is as far as MSER-5 looks.
    ttft = noise(400, sigma=0.01) * np.maximum(1, 6 - np.arange(400) / 40)
    summary = summarised(tmp_path, answers(ttft))
    told = summary.per_run[0].settled
    assert (told.steady, told.cut) == (False, 0)
    assert summary.notes[0] == "run 0: no steady state: it may still have been warming up"
    assert summary.requests.measured == 400


@pytest.mark.parametrize(
    ("n", "load"),
    [
        (settling.LEAST - 1, OPEN),
        (400, {"arrivals": "burst", "requests": 400}),
        (400, {"arrivals": "mmpp", "rate_per_s": 10}),
        (400, {"arrivals": "poisson", "stages": [{"rate_per_s": 50, "duration_s": 2}, {"rate_per_s": 100}]}),
    ],
)
def test_short_runs_bursts_and_stages_are_not_judged(tmp_path, n, load):
    ttft = noise(n) * np.linspace(1, 3, n)
    summary = summarised(tmp_path, answers(ttft), load=load)
    assert (summary.verdict, summary.per_run[0].settled) == ("ok", None)
    assert summary.requests.measured == n


@pytest.mark.parametrize(("change", "word"), [(1.3, "rises"), (0.7, "falls")])
def test_a_drifting_run_is_unstable_tells_its_trend_and_prints_no_percentile(tmp_path, change, word):
    summary = summarised(tmp_path, answers(noise(500, sigma=0.1) * np.linspace(1, change, 500)))
    assert summary.verdict == "unstable"
    assert summary.verdict_reasons[0].startswith(f"drifting: TTFT p50 {word} by ")
    # Of the median level, and of what MSER-5 leaves: it cuts into a trend as if that were a transient.
    assert 15 <= int(summary.verdict_reasons[0].split("by ")[1].split("%")[0]) <= 36
    assert summary.metrics.ttft_ms.p50.notes == ("no percentile: unstable",)
    assert summary.metrics.ttft_ms.mean.value is not None


@pytest.mark.parametrize("sigma", [0.0, 0.02])
def test_a_drift_along_a_curve_is_no_dependence(tmp_path, sigma):
    curve = 100 * (1 + 0.5 * np.linspace(0, 1, 500) ** 3) * noise(500, sigma=sigma) / 100
    assert summarised(tmp_path, answers(curve)).verdict == "unstable"


def test_a_drift_below_five_per_cent_is_none(tmp_path):
    ttft = 100 + np.linspace(0, 4, 500) + np.tile([0, 0.1], 250)
    assert summarised(tmp_path, answers(ttft)).verdict == "ok"


def test_one_drifting_run_of_several_is_named(tmp_path):
    rows = [
        row
        for number in range(5)
        for row in answers(
            noise(500, seed=number, sigma=0.1) * np.linspace(1, 1.8 if number == 3 else 1, 500), number=number
        )
    ]
    summary = summarised(tmp_path, rows, runs=5)
    assert summary.verdict == "unstable"
    assert len(summary.verdict_reasons) == 1
    assert summary.verdict_reasons[0].startswith("run 3: drifting: TTFT p50 rises by ")


def stationary(path, runs, n):
    """Measure that many runs of lognormal TTFT, sigma 0.6, without a trend; by column, because they are many."""
    rng = np.random.default_rng(17)
    total = runs * n
    due = np.tile(np.arange(n) * 10 * MS, runs)
    first = due + (100 * MS * rng.lognormal(0, 0.6, total)).astype(np.int64)
    last = first + (200 * MS * rng.lognormal(0, 0.2, total)).astype(np.int64)
    two = np.arange(0, 2 * total + 1, 2, dtype=np.int32)
    columns = {
        "run": np.repeat(np.arange(runs), n),
        "seq": np.tile(np.arange(n), runs),
        "intended_ns": due,
        "sent_ns": due,
        "done_ns": last,
        "event_ns": pa.ListArray.from_arrays(two, np.column_stack([first, last]).ravel()),
        "event_kind": pa.ListArray.from_arrays(two, pa.array(np.full(2 * total, 3), pa.uint8())),
        "event_read": pa.ListArray.from_arrays(two, pa.array(np.tile([0, 1], total), pa.int32())),
        "output_tokens": np.full(total, 11),
        "tokens_from": ["usage"] * total,
        "outcome": ["ok"] * total,
        "endpoint": ["a"] * total,
    }
    arrays = [
        pa.array(columns[field.name], field.type) if field.name in columns else pa.nulls(total, field.type)
        for field in SCHEMA
    ]
    entries = [run(number, measured=(0, 10 * (n - 1)), open_loop=True) for number in range(runs)]
    directory(path, [], load=OPEN, runs=entries)
    pq.write_table(pa.Table.from_arrays(arrays, schema=SCHEMA), path / "records.parquet")
    return analysis.measure(analysis.load(path))


def test_two_hundred_stationary_runs_are_called_drifting_five_times_in_a_hundred_at_most(tmp_path):
    m = stationary(tmp_path, 200, 400)
    assert all(window.steady is not None for window in m.windows)
    flagged = [bool(settling.drifting(replace(m, windows=(window,)))) for window in m.windows]
    assert sum(flagged) <= 10
    campaigns = [bool(settling.drifting(replace(m, windows=m.windows[at : at + 5]))) for at in range(0, 200, 5)]
    assert sum(campaigns) <= 4  # of 40: nor are campaigns of five runs
    cut = sum(window.cut for window in m.windows) / (200 * 400)
    assert cut < 0.05


def test_a_level_shift_is_told_with_its_time(tmp_path):
    ttft = noise(1200, sigma=0.1)
    ttft[700:900] *= 1.4  # 70 to 90 s: it comes back, and no trend sees it
    summary = summarised(tmp_path, answers(ttft))
    up, down = [note for note in summary.notes if "shifts" in note]
    assert up.startswith("run 0: TTFT shifts from ")
    assert float(up.split(" at ")[1].split()[0]) == pytest.approx(70, abs=4)
    assert float(down.split(" at ")[1].split()[0]) == pytest.approx(90, abs=4)
    assert not any("shifts" in note for note in summarised(tmp_path, answers(noise(1200, sigma=0.1))).notes)
