"""summary["energy"]: joules of the measured windows, per output token and per request.

See docs/methodology.md#energy.

Whole boards, GPU only. The driver's energy counter where there is one, else its power readings by trapezoids. A counter
steps every 100 ms, so that a window of less than 10 s is refused, and the energy of single requests always. A
server on another machine has no figure unless an exporter beside it was sampled: this machine's boards are not its own.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from msgspec import UNSET, Struct, UnsetType, structs

from analysis.estimate import Figure, Note, NoteCode, note, refused, significant
from analysis.figures import throughput
from analysis.figures.throughput import Span
from analysis.records import arms
from analysis.records.measured import Measured
from analysis.records.reading import Reading
from analysis.records.requests import ABSENT
from analysis.records.samples import Series
from analysis.stats import intervals
from analysis.telemetry.energy import joules, net_of_idle
from loadgen.manifest import Manifest

__all__ = ["EnergySection", "energy_of", "energy_of_arms", "servers_are_here"]

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


class EnergySection(Struct, frozen=True, kw_only=True):
    """Joules of the measured windows, whole boards. Either `refused` has the reason for none, or the rest is set.

    window_s, joules, mean_power_w: one value per run. arms: the other arms of the campaign, where it has several.
    """

    arm: str | UnsetType | None = UNSET
    refused: str | UnsetType = UNSET
    method: str | UnsetType = UNSET
    boards: tuple[str, ...] | UnsetType = UNSET
    window_s: tuple[float | None, ...] | UnsetType = UNSET
    joules: tuple[float | None, ...] | UnsetType | None = UNSET
    mean_power_w: tuple[float | None, ...] | UnsetType | None = UNSET
    joules_per_output_token: Figure | UnsetType = UNSET
    joules_per_request: Figure | UnsetType = UNSET
    idle_w: float | UnsetType | None = UNSET
    net_joules_per_output_token: Figure | UnsetType = UNSET
    arms: dict[str, EnergySection] | UnsetType = UNSET


def energy_of_arms(reading: Reading, m: Measured) -> EnergySection | None:
    """The section of the primary arm `m`, the other arms under `arms`; None where no board was sampled.

    reading: of the whole campaign. Runs of different arms drew power for different work and are never put together.
    """
    section = energy_of(m)
    names = arms.arms(m.manifest)
    if section is None or len(names) < 2:
        return section
    first = arms.primary(m.manifest)
    others = {}
    for name in names:
        chosen = arms.runs_of(m.manifest, reading.run_numbers, name)
        if name != first and chosen:
            unsampled = EnergySection(refused="no board was sampled in its runs")
            others[name] = energy_of(reading.of_runs(chosen)) or unsampled
    return structs.replace(section, arm=first, arms=others)


def energy_of(m: Measured) -> EnergySection | None:
    """The section; None where no board was sampled."""
    boards, reason = _boards(m)
    if reason is not None:
        return EnergySection(refused=reason)
    return _spent_by(boards, m) if boards else None


def _spent_by(boards: Sequence[_Board], m: Measured) -> EnergySection:
    whole = m.counted
    spans = throughput.spans_of(whole)
    seconds = [(span.to_ns - span.from_ns) / 1e9 for span in spans]
    shortest = min(seconds, default=0.0)
    counted = all(board.counter for board in boards)
    per_run = [_spent(boards, span, counted) for span in spans]
    refusal = None
    if shortest < LEAST_WINDOW_S:
        refusal = note(NoteCode.SHORT_ENERGY_WINDOW, window_s=shortest, least_s=LEAST_WINDOW_S)
    elif any(spent is None for spent in per_run):
        refusal = note(NoteCode.SAMPLES_MISSING)
    spent_j = [spent for spent in per_run if spent is not None] if refusal is None else []
    idle_w = _idle_watts(m, boards)
    net_j = [net_of_idle(j, idle_w, s) for j, s in zip(spent_j, seconds, strict=False)] if idle_w is not None else []
    rates = throughput.of_runs(whole)
    tokens, requests = (_counts(rates[name], seconds) for name in ("output_tokens_per_s", "requests_per_s"))
    notes = [note(NoteCode.WINDOW_BELOW_USUAL, usual_s=USUAL_WINDOW_S)] if shortest < USUAL_WINDOW_S else []
    costs = _Costs(
        refusal,
        spent_j,
        (COUNTER_EDGES_S / shortest if shortest else 0.0) if counted else POWER_ERROR,
        m.confidence,
        (*notes, note(NoteCode.WHOLE_BOARDS)),
    )
    unknown_idle = refused(note(NoteCode.IDLE_UNKNOWN, least_s=IDLE_LEAST_S)).figure()
    return EnergySection(
        method="energy counter" if counted else "power by trapezoids",
        boards=tuple(board.name for board in boards),
        window_s=tuple(significant(second) for second in seconds),
        joules=tuple(significant(j) for j in spent_j) if refusal is None else None,
        mean_power_w=tuple(significant(j / s) for j, s in zip(spent_j, seconds, strict=False)) or None,
        joules_per_output_token=costs.per(spent_j, tokens, "output tokens"),
        joules_per_request=costs.per(spent_j, requests, "requests"),
        idle_w=significant(idle_w),
        net_joules_per_output_token=(costs.per(net_j, tokens, "output tokens") if idle_w is not None else unknown_idle),
    )


@dataclass(frozen=True, slots=True)
class _Costs:
    """The parts that every figure of joules per unit has in common."""

    refusal: Note | None
    spent_j: Sequence[float]  # per run, idle power included
    relative_error: float  # type B, of spent_j
    confidence: float
    notes: tuple[Note, ...]

    def per(self, joules_of_runs: Sequence[float], counts: Sequence[float] | None, what: str) -> Figure:
        """Joules per one of `counts`, which has a value per run; None or a zero there refuses it."""
        if self.refusal is not None:
            return refused(self.refusal).figure()
        if counts is None or not all(counts):
            return refused(note(NoteCode.NOTHING_COUNTED, what=what)).figure()
        values, whole = (
            [j / n for j, n in zip(of_runs, counts, strict=True)] for of_runs in (joules_of_runs, self.spent_j)
        )
        estimate = intervals.over_runs(values, len(values), self.confidence)
        # The energy above idle is as uncertain, in joules, as the whole energy.
        widened = intervals.with_instrument(estimate, self.relative_error * intervals.centre(whole))
        return widened.noted(*self.notes).figure()


def _counts(rates: Sequence[float | None], seconds: Sequence[float]) -> list[float] | None:
    if any(rate is None for rate in rates):
        return None
    return [rate * s for rate, s in zip(rates, seconds, strict=True) if rate is not None]


def _boards(m: Measured) -> tuple[list[_Board], str | None]:
    """The boards that can be the servers' own, or why none can."""
    sampled = m.samples.find(("gpu_power_watts", "gpu_energy_joules_total"))
    far = [series for series in sampled if "exporter" in series.labels]
    near = [series for series in sampled if "exporter" not in series.labels]
    # Beside a server on this machine an exporter would report the same boards again.
    chosen = near or far if servers_are_here(m.manifest) else far
    if sampled and not chosen:
        return [], "the boards sampled are this machine's, the server is on another: name its exporter"
    grouped: dict[str, tuple[list[Series], list[Series]]] = {}
    for series in chosen:
        name = " at ".join(series.labels[key] for key in ("gpu", "exporter") if key in series.labels)
        grouped.setdefault(name, ([], []))[series.counter].append(series)
    return [_Board(name, tuple(power), tuple(counter)) for name, (power, counter) in sorted(grouped.items())], None


def servers_are_here(manifest: Manifest) -> bool:
    """Whether all servers are reached over the loopback: then their boards are this machine's."""
    return all(HERE.match(target.url) for target in manifest.targets)


def _spent(boards: Sequence[_Board], span: Span, counted: bool) -> float | None:
    """The joules of all boards over `span`; None where samples are missing."""
    total = 0.0
    for board in boards:
        parts = board.counter if counted else board.power
        series = next((part for part in parts if part.run == span.run), None)
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
    """The power of all boards without load, W; None unless that was sampled for IDLE_LEAST_S."""
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
