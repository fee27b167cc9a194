"""A run's directory as something to iterate: batches of records, the manifest, and what was wrong with either.

A million requests hold a hundred million token stamps, so nothing here reads a whole file: `Frame.batches` yields a
few thousand rows at a time, with the columns asked for, always in the same order, so that two passes line up row by
row. A killed run has no records.parquet; its journal segments are read instead, and what cannot be read is noted.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

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

    def batches(self, columns: Sequence[str], rows: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
        """Yield the records, `rows` at a time, in the same order at each call."""
        for path in self.files:
            with pq.ParquetFile(path) as file:
                yield from file.iter_batches(batch_size=rows, columns=list(columns))


def load(directory: str | Path) -> Frame:
    """Return the records in `directory`. Raises NoRecordsError if no run ever wrote there."""
    directory = Path(directory)
    manifest, notes = _manifest(directory / "manifest.json")
    records = directory / "records.parquet"
    journal = directory / "journal"
    if records.is_file() and _readable(records):
        if any(journal.glob("*.parquet")):
            notes.append("journal/ beside a complete records.parquet: not read")
        return Frame((records,), manifest, tuple(notes))
    if records.is_file():
        notes.append("records.parquet cannot be read")
    segments = sorted(journal.glob("*.parquet"))
    if not segments and not manifest:
        raise NoRecordsError(f"{directory}: neither records.parquet nor journal/*.parquet nor manifest.json in it")
    readable = tuple(path for path in segments if _readable(path))
    notes.append(f"the run did not close: read from {len(readable)} journal segments")
    notes += [f"journal segment {path.name} cannot be read: left out" for path in segments if path not in readable]
    return Frame(readable, manifest, tuple(notes), partial=True)


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
