"""Who was busy beside whom: the intervals in which agents of a run overlapped, and the gaps inside and outside them.

Gap stretch takes gaps wholly inside such an interval against gaps wholly outside (docs/methodology.md#gap-stretch);
those that cross its ends belong to neither. The events are read once more here, a batch at a time, and only sums are
kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from analysis.estimate import Bool, Float64
from analysis.records.calls import Calls
from analysis.records.frame import Frame
from analysis.records.requests import ABSENT
from analysis.records.tokens import token_events
from loadgen import latency
from loadgen.record import Int64

__all__ = ["BIN_NS", "Busy", "Gaps", "busy_beside", "inside_and_touching", "read_gaps"]

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
    """Sums over the gaps between token events. Shape (n,), an element per call."""

    inside_ns: Int64  # gaps wholly inside the intervals in which another agent had a request out
    inside: Int64
    outside_ns: Int64  # wholly outside
    outside: Int64
    prefill_ns: Int64  # gaps that touch another agent's prefill
    prefill: Int64
    bins: Mapping[int, tuple[Float64, Float64]]  # concurrent run: per second, sum over gaps of gap and of expected gap


def busy_beside(calls: Calls) -> Busy:
    """When the other agents were busy, for each agent of each concurrent run."""
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
    """The gaps of each concurrent call, sorted by what the other agents did meanwhile. The events are read once more.

    expected_ns: shape (agents,), the gap that each agent has when alone; NaN where not known.
    """
    sums = {name: np.zeros(len(calls), np.int64) for name in Gaps.__dataclass_fields__ if name != "bins"}
    bins: dict[int, tuple[Float64, Float64]] = {}
    for run in np.unique(calls.run[calls.concurrent]).tolist():
        size = int(calls.done_ns[calls.run == run].max()) // BIN_NS + 1
        bins[run] = (np.zeros(size), np.zeros(size))
    place_of = np.full(int(calls.row.max(initial=-1)) + 1, -1)  # of a row of the records; -1 where it is no such call
    usable = calls.concurrent & calls.ok
    place_of[calls.row[usable]] = np.flatnonzero(usable)
    start = 0
    for batch in frame.batches(("event_ns", "event_kind")):
        row, stamps = token_events(batch)
        row += start
        start += batch.num_rows
        followed = np.flatnonzero((row[1:] == row[:-1]) & (row[1:] < len(place_of)))
        place = place_of[row[followed]]
        followed, place = followed[place >= 0], place[place >= 0]
        begin, gaps = stamps[followed], latency.gaps(stamps)[followed]
        # One pass per agent and run, because each has neighbours of its own.
        who = calls.run[place], calls.agent[place]
        for run, agent in sorted(set(zip(*(codes.tolist() for codes in who), strict=True))):
            here = (who[0] == run) & (who[1] == agent)
            beside = busy.requests[run, agent], busy.prefills[run, agent]
            _sort_gaps(sums, place[here], begin[here], gaps[here], *beside)
            _into_bins(bins[run], begin[here], gaps[here], float(expected_ns[agent]))
    return Gaps(**sums, bins=bins)


def inside_and_touching(begin: Int64, end: Int64, intervals: Int64) -> tuple[Bool, Bool]:
    """Which [begin, end] lie wholly inside one of `intervals`, and which touch any; shape (n,) each."""
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
    """The union of intervals as ascending disjoint ones, shape (k, 2)."""
    merged: list[list[int]] = []
    for begin, end in sorted(zip(starts.tolist(), ends.tolist(), strict=True)):
        if merged and begin <= merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], end)
        else:
            merged.append([begin, end])
    return np.array(merged, np.int64).reshape(-1, 2)


def _sort_gaps(
    sums: dict[str, Int64], place: Int64, begin: Int64, gaps: Int64, requests: Int64, prefills: Int64
) -> None:
    """Add the gaps of one agent, ns from `begin` on, to the sums of their calls; place: shape (gaps,), of the calls."""
    inside, touching = inside_and_touching(begin, begin + gaps, requests)
    _, prefilling = inside_and_touching(begin, begin + gaps, prefills)
    for name, chosen in (("inside", inside), ("outside", ~touching), ("prefill", prefilling)):
        np.add.at(sums[name], place[chosen], 1)
        np.add.at(sums[f"{name}_ns"], place[chosen], gaps[chosen])


def _into_bins(bins: tuple[Float64, Float64], begin: Int64, gaps: Int64, expected_ns: float) -> None:
    if np.isnan(expected_ns):
        return
    measured, expected = bins
    at = np.minimum((begin + gaps) // BIN_NS, len(measured) - 1)
    measured += np.bincount(at, weights=gaps, minlength=len(measured))
    expected += np.bincount(at, minlength=len(expected)) * expected_ns
