"""Live counters to Prometheus: `families` is what a scrape says, `outlets` how it gets out."""

from loadgen.exporter.families import METRICS, Exporter, Metric, names
from loadgen.exporter.outlets import ExportError, push, remote_write, serve

__all__ = ["METRICS", "ExportError", "Exporter", "Metric", "names", "push", "remote_write", "serve"]
