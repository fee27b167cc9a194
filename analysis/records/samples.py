"""The samples taken beside the runs, as series, and the value of a series in an interval.

A gauge is known at the instants it was read, and taken to hold until the next one, for two seconds at most: an
interval's gauge is that of the samples in it and of the last one before. A counter's growth over an interval is bounded
by the samples around it: it is taken between the last one before and the first one after, so that nothing that
happened inside is missed; it may include what happened just outside.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from loadgen.record import Int64

__all__ = ["EMPTY", "Samples", "Series", "greatest", "grown", "least", "read_samples", "summed"]

Float64 = NDArray[np.float64]

STALE_NS = 2_000_000_000
NO_LABELS: Mapping[str, str] = {}
_TEXTS = ("source", "name", "labels", "kind")


@dataclass(frozen=True, slots=True)
class Series:
    """One quantity over one run. at_ns ascends, on the run's clock: negative before its zero. Shapes (n,), n >= 1."""

    run: int
    source: str
    name: str
    labels: Mapping[str, str]
    counter: bool
    at_ns: Int64
    values: Float64


@dataclass(frozen=True, slots=True)
class Samples:
    """All series, ordered by run, source, name and labels."""

    series: tuple[Series, ...] = ()
    _of_run: dict[int, list[Series]] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        for series in self.series:
            self._of_run.setdefault(series.run, []).append(series)

    def find(
        self, names: str | Collection[str], run: int | None = None, labels: Mapping[str, str] = NO_LABELS
    ) -> list[Series]:
        """The series called one of `names` whose labels include `labels`."""
        wanted = (names,) if isinstance(names, str) else names
        return [
            series
            for series in (self.series if run is None else self._of_run.get(run, ()))
            if series.name in wanted and labels.items() <= series.labels.items()
        ]

    def first_of(
        self, names: Sequence[str], run: int | None = None, labels: Mapping[str, str] = NO_LABELS
    ) -> list[Series]:
        """The series of the first of `names` that was sampled: servers rename their metrics now and then."""
        return next((series for name in names if (series := self.find(name, run, labels))), [])


EMPTY = Samples()


def read_samples(paths: Iterable[Path], runs: Collection[int] | None = None) -> Samples:
    """Read telemetry.parquet, or the segments of a run that did not close; only `runs`, unless that is None."""
    tables = [pq.read_table(path, read_dictionary=list(_TEXTS)) for path in paths]
    if not tables:
        return EMPTY
    table = pa.concat_tables(tables).unify_dictionaries()
    if runs is not None:
        table = table.filter(pc.is_in(table["run"], pa.array(sorted(runs), pa.int32())))
    if table.num_rows == 0:
        return EMPTY
    run = table["run"].to_numpy().astype(np.int64)
    at_ns, values = table["time"].to_numpy(), table["value"].to_numpy()
    codes = [run]
    texts: dict[str, list[str]] = {}
    for name in _TEXTS:
        column = table[name].combine_chunks()
        column = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
        texts[name] = column.dictionary.to_pylist()
        codes.append(column.indices.to_numpy(zero_copy_only=False).astype(np.int64))
    order = np.lexsort((at_ns, *reversed(codes)))
    sorted_codes = [code[order] for code in codes]
    changes = np.any([np.diff(code) != 0 for code in sorted_codes], axis=0)
    bounds = [0, *(np.flatnonzero(changes) + 1).tolist(), len(order)]
    series = []
    for start, end in pairwise(bounds):
        place = order[start:end]
        source, name, labels, kind = (texts[t][c[start]] for t, c in zip(_TEXTS, sorted_codes[1:], strict=True))
        part = Series(
            run=int(sorted_codes[0][start]),
            source=source,
            name=name,
            labels=json.loads(labels),
            counter=kind == "counter",
            at_ns=at_ns[place],
            values=values[place],
        )
        series.append(part)
    # Codes are in order of appearance, which may differ between a closed file and its segments.
    series.sort(key=lambda item: (item.run, item.source, item.name, sorted(item.labels.items())))
    return Samples(tuple(series))


def summed(series: Sequence[Series]) -> Series | None:
    """The sum of series of one run over all their labels (the engines of a server); None if there are none.

    At an instant at which a series was not read, its last value holds.
    """
    if not series:
        return None
    first = series[0]
    if len(series) == 1:
        return first
    at_ns = np.unique(np.concatenate([part.at_ns for part in series]))
    total = np.zeros(len(at_ns))
    for part in series:
        place = np.searchsorted(part.at_ns, at_ns, side="right") - 1
        total += np.where(place >= 0, part.values[np.maximum(place, 0)], 0.0)
    return Series(first.run, first.source, first.name, {}, first.counter, at_ns, total)


def greatest(series: Series, starts_ns: Int64, ends_ns: Int64) -> Float64:
    """The greatest value in each interval, shape (n,); NaN where none was sampled. Needs starts <= ends."""
    return _extreme(series, starts_ns, ends_ns, np.maximum)


def least(series: Series, starts_ns: Int64, ends_ns: Int64) -> Float64:
    """The least value in each interval, shape (n,); NaN where none was sampled."""
    return _extreme(series, starts_ns, ends_ns, np.minimum)


def _extreme(series: Series, starts_ns: Int64, ends_ns: Int64, choose: np.ufunc) -> Float64:
    low, high = _within(series, starts_ns, ends_ns)
    sampled = high > low
    extremes = np.full(len(starts_ns), np.nan)
    if sampled.any():
        # reduceat takes [low, high) from pairs of indices; the sentinel makes the last `high` a valid index.
        values = np.append(series.values, 0.0)
        pairs = np.column_stack((low[sampled], high[sampled])).ravel()
        extremes[sampled] = choose.reduceat(values, pairs)[::2]
    return extremes


def _within(series: Series, starts_ns: Int64, ends_ns: Int64) -> tuple[Int64, Int64]:
    """[low, high): the indices of each interval's samples, which are those in it and the last one before, if fresh."""
    before = np.searchsorted(series.at_ns, starts_ns, side="right") - 1
    fresh = (before >= 0) & (starts_ns - series.at_ns[np.maximum(before, 0)] <= STALE_NS)
    low = np.where(fresh, before, before + 1)
    high = np.searchsorted(series.at_ns, ends_ns, side="right")
    return low.astype(np.int64), high.astype(np.int64)


def grown(series: Series, starts_ns: Int64, ends_ns: Int64) -> Float64:
    """The growth of a counter from the last sample before each interval to the first after it, shape (n,).

    After a decrease the counter has restarted and counts from zero. NaN where a side has no sample within two seconds.
    """
    steps = np.diff(series.values)
    total = np.concatenate(([0.0], np.cumsum(np.where(steps < 0, series.values[1:], steps))))
    before = np.searchsorted(series.at_ns, starts_ns, side="right") - 1
    after = np.searchsorted(series.at_ns, ends_ns, side="left")
    last = len(series.at_ns) - 1
    low, high = np.maximum(before, 0), np.minimum(after, last)
    bounded = (before >= 0) & (after <= last)
    bounded &= (starts_ns - series.at_ns[low] <= STALE_NS) & (series.at_ns[high] - ends_ns <= STALE_NS)
    return np.where(bounded, total[high] - total[low], np.nan)
