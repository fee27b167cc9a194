"""The words that several sections of a report share: labels of metrics, columns and verdicts."""

from __future__ import annotations

__all__ = ["COMPARED", "LATENCIES", "QUANTILES", "RATES", "STATISTICS", "TOGETHER", "VERDICTS"]

LATENCIES = {
    "ttft_ms": "TTFT",
    "ttft_service_ms": "TTFT service",
    "itl_ms": "ITL",
    "event_gap_ms": "event gap",
    "tpot_ms": "TPOT",
    "e2e_ms": "E2E",
    "queue_ms": "wait to send",
}
RATES = {
    "requests_per_s": "requests",
    "output_tokens_per_s": "output tokens",
    "total_tokens_per_s": "total tokens",
    "goodput_per_s": "goodput",
}
QUANTILES = {"p50": "p50", "p90": "p90", "p95": "p95", "p99": "p99", "p999": "p99.9"}
STATISTICS = {"mean": "mean", **QUANTILES}
COMPARED = {"ttft_ms": "mean TTFT", "output_tokens_per_s": "output tokens/s"}  # of runs or halves of a campaign
VERDICTS = {"ok": "OK", "generator-limited": "GENERATOR-LIMITED", "unstable": "UNSTABLE", "failed": "FAILED"}
TOGETHER = "concurrent runs, all agents"  # what the general figures are of, where agents ran alone as well
