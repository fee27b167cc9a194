"""The records of a run's directory in batches, its manifest, and notes on the faults of either.

A million requests hold a hundred million token stamps, so nothing here reads a whole file: `Frame.batches` yields a
few thousand rows at a time, with the wanted columns, always in the same order, so that two passes line up row by
row. A killed run has no records.parquet; its journal segments are read instead, and what cannot be read is noted.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from analysis.estimate import Note, NoteCode, note
from loadgen.manifest import JOURNAL, MANIFEST, RECORDS, SAMPLES, TELEMETRY, Manifest

__all__ = ["Frame", "NoRecordsError", "load"]

BATCH_ROWS = 2048  # 100 tokens each: 3.5 MB; 2000 each: 70 MB


class NoRecordsError(Exception):
    """The directory holds no run."""


@dataclass(frozen=True, slots=True)
class Frame:
    """The records of a run's directory, not read yet."""

    files: tuple[Path, ...]
    manifest: Manifest  # an empty one where there is none
    notes: tuple[Note, ...] = ()
    partial: bool = False  # read from journal segments: the run did not close
    runs: frozenset[int] | None = None  # only the records of these; None: of all
    samples: tuple[Path, ...] = ()  # what was sampled beside the runs

    def only(self, runs: Collection[int]) -> Frame:
        """The same directory as if it held no other runs."""
        return replace(self, runs=frozenset(runs))

    def batches(self, columns: Sequence[str], rows: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
        """Yield the records, at most `rows` at a time, in the same order at each call."""
        for path in self.files:
            with pq.ParquetFile(path) as file:
                if self.runs is None:
                    yield from file.iter_batches(batch_size=rows, columns=list(columns))
                    continue
                wanted = pa.array(sorted(self.runs), pa.int32())
                for batch in file.iter_batches(batch_size=rows, columns=list(dict.fromkeys((*columns, "run")))):
                    yield batch.filter(pc.is_in(batch.column("run"), wanted)).select(list(columns))

    def run_numbers(self) -> tuple[int, ...]:
        """The runs that have a record, ascending."""
        numbers: set[int] = set()
        for batch in self.batches(("run",), rows=1 << 20):
            numbers.update(pc.unique(batch.column("run")).to_pylist())
        return tuple(sorted(numbers))


def load(directory: str | Path) -> Frame:
    """The records in `directory`. Raises NoRecordsError if no run ever wrote there."""
    directory = Path(directory)
    manifest, notes = _manifest(directory / MANIFEST)
    records = directory / RECORDS
    journal = directory / JOURNAL
    if records.is_file() and _readable(records):
        if any(journal.glob("*.parquet")):
            notes.append(note(NoteCode.JOURNAL_NOT_READ))
        return Frame((records,), manifest, tuple(notes), samples=_samples(directory))
    if records.is_file():
        notes.append(note(NoteCode.RECORDS_UNREADABLE))
    segments = sorted(journal.glob("*.parquet"))
    if not segments and manifest == Manifest():
        raise NoRecordsError(f"{directory}: neither records.parquet nor journal/*.parquet nor manifest.json in it")
    readable = tuple(path for path in segments if _readable(path))
    notes.append(note(NoteCode.NOT_CLOSED, segments=len(readable)))
    notes += [note(NoteCode.SEGMENT_UNREADABLE, name=path.name) for path in segments if path not in readable]
    return Frame(readable, manifest, tuple(notes), partial=True, samples=_samples(directory))


def _samples(directory: Path) -> tuple[Path, ...]:
    """The files of samples: the closed one, or the segments of a run that did not close."""
    closed = directory / TELEMETRY
    if closed.is_file():
        return (closed,) if _readable(closed) else ()
    return tuple(path for path in sorted((directory / SAMPLES).glob("*.parquet")) if _readable(path))


def _manifest(path: Path) -> tuple[Manifest, list[Note]]:
    """The manifest and notes on its faults. One that cannot be read counts as empty."""
    try:
        plain = json.loads(path.read_bytes())
    except FileNotFoundError:
        return Manifest(), [note(NoteCode.NO_MANIFEST)]
    except ValueError:
        return Manifest(), [note(NoteCode.MANIFEST_NOT_JSON)]
    if not isinstance(plain, dict):
        return Manifest(), [note(NoteCode.MANIFEST_NOT_OBJECT)]
    try:
        return Manifest.from_json({key: value for key, value in plain.items() if value is not None}), []
    except msgspec.ValidationError as error:
        return Manifest(), [note(NoteCode.MANIFEST_FAULTY, fault=str(error))]


def _readable(path: Path) -> bool:
    try:
        with pq.ParquetFile(path) as file:
            return bool(file.metadata.num_rows >= 0)
    except (pa.ArrowException, OSError):
        return False
