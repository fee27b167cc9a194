"""summary["telemetry"]: the samples taken beside the measured windows, beside what the requests saw.

Gauges give least, mean and greatest over the windows of all runs, counters their growth in them. The queue and
cache that servers report are put beside what their clients saw at the same time.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from msgspec import UNSET, Struct

from analysis.estimate import Bool, Float64, significant
from analysis.records import latency
from analysis.records.measured import Measured
from analysis.records.requests import ABSENT
from analysis.records.samples import Series, summed
from analysis.telemetry.pressure import (
    CLOCK_DROP,
    KV_USAGE,
    PREEMPTIONS,
    QUEUE_TIME,
    RUNNING,
    SERVER_TTFT,
    THROTTLING,
    WAITING,
    clock_reference,
    pressure,
)
from loadgen.manifest import TelemetryFacts
from loadgen.record import Int64

__all__ = [
    "BoardSection",
    "CacheUsage",
    "Growth",
    "SamplingGap",
    "ServerSection",
    "SourceSection",
    "Spread",
    "TelemetrySection",
    "TtftByQueue",
    "WaitsSection",
    "telemetry_of",
]

HIT_QUERIES, HITS = "vllm:prefix_cache_queries_total", "vllm:prefix_cache_hits_total"
GENERATED = ("vllm:generation_tokens_total", "sglang:generation_tokens_total", "llamacpp:tokens_predicted_total")
PARTS = ("sum", "count")  # of a histogram
# A host has one of these per core or process: one entry for all of them.
MANY = {"core": "each", "pid": "each"}


class Spread(Struct, frozen=True):
    """The least, mean and greatest of n readings of a gauge; None without readings."""

    min: float | None
    mean: float | None
    max: float | None
    n: int


class Growth(Struct, frozen=True):
    """The growth of a counter."""

    delta: float | None


class SamplingGap(Struct, frozen=True):
    """The usual and the longest time between two samples, s; None with fewer than two."""

    p50: float | None
    max: float | None


class SourceSection(Struct, frozen=True):
    """Everything that one source was sampled for, by series in Prometheus's notation."""

    sampling_gap_s: SamplingGap
    gauges: dict[str, Spread]
    counters: dict[str, Growth]


class TtftByQueue(Struct, frozen=True):
    """The mean TTFT from sending, ms, of requests that waited beside a queue, and of the others."""

    queue_seen: float | None
    no_queue_seen: float | None


class CacheUsage(Struct, frozen=True):
    """The share of the KV cache in use while requests waited for their first token."""

    p50: float | None
    max: float | None


class WaitsSection(Struct, frozen=True):
    """The server's queue and cache while n requests waited for their first token."""

    n: int
    queue_seen_share: float | None
    ttft_service_mean_ms: TtftByQueue
    kv_usage: CacheUsage


class ServerSection(Struct, frozen=True):
    """One server by its own metrics, beside what its clients saw."""

    running: Spread | None
    waiting: Spread | None
    kv_usage: Spread | None
    queue_mean_ms: float | None
    server_ttft_mean_ms: float | None
    client_ttft_service_mean_ms: float | None
    preemptions: float | None
    prefix_hit_rate: float | None
    generated_tokens: float | None
    restarts: int
    requests: WaitsSection | None


class BoardSection(Struct, frozen=True):
    """The shares of samples at which one board's clocks were held down, by reason."""

    usual_sm_clock_hertz: float | None
    clock_dropped_share: float | None
    throttled_share: dict[str, float | None]


class TelemetrySection(Struct, frozen=True):
    """The telemetry of the measured windows. absent: {"source", "reason"} of each source that was not sampled."""

    interval_s: float | None
    sources: dict[str, SourceSection]
    servers: dict[str, ServerSection]
    gpus: dict[str, BoardSection]
    absent: tuple[dict[str, str], ...]
    notes: tuple[str, ...]


def telemetry_of(m: Measured) -> TelemetrySection | None:
    """The section; None where no telemetry was wanted."""
    facts = m.manifest.telemetry
    sampled = facts if facts is not UNSET else None
    if sampled is None and not m.samples.series:
        return None
    facts = sampled or TelemetryFacts()
    return TelemetrySection(
        interval_s=facts.interval_s,
        sources={source: _source(m, source) for source in sorted({series.source for series in m.samples.series})},
        servers={name: _server(m, name) for name in _endpoints(m)},
        gpus=_gpus(m),
        absent=tuple({key: str(value) for key, value in entry.items()} for entry in facts.absent),
        notes=facts.notes,
    )


def _endpoints(m: Measured) -> list[str]:
    sampled = {series.labels["endpoint"] for series in m.samples.series if "endpoint" in series.labels}
    return sorted(sampled)


# --- every series, plainly --------------------------------------------------------------------------------------------


