"""The token stamps: when each request's stream began and ended, and all gaps between tokens.

Second pass over the records. A batch's event lists are flattened into one array each and worked on whole; only a few
integers per request are kept, and gaps go into a Distribution, so memory does not grow with the number of tokens.

Only events that bear tokens count (reasoning, content, tool). Such an event is *censored* when another one follows it
in the same read: the read has one stamp, the last event's, so the earlier one came at that time or before. Gaps are
therefore kept twice: as stamped (the whole wait, then zeros) and spread evenly over the read. These are the two
arrangements between which the percentiles of the true gaps move; means do not move at all.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from analysis.records.distribution import EXACT, Distribution, bin_of
from analysis.records.frame import Frame
from analysis.records.requests import ABSENT, Bool, Requests
from loadgen import latency
from loadgen.record import Int64

__all__ = ["Gaps", "Series", "Tokens", "read_tokens", "token_events"]

SERIES_BINS = 240

_COLUMNS = ("event_ns", "event_kind", "event_read", "event_tokens")


@dataclass(frozen=True, slots=True)
class Tokens:
    """Per request, shape (n,), ns on the run's clock; ABSENT without a token event, or if not known."""

    first_ns: Int64
    first_least_ns: Int64  # the earliest the first token can have come; differs from first_ns if that is censored
    last_ns: Int64
    events: Int64  # token-bearing events
    censored: Int64  # of these, followed by another in the same read
    first_tokens: Int64  # tokens in the first event
    counted: Int64  # tokens reported by the events; ABSENT if an event reported none
    single: Int64  # events reported to carry exactly one token; ABSENT likewise


@dataclass(slots=True)
class Gaps:
    """Gaps between successive token events within a request."""

    stamped: Distribution  # of the runs that estimates are over
    by_run: dict[int, Distribution]  # of every run; with one run, the same distribution
    by_endpoint: list[Distribution]  # empty with one endpoint
    moved: dict[int, int] = field(default_factory=dict)  # bin: the gaps that even spreading adds (or takes away)

    def spread(self) -> tuple[list[int], list[int]]:
        """(bins, counts) of the gaps spread evenly within reads, ascending, no empty bin."""
        counts, bins = self.stamped.counts()
        merged = dict(zip(bins, counts.tolist(), strict=True))
        for index, change in self.moved.items():
            merged[index] = merged.get(index, 0) + change
        occupied = sorted(index for index, count in merged.items() if count > 0)
        return occupied, [merged[index] for index in occupied]


@dataclass(frozen=True, slots=True)
class Series:
    """Tokens over time: the number in each of equal bins from the start of a run. Only plots use it."""

    bin_ns: int
    tokens: dict[int, Int64]  # run: shape (SERIES_BINS,)


@dataclass(frozen=True, slots=True)
class _Flat:
    """The token-bearing events of a batch, shape (events,), and the row each belongs to."""

    row: Int64
    ns: Int64
    read: Int64
    tokens: Int64  # ABSENT where not reported
    before_ns: Int64  # stamp of the event before it in the answer, of any kind, if that came in an earlier read


