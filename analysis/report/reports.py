"""The report of a run's directory in its three forms."""

from __future__ import annotations

import json

import msgspec

from analysis.figures.drawn import drawn_of
from analysis.report.charts import charts_of
from analysis.report.html import as_page
from analysis.report.markdown import as_markdown
from analysis.report.run import Extras, run_document
from analysis.report.text import as_text
from analysis.summary import Source, Summary, measured_of, opened, summarise
from loadgen.manifest import Manifest

__all__ = ["html_report", "markdown_report", "terminal_report"]


def terminal_report(summary: Summary, *, colour: bool = False) -> str:
    """The report as text, no line wider than 80 columns, ending in a newline."""
    return as_text(run_document(summary), colour=colour)


def markdown_report(summary: Summary) -> str:
    """The report as Markdown, ending in a newline."""
    return as_markdown(run_document(summary))


def html_report(source: Source, summary: Summary | None = None) -> str:
    """The page about a run's directory. summary: of the same source, where it is at hand."""
    source = opened(source)
    m = measured_of(source)
    summary = summarise(source) if summary is None else summary
    started = next((run.wall_start for run in m.manifest.runs if run.wall_start), None)
    return as_page(run_document(summary, Extras(charts_of(drawn_of(m), summary), started, _parts(m.manifest))))


def _parts(manifest: Manifest) -> list[tuple[str, str]]:
    """What the page shows of the manifest: names of its parts, and the JSON of each."""
    profile = None if manifest.profile is None else json.loads(manifest.profile.text)
    parts = [("profile", profile)]
    parts += [
        (name, msgspec.to_builtins(part))
        for name, part in (("targets", manifest.targets), ("host", manifest.host), ("workload", manifest.workload))
    ]
    return [(name, json.dumps(part, indent=2, ensure_ascii=False)) for name, part in parts if part]
