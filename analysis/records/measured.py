"""Both passes over the records, put together: all that estimates and plots are made of.

Requests are put in order of (run, seq) here, so that nothing downstream depends on the order in which records reached
the disk: the same records give the same summary, byte by byte.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import numpy as np

from analysis.records import settling
from analysis.records.arms import runs_of
from analysis.records.distribution import EXACT
from analysis.records.frame import Frame
from analysis.records.requests import ABSENT, Bool, Requests, read_requests
from analysis.records.samples import EMPTY, Samples, read_samples
from analysis.records.tokens import Gaps, Series, Tokens, read_tokens
from analysis.records.windows import Window, counted, measured, windows_of
from analysis.stats.planning import confidence_of
from loadgen.manifest import Manifest
from loadgen.record import Int64

__all__ = ["Measured", "measure"]

SPARED_TOLD = 0.02  # of the answers: what MSER-5 takes from anything (METHODOLOGY 5.1) is no news

_Columns = TypeVar("_Columns", Requests, Tokens)


@dataclass(frozen=True, slots=True)
class Measured:
    """A campaign's records, read. Arrays have one place a request, ordered by run and place in the schedule."""

    manifest: Mapping[str, Any]
    notes: tuple[str, ...]
    partial: bool
    windows: tuple[Window, ...]
    requests: Requests
    tokens: Tokens
    inside: Bool  # due in the measured window of its run
    gaps: Gaps  # of answered requests inside the window; put together over the runs that estimates are over
    series: Series
    samples: Samples = EMPTY  # taken beside these runs

    @property
    def facts(self) -> Manifest:
        """The manifest as typed values. It takes the place of `manifest` as its readers follow."""
        return Manifest.from_json(self.manifest)

    @property
    def answered(self) -> Bool:
        """The requests that latencies are about: due in the window, and answered in full."""
        return self.inside & self.requests.ok

    @property
    def runs(self) -> tuple[int, ...]:
        return tuple(window.run for window in self.windows)

    @property
    def counted(self) -> Measured:
        """The same of the runs that estimates are over: those that came to their end, or all if none did."""
        return self._of(counted(self.windows))

    @property
    def left_out(self) -> Measured:
        """The same of the other runs: what they measured, but for the gaps, is to be had from here."""
        kept = counted(self.windows)
        return self._of(tuple(window for window in self.windows if window not in kept))

    def _of(self, windows: tuple[Window, ...]) -> Measured:
        mine = np.isin(self.requests.run, [window.run for window in windows])
        return replace(self, windows=windows, inside=self.inside & mine)

    @property
    def confidence(self) -> float:
        """Of the intervals."""
        return confidence_of(self.manifest)

    @property
    def interrupted(self) -> bool:
        return self.partial or any(window.interrupted for window in self.windows)

    def count_tokens(self) -> Int64:
        """Return the output tokens of each request as far as they are known; ABSENT where only events were counted."""
        told = self.requests.counted_tokens()
        counted = self.tokens.counted
        return np.where(told, self.requests.output_tokens, counted)

    def first_tokens(self) -> Int64:
        """Return the tokens in each first event; where the server did not tell, one."""
        return np.where(self.tokens.first_tokens == ABSENT, 1, self.tokens.first_tokens)


def measure(frame: Frame, exact: int = EXACT, runs: Collection[int] | None = None) -> Measured:
    """Read `frame` twice: first what each request was, then its tokens.

    runs: of which runs, as `arms.runs_of` names them; None: of the primary arm. exact: how many gaps to keep as they
    are.
    """
    there = frame.run_numbers()
    chosen = runs_of(frame.manifest, there) if runs is None else runs
    if not set(there) <= set(chosen):
        frame = frame.only(chosen)
    requests = read_requests(frame)
    windows = windows_of(frame.manifest, requests, chosen)
    samples = read_samples(frame.samples, chosen)
    m = _read(frame, requests, windows, exact, samples)
    # Whether a run had settled can be told only once its tokens were read; what is measured then is another window.
    judged = tuple(_settled(m, index) for index in range(len(windows)))
    if any(window.from_ns != asked.from_ns for window, asked in zip(judged, windows, strict=True)):
        return _read(frame, requests, judged, exact, samples)
    return replace(m, windows=judged, notes=_notes(frame, judged))


def _settled(m: Measured, index: int) -> Window:
    window, found = m.windows[index], settling.settled(m, index)
    if found is None:
        return window
    note = "no steady state: it may still have been warming up" if not found.steady else ""
    if found.cut:
        opened = f"measured from {found.from_ns / 1e9:.4g} s on instead of {window.from_ns / 1e9:.4g} s"
        note = f"{opened}: the first {found.cut} answers cut as warm-up (MSER-5)"
    elif found.spared > SPARED_TOLD * (m.answered & (m.requests.run == window.run)).sum():
        note = f"MSER-5 would cut the first {found.spared} answers; not cut: no more than chance"
    return replace(
        window,
        from_ns=found.from_ns,
        asked_from_ns=window.from_ns,
        cut=found.cut,
        spared=found.spared,
        steady=found.steady,
        notes=(*window.notes, *([note] if note else [])),
    )


def _read(frame: Frame, requests: Requests, windows: tuple[Window, ...], exact: int, samples: Samples) -> Measured:
    inside = measured(windows, requests)
    pooled = [window.run for window in counted(windows)]
    tokens, gaps, series = read_tokens(frame, requests, inside & requests.ok, exact, pooled)
    order = np.lexsort((requests.seq, requests.run))
    return Measured(
        manifest=frame.manifest,
        notes=_notes(frame, windows),
        partial=frame.partial,
        windows=windows,
        requests=_ordered(requests, order),
        tokens=_ordered(tokens, order),
        inside=inside[order],
        gaps=gaps,
        series=series,
        samples=samples,
    )


def _notes(frame: Frame, windows: tuple[Window, ...]) -> tuple[str, ...]:
    return (*frame.notes, *(f"run {window.run}: {note}" for window in windows for note in window.notes))


def _ordered(columns: _Columns, order: Int64) -> _Columns:
    arrays = {
        field.name: getattr(columns, field.name)[order]
        for field in fields(columns)
        if isinstance(getattr(columns, field.name), np.ndarray)
    }
    return replace(columns, **arrays)
