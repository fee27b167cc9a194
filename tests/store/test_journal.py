"""The journal: what is written is read again, whatever the moment of a crash or of a full disk.

A full disk is had for nothing: a segment is written under a temporary name first, and where that name is a link to
/dev/full the kernel refuses every byte with ENOSPC, as it would on a real one.
"""

from __future__ import annotations

import errno
import shutil
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loadgen.record import Kind, Outcome, Record, TokensFrom
from loadgen.store import journal as journal_module
from loadgen.store.journal import KEPT, SCHEMA, SOME_EVENTS, SOME_RECORDS, Journal, close_segments, reopen, segments

BYTES_A_TOKEN = 4.2  # six are allowed; 3.7 it is for the stamps below; without the encodings it is more
LISTS = {"event_ns": np.int64, "event_tokens": np.int32, "event_kind": np.uint8, "event_read": np.int32}

NS = st.integers(-(2**63), 2**63 - 1)
COUNT = st.integers(0, 2**31 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@st.composite
def records(draw: st.DrawFn) -> Record:
    events = draw(st.integers(0, 5))

    def array(name: str, values: st.SearchStrategy[int]) -> np.ndarray[Any, Any]:
        return np.array(draw(st.lists(values, min_size=events, max_size=events)), LISTS[name])

    optional = {
        name: draw(st.none() | NS)
        for name in SCHEMA.names
        if name.endswith("_ns") and name not in ("event_ns", "intended_ns")
    }
    return Record(
        run=draw(st.integers(-(2**31), 2**31 - 1)),
        seq=draw(NS),
        endpoint=draw(TEXT),
        intended_ns=draw(NS),
        outcome=draw(st.sampled_from(Outcome)),
        agent=draw(TEXT),
        session=draw(st.none() | TEXT),
        turn=draw(st.none() | COUNT),
        event_ns=array("event_ns", NS),
        event_kind=array("event_kind", st.sampled_from(Kind).map(int)),
        event_read=array("event_read", COUNT),
        event_tokens=draw(st.none() | st.just(array("event_tokens", COUNT))),
        input_tokens=draw(st.none() | COUNT),
        output_tokens=draw(st.none() | COUNT),
        cached_tokens=draw(st.none() | COUNT),
        tokens_from=draw(st.none() | st.sampled_from(TokensFrom)),
        status=draw(st.none() | COUNT),
        error=draw(st.none() | TEXT),
        finish_reason=draw(st.none() | TEXT),
        stale_connections=draw(COUNT),
        prompt_sha=draw(st.none() | TEXT),
        **optional,
    )


def row(record: Record) -> dict[str, Any]:
    values = {name: getattr(record, name) for name in SCHEMA.names}
    return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in values.items()}


def some(seq: int = 0, tokens: int = 3, **changed: Any) -> Record:
    events = {
        "event_ns": np.arange(tokens, dtype=np.int64) + seq,
        "event_kind": np.full(tokens, Kind.CONTENT, np.uint8),
        "event_read": np.arange(tokens, dtype=np.int32),
    }
    return Record(0, seq, "here", 10 * seq, Outcome.OK, **{**events, **changed})


def seqs(path: Path) -> list[int]:
    found: list[int] = pq.read_table(path)["seq"].to_pylist()
    return found


def test_every_field_of_a_record_has_its_column():
    assert set(SCHEMA.names) == {field.name for field in fields(Record)}


@given(st.lists(records(), min_size=1, max_size=6), st.integers(1, 6))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_records_survive_write_and_read(tmp_path_factory, written, flush_every):
    folder = tmp_path_factory.mktemp("run")
    journal = Journal(folder / "journal")
    for index, record in enumerate(written):
        journal.append(record)
        if index % flush_every == 0:
            journal.flush()
    journal.flush()
    assert close_segments(folder / "journal", folder / "records.parquet") == len(written)
    read = pq.read_table(folder / "records.parquet")
    assert read.to_pylist() == [row(record) for record in written]
    assert read.schema.equals(SCHEMA)


def test_a_row_group_stays_small_enough_to_be_read_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(journal_module, "ROW_GROUP_EVENTS", 10)
    journal = Journal(tmp_path / "journal")
    for seq in range(12):
        journal.append(some(seq, tokens=6))
        journal.flush()
    close_segments(tmp_path / "journal", tmp_path / "records.parquet")
    file = pq.ParquetFile(tmp_path / "records.parquet")
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [2] * 6
    assert seqs(tmp_path / "records.parquet") == list(range(12))


def test_a_much_larger_record_is_flushed_at_once_without_being_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(journal_module, "FLUSH_EVENTS", 100)
    journal = Journal(tmp_path)
    journal.append(some(0, tokens=100))
    assert segments(tmp_path) == []
    journal.append(some(1, tokens=1))
    assert [seqs(path) for path in segments(tmp_path)] == [[0, 1]]


