"""The charts about agents: their calls on one time axis, what running together gained, gaps second by second."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from analysis.agents.blocks import Lane
from analysis.agents.levels import Timeline
from analysis.agents.section import AgentsSection
from analysis.report.document import Chart, Json

__all__ = ["charts_of_agents", "level"]

Trace = Mapping[str, Json]

SECONDS: Json = {"title": {"text": "s since the start of the run"}, "rangemode": "tozero"}
LANE_PARTS = {"wait": "waiting to send", "ttft": "until the first token", "gap": "streaming"}  # by role


@dataclass(frozen=True, slots=True)
class Bar:
    """A part of a call in its lane."""

    lane: str
    begin_s: float
    length_s: float


def charts_of_agents(agents: AgentsSection) -> list[Chart]:
    """The charts that there are data for."""
    return [chart for chart in (_lanes(agents), _gained(agents), _timelines(agents)) if chart is not None]


def level(agents: AgentsSection) -> str:
    """The confidence of the section's intervals: 97 % where runs were added until they were narrow."""
    figures = (
        *(agents.speedup, agents.ideal_speedup, agents.efficiency, agents.heterogeneous_efficiency, agents.balance),
        *(agents.stretch, agents.overlap, agents.combined_over_solo, agents.overlap_efficiency),
    )
    levels = [figure.confidence for figure in figures if figure.confidence is not None]
    return f"{100 * levels[0]:.3g} %" if levels else "95 %"


# --- what was gained -------------------------------------------------------------------------------------------------


def _gained(agents: AgentsSection) -> Chart | None:
    """One bar of n agents: what was gained, what contention took, what imbalance took."""
    speedup, overlap = agents.speedup, agents.overlap.value
    if overlap is None:
        return None
    n, gained = len(agents.names), overlap if speedup.value is None else speedup.value
    parts = [
        ("gap", "overlap, no speedup" if speedup.value is None else "speedup", gained),
        ("failed0", "lost to contention", max(0.0, overlap - gained)),
        ("wait", "lost to imbalance", max(0.0, n - max(overlap, gained))),
    ]
    base = 0.0
    traces: list[Trace] = []
    for role, name, amount in parts:
        traces.append(_bar(role, name, ["agents"], [base], [amount], f"{name}: %{{x:.3g}}<extra></extra>"))
        base += amount
    if speedup.low is not None and speedup.high is not None:
        traces.append(_interval(speedup.low, speedup.high, level(agents)))
    return Chart(
        "What running together gained",
        "Of as many agents as ran at once. Overlap less what contention took is the speedup.",
        traces,
        {
            "xaxis": {"title": {"text": "agents' worth of work at once"}, "range": [0, n * 1.02]},
            "yaxis": {"showticklabels": False},
            "barmode": "overlay",
        },
    )


def _interval(low: float, high: float, name: str) -> Trace:
    return {
        **{"type": "scatter", "mode": "lines", "x": [low, high], "y": ["agents", "agents"]},
        **{"name": name, "role": "ink", "line": {"width": 4}, "showlegend": True, "hoverinfo": "skip"},
    }


def _bar(role: str, name: str, y: Sequence[str], base: Sequence[float], x: Sequence[float], hover: str) -> Trace:
    return {
        **{"type": "bar", "orientation": "h", "role": role, "name": name, "showlegend": True},
        **{"y": list(y), "base": list(base), "x": list(x), "hovertemplate": hover},
    }


# --- calls -----------------------------------------------------------------------------------------------------------


def _lanes(agents: AgentsSection) -> Chart | None:
    """Each agent's calls in one block, alone and together, on one time axis."""
    lanes = agents.lanes
    if lanes is None or not lanes.calls:
        return None
    bars: dict[str, list[Bar]] = {role: [] for role in LANE_PARTS}
    for call in lanes.calls:
        edges = [call.intended_s, call.sent_s, call.first_s, call.done_s]
        for role, begin, end in zip(LANE_PARTS, edges, edges[1:], strict=False):
            if begin is not None and end is not None and end > begin:
                bars[role].append(Bar(_lane(call), begin, round(end - begin, 6)))
    traces = [_lane_bar(role, bars[role]) for role in LANE_PARTS if bars[role]]
    order = list(dict.fromkeys(map(_lane, lanes.calls)))
    return Chart(
        "Call by call, alone and together",
        f"Block {lanes.block}: the concurrent run of middle length, and the same agents alone.",
        traces,
        {
            "xaxis": SECONDS,
            "yaxis": {"categoryorder": "array", "categoryarray": order[::-1], "showgrid": False},
            "barmode": "overlay",
        },
        wide=True,
    )


def _lane_bar(role: str, bars: Sequence[Bar]) -> Trace:
    name = LANE_PARTS[role]
    return _bar(
        role,
        name,
        [bar.lane for bar in bars],
        [bar.begin_s for bar in bars],
        [bar.length_s for bar in bars],
        f"%{{y}}<br>{name}: %{{x:.4g}} s<extra></extra>",
    )


def _lane(call: Lane) -> str:
    return f"{call.agent}, {call.arm}"


# --- gaps ------------------------------------------------------------------------------------------------------------


def _timelines(agents: AgentsSection) -> Chart | None:
    """The stretch of gaps second by second, one line per concurrent run."""
    timelines = agents.contention.timeline
    if not timelines:
        return None
    opacity = 0.55 if len(timelines) > 1 else 1
    longest = max(second for timeline in timelines for second in _seconds(timeline))
    alone: Trace = {
        **{"type": "scatter", "mode": "lines", "x": [0, longest], "y": [1, 1], "name": "alone", "role": "quiet"},
        **{"line": {"width": 1, "dash": "dot"}, "showlegend": False, "hoverinfo": "skip"},
    }
    # At least a tenth to either side, or noise looks like a finding.
    values = [value for timeline in timelines for value in timeline.stretch if value is not None]
    return Chart(
        "Gaps between tokens, together against alone",
        "Second by second, one line a concurrent run. Dotted: as alone.",
        [alone, *(_timeline(timeline, opacity) for timeline in timelines)],
        {
            "xaxis": SECONDS,
            "yaxis": {"title": {"text": "gap, × solo"}, "range": [min([0.9, *values]), 1.02 * max([1.1, *values])]},
        },
    )


def _timeline(timeline: Timeline, opacity: float) -> Trace:
    x = _seconds(timeline)
    hover = f"run {timeline.run}<br>%{{x:.4g}} s: %{{y:.3g}} × solo<extra></extra>"
    return {
        **{"type": "scatter", "mode": "lines+markers" if len(x) < 3 else "lines", "x": x, "y": timeline.stretch},
        **{"name": f"run {timeline.run}", "role": "gap", "hovertemplate": hover, "showlegend": False},
        **{"line": {"width": 2}, "opacity": opacity},
    }


def _seconds(timeline: Timeline) -> list[float]:
    """The middle of each bin."""
    return [timeline.from_s + (index + 0.5) * timeline.bin_s for index in range(len(timeline.stretch))]
