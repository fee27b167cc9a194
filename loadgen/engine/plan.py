"""What one process sends in one run, as data: offsets, steps or scripts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from loadgen.clock import NS_PER_S
from loadgen.record import Int64

__all__ = ["Call", "Plan", "Script"]


class Call(NamedTuple):
    """One request of a script."""

    seq: int
    follows: bool = False  # it needs the text of the answer before it, and is left out if that failed


@dataclass(frozen=True, slots=True)
class Script:
    """The calls of one agent in a run, in order, all through one client."""

    client: int  # index into the engine's clients
    calls: tuple[Call, ...]
    think_ns: int = 0  # from the end of a call to the next


@dataclass(frozen=True, slots=True)
class Plan:
    """The requests of one process in a run: exactly one of offsets_ns (open loop), steps (closed loop) and scripts."""

    run: int
    zero_ns: int  # the run's start, absolute monotonic; the same in every process
    seqs: Sequence[int]  # in order; a closed loop may stop before it has used them all
    offsets_ns: Int64 | None = None  # shape (len(seqs),), ascending
    steps: Sequence[tuple[int, int]] | None = None  # (from this instant of the run, this many workers)
    scripts: Sequence[Script] = ()  # one per agent
    permits: int | None = None  # scripts only: agents that may be at work at once; None: all
    keep_text: bool = False  # scripts only: hand on the text of every answer, not only where a later call needs it
    duration_ns: int | None = None  # no request is begun later
    max_in_flight: int | None = None  # open loop only
    warmup_requests: int = 0  # seqs below this are not measured
    drain_ns: int = 30 * NS_PER_S
    no_progress_ns: int = 180 * NS_PER_S

    def __post_init__(self) -> None:
        if self.max_in_flight is not None and self.max_in_flight < 1:
            raise ValueError("max_in_flight must be at least 1: nothing would ever be sent")
        if self.permits is not None and self.permits < 1:
            raise ValueError("permits must be at least 1: no agent would ever begin")
