import json

import pytest

import analysis
from analysis.estimate import NoteCode
from tests.analysis.handmade import directory, request, run, write


def measured(path):
    return analysis.measure(analysis.load(path))


def test_warm_up_is_excluded_and_what_was_due_in_time_but_sent_late_is_not(tmp_path):
    rows = [
        request(50, [500], sent=50),  # due in the warm-up
        request(99, [500], sent=150),  # due in the warm-up, sent in the window
        request(100, [150]),
        request(150, [900], sent=250),  # due inside, sent after it closed: the wait is what a user felt
        request(200, [260]),
        request(201, [210]),  # drain
    ]
    m = measured(directory(tmp_path, rows, runs=[run(measured=(100, 200))]))
    assert m.inside.tolist() == [False, False, True, True, True, False]
    summary = analysis.summarise(m)
    assert summary.metrics.ttft_ms.mean.n == 3
    assert summary.metrics.ttft_ms.max == 750
    assert summary.requests.completed == 6
    assert summary.requests.measured == 3


def test_throughput_counts_completions_inside_the_window(tmp_path):
    rows = [request(10 * i, [10 * i + 5, 10 * i + 10], output=4) for i in range(100)]
    summary = analysis.summarise(directory(tmp_path, rows, runs=[run(measured=(500, 900))]))
    metrics = summary.metrics
    assert metrics.requests_per_s.n == 41  # done at 500, 510, ... 900
    assert metrics.requests_per_s.value == 41 / 0.4
    assert metrics.output_tokens_per_s.value == 4 * 41 / 0.4
    assert metrics.total_tokens_per_s.value == 14 * 41 / 0.4
    assert summary.window_s == 0.4


def test_a_window_shorter_than_a_request_gives_way_to_the_whole_run(tmp_path):
    rows = [request(0, [100, 100 + 10 * i], output=5) for i in range(1, 21)]  # a burst
    metrics = analysis.summarise(directory(tmp_path, rows, runs=[run(measured=(0, 0), open_loop=True)])).metrics
    assert metrics.requests_per_s.value == pytest.approx(20 / 0.3)
    assert metrics.requests_per_s.notes[-1].startswith("window shorter than a request")


def test_a_window_that_holds_all_of_its_run_is_long_enough(tmp_path):
    """Agents that made one call each: the window ends with the last answer, and no longer request is missing."""
    rows = [request(0, [50, done], output=5, run=r, seq=i) for r in (0, 1) for i, done in enumerate((80, 100))]
    runs = [run(r, measured=(0, 100)) for r in (0, 1)]
    metrics = analysis.summarise(directory(tmp_path, rows, runs=runs)).metrics
    assert metrics.requests_per_s.value == pytest.approx(2 / 0.1)
    assert not any(note.startswith("window shorter") for note in metrics.requests_per_s.notes)


def test_runs_have_their_own_clock_and_window(tmp_path):
    rows = [request(10 * i, [10 * i + 5], run=r, seq=i + 1) for r in (0, 1) for i in range(50)]
    summary = analysis.summarise(
        directory(tmp_path, rows, runs=[run(0, measured=(100, 500)), run(1, measured=(200, 500))])
    )
    assert summary.runs == 2
    assert summary.metrics.ttft_ms.mean.n == 40 + 30
    assert [entry.completed for entry in summary.per_run] == [50, 50]
    assert [entry.requests_per_s for entry in summary.per_run] == [40 / 0.4, 30 / 0.3]


def test_a_crashed_runs_window_is_guessed_from_the_profile_and_noted(tmp_path):
    rows = [request(10 * i, [10 * i + 5]) for i in range(100)]
    for load, n in (({"warmup_s": 0.2}, 80), ({"warmup_requests": 30}, 70), ({}, 100)):
        write(tmp_path / "journal" / "000-000000.parquet", rows)
        (tmp_path / "manifest.json").write_text(json.dumps({"profile": {"load": {"concurrency": 1} | load}}))
        m = measured(tmp_path)
        assert int(m.inside.sum()) == n
        codes = {note.code for note in m.notes}
        assert NoteCode.END_GUESSED in codes
        assert (NoteCode.START_GUESSED in codes) == (n < 100)