def _source(m: Measured, source: str) -> SourceSection:
    gauges: defaultdict[str, list[Float64]] = defaultdict(list)
    counters: defaultdict[str, float] = defaultdict(float)
    for series in m.samples.series:
        if series.source != source:
            continue
        if series.counter:
            counters[_key(series)] += _growth(m, series)
        else:
            gauges[_key(series)].append(_in_window(m, series))
    return SourceSection(
        sampling_gap_s=_sampling_gap(m, source),
        gauges={key: _spread(np.concatenate(parts)) for key, parts in sorted(gauges.items())},
        counters={key: Growth(significant(delta)) for key, delta in sorted(counters.items())},
    )


def _key(series: Series) -> str:
    """The series' name and labels in Prometheus's notation."""
    labels = {
        name: MANY[name] if name in MANY and value != "all" and series.source in ("host", "process") else value
        for name, value in series.labels.items()
    }
    inside = ",".join(f'{name}="{value}"' for name, value in sorted(labels.items()))
    return f"{series.name}{{{inside}}}" if inside else series.name


def _window(m: Measured, run: int) -> tuple[int, int]:
    return next((window.from_ns, window.to_ns) for window in m.windows if window.run == run)


def _in_window(m: Measured, series: Series) -> Float64:
    from_ns, to_ns = _window(m, series.run)
    return series.values[(series.at_ns >= from_ns) & (series.at_ns <= to_ns)]


def _growth(m: Measured, series: Series) -> float:
    """A counter's growth in its run's window: between the last samples before each edge, restarts included."""
    from_ns, to_ns = _window(m, series.run)
    places = np.searchsorted(series.at_ns, [from_ns, to_ns], side="right") - 1
    return _grew(series.values[max(0, int(places[0])) : max(0, int(places[1])) + 1])


def _grew(values: Float64) -> float:
    steps = np.diff(values)
    return float(np.where(steps < 0, values[1:], steps).sum())


def _spread(values: Float64) -> Spread:
    if len(values) == 0:
        return Spread(None, None, None, 0)
    least, mean, greatest = (significant(float(value)) for value in (values.min(), values.mean(), values.max()))
    return Spread(least, mean, greatest, len(values))


def _sampling_gap(m: Measured, source: str) -> SamplingGap:
    """The times between two samples in the windows; each address has its own."""
    sampled: defaultdict[tuple[int, str], list[Int64]] = defaultdict(list)
    for series in m.samples.series:
        if series.source == source:
            where = series.labels.get("endpoint") or series.labels.get("exporter") or ""
            from_ns, to_ns = _window(m, series.run)
            inside = (series.at_ns >= from_ns) & (series.at_ns <= to_ns)
            sampled[series.run, where].append(series.at_ns[inside])
    steps = [np.diff(np.unique(np.concatenate(times))) for times in sampled.values()]
    gaps = np.concatenate(steps) if steps else np.empty(0, np.int64)
    if len(gaps) == 0:
        return SamplingGap(None, None)
    return SamplingGap(significant(float(np.median(gaps)) / 1e9), significant(float(gaps.max()) / 1e9))


# --- servers beside their clients -------------------------------------------------------------------------------------


def _server(m: Measured, endpoint: str) -> ServerSection:
    here = _asked_of(m, endpoint)
    client = latency.ttft_service(m)[here]
    queries, hits = _delta(m, endpoint, [HIT_QUERIES]), _delta(m, endpoint, [HITS])
    return ServerSection(
        running=_gauge(m, endpoint, RUNNING),
        waiting=_gauge(m, endpoint, WAITING),
        kv_usage=_gauge(m, endpoint, KV_USAGE, sums=False),
        queue_mean_ms=_histogram_mean_ms(m, endpoint, here, QUEUE_TIME),
        server_ttft_mean_ms=_histogram_mean_ms(m, endpoint, here, SERVER_TTFT),
        client_ttft_service_mean_ms=significant(float(client.mean()) / 1e6) if len(client) else None,
        preemptions=significant(_delta(m, endpoint, PREEMPTIONS)),
        prefix_hit_rate=significant(hits / queries) if hits is not None and queries else None,
        generated_tokens=significant(_delta(m, endpoint, GENERATED)),
        restarts=_restarts(m, endpoint),
        requests=_waits(m, endpoint, here),
    )


def _gauge(m: Measured, endpoint: str, names: Sequence[str], *, sums: bool = True) -> Spread | None:
    """The spread of a server's gauge in the windows. sums: over its labels (the engines of one server)."""
    parts = []
    for window in m.windows:
        every = m.samples.first_of(names, window.run, {"endpoint": endpoint})
        total = summed(every) if sums else None
        parts += [_in_window(m, series) for series in ([total] if total is not None else every)]
    return _spread(np.concatenate(parts)) if parts else None


def _delta(m: Measured, endpoint: str, names: Sequence[str]) -> float | None:
    """The growth of a server's counter in all windows; None where it was not sampled."""
    counters = [series for w in m.windows for series in m.samples.first_of(names, w.run, {"endpoint": endpoint})]
    return sum(_growth(m, series) for series in counters) if counters else None


