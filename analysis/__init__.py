"""Records in, estimates and reports out: no network, no clock, no event loop."""

from analysis.estimate import Estimate
from analysis.formats.perfetto import write_trace
from analysis.records.frame import Frame, NoRecordsError, load
from analysis.records.measured import Measured
from analysis.records.reading import Reading, measure, reading_of
from analysis.report.reports import html_report, markdown_report, terminal_report
from analysis.summary import Summary, summarise

__all__ = [
    "Estimate",
    "Frame",
    "Measured",
    "NoRecordsError",
    "Reading",
    "Summary",
    "html_report",
    "load",
    "markdown_report",
    "measure",
    "reading_of",
    "summarise",
    "terminal_report",
    "write_trace",
]
