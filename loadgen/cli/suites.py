"""The top of a directory of many campaigns, of a matrix or a comparison of runtimes: made from those below, again."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadgen.manifest import MATRIX, RUNTIMES, SWEEP, matrix_path

__all__ = ["Suite", "publish", "suite_in"]

PARTS = {MATRIX: "configurations", SWEEP: "configurations", RUNTIMES: "cells"}


@dataclass(frozen=True, slots=True)
class Suite:
    """A directory of many campaigns. name: of its manifest."""

    directory: Path
    name: str
    summarise: Callable[[Path], dict[str, Any]]
    text: Callable[[Mapping[str, Any]], str]
    markdown: Callable[[Mapping[str, Any]], str]

    @property
    def is_matrix(self) -> bool:
        return self.name != RUNTIMES

    @property
    def needed(self) -> tuple[str, ...]:
        """What its manifest must hold for it to be gone on with."""
        return ("profile", "withheld", "seed", "planned", PARTS[self.name])

    def parts(self, manifest: Mapping[str, Any]) -> dict[str, bool]:
        """Return the folders of its campaigns, each with whether anything was measured there."""
        places = [one["directory"] for one in manifest[PARTS[self.name]]]
        ended = [one["missing_runs"] is not None for one in manifest["tests"]]
        return dict(zip(places, ended, strict=True))


def suite_in(directory: Path) -> Suite | None:
    """Return the suite in `directory`; None if it is one campaign, or something else."""
    if matrix_path(directory).is_file():
        from analysis.report.matrix import sweep_markdown, sweep_report
        from analysis.suites.matrix import summarise_matrix

        return Suite(directory, matrix_path(directory).name, summarise_matrix, sweep_report, sweep_markdown)
    if (directory / RUNTIMES).is_file():
        from analysis.report.runtimes import runtimes_markdown, runtimes_text
        from analysis.suites.runtimes import summarise_runtimes

        return Suite(
            directory,
            RUNTIMES,
            summarise_runtimes,
            lambda summary: runtimes_text(summary).removesuffix("\n"),
            runtimes_markdown,
        )
    return None


def publish(suite: Suite) -> dict[str, Any]:
    """Write what stands at the top, seal it, and return the summary. Raises OSError."""
    import analysis
    from loadgen.campaign.rundir import seal
    from loadgen.manifest import SUMMARY
    from loadgen.store.whole import write_text

    directory = suite.directory
    manifest = json.loads((directory / suite.name).read_text(encoding="utf-8"))
    summary = suite.summarise(directory)
    write_text(directory / SUMMARY, analysis.to_json(summary))
    if not suite.is_matrix:
        from analysis.report.runtimes import runtimes_page

        write_text(directory / "report.md", suite.markdown(summary))
        write_text(directory / "report.html", runtimes_page(summary))
    elif manifest["profile"]["agents"]["artifacts"]:
        from analysis.formats.multi_agent_guide import write_suite

        write_suite(directory)
    seal(directory, manifest, suite.name)
    return summary
