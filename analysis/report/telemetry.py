"""Telemetry and energy: what was sampled beside the runs, in a few lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from msgspec import UNSET

from analysis.estimate import Figure
from analysis.report import numbers
from analysis.report.document import Bullets, Section
from analysis.telemetry.consumption import EnergySection
from analysis.telemetry.section import BoardSection, ServerSection, SourceSection, Spread, TelemetrySection

__all__ = ["energy_sections", "telemetry_sections"]

GIB = 2**30
ALL_CORES = 'cpu_busy_ratio{core="all"}'
STOLEN = 'cpu_steal_ratio{core="all"}'
GPU_SOURCES = ("nvml", "amdgpu")
SEGMENTS_RESENT = "tcp_retransmitted_segments_total"


def telemetry_sections(telemetry: TelemetrySection) -> list[Section]:
    """What servers, boards and this host reported over the measured windows, and what could not be sampled."""
    return [Section("Telemetry", [Bullets(list(_findings(telemetry)), 2)])]


def energy_sections(energy: EnergySection) -> list[Section]:
    """Joules per token and per request, by arm where there are several."""
    return [Section("Energy", [Bullets(list(_spent(energy)), 2)])]


def _findings(telemetry: TelemetrySection) -> Iterator[str]:
    for name, server in telemetry.servers.items():
        yield from _server(name, server)
    for name, board in telemetry.gpus.items():
        yield _gpu(name, board, telemetry.sources)
    yield from _host(telemetry.sources.get("host"))
    if telemetry.sources:
        yield _rate(telemetry)
    yield from _missing(telemetry)


def _server(name: str, server: ServerSection) -> Iterator[str]:
    parts = []
    for count, word in ((server.running, "running"), (server.waiting, "waiting")):
        if count and count.n:
            parts.append(f"{count.mean:.3g} {word} (most {count.max:g})")
    if server.kv_usage and server.kv_usage.n:
        parts.append(f"KV cache {server.kv_usage.mean:.1%} used (most {server.kv_usage.max:.1%})")
    if server.queue_mean_ms is not None:
        parts.append(f"mean wait in its queue {server.queue_mean_ms:.4g} ms")
    if server.server_ttft_mean_ms is not None and server.client_ttft_service_mean_ms is not None:
        ours, theirs = server.client_ttft_service_mean_ms, server.server_ttft_mean_ms
        parts.append(f"mean TTFT {theirs:.4g} ms by its own count, {ours:.4g} ms by ours")
    if server.preemptions:
        parts.append(f"{server.preemptions:g} preemptions")
    if server.prefix_hit_rate is not None:
        parts.append(f"{server.prefix_hit_rate:.1%} of prompt tokens from its cache")
    if server.restarts:
        parts.append(f"restarted {server.restarts} times")
    if parts:
        yield f"server {name}: {'; '.join(parts)}"
    waits = server.requests
    if waits and waits.queue_seen_share:
        with_queue, without = waits.ttft_service_mean_ms.queue_seen, waits.ttft_service_mean_ms.no_queue_seen
        line = f"{waits.queue_seen_share:.0%} of {waits.n} requests waited while its queue was not empty"
        otherwise = "" if without is None else f", else {without:.4g} ms"
        yield f"{line}: TTFT from sending {with_queue:.4g} ms{otherwise}"


def _gpu(name: str, board: BoardSection, sources: Mapping[str, SourceSection]) -> str:
    label = f'gpu="{name.partition(" at ")[0]}"'
    gauges = {key: gauge for source in sources.values() for key, gauge in source.gauges.items() if label in key}

    def mean(metric: str) -> float | None:
        return next((gauge.mean for key, gauge in gauges.items() if key.startswith(metric + "{")), None)

    parts = []
    if (busy := mean("gpu_utilization_ratio")) is not None:
        parts.append(f"{busy:.0%} busy")
    if (used := mean("gpu_memory_used_bytes")) is not None:
        whole = mean("gpu_memory_total_bytes")
        parts.append(f"{used / GIB:.1f}" + (f" of {whole / GIB:.1f}" if whole else "") + " GiB")
    if (watts := mean("gpu_power_watts")) is not None:
        parts.append(f"{watts:.4g} W")
    if board.usual_sm_clock_hertz:
        parts.append(f"SM clock {board.usual_sm_clock_hertz / 1e6:.0f} MHz")
    if board.clock_dropped_share:
        parts.append(f"more than 5 % below that for {board.clock_dropped_share:.0%} of the time")
    reasons = [f"{reason} ({share:.0%} of the time)" for reason, share in board.throttled_share.items()]
    parts += [f"held down by {', '.join(reasons)}"] if reasons else []
    return f"GPU {name}: {'; '.join(parts) or 'nothing told'}"


def _host(host: SourceSection | None) -> Iterator[str]:
    busy = host.gauges.get(ALL_CORES) if host else None
    if not host or not busy or not busy.n:
        return
    parts = [f"CPU {busy.mean:.0%} busy (most {busy.max:.0%})"]
    stolen: Spread | None = host.gauges.get(STOLEN)
    if stolen and stolen.mean:
        parts.append(f"{stolen.mean:.1%} stolen by the hypervisor")
    governors = [key.partition('"')[2].rstrip('"}') for key in host.gauges if key.startswith("cpu_governor{")]
    parts += [f"governor {', '.join(governors)}"] if governors else []
    resent = host.counters.get(SEGMENTS_RESENT)
    parts += [f"{resent.delta:g} TCP segments sent again"] if resent and resent.delta else []
    yield f"this host: {'; '.join(parts)}"


def _rate(telemetry: TelemetrySection) -> str:
    gaps = {name: source.sampling_gap_s.max for name, source in telemetry.sources.items()}
    longest = {name: gap for name, gap in gaps.items() if gap is not None}
    line = f"sampled every {telemetry.interval_s:g} s" if telemetry.interval_s else "sampled"
    if longest:
        worst = max(longest, key=lambda name: longest[name])
        line += f"; longest time between two looks {longest[worst]:.2g} s ({worst})"
    return line


def _missing(telemetry: TelemetrySection) -> Iterator[str]:
    gpus = [entry["reason"] for entry in telemetry.absent if entry["source"] in GPU_SOURCES]
    if gpus and not telemetry.gpus:
        yield f"no GPU sampled: {'; '.join(gpus)}"
    yield from (f"not sampled: {entry['reason']}" for entry in telemetry.absent if entry["source"] not in GPU_SOURCES)
    yield from telemetry.notes


# --- energy -----------------------------------------------------------------------------------------------------------


def _figures(energy: EnergySection) -> list[tuple[str, Figure]]:
    """The figures with their labels, those that were made."""
    figures = (
        ("J per output token", energy.joules_per_output_token),
        ("J per output token, net of idle", energy.net_joules_per_output_token),
        ("J per request", energy.joules_per_request),
    )
    return [(label, figure) for label, figure in figures if figure is not UNSET]


def _spent(energy: EnergySection) -> Iterator[str]:
    if energy.refused:
        yield f"not told: {energy.refused}"
        return
    notes: dict[str, None] = {}
    several = "" if energy.arms is UNSET else f"arm {energy.arm}: "
    for label, figure in _figures(energy):
        if figure.value is None:
            notes |= {f"{several}no {label}: {note}": None for note in figure.notes[:1]}
            continue
        yield f"{several}{numbers.value_and_interval(figure)} {label}"
        notes |= dict.fromkeys(figure.notes)
    for name, arm in (energy.arms or {}).items():
        yield f"arm {name}: {_spent_by_arm(arm)}"
    number = len(energy.boards or ())
    watts = [watt for watt in energy.mean_power_w or () if watt is not None]
    range_w = dict.fromkeys(f"{watt:.4g}" for watt in (min(watts), max(watts))) if watts else {}
    drawn = f", {' to '.join(range_w)} W over the windows" if watts else ""
    yield f"{several}{number} board{'s' if number != 1 else ''}, GPU only ({energy.method}){drawn}"
    yield from notes


def _spent_by_arm(energy: EnergySection) -> str:
    if energy.refused:
        return f"not told: {energy.refused}"
    figures = _figures(energy)
    spent = [f"{numbers.value_and_interval(figure)} {label}" for label, figure in figures if figure.value is not None]
    return "; ".join(spent) or f"not told: {figures[0][1].notes[0]}"
