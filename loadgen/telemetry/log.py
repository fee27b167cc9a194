"""Samples on disk: telemetry.parquet, one row per sample.

`time` is in ns on the clock of the records: since the zero of `run`, so that a request and a sample of the same run
compare as they are. A sample from before the zero has a negative time; a sample between two runs belongs to the run
before, until the next one has been announced. As in journal.py a segment is a whole file, renamed when it is complete,
and closing copies the segments together.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from loadgen.store.whole import whole, write_tables
from loadgen.telemetry import Look

__all__ = ["SCHEMA", "Log", "close_log", "reopen_log"]

ROW_GROUP_ROWS = 500_000

SCHEMA = pa.schema(
    [
        pa.field("run", pa.int32(), nullable=False),
        pa.field("time", pa.int64(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("labels", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),  # gauge | counter
        pa.field("value", pa.float64(), nullable=False),
    ]
)
_TEXTS = ["run", "source", "name", "labels", "kind", "value"]


def _writer(path: Path) -> pq.ParquetWriter:
    return pq.ParquetWriter(
        path,
        SCHEMA,
        compression="zstd",
        use_dictionary=_TEXTS,
        column_encoding={"time": "DELTA_BINARY_PACKED"},
        write_statistics=False,
        store_schema=False,
    )


class Log:
    """The samples that are not on disk yet. One thread appends; `begin` and `flush` may be called from others."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._count = len(list(directory.glob("*.parquet")))  # segments of a campaign that is resumed, else none
        self._begun: list[tuple[int, int]] = []  # (run, zero_ns), in order
        self._pending: list[tuple[int, str, Look]] = []  # with the number of runs begun by then
        directory.mkdir(parents=True, exist_ok=True)

    def begin(self, run: int, zero_ns: int) -> None:
        """From now on samples belong to `run`; those from before the first run belong to it as well."""
        self._begun.append((run, zero_ns))

    def append(self, source: str, look: Look) -> None:
        self._pending.append((len(self._begun), source, look))

    def flush(self) -> None:
        """Write the pending samples, so that they survive a crash. Nothing is written before the first run has a zero.

        Raises OSError; the samples then stay pending.
        """
        if not self._pending or not self._begun:
            return
        path = self._directory / f"{self._count:06d}.parquet"
        pending = self._pending[:]  # more may be added while this is written
        with whole(path) as partial, _writer(partial) as writer:
            writer.write_table(self._table(pending))
        self._count += 1
        del self._pending[: len(pending)]

    def _table(self, pending: list[tuple[int, str, Look]]) -> pa.Table:
        runs, times, sources, names, labels, kinds, values = [], [], [], [], [], [], []
        for begun, source, look in pending:
            run, zero_ns = self._begun[max(0, begun - 1)]
            n = len(look.values)
            runs += [run] * n
            times += [look.time_ns - zero_ns] * n
            sources += [source] * n
            for value in look.values:
                names.append(value.name)
                labels.append(value.labels)
                kinds.append("counter" if value.counter else "gauge")
                values.append(value.value)
        columns = (runs, times, sources, names, labels, kinds, values)
        return pa.Table.from_arrays([pa.array(c, f.type) for c, f in zip(columns, SCHEMA, strict=True)], schema=SCHEMA)


def close_log(directory: Path, destination: Path) -> int:
    """The number of samples, all copied from segments into `destination`; the segments are removed.

    Without a sample there is no file. On OSError (a full disk) the segments are left as they were.
    """
    paths = sorted(directory.glob("*.parquet"))
    samples = write_tables(destination, _writer, _batches(paths)) if paths else 0
    shutil.rmtree(directory)
    return samples


def reopen_log(directory: Path, closed: Path, runs: Collection[int]) -> None:
    """Make a log that can take more samples from a closed file, or from the segments after a crash; only `runs` stay.

    A closed file replaces the segments beside it, which were copied into it. Killed in between, it can be repeated.
    Raises OSError.
    """
    if not closed.exists():
        if not directory.exists() or not close_log(directory, closed):
            return
    elif directory.exists():
        shutil.rmtree(directory)
    directory.mkdir(parents=True)
    with pq.ParquetFile(closed) as file:
        write_tables(directory / "000000.parquet", _writer, _of_runs(file, runs))
    closed.unlink()


def _of_runs(file: pq.ParquetFile, runs: Collection[int]) -> Iterator[pa.Table]:
    numbers = pa.array(sorted(runs), pa.int32())
    for group in range(file.num_row_groups):
        table = file.read_row_group(group)
        yield table.filter(pc.is_in(table["run"], numbers))


def _batches(paths: list[Path]) -> Iterator[pa.Table]:
    held: list[pa.Table] = []
    for path in paths:
        held.append(pq.read_table(path, schema=SCHEMA, memory_map=False))
        if sum(table.num_rows for table in held) > ROW_GROUP_ROWS:
            yield pa.concat_tables(held)
            held = []
    if held:
        yield pa.concat_tables(held)