def test_a_token_costs_at_most_six_bytes_on_disk(tmp_path):
    rng = np.random.default_rng(7)
    journal = Journal(tmp_path / "journal")
    tokens = 200
    for seq in range(300):
        # Steps of 20 ms that wander by a millisecond and are read some microseconds apart: no two stamps are alike.
        stamps = np.cumsum(rng.normal(20e6, 1e6, tokens)).astype(np.int64) + rng.integers(0, 60_000, tokens)
        journal.append(
            some(
                seq,
                tokens,
                event_ns=np.sort(stamps),
                event_tokens=np.ones(tokens, np.int32),
                sent_ns=seq * 10**7,
                prompt_sha=f"{seq:016x}",
            )
        )
    journal.flush()
    close_segments(tmp_path / "journal", tmp_path / "records.parquet")
    assert (tmp_path / "records.parquet").stat().st_size < BYTES_A_TOKEN * 300 * tokens


def test_a_torn_temporary_file_is_ignored_and_goes_when_the_run_closes(tmp_path):
    journal = Journal(tmp_path / "journal")
    journal.append(some(1))
    journal.flush()
    (tmp_path / "journal" / "000-000001.tmp").write_bytes(b"PAR1 half a segm")
    assert [path.name for path in segments(tmp_path / "journal")] == ["000-000000.parquet"]
    assert close_segments(tmp_path / "journal", tmp_path / "records.parquet") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["records.parquet"]


def test_segments_of_several_processes_do_not_collide(tmp_path):
    first, second = Journal(tmp_path / "journal", writer=0), Journal(tmp_path / "journal", writer=1)
    for seq, journal in enumerate((first, second, second, first)):
        journal.append(some(seq))
        journal.flush()
    assert close_segments(tmp_path / "journal", tmp_path / "records.parquet") == 4
    assert sorted(seqs(tmp_path / "records.parquet")) == [0, 1, 2, 3]


def test_closing_without_a_record_leaves_an_empty_table_with_every_column(tmp_path):
    Journal(tmp_path / "journal").flush()
    assert close_segments(tmp_path / "journal", tmp_path / "records.parquet") == 0
    assert pq.read_table(tmp_path / "records.parquet").schema.equals(SCHEMA)


def test_closing_that_is_killed_at_any_write_leaves_the_segments_and_no_records(tmp_path, monkeypatch):
    """A crash is an exception here that nothing in the journal catches."""

    class Killed(BaseException):
        pass

    journal = Journal(tmp_path / "journal")
    journal.append(some(1))
    journal.flush()
    write = pq.ParquetWriter.write_table

    def killed(*args: Any, **kwargs: Any) -> None:
        write(*args, **kwargs)
        raise Killed

    monkeypatch.setattr(pq.ParquetWriter, "write_table", killed)
    with pytest.raises(Killed):
        close_segments(tmp_path / "journal", tmp_path / "records.parquet")
    monkeypatch.undo()
    assert not (tmp_path / "records.parquet").exists()
    assert [seqs(path) for path in segments(tmp_path / "journal")] == [[1]]
    assert close_segments(tmp_path / "journal", tmp_path / "records.parquet") == 1


def test_closing_twice_after_a_crash_between_the_two_steps_loses_and_doubles_nothing(tmp_path, monkeypatch):
    """records.parquet has its name, but the journal is still there: closing again writes the same once more."""
    journal = Journal(tmp_path / "journal")
    journal.append(some(1))
    journal.flush()
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *_, **__: (_ for _ in ()).throw(SystemExit))
        with pytest.raises(SystemExit):
            close_segments(tmp_path / "journal", tmp_path / "records.parquet")
    assert seqs(tmp_path / "records.parquet") == [1]
    assert close_segments(tmp_path / "journal", tmp_path / "records.parquet") == 1
    assert seqs(tmp_path / "records.parquet") == [1]


