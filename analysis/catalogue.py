"""What is measured and what is said of it, each once: metrics, objectives and the words of verdicts.

A metric has a key (in summary.json), a label as reports print it, a unit, a direction, and the quantiles it is given
with. Reports, comparisons and the exporter read the catalogue and keep no list of their own. The names of objectives
are `loadgen.latency.OBJECTIVES`, for profiles state them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from analysis.stats.equivalence import ComparisonVerdict
from loadgen.latency import QUANTILES

__all__ = [
    "COMPARED",
    "LATENCIES",
    "METRICS",
    "OF_RUNS",
    "QUANTILES",
    "RATES",
    "Answer",
    "Basis",
    "ComparisonVerdict",
    "Direction",
    "Metric",
    "OfRun",
    "RunVerdict",
]


class RunVerdict(StrEnum):
    """What a campaign is worth; worst last but one, see figures/instrument.py."""

    OK = "ok"
    LIMITED = "generator-limited"
    UNSTABLE = "unstable"
    FAILED = "failed"

    @property
    def forbids_percentiles(self) -> bool:
        """Whether percentiles would describe us, or how long was watched, rather than the server."""
        return self in (RunVerdict.LIMITED, RunVerdict.UNSTABLE)


class Answer(StrEnum):
    """Whether an objective was held."""

    HELD = "held"
    FAILED = "failed"
    INCONCLUSIVE = "inconclusive"


class Basis(StrEnum):
    """What an objective was decided by: the values of several runs, or the requests of the runs there were."""

    RUNS = "runs"
    WITHIN_RUN = "within-run"


class Direction(StrEnum):
    """Which way a metric is better."""

    LOWER = "lower"
    HIGHER = "higher"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric of a summary."""

    key: str
    label: str  # as reports print it
    unit: str
    better: Direction
    quantiles: tuple[str, ...] = ()  # names of QUANTILES; empty for a rate, which has one figure


def _latency(key: str, label: str) -> Metric:
    return Metric(key, label, "ms", Direction.LOWER, tuple(QUANTILES))


def _rate(key: str, label: str, unit: str) -> Metric:
    return Metric(key, label, unit, Direction.HIGHER)


# In the order in which reports list them.
LATENCIES = {
    metric.key: metric
    for metric in (
        _latency("ttft_ms", "TTFT"),
        _latency("ttft_service_ms", "TTFT service"),
        _latency("itl_ms", "ITL"),
        _latency("event_gap_ms", "event gap"),
        _latency("tpot_ms", "TPOT"),
        _latency("e2e_ms", "E2E"),
        _latency("queue_ms", "wait to send"),
    )
}
RATES = {
    metric.key: metric
    for metric in (
        _rate("requests_per_s", "requests", "requests/s"),
        _rate("output_tokens_per_s", "output tokens", "tokens/s"),
        _rate("total_tokens_per_s", "total tokens", "tokens/s"),
        _rate("goodput_per_s", "goodput", "requests/s"),
    )
}
METRICS = LATENCIES | RATES
COMPARED = {"ttft_ms": "mean TTFT", "output_tokens_per_s": "output tokens/s"}  # of runs or halves of a campaign


@dataclass(frozen=True, slots=True)
class OfRun:
    """One value of each run: what comparisons compare.

    Its values stand in the summary's `over_runs` under `over_runs`, or else in each entry of `per_run` under `key`.
    """

    key: str
    label: str
    unit: str
    better: Direction
    over_runs: str | None = None
    per_token: bool = False  # means the same where answers differ in length
    tail: float | None = None  # the share of requests beyond it, of a percentile
    points: bool = False  # a share: compared by its difference


def _of_run(key: str, label: str, metric: str, *, per_token: bool = False) -> OfRun:
    unit = "ms" if metric in LATENCIES else "1/s"
    return OfRun(key, label, unit, METRICS[metric].better, metric, per_token)


OF_RUNS = {
    figure.key: figure
    for figure in (
        _of_run("ttft_mean_ms", "TTFT mean", "ttft_ms"),
        OfRun("ttft_p50_ms", "TTFT p50", "ms", Direction.LOWER, tail=0.5),
        OfRun("ttft_p99_ms", "TTFT p99", "ms", Direction.LOWER, tail=0.01),
        _of_run("event_gap_mean_ms", "event gap mean", "event_gap_ms", per_token=True),
        _of_run("tpot_mean_ms", "TPOT mean", "tpot_ms", per_token=True),
        _of_run("e2e_mean_ms", "E2E mean", "e2e_ms"),
        _of_run("output_tokens_per_s", "output tokens/s", "output_tokens_per_s", per_token=True),
        _of_run("requests_per_s", "requests/s", "requests_per_s"),
        _of_run("goodput_per_s", "goodput", "goodput_per_s"),
        OfRun("success_rate", "success rate", "", Direction.HIGHER, per_token=True, points=True),
    )
}
