"""The top of a directory of many campaigns, of a matrix or a comparison of runtimes: made from those below, again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from analysis.suites.matrix import MatrixSummary
    from analysis.suites.registry import Suite as Kind
    from analysis.suites.registry import Summarised
    from analysis.suites.runtimes import RuntimesSummary

__all__ = ["Suite", "publish", "suite_in"]


@dataclass(frozen=True, slots=True)
class Suite:
    """A directory of many campaigns. name: of its manifest."""

    directory: Path
    name: str
    kind: Kind[MatrixSummary] | Kind[RuntimesSummary]

    @property
    def is_matrix(self) -> bool:
        return self.kind.kind == "matrix"

    @property
    def needed(self) -> tuple[str, ...]:
        """The keys that its manifest must hold for it to be resumed."""
        return ("profile", "withheld", "seed", "planned", self.kind.parts)

    def parts(self, manifest: Mapping[str, Any]) -> dict[str, bool]:
        """The folders of its campaigns, each with whether anything was measured there."""
        places = [campaign["directory"] for campaign in manifest[self.kind.parts]]
        ended = [test["missing_runs"] is not None for test in manifest["tests"]]
        return dict(zip(places, ended, strict=True))

    def summarised(self) -> Summarised:
        """What its campaigns show together. Raises OSError, or ValueError for files of other kinds."""
        return self.kind.summarised(self.directory)


def suite_in(directory: Path) -> Suite | None:
    """The suite in `directory`; None if it is one campaign, or something else."""
    from analysis.suites.registry import kind_of

    kind = kind_of(directory)
    path = None if kind is None else kind.manifest_in(directory)
    return None if kind is None or path is None else Suite(directory, path.name, kind)


def publish(suite: Suite) -> Summarised:
    """Write what stands at the top and seal it; what it shows is returned. Raises OSError."""
    import analysis
    from analysis.report.html import as_page
    from analysis.report.markdown import as_markdown
    from loadgen.campaign.rundir import seal
    from loadgen.manifest import SUMMARY
    from loadgen.store.whole import write_text

    directory = suite.directory
    manifest = json.loads((directory / suite.name).read_text(encoding="utf-8"))
    summarised = suite.summarised()
    write_text(directory / SUMMARY, analysis.to_json(summarised.to_json()))
    if suite.kind.keeps_report:
        write_text(directory / "report.md", as_markdown(summarised.document))
        write_text(directory / "report.html", as_page(replace(summarised.document, title=suite.kind.kind)))
    if suite.is_matrix and manifest["profile"]["agents"]["artifacts"]:
        from analysis.formats.guide_matrix import write_suite

        write_suite(directory)
    seal(directory, manifest, suite.name)
    return summarised
