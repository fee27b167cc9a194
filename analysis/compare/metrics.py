"""The figures that a comparison is of: each run has each of them once."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["OF_RUNS", "Direction", "OfRun"]


class Direction(StrEnum):
    """Which way a metric is better."""

    LOWER = "lower"
    HIGHER = "higher"


@dataclass(frozen=True, slots=True)
class OfRun:
    """One value of each run.

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


OF_RUNS = {
    metric.key: metric
    for metric in (
        OfRun("ttft_mean_ms", "TTFT mean", "ms", Direction.LOWER, "ttft_ms"),
        OfRun("ttft_p50_ms", "TTFT p50", "ms", Direction.LOWER, tail=0.5),
        OfRun("ttft_p99_ms", "TTFT p99", "ms", Direction.LOWER, tail=0.01),
        OfRun("event_gap_mean_ms", "event gap mean", "ms", Direction.LOWER, "event_gap_ms", per_token=True),
        OfRun("tpot_mean_ms", "TPOT mean", "ms", Direction.LOWER, "tpot_ms", per_token=True),
        OfRun("e2e_mean_ms", "E2E mean", "ms", Direction.LOWER, "e2e_ms"),
        OfRun("output_tokens_per_s", "output tokens/s", "1/s", Direction.HIGHER, "output_tokens_per_s", per_token=True),
        OfRun("requests_per_s", "requests/s", "1/s", Direction.HIGHER, "requests_per_s"),
        OfRun("goodput_per_s", "goodput", "1/s", Direction.HIGHER, "goodput_per_s"),
        OfRun("success_rate", "success rate", "", Direction.HIGHER, per_token=True, points=True),
    )
}
