"""What was sampled while calls were out, as signs of what slowed them down: queue, cache, clocks, lost segments.

A sign is circumstantial. It is left out for an agent that has it when alone, because then it is no difference between
alone and together. How far apart the samples were goes with each sign. docs/methodology.md#causes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from analysis.estimate import Bool, Float64
from analysis.records.calls import Calls
from analysis.records.requests import ABSENT
from analysis.records.samples import Samples
from analysis.telemetry.pressure import CLOCK_DROP, Pressure, pressure
from loadgen.record import Int64

__all__ = ["KV_FULL", "Signs", "signs_of"]

KV_FULL = 0.95
USUAL = 0.1  # of an agent's solo calls: what more of them have is usual for it

_GAPS = ("gap_s", "board_gap_s", "host_gap_s")
_SAMPLED = (
    *("waiting", "kv_usage", "preemptions", "queued_s", "queue_s", "throttled", "clock_drop", "retransmits"),
    *_GAPS,
)


@dataclass(frozen=True, slots=True)
class Signs:
    """Shape (n,), an element per call. NaN and False where nothing was sampled."""

    waiting: Bool  # requests were seen in the server's queue
    queue_s: Float64  # mean queue time of the requests that the server finished while the call was out
    queued_s: Float64  # of all of them together: this call cannot have queued for longer
    cache: Bool  # KV cache nearly full, or requests put back for want of it
    clock_drop: Float64  # share by which a board's clock was low; 0 where that is usual
    throttled: Bool  # a board's driver named a reason to lower the clocks, and the clocks are not known
    resent: Bool  # TCP segments were sent again
    server_gap_s: Float64  # longest time between two samples in that run: of the server,
    board_gap_s: Float64  # of the boards,
    host_gap_s: Float64  # of this host

    def queue(self, place: int, at_least_ns: float) -> bool:
        """Whether the call waited in a queue at least that long. What the server counted goes before what was seen."""
        if self.no_queue(place, at_least_ns):
            return False
        return bool(self.queue_s[place] * 1e9 >= at_least_ns) or bool(self.waiting[place])

    def no_queue(self, place: int, at_least_ns: float) -> bool:
        """Whether the server's own count rules out that the call queued that long."""
        return bool(self.queued_s[place] * 1e9 < at_least_ns)

    def clocks(self, place: int, slower: float) -> bool:
        """Whether clocks were so low that this alone makes things slower by that share; 0.1: a tenth."""
        drop = float(self.clock_drop[place])
        if np.isnan(drop):
            return bool(self.throttled[place])
        return drop > CLOCK_DROP and (drop >= 1 or 1 / (1 - drop) - 1 >= slower)


def signs_of(samples: Samples, calls: Calls, begin_ns: Int64, end_ns: Int64, *, servers_are_here: bool) -> Signs:
    """The signs sampled during [begin, end] of each call, shape (n,) each; ABSENT where it has no such time.

    servers_are_here: whether all servers run on this machine, so that its boards are theirs.
    """
    if not servers_are_here:
        series = tuple(row for row in samples.series if "gpu" not in row.labels or "exporter" in row.labels)
        samples = Samples(series)
    values = {name: np.full(len(calls), np.nan) for name in _SAMPLED}
    known = (begin_ns != ABSENT) & (end_ns != ABSENT) & (end_ns >= begin_ns) & (calls.done_ns >= calls.sent_ns)
    known &= (calls.sent_ns != ABSENT) & (calls.done_ns != ABSENT)
    if samples.series:
        for run, endpoint in sorted(set(zip(calls.run[known].tolist(), calls.endpoint[known].tolist(), strict=True))):
            places = np.flatnonzero(known & (calls.run == run) & (calls.endpoint == endpoint))
            _read(values, places, samples, calls, (begin_ns[places], end_ns[places]))
    unusual = {
        "waiting": values["waiting"] > 0,
        "cache": (values["kv_usage"] > KV_FULL) | (values["preemptions"] > 0),
        "dropped": values["clock_drop"] > CLOCK_DROP,
        "throttled": (values["throttled"] > 0) & np.isnan(values["clock_drop"]),
        "resent": values["retransmits"] > 0,
    }
    for sign in unusual.values():
        _drop_usual(sign, calls)
    return Signs(
        waiting=unusual["waiting"],
        queue_s=values["queue_s"],
        queued_s=values["queued_s"],
        cache=unusual["cache"],
        clock_drop=np.where(unusual["dropped"] | np.isnan(values["clock_drop"]), values["clock_drop"], 0.0),
        throttled=unusual["throttled"],
        resent=unusual["resent"],
        server_gap_s=values["gap_s"],
        board_gap_s=values["board_gap_s"],
        host_gap_s=values["host_gap_s"],
    )


def _read(
    values: dict[str, Float64], places: Int64, samples: Samples, calls: Calls, interval_ns: tuple[Int64, Int64]
) -> None:
    """Fill in what bore on the calls at `places`, which are of one run and one endpoint."""
    run, endpoint = int(calls.run[places[0]]), calls.endpoints[int(calls.endpoint[places[0]])]
    # Servers count a request's queue time when it is finished, so theirs are asked about the whole call.
    starts = np.concatenate((interval_ns[0], calls.sent_ns[places]))
    ends = np.concatenate((interval_ns[1], calls.done_ns[places]))
    both: Pressure = pressure(samples, run, endpoint, starts, ends)
    n = len(places)
    for name in _SAMPLED:
        if name in _GAPS:
            values[name][places] = getattr(both, name)
        else:
            values[name][places] = getattr(both, name)[n:] if name.startswith("queue") else getattr(both, name)[:n]


def _drop_usual(sign: Bool, calls: Calls) -> None:
    for agent in range(len(calls.agents)):
        of_agent = calls.agent == agent
        alone = of_agent & ~calls.concurrent
        if alone.any() and sign[alone].mean() > USUAL:
            sign[of_agent] = False
