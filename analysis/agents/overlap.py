"""Who was busy beside whom: the intervals in which agents of a run overlapped, and the gaps inside and outside them.

Gap stretch takes gaps wholly inside such an interval against gaps wholly outside (METHODOLOGY 11.2); those that cross
its ends belong to neither. The events are read once more here, a batch at a time, and only sums are kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from analysis.records.calls import Calls
from analysis.records.frame import Frame
from analysis.records.requests import ABSENT, Bool
from loadgen import latency
from loadgen.record import Int64

__all__ = ["BIN_NS", "Busy", "Gaps", "busy_beside", "inside_and_touching", "read_gaps"]

Float64 = NDArray[np.float64]

BIN_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Busy:
    """When the other agents of a run had a request out, and when one of these waited for its first token.

    Keys are (run, agent); values are ascending disjoint intervals, shape (k, 2), ns.
    """

    requests: Mapping[tuple[int, int], Int64]
    prefills: Mapping[tuple[int, int], Int64]


@dataclass(frozen=True, slots=True)
class Gaps:
    """What the gaps between token events sum up to. Shape (n,), a place a call."""

    inside_ns: Int64  # gaps wholly inside the intervals in which another agent had a request out
    inside: Int64
    outside_ns: Int64  # wholly outside
    outside: Int64
    prefill_ns: Int64  # gaps that touch another agent's prefill
    prefill: Int64
    bins: Mapping[int, tuple[Float64, Float64]]  # concurrent run: per second, sum over gaps of gap and of expected gap


def busy_beside(calls: Calls) -> Busy:
    """Return for each agent of each concurrent run when the others were busy."""
    requests, prefills = {}, {}
    known = calls.concurrent & (calls.sent_ns != ABSENT) & (calls.done_ns != ABSENT)
    for run in np.unique(calls.run[known]).tolist():
        here = known & (calls.run == run)
        for agent in np.unique(calls.agent[here]).tolist():
            others = here & (calls.agent != agent)
            requests[run, agent] = _merged(calls.sent_ns[others], calls.done_ns[others])
            first = others & (calls.first_ns != ABSENT)
            prefills[run, agent] = _merged(calls.sent_ns[first], calls.first_ns[first])
    return Busy(requests, prefills)


def read_gaps(frame: Frame, calls: Calls, busy: Busy, expected_ns: Float64) -> Gaps:
    """Read the events once more and sort the gaps of each call by what the others did meanwhile.

    expected_ns: shape (agents,), the gap that each agent has when alone; NaN where not known.
    """
    n = len(calls)
    sums = {name: np.zeros(n, np.int64) for name in Gaps.__dataclass_fields__ if name != "bins"}
    bins: dict[int, tuple[Float64, Float64]] = {}
    for run in np.unique(calls.run[calls.concurrent]).tolist():
        size = int(calls.done_ns[calls.run == run].max()) // BIN_NS + 1
        bins[run] = (np.zeros(size), np.zeros(size))
    place_of = {row: place for place, row in enumerate(calls.row.tolist())}
    start = 0
    for batch in frame.batches(("event_ns", "event_kind")):
        for index in range(batch.num_rows):
            place = place_of.get(start + index)
            if place is None or not calls.concurrent[place] or not calls.ok[place]:
                continue
            stamps = _stamps(batch, index)
            if len(stamps) > 1:
                run, agent = int(calls.run[place]), int(calls.agent[place])
                _sort_gaps(sums, place, stamps, busy.requests[run, agent], busy.prefills[run, agent])
                _into_bins(bins[run], stamps, expected_ns[agent])
        start += batch.num_rows
    return Gaps(**sums, bins=bins)


def inside_and_touching(begin: Int64, end: Int64, intervals: Int64) -> tuple[Bool, Bool]:
    """Return which [begin, end] lie wholly inside one of `intervals`, and which touch any."""
    if not len(intervals):
        none = np.zeros(len(begin), np.bool_)
        return none, none
    at = np.searchsorted(intervals[:, 0], begin, side="right") - 1
    before = np.maximum(at, 0)
    after = np.minimum(at + 1, len(intervals) - 1)
    inside = (at >= 0) & (end <= intervals[before, 1])
    touching = ((at >= 0) & (begin < intervals[before, 1])) | ((at + 1 < len(intervals)) & (end > intervals[after, 0]))
    return inside, touching


def _merged(starts: Int64, ends: Int64) -> Int64:
    """Return the union of intervals as ascending disjoint ones, shape (k, 2)."""
    merged: list[list[int]] = []
    for begin, end in sorted(zip(starts.tolist(), ends.tolist(), strict=True)):
        if merged and begin <= merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], end)
        else:
            merged.append([begin, end])
    return np.array(merged, np.int64).reshape(-1, 2)


def _stamps(batch: pa.RecordBatch, index: int) -> Int64:
    """Return when the token-bearing events of one row came."""
    kinds, stamps = batch.column("event_kind")[index].values, batch.column("event_ns")[index].values
    if kinds is None or stamps is None:
        return np.empty(0, np.int64)
    bearing = latency.bears_token(kinds.to_numpy(zero_copy_only=False))
    return np.asarray(stamps.to_numpy(zero_copy_only=False), np.int64)[bearing]


def _sort_gaps(sums: dict[str, Int64], place: int, stamps: Int64, requests: Int64, prefills: Int64) -> None:
    gaps, begin, end = latency.gaps(stamps), stamps[:-1], stamps[1:]
    inside, touching = inside_and_touching(begin, end, requests)
    _, prefilling = inside_and_touching(begin, end, prefills)
    for name, chosen in (("inside", inside), ("outside", ~touching), ("prefill", prefilling)):
        sums[name][place] = int(chosen.sum())
        sums[f"{name}_ns"][place] = int(gaps[chosen].sum())


def _into_bins(bins: tuple[Float64, Float64], stamps: Int64, expected_ns: float) -> None:
    if np.isnan(expected_ns):
        return
    measured, expected = bins
    gaps, at = latency.gaps(stamps), stamps[1:] // BIN_NS
    at = np.minimum(at, len(measured) - 1)
    measured += np.bincount(at, weights=gaps, minlength=len(measured))
    expected += np.bincount(at, minlength=len(expected)) * expected_ns