def read_tokens(
    frame: Frame, requests: Requests, wanted: Bool, exact: int = EXACT, pooled: Collection[int] | None = None
) -> tuple[Tokens, Gaps, Series]:
    """The token stamps of all requests, the gaps of the `wanted` ones, and tokens over time.

    pooled: the runs whose gaps are put together; None: all.
    """
    n = len(requests)
    columns = {name: np.full(n, ABSENT, np.int64) for name in Tokens.__dataclass_fields__}
    columns["events"][:] = columns["censored"][:] = 0
    endpoints = len(requests.endpoints) if len(requests.endpoints) > 1 else 0
    runs = np.unique(requests.run).tolist()
    every = Distribution(exact)
    gaps = Gaps(
        every,
        {run: Distribution(exact // len(runs)) if len(runs) > 1 else every for run in runs},
        [Distribution(exact) for _ in range(endpoints)],
    )
    series = _empty_series(requests)
    together = np.ones(n, np.bool_) if pooled is None else np.isin(requests.run, list(pooled))
    start = 0
    for batch in frame.batches(_COLUMNS):
        rows = slice(start, start + batch.num_rows)
        flat = _flatten(batch)
        _fill(columns, rows, flat, requests)
        endpoint = requests.endpoint[rows].astype(np.int64)
        _gather_gaps(gaps, flat, wanted[rows], together[rows], requests.run[rows], endpoint)
        _add_to_series(series, flat, requests.run[rows])
        start = rows.stop
    return Tokens(**columns), gaps, series


def token_events(batch: pa.RecordBatch) -> tuple[Int64, Int64]:
    """(row in the batch, stamp) of each token-bearing event, both of shape (events,), the stamp in ns.

    The batch must have the columns event_ns and event_kind.
    """
    stamps, kind = (_values(batch.column(name)) for name in ("event_ns", "event_kind"))
    row = np.repeat(np.arange(batch.num_rows), _lengths(batch.column("event_ns")))
    bearing = latency.bears_token(kind)
    return row[bearing], stamps[bearing]


def _flatten(batch: pa.RecordBatch) -> _Flat:
    lengths = _lengths(batch.column("event_ns"))
    ns, kind, read = (_values(batch.column(name)) for name in _COLUMNS[:3])
    row = np.repeat(np.arange(batch.num_rows), lengths)
    tokens = np.full(len(ns), ABSENT, np.int64)
    reported = np.repeat(_lengths(batch.column("event_tokens")) == lengths, lengths)
    tokens[reported] = _values(batch.column("event_tokens"))[: int(reported.sum())]
    before = np.full(len(ns), ABSENT, np.int64)
    earlier = (row[1:] == row[:-1]) & (read[1:] != read[:-1])
    before[1:][earlier] = ns[:-1][earlier]
    bearing = latency.bears_token(kind)
    return _Flat(row[bearing], ns[bearing], read[bearing], tokens[bearing], before[bearing])


def _lengths(column: pa.Array) -> Int64:
    return np.asarray(pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False), dtype=np.int64)


def _values(column: pa.Array) -> Int64:
    # flatten() and not .values: the latter ignores that a batch is a slice, and holds what null rows hide.
    return np.asarray(column.flatten().to_numpy(zero_copy_only=False), dtype=np.int64)


def _fill(columns: dict[str, Int64], rows: slice, flat: _Flat, requests: Requests) -> None:
    """Write the columns of one batch's requests from its events."""
    size = rows.stop - rows.start
    events = np.bincount(flat.row, minlength=size)
    some = np.flatnonzero(events)
    first = (np.cumsum(events) - events)[some]  # position of each request's first and last token event
    last = first + events[some] - 1
    at = rows.start + some
    columns["events"][rows] = events
    columns["censored"][rows] = np.bincount(flat.row[:-1][_same_read(flat)], minlength=size)
    columns["first_ns"][at] = flat.ns[first]
    columns["last_ns"][at] = flat.ns[last]
    columns["first_tokens"][at] = flat.tokens[first]
    unreported = np.bincount(flat.row[flat.tokens == ABSENT], minlength=size)[some] > 0
    counted = np.add.reduceat(np.where(flat.tokens == ABSENT, 0, flat.tokens), first) if len(first) else first
    single = np.add.reduceat((flat.tokens == 1).astype(np.int64), first) if len(first) else first
    columns["counted"][at] = np.where(unreported, ABSENT, counted)
    columns["single"][at] = np.where(unreported, ABSENT, single)
    columns["first_least_ns"][at] = _least_first(flat, first, last, requests, at)


def _same_read(flat: _Flat) -> Bool:
    """Whether each token event of the batch came in the same read as the next one; shape (events - 1,)."""
    same: Bool = (flat.row[1:] == flat.row[:-1]) & (flat.read[1:] == flat.read[:-1])
    return same


def _least_first(flat: _Flat, first: Int64, last: Int64, requests: Requests, at: Int64) -> Int64:
    """The earliest the first token can have arrived: after whatever was read before it, if it is censored."""
    stamped = flat.ns[first]
    following = np.minimum(first + 1, last)
    censored = (following > first) & (flat.read[following] == flat.read[first])
    headers = requests.headers_ns[at]
    # Equal stamps: the head came in the same read as the token, so it says nothing about it.
    floor = np.maximum(np.where(headers < stamped, headers, ABSENT), flat.before_ns[first])
    floor = np.maximum(floor, requests.sent_ns[at])
    return np.where(censored & (floor != ABSENT), np.minimum(floor, stamped), stamped)


def _gather_gaps(gaps: Gaps, flat: _Flat, wanted: Bool, pooled: Bool, run: Int64, endpoint: Int64) -> None:
    within = flat.row[1:] == flat.row[:-1]
    within &= wanted[flat.row[1:]]
    row = flat.row[1:][within]
    gap = latency.gaps(flat.ns)[within]
    joined = _same_read(flat)[within]
    for number in np.unique(run[row]).tolist() if len(gaps.by_run) > 1 else ():
        gaps.by_run[number].add(gap[run[row] == number])
    together = pooled[row]
    row, gap, joined = row[together], gap[together], joined[together]
    gaps.stamped.add(gap)
    for index, distribution in enumerate(gaps.by_endpoint):
        distribution.add(gap[endpoint[row] == index])
    if joined.any():
        _move(gaps.moved, row, gap, joined)


def _move(moved: dict[int, int], row: Int64, gap: Int64, joined: Bool) -> None:
    """Note how the histogram changes when each read's events are spread evenly over the wait before it.

    joined: shape (gaps,), whether the event that ends the gap shares the read of the event before it. A run of joined
    gaps follows the gap that waited for the read, unless the read was the request's first, before which nothing is
    known: those stay as stamped.
    """
    starts = np.flatnonzero(~joined & np.append(joined[1:] & (row[1:] == row[:-1]), False))
    if len(starts) == 0:
        return
    heads = np.flatnonzero(~joined | np.append(True, row[1:] != row[:-1]))  # where a read, or a request, begins
    ends = np.append(heads, len(gap))[np.searchsorted(heads, starts, side="right")]
    sizes = ends - starts
    waited = np.append(0, np.cumsum(gap))
    spread = np.rint((waited[ends] - waited[starts]) / sizes).astype(np.int64)
    members = np.repeat(starts - np.append(0, np.cumsum(sizes)[:-1]), sizes) + np.arange(sizes.sum())
    for bins, counts in ((bin_of(spread), sizes), (bin_of(gap[members]), np.full(len(members), -1))):
        unique, inverse = np.unique(bins, return_inverse=True)
        changes = np.bincount(inverse, weights=counts)
        for index, change in zip(unique.tolist(), changes.tolist(), strict=True):
            moved[index] = moved.get(index, 0) + round(change)


def _empty_series(requests: Requests) -> Series:
    end = int(requests.done_ns.max()) if len(requests) else 0
    runs = np.unique(requests.run).tolist()
    return Series(max(1, -(-end // SERIES_BINS)), {run: np.zeros(SERIES_BINS, np.int64) for run in runs})


def _add_to_series(series: Series, flat: _Flat, run: Int64) -> None:
    place = np.clip(flat.ns // series.bin_ns, 0, SERIES_BINS - 1)
    tokens = np.where(flat.tokens == ABSENT, 1, flat.tokens)
    for number in np.unique(run).tolist():
        chosen = run[flat.row] == number
        counts = np.bincount(place[chosen], weights=tokens[chosen], minlength=SERIES_BINS)
        series.tokens[number] += counts.astype(np.int64)
