"""What the page's charts are drawn of: curves of latencies, runs over time, single requests, and what was sampled."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.figures.curves import RUNS_DRAWN, Curves, curves_of
from analysis.figures.timeline import Timeline, timeline_of
from analysis.records import latency
from analysis.records.measured import Measured
from analysis.records.requests import ABSENT, Bool
from analysis.stats.quantiles import Sorted, SortedArray
from analysis.telemetry.lines import BoardLines, ServerLines, board_lines, server_lines
from loadgen.record import Int64

__all__ = ["Drawn", "Stage", "Waterfall", "drawn_of"]

REQUESTS_DRAWN = 48

Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of some requests: rows in the picture, when it began and how long it took; s, shapes (n,)."""

    rows: Int64
    begin_s: Float64
    length_s: Float64


@dataclass(frozen=True, slots=True)
class Waterfall:
    """Successive requests from the middle of the first run, by stage. seq: the number of each, one per row."""

    seq: tuple[int, ...]
    waiting: Stage
    first_token: Stage
    streaming: Stage
    failed: Stage


@dataclass(frozen=True, slots=True)
class Drawn:
    """The data of the charts. ttft, gaps: ms; None where there are none. measured_s: the window that all runs share."""

    ttft: Curves | None
    gaps: Curves | None
    timelines: tuple[Timeline, ...]
    tokens_counted: bool  # by the server; else an event counts as one
    measured_s: tuple[float, float] | None
    waterfall: Waterfall | None
    servers: tuple[ServerLines, ...]
    boards: tuple[BoardLines, ...]


def drawn_of(m: Measured) -> Drawn:
    """The data of the charts about `m`."""
    ttft, whole = latency.ttft(m), m.counted
    answered = whole.answered & ~np.isnan(ttft)
    requests = [SortedArray(ttft[answered & (m.requests.run == run)] / 1e6) for run in whole.runs]
    gap_runs = [_Ms(m.gaps.by_run[run]) for run in whole.runs if run in m.gaps.by_run]
    return Drawn(
        ttft=curves_of(SortedArray(ttft[answered] / 1e6), requests),
        gaps=curves_of(_Ms(m.gaps.stamped), gap_runs, clustered=True),
        timelines=tuple(timeline_of(m, run) for run in m.runs[:RUNS_DRAWN]),
        tokens_counted=bool((m.tokens.counted != ABSENT)[m.tokens.events > 0].all()),
        measured_s=_shared_window(m),
        waterfall=_waterfall(m),
        servers=server_lines(m),
        boards=board_lines(m),
    )


class _Ms:
    """A distribution of nanoseconds, in milliseconds."""

    def __init__(self, data: Sorted) -> None:
        self._data = data
        self.n = data.n

    def at(self, rank: int) -> float:
        return self._data.at(rank) / 1e6


def _shared_window(m: Measured) -> tuple[float, float] | None:
    """The measured window, if all runs have the same one, near enough; s from the start of the run."""
    if not m.windows:
        return None
    first = m.windows[0]
    slack = 0.02 * max(1, first.to_ns - first.from_ns)
    alike = all(abs(w.from_ns - first.from_ns) <= slack and abs(w.to_ns - first.to_ns) <= slack for w in m.windows)
    return (first.from_ns / 1e9, first.to_ns / 1e9) if alike and first.to_ns > first.from_ns else None


def _waterfall(m: Measured) -> Waterfall | None:
    chosen = _sample(m)
    if not len(chosen):
        return None
    requests, tokens = m.requests, m.tokens
    due, sent = requests.intended_ns[chosen], requests.sent_ns[chosen]
    first, last, done = tokens.first_ns[chosen], tokens.last_ns[chosen], requests.done_ns[chosen]
    ok = requests.ok[chosen]
    return Waterfall(
        seq=tuple(requests.seq[chosen].tolist()),
        waiting=_stage(due, sent, ok & (sent - due > 0)),
        first_token=_stage(sent, first, ok & (first != ABSENT)),
        streaming=_stage(first, last, ok & (first != ABSENT)),
        failed=_stage(np.where(sent == ABSENT, due, sent), done, ~ok & (done != ABSENT)),
    )


def _stage(begin: Int64, end: Int64, chosen: Bool) -> Stage:
    return Stage(np.flatnonzero(chosen), begin[chosen] / 1e9, (end - begin)[chosen] / 1e9)


def _sample(m: Measured) -> Int64:
    if not m.windows:
        return np.empty(0, np.int64)
    ended = (m.requests.run == m.windows[0].run) & (m.requests.done_ns != ABSENT)
    candidates = np.flatnonzero(ended & m.inside)
    if len(candidates) == 0:
        candidates = np.flatnonzero(ended)
    candidates = candidates[np.argsort(m.requests.intended_ns[candidates], kind="stable")]
    start = max(0, (len(candidates) - REQUESTS_DRAWN) // 2)
    return candidates[start : start + REQUESTS_DRAWN]
