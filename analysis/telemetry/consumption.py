"""summary["energy"]: joules of the measured windows, per output token and per request. METHODOLOGY 13.

Whole boards, GPU only. The driver's energy counter where there is one, else its power readings by trapezoids. A counter
steps every 100 ms, so that a window of less than 10 s is refused, and the energy of single requests always. Nothing is
said of a server on another machine unless an exporter beside it was sampled: the boards of this one are not its own.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.estimate import EstimateJson, refused, significant
from analysis.figures import throughput
from analysis.figures.throughput import Span
from analysis.records import arms
from analysis.records.frame import Frame
from analysis.records.measured import Measured, measure
from analysis.records.requests import ABSENT
from analysis.records.samples import Series
from analysis.stats import intervals
from analysis.telemetry.energy import joules, net_of_idle

__all__ = ["energy_of", "energy_of_arms", "servers_are_here"]

Float64 = NDArray[np.float64]

LEAST_WINDOW_S = 10.0
USUAL_WINDOW_S = 60.0
COUNTER_EDGES_S = 0.2  # of power: a step of the counter at each edge of the window
POWER_ERROR = 0.05  # type B, of a sensor that was not checked against a meter
IDLE_LEAST_S = 30.0
SETTLED_NS = 5_000_000_000  # after the last answer a board keeps its clocks up for a while
LONGEST_GAP_S = 1.0  # between samples of power: more is not bridged
HERE = re.compile(r"https?://(localhost|127\.[0-9.]+|\[::1\]|0\.0\.0\.0)(?=[:/]|$)")


@dataclass(frozen=True, slots=True)
class _Board:
    name: str
    power: tuple[Series, ...]
    counter: tuple[Series, ...]


def energy_of_arms(frame: Frame, m: Measured) -> dict[str, Any] | None:
    """Return the section of the primary arm `m`, those of the other arms under `arms`; None where no board was sampled.

    frame: the whole campaign. Runs of different arms drew power for different work and are never put together.
    """
    told = energy_of(m)
    names = arms.arms(m.manifest)
    if told is None or len(names) < 2:
        return told
    first = arms.primary(m.manifest)
    there = frame.run_numbers()
    others = {}
    for name in names:
        chosen = arms.runs_of(m.manifest, there, name)
        if name != first and chosen:
            others[name] = energy_of(measure(frame, runs=chosen)) or {"refused": "no board was sampled in its runs"}
    return {"arm": first, **told, "arms": others}


def energy_of(m: Measured) -> dict[str, Any] | None:
    """Return the section; None where no board was sampled."""
    boards, reason = _boards(m)
    if reason is not None:
        return {"refused": reason}
    if not boards:
        return None
    whole = m.counted
    spans = throughput.spans_of(whole)
    shortest = min((span.to_ns - span.from_ns for span in spans), default=0) / 1e9
    counted = all(board.counter for board in boards)
    told: dict[str, Any] = {
        "method": "energy counter" if counted else "power by trapezoids",
        "boards": [board.name for board in boards],
        "window_s": [significant((span.to_ns - span.from_ns) / 1e9) for span in spans],
    }
    per_run = [_spent(boards, span, counted) for span in spans]
    refusal = None
    if shortest < LEAST_WINDOW_S:
        refusal = f"a window of {shortest:.3g} s: energy needs {LEAST_WINDOW_S:g} s or more"
    elif any(spent is None for spent in per_run):
        refusal = "samples are missing in the window"
    seconds = [(span.to_ns - span.from_ns) / 1e9 for span in spans]
    idle_w = _idle_watts(m, boards)
    relative = (COUNTER_EDGES_S / shortest if shortest else 0.0) if counted else POWER_ERROR
    spent_j = [spent for spent in per_run if spent is not None] if refusal is None else []
    net_j = [net_of_idle(j, idle_w, s) for j, s in zip(spent_j, seconds, strict=False)] if idle_w is not None else []
    rates = throughput.of_runs(whole)
    tokens, requests = (_counts(rates[name], seconds) for name in ("output_tokens_per_s", "requests_per_s"))
    notes = [f"window of less than {USUAL_WINDOW_S:g} s"] if shortest < USUAL_WINDOW_S else []
    notes += ["whole boards: whatever else ran on them is in it"]

    def per(spent: Sequence[float], counts: Sequence[float] | None, what: str) -> EstimateJson:
        if refusal is not None:
            return refused(refusal).to_json()
        if counts is None or not all(counts):
            return refused(f"no {what} were counted").to_json()
        values, whole = ([j / n for j, n in zip(each, counts, strict=True)] for each in (spent, spent_j))
        estimate = intervals.over_runs(values, len(values), m.confidence)
        # What is left above idle is as uncertain as the whole it was taken from, in joules.
        return intervals.with_instrument(estimate, relative * intervals.centre(whole)).noted(*notes).to_json()

    told |= {
        "joules": [significant(j) for j in spent_j] if refusal is None else None,
        "mean_power_w": [significant(j / s) for j, s in zip(spent_j, seconds, strict=False)] or None,
        "joules_per_output_token": per(spent_j, tokens, "output tokens"),
        "joules_per_request": per(spent_j, requests, "requests"),
        "idle_w": significant(idle_w),
        "net_joules_per_output_token": (
            per(net_j, tokens, "output tokens")
            if idle_w is not None
            else refused(f"idle power was not measured for {IDLE_LEAST_S:g} s").to_json()
        ),
    }
    return told


def _counts(rates: Sequence[float | None], seconds: Sequence[float]) -> list[float] | None:
    if any(rate is None for rate in rates):
        return None
    return [rate * s for rate, s in zip(rates, seconds, strict=True) if rate is not None]


def _boards(m: Measured) -> tuple[list[_Board], str | None]:
    """Return the boards that can be the servers' own, or why none can."""
    found = m.samples.find(("gpu_power_watts", "gpu_energy_joules_total"))
    far = [one for one in found if "exporter" in one.labels]
    near = [one for one in found if "exporter" not in one.labels]
    # Beside a server on this machine an exporter would tell of the same boards again.
    chosen = near or far if servers_are_here(m.manifest) else far
    if found and not chosen:
        return [], "the boards sampled are this machine's, the server is on another: name its exporter"
    grouped: dict[str, tuple[list[Series], list[Series]]] = {}
    for one in chosen:
        name = " at ".join(one.labels[key] for key in ("gpu", "exporter") if key in one.labels)
        grouped.setdefault(name, ([], []))[one.counter].append(one)
    return [_Board(name, tuple(power), tuple(counter)) for name, (power, counter) in sorted(grouped.items())], None


