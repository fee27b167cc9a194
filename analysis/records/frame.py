"""A run's directory as something to iterate: batches of records, the manifest, and what was wrong with either.

A million requests hold a hundred million token stamps, so nothing here reads a whole file: `Frame.batches` yields a
few thousand rows at a time, with the columns asked for, always in the same order, so that two passes line up row by
row. A killed run has no records.parquet; its journal segments are read instead, and what cannot be read is noted.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from loadgen.manifest import Manifest

__all__ = ["Frame", "NoRecordsError", "load"]

BATCH_ROWS = 2048  # 100 tokens each: 3.5 MB; 2000 each: 70 MB


class NoRecordsError(Exception):
    """The directory is not one of a run."""


@dataclass(frozen=True, slots=True)
class Frame:
    """The records of a run's directory, unread as yet."""

    files: tuple[Path, ...]
    manifest: Mapping[str, Any]  # empty where there is none
    notes: tuple[str, ...] = ()
    partial: bool = False  # read from journal segments: the run did not close
    runs: frozenset[int] | None = None  # only the records of these; None: of all
    samples: tuple[Path, ...] = ()  # what was sampled beside the runs

    @property
    def facts(self) -> Manifest:
        """The manifest as typed values. It takes the place of `manifest` as its readers follow."""
        return Manifest.from_json(self.manifest)

    def only(self, runs: Collection[int]) -> Frame:
        """Return the same directory as if it held no other runs."""
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
        """Return the runs that have a record, ascending."""
        found: set[int] = set()
        for batch in self.batches(("run",), rows=1 << 20):
            found.update(pc.unique(batch.column("run")).to_pylist())
        return tuple(sorted(found))


def load(directory: str | Path) -> Frame:
    """Return the records in `directory`. Raises NoRecordsError if no run ever wrote there."""
    directory = Path(directory)
    manifest, notes = _manifest(directory / "manifest.json")
    records = directory / "records.parquet"
    journal = directory / "journal"
    if records.is_file() and _readable(records):
        if any(journal.glob("*.parquet")):
            notes.append("journal/ beside a complete records.parquet: not read")
        return Frame((records,), manifest, tuple(notes), samples=_samples(directory))
    if records.is_file():
        notes.append("records.parquet cannot be read")
    segments = sorted(journal.glob("*.parquet"))
    if not segments and not manifest:
        raise NoRecordsError(f"{directory}: neither records.parquet nor journal/*.parquet nor manifest.json in it")
    readable = tuple(path for path in segments if _readable(path))
    notes.append(f"the run did not close: read from {len(readable)} journal segments")
    notes += [f"journal segment {path.name} cannot be read: left out" for path in segments if path not in readable]
    return Frame(readable, manifest, tuple(notes), partial=True, samples=_samples(directory))


def _samples(directory: Path) -> tuple[Path, ...]:
    """Return the files of samples: the closed one, or the segments of a run that did not close."""
    closed = directory / "telemetry.parquet"
    if closed.is_file():
        return (closed,) if _readable(closed) else ()
    return tuple(path for path in sorted((directory / "telemetry").glob("*.parquet")) if _readable(path))


def _manifest(path: Path) -> tuple[Mapping[str, Any], list[str]]:
    try:
        manifest = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}, ["no manifest.json: windows and load are guessed from the records"]
    except ValueError:
        return {}, ["manifest.json is not JSON: windows and load are guessed from the records"]
    if not isinstance(manifest, dict):
        return {}, ["manifest.json is not an object: windows and load are guessed from the records"]
    return manifest, []


def _readable(path: Path) -> bool:
    try:
        with pq.ParquetFile(path) as file:
            return bool(file.metadata.num_rows >= 0)
    except (pa.ArrowException, OSError):
        return False
