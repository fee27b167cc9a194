"""Live counters to Prometheus: `families` makes the content of a scrape, `outlets` serves and pushes it."""

from loadgen.exporter.families import METRICS, AgentFigures, Exporter, Metric, names
from loadgen.exporter.outlets import ExportError, check_push_gateway, check_remote_write, push, remote_write, serve

__all__ = [
    "METRICS",
    "AgentFigures",
    "ExportError",
    "Exporter",
    "Metric",
    "check_push_gateway",
    "check_remote_write",
    "names",
    "push",
    "remote_write",
    "serve",
]
