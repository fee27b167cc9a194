import json

import pytest

import analysis
from analysis.estimate import sentences
from analysis.records.requests import read_requests
from tests.analysis.handmade import directory, request, run, write

ROWS = [request(10 * i, [10 * i + 5, 10 * i + 8], output=2) for i in range(20)]


def test_a_killed_run_is_read_from_its_journal(tmp_path):
    write(tmp_path / "journal" / "000-000000.parquet", ROWS[:12])
    write(tmp_path / "journal" / "000-000001.parquet", ROWS[12:])
    (tmp_path / "journal" / "000-000002.tmp").write_bytes(b"PAR1 half a segment")
    (tmp_path / "manifest.json").write_text(json.dumps({"profile": {"load": {"concurrency": 1}}}))
    frame = analysis.load(tmp_path)
    assert frame.partial
    assert sentences(frame.notes) == ("the run did not close: read from 2 journal segments",)
    summary = analysis.summarise(frame)
    assert summary.requests.completed == 20
    assert summary.interrupted is True
    assert summary.verdict == "ok"


def test_an_unreadable_segment_is_left_out_and_named(tmp_path):
    write(tmp_path / "journal" / "000-000000.parquet", ROWS[:12])
    (tmp_path / "journal" / "000-000001.parquet").write_bytes(b"PAR1 cut short")
    summary = analysis.summarise(tmp_path)
    assert summary.requests.completed == 12
    assert "journal segment 000-000001.parquet cannot be read: left out" in summary.notes
    assert any("no manifest.json" in note for note in summary.notes)


def test_an_unreadable_records_file_gives_way_to_the_journal(tmp_path):
    write(tmp_path / "journal" / "000-000000.parquet", ROWS)
    (tmp_path / "records.parquet").write_bytes(b"")
    assert analysis.summarise(tmp_path).requests.completed == 20


def test_a_run_killed_before_its_first_flush_is_a_failed_one(tmp_path):
    (tmp_path / "manifest.json").write_text(json.dumps({"runs": [{"run": 0, "offered": 7}]}))
    summary = analysis.summarise(tmp_path)
    assert summary.verdict == "failed"
    assert summary.requests.offered == 7
    assert analysis.terminal_report(summary).endswith("no request completed\n")


def test_a_directory_of_something_else_is_refused_by_name(tmp_path):
    with pytest.raises(analysis.NoRecordsError, match=str(tmp_path)):
        analysis.load(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_broken_manifest_costs_only_what_it_said(tmp_path, text):
    directory(tmp_path, ROWS)
    (tmp_path / "manifest.json").write_text(text)
    assert analysis.summarise(tmp_path).requests.completed == 20


@pytest.mark.parametrize("rows", [1, 3, 7, 1000])
def test_batches_of_any_size_tell_the_same(tmp_path, rows, monkeypatch):
    monkeypatch.setattr(analysis.Frame.batches, "__defaults__", (rows,))
    mixed = [
        request(0, [10, 20, 20], counts=[1, 1, 2], reads=[0, 1, 1], output=4),
        request(1, []),
        request(2, [30, 50], output=None),
        request(3, [31, 32, 33, 34], counts=[2, 2, 2, 2], output=8),
        request(4, outcome="reset", error="gone"),
    ]
    m = analysis.measure(analysis.load(directory(tmp_path, mixed, runs=[run()])))
    assert m.tokens.events.tolist() == [3, 0, 2, 4, 0]
    assert (m.tokens.last_ns[[0, 2, 3]] / 1e6).tolist() == [20, 50, 34]
    assert (m.tokens.counted[[0, 3]]).tolist() == [4, 8]
    assert (m.tokens.single[[0, 3]]).tolist() == [2, 0]
    assert m.gaps.stamped.n == 2 + 1 + 3
    assert m.gaps.stamped.sum == (10 + 0 + 20 + 3) * 1_000_000


def test_names_get_their_codes_in_whatever_batch_they_first_appear(tmp_path):
    rows = [request(i, [i + 1], endpoint="ab"[i % 2], agent="x" if i < 5 else "y") for i in range(10)]
    requests = read_requests(analysis.load(directory(tmp_path, rows)))
    assert [requests.endpoints[code] for code in requests.endpoint] == list("ab") * 5
    assert [requests.agents[code] for code in requests.agent] == ["x"] * 5 + ["y"] * 5
