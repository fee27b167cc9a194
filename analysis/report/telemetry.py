"""What was sampled beside the runs, for people: a few lines, and charts that put server and clients together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.estimate import significant
from analysis.records import latency
from analysis.records.measured import Measured
from analysis.records.requests import ABSENT
from analysis.records.samples import Series, summed
from analysis.report import figures
from analysis.report.words import clean, escaped, wrapped
from analysis.telemetry.pressure import KV_USAGE, QUEUE_TIME, RUNNING, WAITING

__all__ = [
    "energy_html",
    "energy_markdown",
    "energy_text",
    "telemetry_charts",
    "telemetry_html",
    "telemetry_markdown",
    "telemetry_text",
]

Content = Mapping[str, Any]
Chart = dict[str, Any]
Float64 = NDArray[np.float64]

POINTS = 400  # of a line: more than a screen shows
RUNS_DRAWN = 4
ENDPOINTS_DRAWN = 4
GIB = 2**30
ENERGY = {
    "joules_per_output_token": "J per output token",
    "net_joules_per_output_token": "J per output token, net of idle",
    "joules_per_request": "J per request",
}


def telemetry_text(told: Content) -> str:
    return _indented(_findings(told))


def telemetry_markdown(told: Content) -> str:
    return "\n".join(["## Telemetry", "", *(f"- {escaped(line)}" for line in _findings(told))])


def telemetry_html(told: Content) -> str:
    return _listed(_findings(told))


def energy_text(told: Content) -> str:
    return _indented(_spent(told))


def energy_markdown(told: Content) -> str:
    return "\n".join(["## Energy", "", *(f"- {escaped(line)}" for line in _spent(told))])


def energy_html(told: Content) -> str:
    return _listed(_spent(told))


def _listed(lines: Iterator[str]) -> str:
    return f"<ul class=note>{''.join(f'<li>{escape(clean(line))}</li>' for line in lines)}</ul>"


def _indented(lines: Iterator[str]) -> str:
    return "\n".join(piece for line in lines for piece in wrapped(line, "  ", "    "))


# --- lines ------------------------------------------------------------------------------------------------------------


def _findings(told: Content) -> Iterator[str]:
    for name, server in told["servers"].items():
        yield from _server(name, server)
    for name, gpu in told["gpus"].items():
        yield _gpu(name, gpu, told["sources"])
    yield from _host(told["sources"].get("host"))
    if told["sources"]:
        yield _rate(told)
    yield from _missing(told)


def _server(name: str, server: Content) -> Iterator[str]:
    parts = []
    for key, word in (("running", "running"), ("waiting", "waiting")):
        if server[key] and server[key]["n"]:
            parts.append(f"{server[key]['mean']:.3g} {word} (most {server[key]['max']:g})")
    if server["kv_usage"] and server["kv_usage"]["n"]:
        parts.append(f"KV cache {server['kv_usage']['mean']:.1%} used (most {server['kv_usage']['max']:.1%})")
    if server["queue_mean_ms"] is not None:
        parts.append(f"mean wait in its queue {server['queue_mean_ms']:.4g} ms")
    if server["server_ttft_mean_ms"] is not None and server["client_ttft_service_mean_ms"] is not None:
        ours = server["client_ttft_service_mean_ms"]
        theirs = server["server_ttft_mean_ms"]
        parts.append(f"mean TTFT {theirs:.4g} ms by its own count, {ours:.4g} ms by ours")
    if server["preemptions"]:
        parts.append(f"{server['preemptions']:g} preemptions")
    if server["prefix_hit_rate"] is not None:
        parts.append(f"{server['prefix_hit_rate']:.1%} of prompt tokens from its cache")
    if server["restarts"]:
        parts.append(f"restarted {server['restarts']} times")
    if parts:
        yield f"server {name}: {'; '.join(parts)}"
    seen = server["requests"]
    if seen and seen["queue_seen_share"]:
        with_queue, without = (seen["ttft_service_mean_ms"][key] for key in ("queue_seen", "no_queue_seen"))
        line = f"{seen['queue_seen_share']:.0%} of {seen['n']} requests waited while its queue was not empty"
        yield (
            line + f": TTFT from sending {with_queue:.4g} ms" + ("" if without is None else f", else {without:.4g} ms")
        )


def _gpu(name: str, gpu: Content, sources: Content) -> str:
    board = {"gpu": name.partition(" at ")[0]}
    gauges = {key: one for source in sources.values() for key, one in source["gauges"].items() if _about(key, board)}

    def mean(metric: str) -> float | None:
        return next((one["mean"] for key, one in gauges.items() if key.startswith(metric + "{")), None)

    parts = []
    if (busy := mean("gpu_utilization_ratio")) is not None:
        parts.append(f"{busy:.0%} busy")
    if (used := mean("gpu_memory_used_bytes")) is not None:
        whole = mean("gpu_memory_total_bytes")
        parts.append(f"{used / GIB:.1f}" + (f" of {whole / GIB:.1f}" if whole else "") + " GiB")
    if (watts := mean("gpu_power_watts")) is not None:
        parts.append(f"{watts:.4g} W")
    if gpu["usual_sm_clock_hertz"]:
        parts.append(f"SM clock {gpu['usual_sm_clock_hertz'] / 1e6:.0f} MHz")
    if gpu["clock_dropped_share"]:
        parts.append(f"more than 5 % below that for {gpu['clock_dropped_share']:.0%} of the time")
    held = [f"{reason} ({share:.0%} of the time)" for reason, share in gpu["throttled_share"].items()]
    parts += [f"held down by {', '.join(held)}"] if held else []
    return f"GPU {name}: {'; '.join(parts) or 'nothing told'}"


def _about(key: str, labels: Mapping[str, str]) -> bool:
    return all(f'{name}="{value}"' in key for name, value in labels.items())


def _host(host: Content | None) -> Iterator[str]:
    busy = host["gauges"].get('cpu_busy_ratio{core="all"}') if host else None
    if not host or not busy or not busy["n"]:
        return
    parts = [f"CPU {busy['mean']:.0%} busy (most {busy['max']:.0%})"]
    stolen = host["gauges"].get('cpu_steal_ratio{core="all"}')
    if stolen and stolen["mean"]:
        parts.append(f"{stolen['mean']:.1%} stolen by the hypervisor")
    governors = [key.partition('"')[2].rstrip('"}') for key in host["gauges"] if key.startswith("cpu_governor{")]
    parts += [f"governor {', '.join(governors)}"] if governors else []
    resent = host["counters"].get("tcp_retransmitted_segments_total")
    parts += [f"{resent['delta']:g} TCP segments sent again"] if resent and resent["delta"] else []
    yield f"this host: {'; '.join(parts)}"


def _rate(told: Content) -> str:
    gaps = {name: source["sampling_gap_s"]["max"] for name, source in told["sources"].items()}
    known = {name: gap for name, gap in gaps.items() if gap is not None}
    line = f"sampled every {told['interval_s']:g} s" if told["interval_s"] else "sampled"
    if known:
        worst = max(known, key=lambda name: known[name])
        line += f"; longest time between two looks {known[worst]:.2g} s ({worst})"
    return line


def _missing(told: Content) -> Iterator[str]:
    gpus = [one["reason"] for one in told["absent"] if one["source"] in ("nvml", "amdgpu")]
    if gpus and not told["gpus"]:
        yield f"no GPU sampled: {'; '.join(gpus)}"
    yield from (f"not sampled: {one['reason']}" for one in told["absent"] if one["source"] not in ("nvml", "amdgpu"))
    yield from told["notes"]


def _spent(told: Content) -> Iterator[str]:
    if "refused" in told:
        yield f"not told: {told['refused']}"
        return
    notes: dict[str, None] = {}
    several = f"arm {told['arm']}: " if "arms" in told else ""
    for key, label in ENERGY.items():
        figure = told[key]
        if figure["value"] is None:
            notes |= {f"{several}no {label}: {note}": None for note in figure["notes"][:1]}
            continue
        yield several + f"{figures.value(figure)} {figures.interval(figure)} {label}".replace("  ", " ")
        notes |= dict.fromkeys(figure["notes"])
    for name, arm in (told.get("arms") or {}).items():
        yield f"arm {name}: {_spent_by_arm(arm)}"
    boards = f"{several}{len(told['boards'])} board{'s' if len(told['boards']) != 1 else ''}"
    watts = told["mean_power_w"]
    range_w = dict.fromkeys(f"{one:.4g}" for one in (min(watts), max(watts))) if watts else {}
    drawn = f", {' to '.join(range_w)} W over the windows" if watts else ""
    yield f"{boards}, GPU only ({told['method']}){drawn}"
    yield from notes


def _spent_by_arm(told: Content) -> str:
    if "refused" in told:
        return f"not told: {told['refused']}"
    known = [(label, told[key]) for key, label in ENERGY.items() if told[key]["value"] is not None]
    if not known:
        return f"not told: {told['joules_per_output_token']['notes'][0]}"
    return "; ".join(f"{figures.value(one)} {figures.interval(one)} {label}".replace("  ", " ") for label, one in known)


# --- charts -----------------------------------------------------------------------------------------------------------


def telemetry_charts(m: Measured) -> list[Chart]:
    """Return a chart for each endpoint that was sampled, and one for each board."""
    if not m.samples.series:
        return []
    endpoints = sorted({one.labels["endpoint"] for one in m.samples.series if "endpoint" in one.labels})
    boards = sorted({(one.labels["gpu"], one.labels.get("exporter", "")) for one in m.samples.find("gpu_power_watts")})
    charts = [_endpoint_chart(m, name) for name in endpoints[:ENDPOINTS_DRAWN]]
    charts += [_board_chart(m, gpu, exporter) for gpu, exporter in boards]
    return [chart for chart in charts if chart["traces"]]


def _endpoint_chart(m: Measured, endpoint: str) -> Chart:
    here = {"endpoint": endpoint}
    traces = []
    service = latency.ttft_service(m) / 1e6
    for run in [window.run for window in m.windows][:RUNS_DRAWN]:
        mine = (m.requests.run == run) & m.requests.ok & ~np.isnan(service) & (m.requests.sent_ns != ABSENT)
        mine &= np.isin(m.requests.endpoint, [i for i, name in enumerate(m.requests.endpoints) if name == endpoint])
        order = np.argsort(m.requests.sent_ns[mine], kind="stable")
        traces.append(
            _line(m.requests.sent_ns[mine][order], service[mine][order], "y", "ttft", "TTFT from sending", run, "ms")
        )
        at_ns, queue_ms = _queue(m, run, endpoint)
        traces.append(_line(at_ns, queue_ms, "y", "failed1", "server: wait in its queue", run, "ms"))
        for names, role, word in ((RUNNING, "flight", "running"), (WAITING, "failed0", "waiting")):
            found = summed(m.samples.first_of(names, run, here))
            if found is not None:
                traces.append(_line(*_from_zero(found), "y2", role, f"server: {word}", run, "requests"))
        for one in m.samples.first_of(KV_USAGE, run, here)[:1]:
            at_ns, share = _from_zero(one)
            traces.append(_line(at_ns, share * 100, "y3", "gap", "server: KV cache used", run, "%"))
    told = any(trace["yaxis"] != "y" and trace["x"] for trace in traces)
    note = "Wait in its queue: mean over the requests that the server counted between two looks."
    return {
        "title": f"{endpoint}: clients and server on one time axis",
        "note": note,
        "traces": _named_once(traces) if told else [],
        "layout": _stacked(("ms", "requests", "KV cache, %")),
        "tall": True,
    }


def _queue(m: Measured, run: int, endpoint: str) -> tuple[NDArray[np.int64], Float64]:
    """Return the mean queue time of what was counted between two looks, ms, at the later of them."""
    parts = [
        summed(m.samples.first_of([f"{name}_{part}" for name in QUEUE_TIME], run, {"endpoint": endpoint}))
        for part in ("sum", "count")
    ]
    total, count = parts
    if total is None or count is None or len(total.at_ns) != len(count.at_ns):
        return np.empty(0, np.int64), np.empty(0)
    more = np.diff(count.values)
    grew = (more > 0) & (np.diff(total.values) >= 0) & (count.at_ns[1:] >= 0)
    return count.at_ns[1:][grew], np.diff(total.values)[grew] / more[grew] * 1e3


def _board_chart(m: Measured, gpu: str, exporter: str) -> Chart:
    labels = {"gpu": gpu, **({"exporter": exporter} if exporter else {})}
    panels = (
        ("gpu_utilization_ratio", "y", "flight", "busy", 100.0, "%"),
        ("gpu_power_watts", "y2", "failed1", "power", 1.0, "W"),
        ("gpu_sm_clock_hertz", "y3", "gap", "SM clock", 1e-6, "MHz"),
    )
    traces = []
    for run in [window.run for window in m.windows][:RUNS_DRAWN]:
        for name, axis, role, word, scale, unit in panels:
            for one in m.samples.find(name, run, labels):
                at_ns, values = _from_zero(one)
                traces.append(_line(at_ns, values * scale, axis, role, word, run, unit))
    return {
        "title": f"GPU {gpu}{f' at {exporter}' if exporter else ''}",
        "note": "Whole board.",
        "traces": _named_once(traces),
        "layout": _stacked(("busy, %", "W", "MHz")),
        "tall": True,
    }


def _from_zero(one: Series) -> tuple[NDArray[np.int64], Float64]:
    kept = one.at_ns >= 0
    return one.at_ns[kept], one.values[kept]


def _line(
    at_ns: NDArray[np.int64], values: Float64, axis: str, role: str, name: str, run: int, unit: str
) -> dict[str, Any]:
    x, y = _thinned(at_ns / 1e9, values)
    hover = f"{name}, run {run}<br>%{{x:.4g}} s: %{{y:.4g}} {unit}<extra></extra>"
    return {
        **{"type": "scatter", "mode": "lines", "x": x, "y": y, "name": name, "role": role, "yaxis": axis},
        **{"line": {"width": 1.5}, "opacity": 0.85, "legendgroup": name, "hovertemplate": hover},
    }


def _named_once(traces: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave out empty lines, and name those of several runs once in the legend."""
    drawn = [trace for trace in traces if trace["x"]]
    first = {trace["name"]: trace for trace in reversed(drawn)}
    return [{**trace, "showlegend": trace is first[trace["name"]]} for trace in drawn]


def _thinned(at_s: Float64, values: Float64) -> tuple[list[float | None], list[float | None]]:
    """Return means over at most POINTS successive parts."""
    if len(at_s) > POINTS:
        starts = np.linspace(0, len(at_s), POINTS, endpoint=False).astype(np.int64)
        sizes = np.diff(np.append(starts, len(at_s)))
        at_s, values = (np.add.reduceat(column, starts) / sizes for column in (at_s, values))
    return [round(at, 4) for at in at_s.tolist()], [significant(value, 5) for value in values.tolist()]


def _stacked(units: Sequence[str]) -> dict[str, Any]:
    """Return the layout of three panels over one time axis."""
    spans = ([0.6, 1.0], [0.3, 0.54], [0.0, 0.24])
    layout: dict[str, Any] = {"xaxis": {"title": {"text": "s since the start of the run"}, "anchor": "y3"}}
    for index, (unit, span) in enumerate(zip(units, spans, strict=True)):
        axis = {"title": {"text": unit}, "domain": span, "rangemode": "tozero"}
        layout["yaxis" if index == 0 else f"yaxis{index + 1}"] = axis
    return layout
