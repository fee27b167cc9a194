"""Live counters to Prometheus: `families` is what a scrape says, `outlets` how it gets out."""

from loadgen.exporter.families import METRICS, Exporter, Metric, names
from loadgen.exporter.outlets import ExportError, check_push_gateway, check_remote_write, push, remote_write, serve

__all__ = [
    "METRICS",
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
