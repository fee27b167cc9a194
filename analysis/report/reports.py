"""The report of a run's directory in its three forms."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from analysis.figures.drawn import drawn_of
from analysis.report.charts import charts_of
from analysis.report.figures import attributes
from analysis.report.html import as_page
from analysis.report.markdown import as_markdown
from analysis.report.run import Extras, run_document
from analysis.report.text import as_text
from analysis.summary import Source, Summary, as_mapping, measured_of, opened, summarise

__all__ = ["html_report", "markdown_report", "terminal_report"]

MANIFEST = ("profile", "targets", "host", "workload")  # what the page shows of it

Either = Summary | Mapping[str, Any]  # until no report is made from a mapping


def terminal_report(summary: Either, *, colour: bool = False) -> str:
    """The report as text, no line wider than 80 columns, ending in a newline."""
    return as_text(run_document(attributes(as_mapping(summary))), colour=colour)


def markdown_report(summary: Either) -> str:
    """The report as Markdown, ending in a newline."""
    return as_markdown(run_document(attributes(as_mapping(summary))))


def html_report(source: Source, summary: Either | None = None) -> str:
    """The page about a run's directory. summary: of the same source, where it is at hand."""
    source = opened(source)
    m = measured_of(source)
    summary = as_mapping(summarise(source) if summary is None else summary)
    started = next((run["wall_start"] for run in m.manifest.get("runs") or [] if run.get("wall_start")), None)
    parts = [
        (name, json.dumps(m.manifest[name], indent=2, ensure_ascii=False)) for name in MANIFEST if m.manifest.get(name)
    ]
    typed = attributes(summary)
    return as_page(run_document(typed, Extras(charts_of(drawn_of(m), typed), started, parts)))
