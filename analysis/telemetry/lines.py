"""What was sampled as lines over time: each server beside the latency of its clients, and each board."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from analysis.records import latency
from analysis.records.measured import Measured
from analysis.records.requests import ABSENT
from analysis.records.samples import Series, summed
from analysis.telemetry.pressure import KV_USAGE, QUEUE_TIME, RUNNING, WAITING
from loadgen.record import Int64

__all__ = ["BoardLines", "Kind", "Line", "ServerLines", "board_lines", "server_lines"]

RUNS_DRAWN = 4
ENDPOINTS_DRAWN = 4
POINTS = 400  # of a line: more than a screen shows

Float64 = NDArray[np.float64]


class Kind(StrEnum):
    """What a line is of; with its unit."""

    TTFT_SERVICE = "ttft"  # ms
    QUEUE = "queue"  # the wait in the server's queue, ms
    RUNNING = "running"  # requests
    WAITING = "waiting"  # requests
    KV_USAGE = "kv"  # share
    BUSY = "busy"  # share
    POWER = "power"  # W
    SM_CLOCK = "clock"  # Hz


@dataclass(frozen=True, slots=True)
class Line:
    """Values over time, of one run; at_s: from its start. Shapes (n,), at most POINTS."""

    run: int
    kind: Kind
    at_s: Float64
    values: Float64


@dataclass(frozen=True, slots=True)
class ServerLines:
    """The lines of one server; those that have no values are left out."""

    endpoint: str
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class BoardLines:
    """The lines of one board. exporter: where it was read, "" for this machine."""

    gpu: str
    exporter: str
    lines: tuple[Line, ...]


OF_BOARDS = (
    ("gpu_utilization_ratio", Kind.BUSY),
    ("gpu_power_watts", Kind.POWER),
    ("gpu_sm_clock_hertz", Kind.SM_CLOCK),
)


def server_lines(m: Measured) -> tuple[ServerLines, ...]:
    """The lines of each server that was sampled, at most ENDPOINTS_DRAWN of them."""
    endpoints = sorted({series.labels["endpoint"] for series in m.samples.series if "endpoint" in series.labels})
    runs = [window.run for window in m.windows][:RUNS_DRAWN]
    lines = [
        ServerLines(name, tuple(line for run in runs for line in _of_server(m, run, name) if len(line.at_s)))
        for name in endpoints[:ENDPOINTS_DRAWN]
    ]
    # Without any of its own metrics there is nothing to put beside the latency.
    return tuple(server for server in lines if any(line.kind not in BY_MS for line in server.lines))


BY_MS = (Kind.TTFT_SERVICE, Kind.QUEUE)


def board_lines(m: Measured) -> tuple[BoardLines, ...]:
    """The lines of each board whose power was sampled."""
    boards = sorted(
        {(series.labels["gpu"], series.labels.get("exporter", "")) for series in m.samples.find("gpu_power_watts")}
    )
    lines = [BoardLines(gpu, exporter, tuple(_of_board(m, gpu, exporter))) for gpu, exporter in boards]
    return tuple(board for board in lines if board.lines)


def _of_server(m: Measured, run: int, endpoint: str) -> list[Line]:
    here = {"endpoint": endpoint}
    lines = [_ttft(m, run, endpoint), _line(run, Kind.QUEUE, *_queue(m, run, endpoint))]
    for names, kind in ((RUNNING, Kind.RUNNING), (WAITING, Kind.WAITING)):
        series = summed(m.samples.first_of(names, run, here))
        if series is not None:
            lines.append(_line(run, kind, *_from_zero(series)))
    usage = m.samples.first_of(KV_USAGE, run, here)
    return lines + [_line(run, Kind.KV_USAGE, *_from_zero(series)) for series in usage[:1]]


def _ttft(m: Measured, run: int, endpoint: str) -> Line:
    service_ms = latency.ttft_service(m) / 1e6
    chosen = (m.requests.run == run) & m.requests.ok & ~np.isnan(service_ms) & (m.requests.sent_ns != ABSENT)
    chosen &= np.isin(m.requests.endpoint, [i for i, name in enumerate(m.requests.endpoints) if name == endpoint])
    order = np.argsort(m.requests.sent_ns[chosen], kind="stable")
    return _line(run, Kind.TTFT_SERVICE, m.requests.sent_ns[chosen][order], service_ms[chosen][order])


def _queue(m: Measured, run: int, endpoint: str) -> tuple[Int64, Float64]:
    """The mean queue time of what was counted between two samples, ms, at the later of them."""
    total, count = (
        summed(m.samples.first_of([f"{name}_{part}" for name in QUEUE_TIME], run, {"endpoint": endpoint}))
        for part in ("sum", "count")
    )
    if total is None or count is None or len(total.at_ns) != len(count.at_ns):
        return np.empty(0, np.int64), np.empty(0)
    more = np.diff(count.values)
    grew = (more > 0) & (np.diff(total.values) >= 0) & (count.at_ns[1:] >= 0)
    return count.at_ns[1:][grew], np.diff(total.values)[grew] / more[grew] * 1e3


def _of_board(m: Measured, gpu: str, exporter: str) -> list[Line]:
    labels = {"gpu": gpu, **({"exporter": exporter} if exporter else {})}
    lines = [
        _line(run, kind, *_from_zero(series))
        for run in [window.run for window in m.windows][:RUNS_DRAWN]
        for name, kind in OF_BOARDS
        for series in m.samples.find(name, run, labels)
    ]
    return [line for line in lines if len(line.at_s)]


def _from_zero(series: Series) -> tuple[Int64, Float64]:
    after = series.at_ns >= 0
    return series.at_ns[after], series.values[after]


def _line(run: int, kind: Kind, at_ns: Int64, values: Float64) -> Line:
    """The line, of means over at most POINTS successive parts."""
    at_s = at_ns / 1e9
    if len(at_s) > POINTS:
        starts = np.linspace(0, len(at_s), POINTS, endpoint=False).astype(np.int64)
        sizes = np.diff(np.append(starts, len(at_s)))
        at_s, values = (np.add.reduceat(column, starts) / sizes for column in (at_s, values))
    return Line(run, kind, at_s, values)
