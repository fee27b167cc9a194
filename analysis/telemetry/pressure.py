"""Signs of what may have slowed a request down, from the samples taken while it waited.

See docs/methodology.md#causes.

One number per request and sign; NaN where it was not sampled, which is no evidence that all was well. Callers judge
what a number is evidence of.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.records.samples import Samples, Series, greatest, grown, least, summed
from loadgen.record import Int64

__all__ = [
    "CLOCK_DROP",
    "KV_USAGE",
    "PREEMPTIONS",
    "QUEUE_TIME",
    "RUNNING",
    "SERVER_TTFT",
    "THROTTLING",
    "WAITING",
    "Pressure",
    "clock_reference",
    "pressure",
]

Float64 = NDArray[np.float64]

# The same metric under the names of each server; the first that is reported counts (docs/servers.md#server-metrics).
RUNNING = ("vllm:num_requests_running", "sglang:num_running_reqs", "llamacpp:requests_processing")
WAITING = ("vllm:num_requests_waiting", "sglang:num_queue_reqs", "llamacpp:requests_deferred")
KV_USAGE = (
    *("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),
    *("sglang:token_usage", "llamacpp:kv_cache_usage_ratio"),
)
PREEMPTIONS = ("vllm:num_preemptions_total", "sglang:num_retracted_reqs_total")
QUEUE_TIME = ("vllm:request_queue_time_seconds", "sglang:queue_time_seconds")
SERVER_TTFT = ("vllm:time_to_first_token_seconds", "sglang:time_to_first_token_seconds")
# Reasons to lower the clocks that are neither a setting nor idleness.
THROTTLING = ("sw_power_cap", "hw_slowdown", "sw_thermal_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown")

CLOCK_DROP = 0.05  # docs/methodology.md#causes
BUSY = 0.1  # an idle board lowers its clock, and that is no drop
REFERENCE = 95.0  # percentile


@dataclass(frozen=True, slots=True)
class Pressure:
    """Per interval, shape (n,), NaN where not sampled."""

    waiting: Float64  # most requests waiting in the server's queue
    kv_usage: Float64  # greatest share of the KV cache in use, 0 to 1
    preemptions: Float64  # requests put back for want of cache; of the samples around the interval
    queue_s: Float64  # mean queue time of the requests that the server finished meanwhile; NaN too if it finished none
    queued_s: Float64  # the sum of their queue times
    throttled: Float64  # 1 where a board's driver named a reason to lower the clocks, else 0
    clock_drop: Float64  # greatest drop of a busy board's SM clock below what it usually has, share of 1
    retransmits: Float64  # TCP segments of this host sent again
    gap_s: float  # longest time between two samples of the server in this run; NaN if it was not sampled
    board_gap_s: float  # of any board
    host_gap_s: float  # of this host's TCP


def pressure(samples: Samples, run: int, endpoint: str, starts_ns: Int64, ends_ns: Int64) -> Pressure:
    """The signs sampled in each interval of requests to `endpoint` in `run`; times on the run's clock."""
    none = np.full(len(starts_ns), np.nan)

    def served(names: Sequence[str], suffix: str = "") -> list[Series]:
        return samples.first_of([name + suffix for name in names], run, {"endpoint": endpoint})

    def summed_most(names: Sequence[str]) -> Float64:
        series = summed(served(names))
        return none if series is None else greatest(series, starts_ns, ends_ns)

    usage = [greatest(gauge, starts_ns, ends_ns) for gauge in served(KV_USAGE)]
    preempted = summed(served(PREEMPTIONS))
    queued, counted = summed(served(QUEUE_TIME, "_sum")), summed(served(QUEUE_TIME, "_count"))
    queue_s = queued_s = none
    if queued is not None and counted is not None:
        finished = grown(counted, starts_ns, ends_ns)
        with np.errstate(invalid="ignore", divide="ignore"):
            queued_s = np.where(finished > 0, grown(queued, starts_ns, ends_ns), np.nan)
            queue_s = queued_s / finished
    resent = samples.find("tcp_retransmitted_segments_total", run)
    throttles = [flag for flag in samples.find("gpu_throttle", run) if flag.labels.get("reason") in THROTTLING]
    segments = summed(resent)
    return Pressure(
        waiting=summed_most(WAITING),
        kv_usage=_most(usage, none),
        preemptions=none if preempted is None else grown(preempted, starts_ns, ends_ns),
        queue_s=queue_s,
        queued_s=queued_s,
        throttled=_most([greatest(flag, starts_ns, ends_ns) for flag in throttles], none),
        clock_drop=_clock_drop(samples, run, starts_ns, ends_ns),
        retransmits=none if segments is None else grown(segments, starts_ns, ends_ns),
        gap_s=_longest_gap_s(samples.find("scrape_duration_seconds", run, {"endpoint": endpoint})),
        board_gap_s=_longest_gap_s([*throttles, *samples.find("gpu_sm_clock_hertz", run)]),
        host_gap_s=_longest_gap_s(resent),
    )


def _longest_gap_s(series: Sequence[Series]) -> float:
    gaps = [int(np.diff(part.at_ns).max()) for part in series if len(part.at_ns) > 1]
    return max(gaps) / 1e9 if gaps else float("nan")


def clock_reference(samples: Samples, gpu: dict[str, str]) -> float | None:
    """The SM clock that a board usually has while it works, over all runs; None where that is not known."""
    clocks = [_busy_clock(samples, clock, gpu)[1] for clock in samples.find("gpu_sm_clock_hertz", labels=gpu)]
    pooled = np.concatenate(clocks) if clocks else np.empty(0)
    return float(np.percentile(pooled, REFERENCE)) if len(pooled) else None


def _busy_clock(samples: Samples, clock: Series, gpu: dict[str, str]) -> tuple[Int64, Float64]:
    """The samples of `clock` from moments when the board worked."""
    used = samples.find("gpu_utilization_ratio", clock.run, gpu)
    if not used:
        return clock.at_ns, clock.values
    at = greatest(used[0], clock.at_ns, clock.at_ns)
    busy = at > BUSY
    return clock.at_ns[busy], clock.values[busy]


def _clock_drop(samples: Samples, run: int, starts_ns: Int64, ends_ns: Int64) -> Float64:
    drops = []
    for clock in samples.find("gpu_sm_clock_hertz", run):
        gpu = {key: clock.labels[key] for key in ("gpu", "exporter") if key in clock.labels}
        usual = clock_reference(samples, gpu)
        at_ns, values = _busy_clock(samples, clock, gpu)
        if usual and len(at_ns):
            busy = Series(run, clock.source, clock.name, clock.labels, False, at_ns, values)
            drops.append(np.maximum(0.0, 1 - least(busy, starts_ns, ends_ns) / usual))
    return _most(drops, np.full(len(starts_ns), np.nan))


def _most(columns: Sequence[Float64], none: Float64) -> Float64:
    """The greatest value per element, NaN ignored; shape (n,)."""
    return np.fmax.reduce(list(columns)) if columns else none