def servers_are_here(manifest: Mapping[str, Any]) -> bool:
    """Return whether all servers are reached over the loopback: then their boards are this machine's."""
    return all(HERE.match(str(target.get("url", ""))) for target in manifest.get("targets") or [])


def _spent(boards: Sequence[_Board], span: Span, counted: bool) -> float | None:
    """Return the joules of all boards over `span`; None where samples are missing."""
    total = 0.0
    for board in boards:
        series = next((one for one in (board.counter if counted else board.power) if one.run == span.run), None)
        spent = None if series is None else (_counted if counted else _integrated)(series, span.from_ns, span.to_ns)
        if spent is None:
            return None
        total += spent
    return total


def _counted(series: Series, from_ns: int, to_ns: int) -> float | None:
    if series.at_ns[0] > from_ns or series.at_ns[-1] < to_ns or (np.diff(series.values) < 0).any():
        return None
    start, end = np.interp([from_ns, to_ns], series.at_ns, series.values)
    return float(end - start)


def _integrated(series: Series, from_ns: int, to_ns: int) -> float | None:
    if series.at_ns[0] > from_ns or series.at_ns[-1] < to_ns or to_ns <= from_ns:
        return None
    inside = (series.at_ns > from_ns) & (series.at_ns < to_ns)
    edges = np.interp([from_ns, to_ns], series.at_ns, series.values)
    at_s = np.concatenate(([from_ns], series.at_ns[inside], [to_ns])) / 1e9
    if float(np.diff(at_s).max()) > LONGEST_GAP_S:
        return None
    return joules(at_s, np.concatenate((edges[:1], series.values[inside], edges[1:])))


def _idle_watts(m: Measured, boards: Sequence[_Board]) -> float | None:
    """Return the power of all boards while nothing was asked of them, if that was seen for long enough."""
    total = 0.0
    for board in boards:
        energy = seconds = 0.0
        for series in board.power:
            done = m.requests.done_ns[(m.requests.run == series.run) & (m.requests.done_ns != ABSENT)]
            last_ns = int(done.max()) + SETTLED_NS if len(done) else 0
            for from_ns, to_ns in ((int(series.at_ns[0]), 0), (last_ns, int(series.at_ns[-1]))):
                spent = _integrated(series, from_ns, to_ns) if to_ns > from_ns else None
                if spent is not None:
                    energy += spent
                    seconds += (to_ns - from_ns) / 1e9
        if seconds < IDLE_LEAST_S:
            return None
        total += energy / seconds
    return total if math.isfinite(total) else None