def _histogram_mean_ms(m: Measured, endpoint: str, here: Bool, names: Sequence[str]) -> float | None:
    """The mean of a server's histogram in seconds, ms, until the requests `here` were answered."""
    total, count = (_until_answered(m, here, [f"{name}_{part}" for name in names], endpoint) for part in PARTS)
    return significant(total / count * 1e3) if total is not None and count else None


def _until_answered(m: Measured, here: Bool, names: Sequence[str], endpoint: str) -> float | None:
    """The growth of counters from each window's start until the last request of `here` was answered.

    Servers count a request when it is finished. In runs that are not much longer than a request, those which waited
    longest are finished after the window.
    """
    total = None
    for window in m.windows:
        series = summed(m.samples.first_of(names, window.run, {"endpoint": endpoint}))
        if series is not None:
            done = m.requests.done_ns[here & (m.requests.run == window.run)]
            until_ns = max([window.to_ns, *done.tolist()])
            start = max(0, int(np.searchsorted(series.at_ns, window.from_ns, side="right")) - 1)
            end = int(np.searchsorted(series.at_ns, until_ns, side="left"))
            total = (total or 0.0) + _grew(series.values[start : end + 1])
    return total


def _asked_of(m: Measured, endpoint: str) -> Bool:
    """Whether a request to `endpoint` was answered and its wait for the first token is known, shape (n,)."""
    codes = [code for code, name in enumerate(m.requests.endpoints) if name == endpoint]
    stamped = (m.requests.sent_ns != ABSENT) & (m.tokens.first_ns != ABSENT)
    asked: Bool = m.answered & stamped & np.isin(m.requests.endpoint, codes)
    return asked


def _restarts(m: Measured, endpoint: str) -> int:
    """The number of times that all counters of a server fell together."""
    falls = 0
    for window in m.windows:
        counters = m.samples.first_of(GENERATED, window.run, {"endpoint": endpoint})
        total = summed(counters)
        falls += int((np.diff(total.values) < 0).sum()) if total is not None else 0
    return falls


def _waits(m: Measured, endpoint: str, here: Bool) -> WaitsSection | None:
    """The server's queue and cache while requests waited for their first token; None where neither was sampled."""
    waiting, usage, ttft = [], [], []
    service = latency.ttft_service(m) / 1e6
    for window in m.windows:
        of_run = here & (m.requests.run == window.run)
        sampled = pressure(m.samples, window.run, endpoint, m.requests.sent_ns[of_run], m.tokens.first_ns[of_run])
        waiting.append(sampled.waiting)
        usage.append(sampled.kv_usage)
        ttft.append(service[of_run])
    queue, kv, service_ms = (np.concatenate(parts) if parts else np.empty(0) for parts in (waiting, usage, ttft))
    queue_known = ~np.isnan(queue)
    if not queue_known.any():
        return None
    behind = queue_known & (queue > 0)
    cache = kv[~np.isnan(kv)]
    return WaitsSection(
        n=int(queue_known.sum()),
        queue_seen_share=significant(float(behind.sum() / queue_known.sum())),
        ttft_service_mean_ms=TtftByQueue(_mean(service_ms[behind]), _mean(service_ms[queue_known & ~behind])),
        kv_usage=CacheUsage(
            significant(float(np.median(cache))) if len(cache) else None,
            significant(float(cache.max())) if len(cache) else None,
        ),
    )


def _mean(values: Float64) -> float | None:
    value = float(values.mean()) if len(values) else math.nan
    return significant(value)


# --- boards -----------------------------------------------------------------------------------------------------------


def _gpus(m: Measured) -> dict[str, BoardSection]:
    boards: dict[str, dict[str, str]] = {}
    for series in m.samples.series:
        if "gpu" in series.labels:
            board = {key: series.labels[key] for key in ("gpu", "exporter") if key in series.labels}
            boards[" at ".join(board.values())] = board
    return {name: _board(m, board) for name, board in sorted(boards.items())}


def _board(m: Measured, board: dict[str, str]) -> BoardSection:
    drops = []
    for clock in m.samples.find("gpu_sm_clock_hertz", labels=board):
        from_ns, to_ns = _window(m, clock.run)
        middle = clock.at_ns[(clock.at_ns >= from_ns) & (clock.at_ns <= to_ns)]
        drops.append(pressure(m.samples, clock.run, "", middle, middle).clock_drop)
    dropped = np.concatenate(drops) if drops else np.empty(0)
    dropped = dropped[~np.isnan(dropped)]
    throttled = {}
    for reason in THROTTLING:
        flags = m.samples.find("gpu_throttle", labels={**board, "reason": reason})
        sampled = np.concatenate([_in_window(m, series) for series in flags]) if flags else np.empty(0)
        if sampled.any():
            throttled[reason] = significant(float(sampled.mean()))
    return BoardSection(
        usual_sm_clock_hertz=significant(clock_reference(m.samples, board)),
        clock_dropped_share=significant(float((dropped > CLOCK_DROP).mean())) if len(dropped) else None,
        throttled_share=throttled,
    )