def test_flushing_some_at_a_time_loses_doubles_and_reorders_nothing(tmp_path):
    journal = Journal(tmp_path)
    long = [some(seq, tokens=SOME_EVENTS // 2) for seq in range(5)]
    for record in [*long, *(some(seq) for seq in range(5, 5 + SOME_RECORDS + 1))]:
        journal.append(record)
    turns = 1
    while journal.flush_some():
        turns += 1
    assert not journal.flush_some()
    written = [seqs(path) for path in segments(tmp_path)]
    assert [len(part) for part in written] == [2, 2, SOME_RECORDS, 2]
    assert turns == len(written)
    assert [seq for part in written for seq in part] == list(range(5 + SOME_RECORDS + 1))


needs_dev_full = pytest.mark.skipif(sys.platform != "linux", reason="/dev/full")


@needs_dev_full
def test_a_full_disk_raises_and_leaves_earlier_segments_readable(tmp_path):
    journal = Journal(tmp_path)
    journal.append(some(1))
    journal.flush()
    journal.append(some(2))
    (tmp_path / "000-000001.tmp").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as caught:
        journal.flush()
    assert caught.value.errno == errno.ENOSPC
    assert [seqs(path) for path in segments(tmp_path)] == [[1]]


@needs_dev_full
def test_what_a_full_disk_refused_is_written_once_there_is_room(tmp_path):
    journal = Journal(tmp_path)
    journal.append(some(1))
    (tmp_path / "000-000000.tmp").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        journal.flush()
    journal.append(some(2))
    journal.flush()  # the failed attempt took its temporary file away
    assert [seqs(path) for path in segments(tmp_path)] == [[1, 2]]


@needs_dev_full
def test_a_full_disk_at_closing_leaves_the_journal_as_it_was(tmp_path):
    journal = Journal(tmp_path / "journal")
    for seq in (1, 2):
        journal.append(some(seq))
        journal.flush()
    (tmp_path / "records.tmp").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        close_segments(tmp_path / "journal", tmp_path / "records.parquet")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["journal"]
    assert [seqs(path) for path in segments(tmp_path / "journal")] == [[1], [2]]


def test_a_segment_of_a_strange_schema_is_an_error_and_not_a_guess(tmp_path):
    (tmp_path / "journal").mkdir()
    pq.write_table(pa.table({"run": ["zero"]}), tmp_path / "journal" / "000-000000.parquet")
    with pytest.raises((pa.ArrowException, ValueError)):
        close_segments(tmp_path / "journal", tmp_path / "records.parquet")
    assert segments(tmp_path / "journal")


# --- going on ---


def written(journal: Path, run: int, requests: int, *, writer: int | None = None) -> None:
    """Let one process of `run` write one record per request, a segment each."""
    log = Journal(journal, 1000 * run if writer is None else writer)
    for seq in range(requests):
        log.append(Record(run=run, seq=seq, endpoint="a", intended_ns=0, outcome=Outcome.OK))
        log.flush()


def held(journal: Path) -> list[tuple[int, int]]:
    tables = [pq.read_table(path, columns=["run", "seq"]) for path in segments(journal)]
    return sorted((row["run"], row["seq"]) for table in tables for row in table.to_pylist())


def run_of(writer: int) -> int:
    return writer // 1000


def test_a_journal_is_gone_on_with_without_what_an_unfinished_run_left(tmp_path):
    journal = tmp_path / "journal"
    written(journal, 0, 2)
    written(journal, 0, 1, writer=1)
    written(journal, 1, 3)
    (journal / "1000-000003.tmp").write_bytes(b"cut")
    reopen(journal, tmp_path / "records.parquet", {0}, run_of)
    assert held(journal) == [(0, 0), (0, 0), (0, 1)]
    assert [path for path in journal.iterdir() if path.suffix == ".tmp"] == []


def test_closed_records_become_a_segment_again_without_an_unfinished_run(tmp_path):
    journal, closed = tmp_path / "journal", tmp_path / "records.parquet"
    written(journal, 0, 2)
    written(journal, 1, 2)
    close_segments(journal, closed)
    reopen(journal, closed, {1}, run_of)
    assert not closed.exists()
    assert [path.name for path in segments(journal)] == [KEPT]
    written(journal, 2, 1)
    assert held(journal) == [(1, 0), (1, 1), (2, 0)]
    # Killed and resumed once more: what was kept stays, because it is of finished runs.
    reopen(journal, closed, {1}, run_of)
    assert held(journal) == [(1, 0), (1, 1)]
    assert close_segments(journal, closed) == 2


def test_closed_records_count_in_place_of_what_lies_beside_them(tmp_path):
    """Closing was killed after the rename, or reopening before its last step: both leave the two of them."""
    journal, closed = tmp_path / "journal", tmp_path / "records.parquet"
    written(journal, 0, 2)
    close_segments(journal, closed)
    written(journal, 0, 2)
    reopen(journal, closed, {0}, run_of)
    assert held(journal) == [(0, 0), (0, 1)]


def test_a_campaign_of_which_no_run_finished_begins_anew(tmp_path):
    reopen(tmp_path / "journal", tmp_path / "records.parquet", set(), run_of)
    journal, closed = tmp_path / "journal", tmp_path / "records.parquet"
    written(journal, 0, 2)
    close_segments(journal, closed)
    reopen(journal, closed, set(), run_of)
    assert held(journal) == []
