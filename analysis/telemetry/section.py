"""summary["telemetry"]: what was sampled beside the measured windows, and what it says of the requests.

Gauges give least, mean and greatest over the windows of all runs, counters how much they grew in them. What servers
tell of queue and cache is put beside what their clients saw at the same time.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.estimate import significant
from analysis.records import latency
from analysis.records.measured import Measured
from analysis.records.requests import ABSENT, Bool
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
from loadgen.record import Int64

__all__ = ["telemetry_of"]

Float64 = NDArray[np.float64]

HIT_QUERIES, HITS = "vllm:prefix_cache_queries_total", "vllm:prefix_cache_hits_total"
GENERATED = ("vllm:generation_tokens_total", "sglang:generation_tokens_total", "llamacpp:tokens_predicted_total")
PARTS = ("sum", "count")  # of a histogram
# There are as many of these as cores or processes: one entry for all of them.
MANY = {"core": "each", "pid": "each"}


def telemetry_of(m: Measured) -> dict[str, Any] | None:
    """Return the section; None where the run was not told to sample."""
    told = m.manifest.get("telemetry")
    told = told if isinstance(told, Mapping) else {}
    if not told and not m.samples.series:
        return None
    return {
        "interval_s": told.get("interval_s"),
        "sources": {source: _source(m, source) for source in sorted({one.source for one in m.samples.series})},
        "servers": {name: _server(m, name) for name in _endpoints(m)},
        "gpus": _gpus(m),
        "absent": list(told.get("absent") or []),
        "notes": list(told.get("notes") or []),
    }


def _endpoints(m: Measured) -> list[str]:
    sampled = {one.labels["endpoint"] for one in m.samples.series if "endpoint" in one.labels}
    return sorted(sampled)


# --- every series, plainly --------------------------------------------------------------------------------------------


def _source(m: Measured, source: str) -> dict[str, Any]:
    gauges: defaultdict[str, list[Float64]] = defaultdict(list)
    counters: defaultdict[str, float] = defaultdict(float)
    for one in m.samples.series:
        if one.source != source:
            continue
        if one.counter:
            counters[_key(one)] += _growth(m, one)
        else:
            gauges[_key(one)].append(_in_window(m, one))
    return {
        "sampling_gap_s": _gaps(m, source),
        "gauges": {key: _spread(np.concatenate(parts)) for key, parts in sorted(gauges.items())},
        "counters": {key: {"delta": significant(delta)} for key, delta in sorted(counters.items())},
    }


def _key(one: Series) -> str:
    """Return the series' name and labels in Prometheus's notation."""
    labels = {
        name: MANY[name] if name in MANY and value != "all" and one.source in ("host", "process") else value
        for name, value in one.labels.items()
    }
    inside = ",".join(f'{name}="{value}"' for name, value in sorted(labels.items()))
    return f"{one.name}{{{inside}}}" if inside else one.name


def _window(m: Measured, run: int) -> tuple[int, int]:
    return next((window.from_ns, window.to_ns) for window in m.windows if window.run == run)


def _in_window(m: Measured, one: Series) -> Float64:
    from_ns, to_ns = _window(m, one.run)
    return one.values[(one.at_ns >= from_ns) & (one.at_ns <= to_ns)]


def _growth(m: Measured, one: Series) -> float:
    """Return how much a counter grew in its run's window: by the last samples before each edge, restarts included."""
    from_ns, to_ns = _window(m, one.run)
    places = np.searchsorted(one.at_ns, [from_ns, to_ns], side="right") - 1
    return _grew(one.values[max(0, int(places[0])) : max(0, int(places[1])) + 1])


def _grew(values: Float64) -> float:
    steps = np.diff(values)
    return float(np.where(steps < 0, values[1:], steps).sum())


def _spread(values: Float64) -> dict[str, Any]:
    if len(values) == 0:
        return {"min": None, "mean": None, "max": None, "n": 0}
    return {
        "min": significant(float(values.min())),
        "mean": significant(float(values.mean())),
        "max": significant(float(values.max())),
        "n": len(values),
    }


def _gaps(m: Measured, source: str) -> dict[str, float | None]:
    """Return the usual and the longest time between two looks in the windows; each address its own looks."""
    looks: defaultdict[tuple[int, str], list[Int64]] = defaultdict(list)
    for one in m.samples.series:
        if one.source == source:
            where = one.labels.get("endpoint") or one.labels.get("exporter") or ""
            from_ns, to_ns = _window(m, one.run)
            looks[one.run, where].append(one.at_ns[(one.at_ns >= from_ns) & (one.at_ns <= to_ns)])
    steps = [np.diff(np.unique(np.concatenate(times))) for times in looks.values()]
    gaps = np.concatenate(steps) if steps else np.empty(0, np.int64)
    if len(gaps) == 0:
        return {"p50": None, "max": None}
    return {"p50": significant(float(np.median(gaps)) / 1e9), "max": significant(float(gaps.max()) / 1e9)}


# --- servers beside their clients -------------------------------------------------------------------------------------


