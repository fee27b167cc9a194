"""The content of a scrape: every metric declared once, and the families made of the latest sums.

A scrape reads the sums that the campaign computes anyway (`show`), so exporting costs nothing per request or token. The
sums are replaced as a whole and never changed, so a scrape may come from any thread. Tests check dashboards, rules and
documents against METRICS. Every scraper gets round buckets, with the latest request of each as exemplar where it speaks
OpenMetrics; native histograms only if it accepts them.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector
from prometheus_client.samples import BucketSpan, Exemplar, NativeHistogram

from loadgen.clock import NS_PER_S
from loadgen.engine.tally import BOUNDS_NS, GROWTH, LOWEST, Buckets, Series, Tally, Who
from loadgen.manifest import Manifest
from loadgen.telemetry import Look, Value

__all__ = ["METRICS", "AgentFigures", "Exporter", "Metric", "names", "registry"]

WHO = ("endpoint", "agent")
BOUNDS = ("value", "low", "high")
VERDICTS = ("running", "ok", "generator-limited", "unstable", "failed")
CONTENTION = ("contention", "none", "inconclusive")
LOOKED_AT = {"host": "loadgen_host_", "nvml": "loadgen_", "amdgpu": "loadgen_"}  # source -> the prefix of its names
ZERO_S = 2.0 ** (LOWEST / GROWTH)  # the lowest fine bucket holds zeros as well


class Metric(NamedTuple):
    """One family. A counter's samples are called name + _total, an info's name + _info."""

    kind: str  # counter | gauge | histogram | info
    help: str
    labels: tuple[str, ...] = ()


METRICS: Mapping[str, Metric] = {
    "loadgen": Metric("info", "What runs.", ("version", "profile", "tier", "directory")),
    "loadgen_target": Metric("info", "A server under load.", ("endpoint", "url", "api", "model", "server")),
    "loadgen_requests": Metric("counter", "Requests that ended, by outcome.", ("outcome", *WHO)),
    "loadgen_requests_offered": Metric("counter", "Requests due by the schedule so far."),
    "loadgen_requests_sent": Metric("counter", "Requests begun so far."),
    "loadgen_input_tokens": Metric("counter", "Prompt tokens of the requests answered.", WHO),
    "loadgen_output_tokens": Metric("counter", "Tokens received with the requests answered.", WHO),
    "loadgen_token_events": Metric("counter", "Events that carried tokens.", WHO),
    "loadgen_censored_events": Metric("counter", "Of these, those that share a read with a later one.", WHO),
    "loadgen_stale_connections": Metric("counter", "Kept connections found closed by the server.", WHO),
    "loadgen_cpu_seconds": Metric("counter", "CPU time of the load generator's own processes."),
    "loadgen_runs_finished": Metric("counter", "Runs of the campaign that are over."),
    "loadgen_runs_planned": Metric("gauge", "Runs the campaign is to have."),
    "loadgen_in_flight": Metric("gauge", "Requests begun and not ended.", WHO),
    "loadgen_waiting": Metric("gauge", "Requests due that wait for a place under the cap."),
    "loadgen_loop_lag_seconds": Metric("gauge", "How late our own event loop was, at worst in the last second."),
    "loadgen_send_lag_seconds": Metric("gauge", "From due to sent, at worst of the requests that ended last."),
    "loadgen_censored_share": Metric("gauge", "Censored events over events; above 0.05 the stamps are void."),
    "loadgen_verdict": Metric("gauge", "1 for what holds: running, and at the end the verdict.", ("verdict",)),
    "loadgen_ttft_seconds": Metric("histogram", "Time to first token, from the intended start.", WHO),
    "loadgen_event_gap_seconds": Metric("histogram", "Between two events that carry tokens.", WHO),
    "loadgen_tpot_seconds": Metric("histogram", "Mean time per output token after the first, per request.", WHO),
    "loadgen_e2e_seconds": Metric("histogram", "From the intended start to the last token.", WHO),
    "loadgen_queue_seconds": Metric("histogram", "From the intended start to the first byte sent.", WHO),
    "loadgen_speedup": Metric("gauge", "Speedup of the agents so far, with its interval.", ("bound",)),
    "loadgen_efficiency": Metric("gauge", "Speedup over the number of agents, with its interval.", ("bound",)),
    "loadgen_overlap_efficiency": Metric("gauge", "The overlap measure: no speedup, for it has no solo run."),
    "loadgen_contention": Metric("gauge", "Whether the agents slow each other down: 1 for what holds.", ("verdict",)),
    "loadgen_host_cpu_busy_ratio": Metric("gauge", "Busy share of a core of this machine, or of all.", ("core",)),
    "loadgen_host_cpu_steal_ratio": Metric("gauge", "Share of CPU time that the hypervisor took.", ("core",)),
    "loadgen_host_memory_used_bytes": Metric("gauge", "Memory in use on this machine."),
    "loadgen_host_memory_available_bytes": Metric("gauge", "Memory that can still be had on this machine."),
    "loadgen_host_tcp_sent_segments": Metric("counter", "TCP segments this machine sent."),
    "loadgen_host_tcp_retransmitted_segments": Metric("counter", "Of these, those sent again."),
    "loadgen_gpu_utilization_ratio": Metric("gauge", "Share of time in which the GPU computed.", ("gpu",)),
    "loadgen_gpu_memory_used_bytes": Metric("gauge", "GPU memory in use.", ("gpu",)),
    "loadgen_gpu_memory_total_bytes": Metric("gauge", "GPU memory there is.", ("gpu",)),
    "loadgen_gpu_power_watts": Metric("gauge", "Power drawn by the board.", ("gpu",)),
    "loadgen_gpu_energy_joules": Metric("counter", "Energy drawn since the driver was loaded.", ("gpu",)),
    "loadgen_gpu_temperature_celsius": Metric("gauge", "Temperature of the GPU.", ("gpu",)),
    "loadgen_gpu_sm_clock_hertz": Metric("gauge", "Clock of the compute units.", ("gpu",)),
    "loadgen_gpu_memory_clock_hertz": Metric("gauge", "Clock of the memory.", ("gpu",)),
    "loadgen_gpu_throttle": Metric("gauge", "1 while the clock is held down for this reason.", ("gpu", "reason")),
}
FAMILIES: Mapping[str, Callable[..., Any]] = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
    "histogram": HistogramMetricFamily,
    "info": InfoMetricFamily,
}


def names() -> set[str]:
    """The name of every series that /metrics may hold."""
    series = set()
    for name, metric in METRICS.items():
        match metric.kind:
            case "counter":
                series.add(f"{name}_total")
            case "info":
                series.add(f"{name}_info")
            case "histogram":
                series |= {f"{name}_bucket", f"{name}_sum", f"{name}_count"}
            case _:
                series.add(name)
    return series


class AgentFigures(NamedTuple):
    """The figures of agents over the runs so far; None where there is none. Bounds are in the order of BOUNDS."""

    speedup: Sequence[float | None] = (None,) * len(BOUNDS)
    efficiency: Sequence[float | None] = (None,) * len(BOUNDS)
    overlap_efficiency: float | None = None
    contention: str | None = None  # one of CONTENTION


class Exporter:
    """The counters that a scrape reads: those shown last. Every method may be called from any thread."""

    def __init__(self, profile: str = "", directory: str = "") -> None:
        self._tally = Tally()
        self._info: Mapping[str, str] = {}
        self._named = {"profile": profile, "directory": directory}
        self._targets: Sequence[Mapping[str, str]] = ()
        self._runs = (0, 0)  # finished, planned
        self._verdict = VERDICTS[0]
        self._agents = AgentFigures()
        self._looks: dict[str, Sequence[Value]] = {}
        self._over = False
        self._seen_final = threading.Event()

    def show(self, tally: Tally) -> None:
        """Take over the counts. tally: the sum over the campaign so far, not changed afterwards."""
        self._tally = tally

    def describe(self, manifest: Manifest) -> None:
        """Take over the facts of a manifest: the run, its endpoints and agents."""
        self._info = {"version": str(manifest.loadgen), "tier": str(manifest.measured_by.tier), **self._named}
        self._targets = [
            {
                "endpoint": target.name,
                "url": target.url,
                "api": target.api or "",
                "model": target.model or "",
                "server": target.version or target.kind or "",
            }
            for target in manifest.targets
        ]

    def count_runs(self, finished: int, planned: int) -> None:
        self._runs = finished, planned

    def show_agents(self, agents: AgentFigures) -> None:
        """Take over the figures of agents."""
        self._agents = agents

    def show_look(self, source: str, look: Look) -> None:
        """Take over a sample of the host and of GPUs; servers export their own metrics."""
        prefix = LOOKED_AT.get(source)
        if prefix is not None:
            self._looks[source] = tuple(value._replace(name=prefix + value.name) for value in look.values)

    def conclude(self, verdict: str) -> None:
        """Take over the verdict; no count changes after it."""
        self._verdict, self._over = verdict, True

    @property
    def over(self) -> bool:
        return self._over

    def wait_for_last_scrape(self, limit_s: float) -> bool:
        """Whether the final counts were fetched within `limit_s`; waits for that."""
        return self._seen_final.wait(limit_s)

    def note_scrape(self, *, final: bool) -> None:
        if final:
            self._seen_final.set()

    def families(self, *, native: bool) -> Iterator[Family]:
        """The families that have samples."""
        tally = self._tally
        yield from _infos(self._info, self._targets)
        yield from _counts(tally)
        yield from _state(tally, self._runs, self._verdict)
        for name, metric in METRICS.items():
            if metric.kind == "histogram":
                yield _histogram(name, tally.series, native=native)
        yield from _agents(self._agents)
        yield from _telemetry([value for values in list(self._looks.values()) for value in values])


class _Collector(Collector):
    def __init__(self, exporter: Exporter, *, native: bool) -> None:
        self._exporter, self._native = exporter, native

    def collect(self) -> Iterable[Family]:
        return self._exporter.families(native=self._native)


def registry(exporter: Exporter, *, native: bool = False) -> CollectorRegistry:
    made = CollectorRegistry(auto_describe=False)
    made.register(_Collector(exporter, native=native))
    return made


def _family(name: str, **kwargs: Any) -> Any:
    metric = METRICS[name]
    return FAMILIES[metric.kind](name, metric.help, labels=metric.labels, **kwargs)


def _infos(info: Mapping[str, str], targets: Sequence[Mapping[str, str]]) -> Iterator[Family]:
    for name, values in (("loadgen", [info] if info else []), ("loadgen_target", targets)):
        family = InfoMetricFamily(name, METRICS[name].help)
        for value in values:
            family.add_metric([], dict(value))
        yield family


def _counts(tally: Tally) -> Iterator[Family]:
    requests = _family("loadgen_requests")
    for who, series in tally.series.items():
        for outcome, n in sorted(series.outcomes.items()):
            requests.add_metric([str(outcome), *who], n)
    yield requests
    for name in ("input_tokens", "output_tokens", "token_events", "censored_events", "stale_connections"):
        family = _family(f"loadgen_{name}")
        for who, series in tally.series.items():
            family.add_metric(who, getattr(series, name))
        yield family
    for name, value in (
        ("loadgen_requests_offered", tally.due),
        ("loadgen_requests_sent", tally.begun),
        ("loadgen_cpu_seconds", tally.cpu_ns / NS_PER_S),
    ):
        yield _single(name, value)


def _state(tally: Tally, runs: tuple[int, int], verdict: str) -> Iterator[Family]:
    flying = _family("loadgen_in_flight")
    for who, n in tally.in_flight.items():
        flying.add_metric(who, n)
    yield flying
    events = sum(series.token_events for series in tally.series.values())
    censored = sum(series.censored_events for series in tally.series.values())
    yield _single("loadgen_runs_finished", runs[0])
    yield _single("loadgen_runs_planned", runs[1])
    yield _single("loadgen_waiting", max(tally.due - tally.begun, 0))
    yield _single("loadgen_loop_lag_seconds", tally.loop_lag_ns / NS_PER_S)
    yield _single("loadgen_send_lag_seconds", tally.send_lag_ns / NS_PER_S)
    yield _single("loadgen_censored_share", censored / events if events else 0.0)
    verdicts = _family("loadgen_verdict")
    for name in VERDICTS:
        verdicts.add_metric([name], float(name == verdict))
    yield verdicts


def _single(name: str, value: float) -> Family:
    family: Family = _family(name)
    family.add_metric([], value)  # type: ignore[attr-defined]
    return family


def _histogram(name: str, series: Mapping[Who, Series], *, native: bool) -> Family:
    family: Family = _family(name)
    which = name.removeprefix("loadgen_").removesuffix("_seconds")
    for who, counts in series.items():
        buckets: Buckets = getattr(counts, which).counted()
        family.add_metric(who, _round(buckets), buckets.sum_ns / NS_PER_S)  # type: ignore[attr-defined]
        if native:
            labels = dict(zip(WHO, who, strict=True))
            family.add_sample(name, labels, 0, native_histogram=_native(buckets))
    return family


def _round(buckets: Buckets) -> list[Any]:
    rows: list[Any] = []
    bounds = [*(f"{bound / NS_PER_S:g}" for bound in BOUNDS_NS), "+Inf"]
    for at, (bound, cumulative) in enumerate(zip(bounds, accumulate(buckets.round.tolist()), strict=True)):
        example = buckets.exemplars.get(at)
        if example is None:
            rows.append((bound, cumulative))
        else:
            (run, seq), duration_ns = example
            rows.append((bound, cumulative, Exemplar({"request": f"{run}-{seq}"}, duration_ns / NS_PER_S)))
    return rows


def _native(buckets: Buckets) -> NativeHistogram:
    """The fine buckets in the form of the format: spans of filled ones, and differences between neighbours."""
    zeros, counts = int(buckets.fine[0]), buckets.fine[1:]
    filled = np.flatnonzero(counts)
    spans: list[BucketSpan] = []
    deltas: list[int] = []
    before = end = 0
    for at in filled.tolist():
        index = at + LOWEST + 1
        if spans and index == end:
            spans[-1] = BucketSpan(spans[-1].offset, spans[-1].length + 1)
        else:
            spans.append(BucketSpan(index - end if spans else index, 1))
        deltas.append(int(counts[at]) - before)
        before, end = int(counts[at]), index + 1
    schema = GROWTH.bit_length() - 1
    return NativeHistogram(
        buckets.n, buckets.sum_ns / NS_PER_S, schema, ZERO_S, zeros, tuple(spans), (), tuple(deltas), ()
    )


def _agents(agents: AgentFigures) -> Iterator[Family]:
    for name, bounds in (("speedup", agents.speedup), ("efficiency", agents.efficiency)):
        family = _family(f"loadgen_{name}")
        for bound, value in zip(BOUNDS, bounds, strict=True):
            if value is not None:
                family.add_metric([bound], value)
        yield family
    overlap = _family("loadgen_overlap_efficiency")
    if agents.overlap_efficiency is not None:
        overlap.add_metric([], agents.overlap_efficiency)
    yield overlap
    contention = _family("loadgen_contention")
    for verdict in CONTENTION if agents.contention is not None else ():
        contention.add_metric([verdict], float(verdict == agents.contention))
    yield contention


def _telemetry(values: Sequence[Value]) -> Iterator[Family]:
    families: dict[str, Any] = {}
    for value in values:
        name = value.name.removesuffix("_total") if value.counter else value.name
        metric = METRICS.get(name)
        if metric is not None:
            labels = json.loads(value.labels)
            family = families.setdefault(name, _family(name))
            family.add_metric([labels[label] for label in metric.labels], value.value)
    yield from families.values()
