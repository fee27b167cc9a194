"""The measured part of each run, and the requests that belong to it.

A window opens after warm-up and closes at the last issue, before the drain. A request belongs to it by its *intended*
time: one that was due inside but sent late, even after the window closed, stays in, because leaving it out would
hide just the waits that a user feels (coordinated omission). Its completion may fall outside; throughput counts
completions inside, so the drain never enters its denominator.

The manifest says where the windows are. That of a killed run does not, yet; then they are guessed from the records,
and the guess is noted.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from analysis.estimate import Note, NoteCode, note
from analysis.records.arms import CutShort, cut_short
from analysis.records.requests import ABSENT, Bool, Requests
from loadgen.manifest import LoadFacts, Manifest, RunFacts
from loadgen.record import Outcome

__all__ = ["Window", "counted", "measured", "windows_of"]


@dataclass(frozen=True, slots=True)
class Window:
    """The measured part of one run. Both ends belong to it; ns on the run's clock."""

    run: int
    from_ns: int
    to_ns: int
    offered: int  # requests the schedule had for the whole run, warm-up included
    open_loop: bool
    concurrency_asked: int | None  # of a closed loop
    concurrency_reached: int | None
    most_in_flight: int | None  # the cap of an open loop
    interrupted: bool
    cut_short: CutShort | None  # why the run did not come to its end
    notes: tuple[Note, ...] = ()
    stationary: bool = True  # by design: no burst, no bursts and calms, no stages
    asked_from_ns: int | None = None  # where it opened before a transient was cut; None: not judged
    cut: int = 0  # answered requests in between
    spared: int = 0  # answered requests that MSER-5 would cut as well, by chance
    steady: bool | None = None  # None: not judged

    @property
    def seconds(self) -> float:
        return max(0, self.to_ns - self.from_ns) / 1e9


def windows_of(manifest: Manifest, requests: Requests, runs: Collection[int] | None = None) -> tuple[Window, ...]:
    """The window of each of `runs`, in order; None: of every run with a record or an entry in the manifest."""
    entries = {entry.run: entry for entry in manifest.runs}
    runs = sorted({*entries, *np.unique(requests.run).tolist()} if runs is None else runs)
    load = manifest.load or LoadFacts()
    return tuple(_window(run, entries.get(run), load, requests) for run in runs)


def _window(run: int, entry: RunFacts | None, load: LoadFacts, requests: Requests) -> Window:
    made = entry or RunFacts(run=run, interrupted=True)
    of_run = requests.run == run
    notes = []
    from_ns, to_ns = made.measured_from_ns, made.measured_to_ns
    if from_ns is None:
        from_ns = _warm_until(load, requests, of_run)
        if from_ns:
            notes.append(note(NoteCode.START_GUESSED))
    if to_ns is None:
        sent = requests.sent_ns[of_run]
        to_ns = int(sent.max()) if len(sent) and sent.max() != ABSENT else from_ns
        notes.append(note(NoteCode.END_GUESSED))
    arrivals = load.arrivals or ("closed" if load.rate_per_s is None else "poisson")
    asked = made.concurrency_asked
    return Window(
        run=run,
        from_ns=from_ns,
        to_ns=to_ns,
        offered=made.offered or int(of_run.sum()),
        open_loop=arrivals != "closed" if made.open_loop is None else made.open_loop,
        concurrency_asked=load.concurrency if asked is None else asked,
        concurrency_reached=made.concurrency_reached,
        most_in_flight=load.max_in_flight,
        interrupted=made.interrupted,
        cut_short=cut_short(entry),
        notes=tuple(notes),
        stationary=arrivals not in ("burst", "mmpp") and not load.stages,
    )


def _warm_until(load: LoadFacts, requests: Requests, of_run: Bool) -> int:
    """The end of the warm-up that the profile asks for, ns: its seconds, or when the first request after it was due."""
    warm = int(load.warmup_s * 1e9)
    if not load.warmup_requests:
        return warm
    due = requests.intended_ns[of_run & (requests.seq >= load.warmup_requests)]
    return max(warm, int(due.min()) if len(due) else 0)


def counted(windows: tuple[Window, ...]) -> tuple[Window, ...]:
    """The windows of the runs that estimates are over: those that came to their end, or all if none did."""
    return tuple(window for window in windows if window.cut_short is None) or windows


def measured(windows: tuple[Window, ...], requests: Requests) -> Bool:
    """Whether each request belongs to the window of its run: due inside it, and sent; shape (n,)."""
    inside = np.zeros(len(requests), np.bool_)
    for window in windows:
        due = (requests.intended_ns >= window.from_ns) & (requests.intended_ns <= window.to_ns)
        inside |= (requests.run == window.run) & due
    return inside & ~requests.ended(Outcome.NOT_SENT)