def _server(m: Measured, endpoint: str) -> dict[str, Any]:
    def gauge(names: Sequence[str], sums: bool = True) -> dict[str, Any] | None:
        parts = []
        for window in m.windows:
            found = m.samples.first_of(names, window.run, {"endpoint": endpoint})
            total = summed(found) if sums else None
            parts += [_in_window(m, one) for one in ([total] if total is not None else found)]
        return _spread(np.concatenate(parts)) if parts else None

    def delta(names: Sequence[str]) -> float | None:
        found = [s for w in m.windows for s in m.samples.first_of(names, w.run, {"endpoint": endpoint})]
        return sum(_growth(m, one) for one in found) if found else None

    def mean_ms(names: Sequence[str]) -> float | None:
        total, count = (_until_answered(m, here, [f"{name}_{part}" for name in names], endpoint) for part in PARTS)
        return significant(total / count * 1e3) if total is not None and count else None

    here = _asked_of(m, endpoint)
    client = latency.ttft_service(m)[here]
    queries, hits = delta([HIT_QUERIES]), delta([HITS])
    return {
        "running": gauge(RUNNING),
        "waiting": gauge(WAITING),
        "kv_usage": gauge(KV_USAGE, sums=False),
        "queue_mean_ms": mean_ms(QUEUE_TIME),
        "server_ttft_mean_ms": mean_ms(SERVER_TTFT),
        "client_ttft_service_mean_ms": significant(float(client.mean()) / 1e6) if len(client) else None,
        "preemptions": significant(delta(PREEMPTIONS)),
        "prefix_hit_rate": significant(hits / queries) if hits is not None and queries else None,
        "generated_tokens": significant(delta(GENERATED)),
        "restarts": _restarts(m, endpoint),
        "requests": _waits(m, endpoint, here),
    }


def _until_answered(m: Measured, here: Bool, names: Sequence[str], endpoint: str) -> float | None:
    """Return how much counters grew from each window's start until its last request, of those `here`, was answered.

    Servers count a request when it is finished. In runs that are not much longer than a request, those which waited
    longest are finished after the window.
    """
    total = None
    for window in m.windows:
        one = summed(m.samples.first_of(names, window.run, {"endpoint": endpoint}))
        if one is not None:
            done = m.requests.done_ns[here & (m.requests.run == window.run)]
            until_ns = max([window.to_ns, *done.tolist()])
            start = max(0, int(np.searchsorted(one.at_ns, window.from_ns, side="right")) - 1)
            end = int(np.searchsorted(one.at_ns, until_ns, side="left"))
            total = (total or 0.0) + _grew(one.values[start : end + 1])
    return total


def _asked_of(m: Measured, endpoint: str) -> Bool:
    """Return the answered requests to `endpoint` whose wait for the first token is known."""
    codes = [code for code, name in enumerate(m.requests.endpoints) if name == endpoint]
    known = (m.requests.sent_ns != ABSENT) & (m.tokens.first_ns != ABSENT)
    asked: Bool = m.answered & known & np.isin(m.requests.endpoint, codes)
    return asked


def _restarts(m: Measured, endpoint: str) -> int:
    """Return how often all counters of a server fell together."""
    falls = 0
    for window in m.windows:
        found = m.samples.first_of(GENERATED, window.run, {"endpoint": endpoint})
        total = summed(found)
        falls += int((np.diff(total.values) < 0).sum()) if total is not None else 0
    return falls


def _waits(m: Measured, endpoint: str, here: Bool) -> dict[str, Any] | None:
    """Return what the server's queue and cache were like while requests waited for their first token."""
    waiting, usage, ttft = [], [], []
    service = latency.ttft_service(m) / 1e6
    for window in m.windows:
        mine = here & (m.requests.run == window.run)
        told = pressure(m.samples, window.run, endpoint, m.requests.sent_ns[mine], m.tokens.first_ns[mine])
        waiting.append(told.waiting)
        usage.append(told.kv_usage)
        ttft.append(service[mine])
    queue, kv, seen = (np.concatenate(parts) if parts else np.empty(0) for parts in (waiting, usage, ttft))
    known = ~np.isnan(queue)
    if not known.any():
        return None
    behind = known & (queue > 0)
    cache = kv[~np.isnan(kv)]
    return {
        "n": int(known.sum()),
        "queue_seen_share": significant(float(behind.sum() / known.sum())),
        "ttft_service_mean_ms": {
            "queue_seen": _mean(seen[behind]),
            "no_queue_seen": _mean(seen[known & ~behind]),
        },
        "kv_usage": {
            "p50": significant(float(np.median(cache))) if len(cache) else None,
            "max": significant(float(cache.max())) if len(cache) else None,
        },
    }


def _mean(values: Float64) -> float | None:
    value = float(values.mean()) if len(values) else math.nan
    return significant(value)


# --- boards -----------------------------------------------------------------------------------------------------------


def _gpus(m: Measured) -> dict[str, Any]:
    """Return for each board how often its clocks were held down, and by what."""
    boards: dict[str, dict[str, str]] = {}
    for one in m.samples.series:
        if "gpu" in one.labels:
            board = {key: one.labels[key] for key in ("gpu", "exporter") if key in one.labels}
            boards[" at ".join(board.values())] = board
    told = {}
    for name, board in sorted(boards.items()):
        usual = clock_reference(m.samples, board)
        drops = []
        for clock in m.samples.find("gpu_sm_clock_hertz", labels=board):
            middle = clock.at_ns[(clock.at_ns >= _window(m, clock.run)[0]) & (clock.at_ns <= _window(m, clock.run)[1])]
            drops.append(pressure(m.samples, clock.run, "", middle, middle).clock_drop)
        dropped = np.concatenate(drops) if drops else np.empty(0)
        dropped = dropped[~np.isnan(dropped)]
        reasons = {
            reason: float(np.concatenate(parts).mean())
            for reason in THROTTLING
            if (parts := [_in_window(m, s) for s in m.samples.find("gpu_throttle", labels={**board, "reason": reason})])
            and sum(map(len, parts))
        }
        told[name] = {
            "usual_sm_clock_hertz": significant(usual),
            "clock_dropped_share": significant(float((dropped > CLOCK_DROP).mean())) if len(dropped) else None,
            "throttled_share": {reason: significant(share) for reason, share in reasons.items() if share > 0},
        }
    return told
