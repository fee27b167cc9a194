"""The words that several sections of a report share: labels of metrics, columns and verdicts."""

from __future__ import annotations

from analysis import catalogue
from analysis.stats.quantiles import name_of

__all__ = ["COMPARED", "LATENCIES", "RATES", "STATISTICS", "TOGETHER", "VERDICTS"]

LATENCIES = {key: metric.label for key, metric in catalogue.LATENCIES.items()}
RATES = {key: metric.label for key, metric in catalogue.RATES.items()}
STATISTICS = {"mean": "mean"} | {name: name_of(q) for name, q in catalogue.QUANTILES.items()}
COMPARED = catalogue.COMPARED
VERDICTS = {verdict.value: verdict.upper() for verdict in catalogue.RunVerdict}
TOGETHER = "concurrent runs, all agents"  # what the general figures are of, where agents ran alone as well
