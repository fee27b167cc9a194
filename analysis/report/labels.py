"""Labels that several sections of a report share. Those of single metrics are in analysis/catalogue.py."""

from __future__ import annotations

from analysis.catalogue import COMPARED, QUANTILES, Answer, RunVerdict
from analysis.report.document import Tone
from analysis.stats.quantiles import name_of

__all__ = ["ANSWERS", "COMPARED", "STATISTICS", "TOGETHER", "VERDICTS"]

STATISTICS = {"mean": "mean"} | {name: name_of(q) for name, q in QUANTILES.items()}
VERDICTS = {verdict: verdict.value.upper() for verdict in RunVerdict}
ANSWERS = {Answer.HELD: Tone.GOOD, Answer.FAILED: Tone.BAD, Answer.INCONCLUSIVE: Tone.WARN}
TOGETHER = "concurrent runs, all agents"  # what the general figures are of, where agents ran alone as well
