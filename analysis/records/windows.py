"""Which part of each run is measured, and which requests belong to it.

A window opens after warm-up and closes at the last issue, before the drain. A request belongs to it by its *intended*
time: one that was due inside but sent late, even after the window closed, stays in, for leaving it out would hide
just the waits that a user feels (coordinated omission). Its completion may fall outside; throughput counts
completions inside, so the drain never enters its denominator.

The manifest says where the windows are. That of a killed run does not, yet; then they are guessed from the records,
and the guess is noted.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.records.arms import cut_short
from analysis.records.requests import ABSENT, Bool, Requests
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
    cut_short: str | None  # why the run did not come to its end
    notes: tuple[str, ...] = ()
    stationary: bool = True  # by design: no burst, no bursts and calms, no stages
    asked_from_ns: int | None = None  # where it opened before a transient was cut; None: not judged
    cut: int = 0  # answered requests in between
    spared: int = 0  # answered requests that MSER-5 would cut as well, by chance
    steady: bool | None = None  # None: not judged

    @property
    def seconds(self) -> float:
        return max(0, self.to_ns - self.from_ns) / 1e9


def windows_of(
    manifest: Mapping[str, Any], requests: Requests, runs: Collection[int] | None = None
) -> tuple[Window, ...]:
    """Return the window of each of `runs`, in order; None: of every run with a record or an entry in the manifest."""
    entries = {entry["run"]: entry for entry in manifest.get("runs") or [] if "run" in entry}
    runs = sorted({*entries, *np.unique(requests.run).tolist()} if runs is None else runs)
    profile = manifest.get("profile") or {}
    load = profile.get("load") if isinstance(profile, dict) else None
    return tuple(_window(run, entries.get(run) or {}, load if isinstance(load, dict) else {}, requests) for run in runs)


def _window(run: int, entry: Mapping[str, Any], load: Mapping[str, Any], requests: Requests) -> Window:
    mine = requests.run == run
    notes = []
    from_ns = entry.get("measured_from_ns")
    if from_ns is None:
        from_ns = _warm_until(load, requests, mine)
        if from_ns:
            notes.append("window start guessed: after the warm-up the profile asked for")
    to_ns = entry.get("measured_to_ns")
    if to_ns is None:
        sent = requests.sent_ns[mine]
        to_ns = int(sent.max()) if len(sent) and sent.max() != ABSENT else from_ns
        notes.append("window end guessed: the last request sent")
    open_loop = entry.get("open_loop")
    arrivals = load.get("arrivals") or ("closed" if load.get("rate_per_s") is None else "poisson")
    asked = entry.get("concurrency_asked")
    return Window(
        run=run,
        from_ns=int(from_ns),
        to_ns=int(to_ns),
        offered=int(entry.get("offered") or mine.sum()),
        open_loop=arrivals != "closed" if open_loop is None else bool(open_loop),
        concurrency_asked=asked if asked is not None else load.get("concurrency"),
        concurrency_reached=entry.get("concurrency_reached"),
        most_in_flight=load.get("max_in_flight"),
        interrupted=bool(entry.get("interrupted", not entry)),
        cut_short=cut_short(entry),
        notes=tuple(notes),
        stationary=arrivals not in ("burst", "mmpp") and not load.get("stages"),
    )


def _warm_until(load: Mapping[str, Any], requests: Requests, mine: Bool) -> int:
    """Return where the warm-up asked for ended: its seconds, or the moment the first request after it was due."""
    warm = int(float(load.get("warmup_s") or 0) * 1e9)
    asked = int(load.get("warmup_requests") or 0)
    if not asked:
        return warm
    due = requests.intended_ns[mine & (requests.seq >= asked)]
    return max(warm, int(due.min()) if len(due) else 0)


def counted(windows: tuple[Window, ...]) -> tuple[Window, ...]:
    """Return the windows of the runs that estimates are over: those that came to their end, or all if none did."""
    return tuple(window for window in windows if window.cut_short is None) or windows


def measured(windows: tuple[Window, ...], requests: Requests) -> Bool:
    """Return which requests belong to the window of their run: due inside it, and not left over for want of a run."""
    inside = np.zeros(len(requests), np.bool_)
    for window in windows:
        due = (requests.intended_ns >= window.from_ns) & (requests.intended_ns <= window.to_ns)
        inside |= (requests.run == window.run) & due
    return inside & ~requests.ended(Outcome.NOT_SENT)
