"""What a campaign within a directory of many says of itself, also where it was killed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from analysis.records.frame import NoRecordsError
from analysis.summary import summarise

__all__ = ["missing_in", "summary_in"]


def summary_in(directory: Path) -> dict[str, Any]:
    """Return the summary in `directory`, or that of what a killed campaign left there; empty where there is nothing.

    Raises OSError, or ValueError for files that are not ours.
    """
    path = directory / "summary.json"
    if path.is_file():
        told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return told
    try:
        return summarise(directory)
    except NoRecordsError:
        return {}


def missing_in(summary: Mapping[str, Any], ended: Mapping[str, Any]) -> int | None:
    """Return how many runs a campaign lacks, by its summary or else by how it `ended`; None if nobody can tell."""
    told: int | None = len(summary["missing_runs"]) if "missing_runs" in summary else ended.get("missing_runs")
    return told
