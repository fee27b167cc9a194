"""The kinds of directories that hold many campaigns: one line here makes a kind known to every command.

A kind has the names of its manifest, newest first; its type; the key in it that lists its campaigns; what makes its
summary; and what makes the document about that summary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from msgspec import Struct

from analysis.report.document import Document
from analysis.report.matrix import matrix_document
from analysis.report.runtimes import runtimes_document
from analysis.suites.matrix import MatrixSummary, summarise_matrix
from analysis.suites.runtimes import RuntimesSummary, summarise_runtimes
from analysis.summary import json_text
from loadgen.suite_manifest import MATRIX, RUNTIMES, SWEEP, MatrixManifest, RuntimesManifest

__all__ = ["SUITES", "Suite", "Summarised", "kind_of"]

_S = TypeVar("_S", bound=Struct)


@dataclass(frozen=True, slots=True)
class Summarised:
    """What the campaigns of a directory show together."""

    summary: Struct
    document: Document

    def to_json(self) -> str:
        """The text of summary.json."""
        return json_text(self.summary)


@dataclass(frozen=True, slots=True)
class Suite(Generic[_S]):
    """A kind of directory of many campaigns."""

    kind: str
    names: tuple[str, ...]  # of its manifest, newest first
    manifest: type[MatrixManifest] | type[RuntimesManifest]
    parts: str  # the key of the manifest that lists its campaigns
    summarise: Callable[[Path], _S]
    report: Callable[[_S], Document]
    keeps_report: bool  # whether report.md and report.html stand beside its summary

    def manifest_in(self, directory: Path) -> Path | None:
        """The path of its manifest in `directory`; None where there is none."""
        return next((path for name in self.names if (path := directory / name).is_file()), None)

    def summarised(self, directory: Path) -> Summarised:
        """The summary of `directory` and the document about it. Raises OSError, or ValueError for other files."""
        summary = self.summarise(directory)
        return Summarised(summary, self.report(summary))


SUITES: tuple[Suite[MatrixSummary] | Suite[RuntimesSummary], ...] = (
    Suite(
        "matrix",
        (MATRIX, SWEEP),
        MatrixManifest,
        "configurations",
        summarise_matrix,
        matrix_document,
        keeps_report=False,
    ),
    Suite("runtimes", (RUNTIMES,), RuntimesManifest, "cells", summarise_runtimes, runtimes_document, keeps_report=True),
)


def kind_of(directory: Path) -> Suite[MatrixSummary] | Suite[RuntimesSummary] | None:
    """The kind of directory that `directory` is; None where it is one campaign, or something else."""
    return next((suite for suite in SUITES if suite.manifest_in(directory) is not None), None)
