"""Records on disk: crash-safe segments while running, one Parquet file when the run closes.

A segment is a whole Parquet file of the final schema, written under another name and renamed: whatever the moment of a
crash, each segment that has its name can be read. Closing copies the segments into `records.parquet`, a few at a time,
so that neither memory nor the cost of a crash grows with the number of requests. What may be lost is what finished
since the last flush, a second or `FLUSH_EVENTS` events ago.

Encodings are chosen for a token's cost on disk: stamps as delta bit-packed integers, everything that repeats as runs.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cache
from itertools import islice
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from loadgen.record import Outcome, Record
from loadgen.store.whole import whole, write_tables

__all__ = ["SCHEMA", "Journal", "close_segments", "reopen", "segments", "warm_up"]

KEPT = "kept.parquet"  # the segment made from an earlier records.parquet
FLUSH_EVENTS = 500_000
FLUSH_RECORDS = 20_000
SOME_EVENTS, SOME_RECORDS = 20_000, 2_000  # 8 ms or so
ROW_GROUP_EVENTS = 1_000_000  # tens of MB in memory when a reader takes one row group

SCHEMA = pa.schema(
    [
        pa.field("run", pa.int32(), nullable=False),
        pa.field("seq", pa.int64(), nullable=False),
        pa.field("agent", pa.string(), nullable=False),
        pa.field("endpoint", pa.string(), nullable=False),
        ("session", pa.string()),
        ("turn", pa.int32()),
        pa.field("intended_ns", pa.int64(), nullable=False),
        ("sent_ns", pa.int64()),
        ("sent_last_ns", pa.int64()),
        ("connect_ns", pa.int64()),
        ("connected_ns", pa.int64()),
        ("headers_ns", pa.int64()),
        ("done_ns", pa.int64()),
        ("event_ns", pa.list_(pa.field("element", pa.int64(), nullable=False))),
        ("event_tokens", pa.list_(pa.field("element", pa.int32(), nullable=False))),
        ("event_kind", pa.list_(pa.field("element", pa.uint8(), nullable=False))),
        ("event_read", pa.list_(pa.field("element", pa.int32(), nullable=False))),
        ("input_tokens", pa.int32()),
        ("output_tokens", pa.int32()),
        ("cached_tokens", pa.int32()),
        ("tokens_from", pa.string()),
        ("outcome", pa.string()),
        ("status", pa.int32()),
        ("error", pa.string()),
        ("finish_reason", pa.string()),
        ("server_load_ns", pa.int64()),
        ("server_prompt_eval_ns", pa.int64()),
        ("server_eval_ns", pa.int64()),
        ("server_queue_ns", pa.int64()),
        ("stale_connections", pa.int32()),
        ("prompt_sha", pa.string()),
    ]
)

_LISTS = ("event_ns", "event_tokens", "event_kind", "event_read")
_DELTA = (
    *(name for name in SCHEMA.names if name.endswith("_ns") and name != "event_ns"),
    "seq",
    "event_ns.list.element",
    "event_read.list.element",
)
_RUNS = [
    *("run", "agent", "endpoint", "tokens_from", "outcome", "status", "error", "finish_reason", "session", "turn"),
    *("input_tokens", "output_tokens", "cached_tokens", "stale_connections"),
    *("event_tokens.list.element", "event_kind.list.element"),
]


def _writer(sink: Path | pa.NativeFile) -> pq.ParquetWriter:
    return pq.ParquetWriter(
        sink,
        SCHEMA,
        compression="zstd",
        use_dictionary=_RUNS,
        column_encoding=dict.fromkeys(_DELTA, "DELTA_BINARY_PACKED"),
        write_statistics=False,
        store_schema=False,
    )


@cache
def warm_up() -> None:
    """Write a record to nowhere: the first that a process writes takes 50 ms more, which must not be in a run."""
    with _writer(pa.BufferOutputStream()) as writer:
        writer.write_table(_table([Record(0, 0, "", 0, Outcome.OK)]))


class Journal:
    """The records of one process of a run. `writer` keeps the segments of several processes apart."""

    def __init__(self, directory: Path, writer: int = 0) -> None:
        self._directory = directory
        self._writer = writer
        self._count = 0
        self._pending: list[Record] = []
        self._pending_events = 0
        directory.mkdir(parents=True, exist_ok=True)
        warm_up()

    def append(self, record: Record) -> None:
        """Keep `record`; flush when much is pending. Raises OSError if it cannot be written."""
        self._pending.append(record)
        self._pending_events += len(record.event_ns)
        if self._pending_events > FLUSH_EVENTS or len(self._pending) > FLUSH_RECORDS:
            self.flush()

    def flush(self) -> None:
        """Write the pending records, so that they survive a crash. Raises OSError; the records then stay pending."""
        if self._pending:
            self._write(self._pending[:])

    def flush_some(self) -> bool:
        """Whether records are still pending after a flush short enough for an event loop. Raises OSError as `flush`."""
        events, some = 0, list[Record]()
        for record in islice(self._pending, SOME_RECORDS):
            some.append(record)
            events += len(record.event_ns)
            if events >= SOME_EVENTS:
                break
        if some:
            self._write(some)
        return bool(self._pending)

    def _write(self, records: Sequence[Record]) -> None:
        """Write the first of the pending records as a segment."""
        path = self._directory / f"{self._writer:03d}-{self._count:06d}.parquet"
        with whole(path) as partial, _writer(partial) as writer:
            writer.write_table(_table(records))
        self._count += 1
        del self._pending[: len(records)]
        self._pending_events -= sum(len(record.event_ns) for record in records)


def segments(directory: Path) -> list[Path]:
    """The complete segments, by name."""
    return sorted(directory.glob("*.parquet"))


def close_segments(directory: Path, destination: Path) -> int:
    """The number of records, all copied from segments into `destination`; the segments are removed.

    On OSError (a full disk) the segments are left as they were.
    """
    records = write_tables(destination, _writer, _batches(segments(directory)))
    shutil.rmtree(directory)
    return records


def reopen(directory: Path, records: Path, runs: Collection[int], run_of: Callable[[int], int]) -> None:
    """Make a journal that can take more records from the files of a campaign: its finished `runs`, no others.

    records: the file that an earlier close wrote, if any; it replaces the journal and becomes a segment of it.
    run_of: the run that a writer's number belongs to. Killed in between, it can be done again. Raises OSError.
    """
    if records.exists():
        if directory.exists():
            shutil.rmtree(directory)
        directory.mkdir()
        wanted = sorted(runs)
        with whole(directory / KEPT) as partial, _writer(partial) as writer, pq.ParquetFile(records) as file:
            for group in range(file.num_row_groups):
                table = file.read_row_group(group)
                writer.write_table(table.filter(pa.array(np.isin(table["run"].to_numpy(), wanted))))
        records.unlink()
        return
    for path in directory.iterdir() if directory.exists() else ():
        if path.name != KEPT and (path.suffix != ".parquet" or run_of(int(path.name.partition("-")[0])) not in runs):
            path.unlink()


def _batches(paths: Sequence[Path]) -> Iterator[pa.Table]:
    held: list[pa.Table] = []
    events = 0
    for path in paths:
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                table = file.read_row_group(group).cast(SCHEMA)
                held.append(table)
                events += sum(len(chunk.values) for chunk in table["event_ns"].chunks)
                if events > ROW_GROUP_EVENTS:
                    yield pa.concat_tables(held)
                    held, events = [], 0
    if held:
        yield pa.concat_tables(held)


_ROW = attrgetter(*SCHEMA.names)


def _table(records: Sequence[Record]) -> pa.Table:
    columns = zip(*map(_ROW, records), strict=True)
    return pa.Table.from_arrays([_column(c, f) for c, f in zip(columns, SCHEMA, strict=True)], schema=SCHEMA)


def _column(values: Sequence[Any], field: pa.Field) -> pa.Array:
    if field.name not in _LISTS:
        return pa.array(values, field.type)
    present = [value for value in values if value is not None]
    flat = np.concatenate(present) if present else np.empty(0)
    lengths = np.fromiter((0 if value is None else len(value) for value in values), np.int64, len(values))
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)
    mask = None
    if len(present) < len(values):
        mask = pa.array([value is None for value in values])
    return pa.ListArray.from_arrays(
        pa.array(offsets), pa.array(flat.astype(str(field.type.value_type))), type=field.type, mask=mask
    )
