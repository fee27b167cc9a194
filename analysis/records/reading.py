"""The records of a directory, each part read once and kept by a Reading.

Requests are put in order of (run, seq) here, so that nothing downstream depends on the order in which records reached
the disk: the same records give the same summary, byte by byte.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields, replace
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np

from analysis.estimate import Note, NoteCode, note
from analysis.records import settling
from analysis.records.arms import runs_of
from analysis.records.calls import Calls, read_calls
from analysis.records.distribution import EXACT
from analysis.records.frame import Frame, load
from analysis.records.measured import Measured
from analysis.records.requests import Requests, read_requests
from analysis.records.samples import Samples, read_samples
from analysis.records.tokens import Tokens, read_tokens
from analysis.records.windows import Window, counted, measured, windows_of
from loadgen.manifest import Manifest
from loadgen.record import Int64

__all__ = ["Reading", "measure", "reading_of"]

# of the answers: MSER-5 takes that share from any series (docs/methodology.md#warm-up), so it is no news
SPARED_NOTED = 0.02

_Columns = TypeVar("_Columns", Requests, Tokens)


class Reading:
    """The records of one directory. Each part that was read is kept, so memory grows with the parts in use."""

    def __init__(self, frame: Frame) -> None:
        self.frame = frame
        self._measured: dict[tuple[int, ...], Measured] = {}

    @property
    def manifest(self) -> Manifest:
        """The directory's manifest."""
        return self.frame.manifest

    @cached_property
    def run_numbers(self) -> tuple[int, ...]:
        """The runs that have a record, ascending."""
        return self.frame.run_numbers()

    @property
    def measured(self) -> Measured:
        """The data of the primary arm's runs."""
        return self.of_runs(runs_of(self.manifest, self.run_numbers))

    def of_arm(self, arm: str) -> Measured:
        """The data of the runs of `arm`."""
        return self.of_runs(runs_of(self.manifest, self.run_numbers, arm))

    def of_runs(self, runs: Collection[int]) -> Measured:
        """The data of `runs`, in ascending order."""
        chosen = tuple(sorted(runs))
        if chosen not in self._measured:
            self._measured[chosen] = _measure(self.frame, self.run_numbers, chosen, EXACT)
        return self._measured[chosen]

    @cached_property
    def calls(self) -> Calls:
        """The calls of agents, over the solo arms and the concurrent one."""
        return read_calls(self.frame)


def reading_of(source: str | Path | Frame | Reading) -> Reading:
    """The reading of a directory or of its frame; a reading is returned as it is. Raises NoRecordsError."""
    if isinstance(source, Reading):
        return source
    return Reading(source if isinstance(source, Frame) else load(source))


def measure(frame: Frame, exact: int = EXACT, runs: Collection[int] | None = None) -> Measured:
    """The data of some runs, by two passes over `frame`: first over requests, then over their tokens.

    runs: their numbers; None: the runs of the primary arm. exact: the number of gaps up to which each is kept.
    """
    numbers = frame.run_numbers()
    return _measure(frame, numbers, runs_of(frame.manifest, numbers) if runs is None else runs, exact)


def _measure(frame: Frame, numbers: Collection[int], chosen: Collection[int], exact: int) -> Measured:
    if not set(numbers) <= set(chosen):
        frame = frame.only(chosen)
    requests = read_requests(frame)
    windows = windows_of(frame.manifest, requests, chosen)
    samples = read_samples(frame.samples, chosen)
    m = _read(frame, requests, windows, exact, samples)
    # Whether a run has settled is known only once its tokens are read; then its window may open later.
    judged = tuple(_settled(m, index) for index in range(len(windows)))
    if any(window.from_ns != asked.from_ns for window, asked in zip(judged, windows, strict=True)):
        return _read(frame, requests, judged, exact, samples)
    return replace(m, windows=judged, notes=_notes(frame, judged))


def _settled(m: Measured, index: int) -> Window:
    window, state = m.windows[index], settling.settled(m, index)
    if state is None:
        return window
    notes = [] if state.steady else [note(NoteCode.NO_STEADY_STATE)]
    if state.cut:
        from_s, asked_s = state.from_ns / 1e9, window.from_ns / 1e9
        notes = [note(NoteCode.CUT_AS_WARM_UP, from_s=from_s, asked_s=asked_s, cut=state.cut)]
    elif state.spared > SPARED_NOTED * (m.answered & (m.requests.run == window.run)).sum():
        notes = [note(NoteCode.SPARED, spared=state.spared)]
    return replace(
        window,
        from_ns=state.from_ns,
        asked_from_ns=window.from_ns,
        cut=state.cut,
        spared=state.spared,
        steady=state.steady,
        notes=(*window.notes, *notes),
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


def _notes(frame: Frame, windows: tuple[Window, ...]) -> tuple[Note, ...]:
    return (*frame.notes, *(note.of_run(window.run) for window in windows for note in window.notes))


def _ordered(columns: _Columns, order: Int64) -> _Columns:
    arrays = {
        field.name: getattr(columns, field.name)[order]
        for field in fields(columns)
        if isinstance(getattr(columns, field.name), np.ndarray)
    }
    return replace(columns, **arrays)
