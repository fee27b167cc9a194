"""The records of a directory, each part read once: whoever needs one asks the Reading, which keeps it.

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

SPARED_NOTED = 0.02  # of the answers: what MSER-5 takes from anything (METHODOLOGY 5.1) is no news

_Columns = TypeVar("_Columns", Requests, Tokens)


class Reading:
    """The records of one directory. What was read of them once is kept: memory grows with what was asked for."""

    def __init__(self, frame: Frame) -> None:
        self.frame = frame
        self._measured: dict[tuple[int, ...], Measured] = {}

    @property
    def facts(self) -> Manifest:
        """The directory's manifest."""
        return self.frame.facts

    @cached_property
    def run_numbers(self) -> tuple[int, ...]:
        """The runs that have a record, ascending."""
        return self.frame.run_numbers()

    @property
    def measured(self) -> Measured:
        """What was measured in the runs of the primary arm."""
        return self.of_runs(runs_of(self.facts, self.run_numbers))

    def of_arm(self, arm: str) -> Measured:
        """What was measured in the runs of `arm`."""
        return self.of_runs(runs_of(self.facts, self.run_numbers, arm))

    def of_runs(self, runs: Collection[int]) -> Measured:
        """What was measured in `runs`, in ascending order."""
        chosen = tuple(sorted(runs))
        if chosen not in self._measured:
            self._measured[chosen] = _measure(self.frame, self.run_numbers, chosen, EXACT)
        return self._measured[chosen]

    @cached_property
    def calls(self) -> Calls:
        """The calls of agents, over the solo arms and the concurrent one."""
        return read_calls(self.frame)


def reading_of(source: str | Path | Frame | Reading) -> Reading:
    """The reading of a directory, or of what was read of one before. Raises NoRecordsError."""
    if isinstance(source, Reading):
        return source
    return Reading(source if isinstance(source, Frame) else load(source))


def measure(frame: Frame, exact: int = EXACT, runs: Collection[int] | None = None) -> Measured:
    """What was measured, by two passes over `frame`: first what each request was, then its tokens.

    runs: of which runs, as `arms.runs_of` names them; None: of the primary arm. exact: how many gaps to keep as they
    are.
    """
    there = frame.run_numbers()
    return _measure(frame, there, runs_of(frame.facts, there) if runs is None else runs, exact)


def _measure(frame: Frame, there: Collection[int], chosen: Collection[int], exact: int) -> Measured:
    if not set(there) <= set(chosen):
        frame = frame.only(chosen)
    requests = read_requests(frame)
    windows = windows_of(frame.facts, requests, chosen)
    samples = read_samples(frame.samples, chosen)
    m = _read(frame, requests, windows, exact, samples)
    # Whether a run had settled is known only once its tokens were read; what is measured then is another window.
    judged = tuple(_settled(m, index) for index in range(len(windows)))
    if any(window.from_ns != asked.from_ns for window, asked in zip(judged, windows, strict=True)):
        return _read(frame, requests, judged, exact, samples)
    return replace(m, windows=judged, notes=_notes(frame, judged))


def _settled(m: Measured, index: int) -> Window:
    window, found = m.windows[index], settling.settled(m, index)
    if found is None:
        return window
    notes = [] if found.steady else [note(NoteCode.NO_STEADY_STATE)]
    if found.cut:
        from_s, asked_s = found.from_ns / 1e9, window.from_ns / 1e9
        notes = [note(NoteCode.CUT_AS_WARM_UP, from_s=from_s, asked_s=asked_s, cut=found.cut)]
    elif found.spared > SPARED_NOTED * (m.answered & (m.requests.run == window.run)).sum():
        notes = [note(NoteCode.SPARED, spared=found.spared)]
    return replace(
        window,
        from_ns=found.from_ns,
        asked_from_ns=window.from_ns,
        cut=found.cut,
        spared=found.spared,
        steady=found.steady,
        notes=(*window.notes, *notes),
    )


def _read(frame: Frame, requests: Requests, windows: tuple[Window, ...], exact: int, samples: Samples) -> Measured:
    inside = measured(windows, requests)
    pooled = [window.run for window in counted(windows)]
    tokens, gaps, series = read_tokens(frame, requests, inside & requests.ok, exact, pooled)
    order = np.lexsort((requests.seq, requests.run))
    return Measured(
        manifest=frame.manifest,
        facts=frame.facts,
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
