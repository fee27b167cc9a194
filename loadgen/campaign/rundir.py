"""The directory of a campaign: its files are written whole or not at all, closed, reopened and sealed here."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

from msgspec import UNSET

from loadgen.manifest import ARTIFACTS, JOURNAL, MANIFEST, RECORDS, REPORT, SAMPLES, SUMMARY, TELEMETRY, Manifest
from loadgen.store.journal import close_segments, reopen, segments
from loadgen.store.whole import write_text
from loadgen.suite_manifest import SuiteManifest
from loadgen.telemetry.log import close_log, reopen_log

__all__ = [
    "close_directory",
    "file_sha256",
    "first_writer",
    "manifest_sha256",
    "reopen_directory",
    "seal",
    "write_manifest",
]

WRITERS = 1000  # numbers of journals that a run may use
BLANK_SHA256 = "0" * 64
MANIFEST_SHA256 = re.compile(rb'(\n "manifest_sha256": ")[0-9a-f]{64}(?="\n}\n\Z)')


def close_directory(directory: Path) -> None:
    """Turn the journal into records.parquet, samples likewise. Raises OSError, leaving the journal as it is."""
    if (directory / SAMPLES).is_dir():
        close_log(directory / SAMPLES, directory / TELEMETRY)
    journal = directory / JOURNAL
    if journal.is_dir():
        if segments(journal) or not (directory / RECORDS).exists():
            close_segments(journal, directory / RECORDS)
        else:
            shutil.rmtree(journal)


def first_writer(run: int) -> int:
    """The number of the first journal of a run; `WRITERS` of them are its own."""
    return run * WRITERS


def reopen_directory(directory: Path, runs: Collection[int]) -> None:
    """Make a directory ready for more runs: the records of its finished `runs` stay, its summary is removed.

    Raises OSError."""
    reopen_log(directory / SAMPLES, directory / TELEMETRY, runs)
    reopen(directory / JOURNAL, directory / RECORDS, runs, lambda writer: writer // WRITERS)
    for name in (SUMMARY, REPORT):
        (directory / name).unlink(missing_ok=True)


def seal(directory: Path, manifest: Manifest | SuiteManifest, name: str = MANIFEST) -> None:
    """Put the checksum of every file, artifacts included, into the manifest, and write it under `name`."""
    there = [*directory.iterdir(), *(directory / ARTIFACTS).rglob("*")]
    names = sorted({path.relative_to(directory).as_posix() for path in there if path.is_file()} - {name})
    sha256 = {name: file_sha256(directory / name) for name in names}
    # The checksum of the manifest with this entry blank, so that a change to it shows as well. It stays the last entry.
    open_ = manifest.with_(sha256=UNSET, manifest_sha256=UNSET).to_json()
    blank = {**open_, "sha256": sha256, "manifest_sha256": BLANK_SHA256}
    own = hashlib.sha256(_pretty(blank).encode()).hexdigest()
    write_text(directory / name, _pretty({**blank, "manifest_sha256": own}))


def manifest_sha256(path: Path) -> str:
    """The checksum that belongs into the manifest at `path`: of the file with that entry blank."""
    blanked = MANIFEST_SHA256.sub(rb"\g<1>" + BLANK_SHA256.encode(), path.read_bytes())
    return hashlib.sha256(blanked).hexdigest()


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_manifest(directory: Path, manifest: Manifest | SuiteManifest, name: str = MANIFEST) -> None:
    """Write a manifest under `name`. Raises OSError."""
    write_text(directory / name, _pretty(manifest.to_json()))


def _pretty(data: Any) -> str:
    return json.dumps(data, indent=1, ensure_ascii=False) + "\n"
