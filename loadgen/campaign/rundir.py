"""A campaign's directory: its files, how they are written whole or not at all, closed, reopened and sealed."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from loadgen.store.journal import close_segments, reopen, segments
from loadgen.store.whole import write_text
from loadgen.telemetry.log import close_log, reopen_log

__all__ = [
    "ARTIFACTS",
    "JOURNAL",
    "MANIFEST",
    "REPORT",
    "SAMPLES",
    "SUMMARY",
    "close_directory",
    "file_sha256",
    "manifest_sha256",
    "reopen_directory",
    "seal",
    "whole_runs",
    "write_manifest",
]

MANIFEST, RECORDS, SUMMARY, REPORT, JOURNAL = (
    "manifest.json",
    "records.parquet",
    "summary.json",
    "report.html",
    "journal",
)
ARTIFACTS = "artifacts"  # a folder: the files of the multi-agent guide and the answers of agents
TELEMETRY, SAMPLES = "telemetry.parquet", "telemetry"  # the file, and the folder of what is not in it yet

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


def whole_runs(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the entries of the runs that were made to their end."""
    return [entry for entry in manifest["runs"] if not entry["interrupted"] and not entry["no_progress"]]


def reopen_directory(directory: Path, runs: Collection[int], run_of: Callable[[int], int]) -> None:
    """Make a directory to go on with: the records of its finished `runs`, no summary. Raises OSError.

    run_of: the run that the number of a journal's writer belongs to.
    """
    reopen_log(directory / SAMPLES, directory / TELEMETRY, runs)
    reopen(directory / JOURNAL, directory / RECORDS, runs, run_of)
    for name in (SUMMARY, REPORT):
        (directory / name).unlink(missing_ok=True)


def seal(directory: Path, manifest: dict[str, Any], name: str = MANIFEST) -> None:
    """Put the checksum of every file into the manifest, those of artifacts too, and write it under `name`."""
    there = [*directory.iterdir(), *(directory / ARTIFACTS).rglob("*")]
    names = sorted({path.relative_to(directory).as_posix() for path in there if path.is_file()} - {name})
    manifest["sha256"] = {name: file_sha256(directory / name) for name in names}
    # Of the manifest as it stands with this entry blank, so that a change to it shows as well.
    manifest["manifest_sha256"] = BLANK_SHA256
    manifest["manifest_sha256"] = hashlib.sha256(_pretty(manifest).encode()).hexdigest()
    write_manifest(directory, manifest, name)


def manifest_sha256(path: Path) -> str:
    """Return the checksum that the manifest at `path` should hold of itself."""
    blanked = MANIFEST_SHA256.sub(rb"\g<1>" + BLANK_SHA256.encode(), path.read_bytes())
    return hashlib.sha256(blanked).hexdigest()


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_manifest(directory: Path, manifest: dict[str, Any], name: str = MANIFEST) -> None:
    write_text(directory / name, _pretty(manifest))


def _pretty(data: Any) -> str:
    return json.dumps(data, indent=1, ensure_ascii=False) + "\n"
