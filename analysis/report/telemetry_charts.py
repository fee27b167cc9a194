"""The charts of what was sampled: server and clients on one time axis, and each board."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.estimate import significant
from analysis.report.document import Chart, Json
from analysis.telemetry.lines import BoardLines, Kind, Line, ServerLines

__all__ = ["telemetry_charts"]

# Of each kind: the axis, the role whose colour it has, its name, the factor to the unit, the unit.
STYLES = {
    Kind.TTFT_SERVICE: ("y", "ttft", "TTFT from sending", 1.0, "ms"),
    Kind.QUEUE: ("y", "failed1", "server: wait in its queue", 1.0, "ms"),
    Kind.RUNNING: ("y2", "flight", "server: running", 1.0, "requests"),
    Kind.WAITING: ("y2", "failed0", "server: waiting", 1.0, "requests"),
    Kind.KV_USAGE: ("y3", "gap", "server: KV cache used", 100.0, "%"),
    Kind.BUSY: ("y", "flight", "busy", 100.0, "%"),
    Kind.POWER: ("y2", "failed1", "power", 1.0, "W"),
    Kind.SM_CLOCK: ("y3", "gap", "SM clock", 1e-6, "MHz"),
}


def telemetry_charts(servers: Sequence[ServerLines], boards: Sequence[BoardLines]) -> list[Chart]:
    """A chart for each server, and one for each board."""
    return [*map(_server, servers), *map(_board, boards)]


def _server(server: ServerLines) -> Chart:
    return Chart(
        f"{server.endpoint}: clients and server on one time axis",
        "Wait in its queue: mean over the requests that the server counted between two looks.",
        _traces(server.lines),
        _stacked(("ms", "requests", "KV cache, %")),
        tall=True,
    )


def _board(board: BoardLines) -> Chart:
    title = f"GPU {board.gpu}{f' at {board.exporter}' if board.exporter else ''}"
    return Chart(title, "Whole board.", _traces(board.lines), _stacked(("busy, %", "W", "MHz")), tall=True)


def _traces(lines: Sequence[Line]) -> list[dict[str, Json]]:
    """A trace per line; those of several runs are named once in the legend."""
    first = {line.kind: line for line in reversed(lines)}
    return [_trace(line, line is first[line.kind]) for line in lines]


def _trace(line: Line, named: bool) -> dict[str, Json]:
    axis, role, name, factor, unit = STYLES[line.kind]
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [round(at, 4) for at in line.at_s.tolist()],
        "y": [significant(value, 5) for value in (line.values * factor).tolist()],
        "name": name,
        "role": role,
        "yaxis": axis,
        "line": {"width": 1.5},
        "opacity": 0.85,
        "legendgroup": name,
        "hovertemplate": f"{name}, run {line.run}<br>%{{x:.4g}} s: %{{y:.4g}} {unit}<extra></extra>",
        "showlegend": named,
    }


def _stacked(units: Sequence[str]) -> dict[str, Json]:
    """The layout of three panels over one time axis."""
    spans = ([0.6, 1.0], [0.3, 0.54], [0.0, 0.24])
    layout: dict[str, Json] = {"xaxis": {"title": {"text": "s since the start of the run"}, "anchor": "y3"}}
    for index, (unit, span) in enumerate(zip(units, spans, strict=True)):
        axis: dict[str, Json] = {"title": {"text": unit}, "domain": span, "rangemode": "tozero"}
        layout["yaxis" if index == 0 else f"yaxis{index + 1}"] = axis
    return layout
