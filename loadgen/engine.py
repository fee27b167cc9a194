"""One run: a plan through clients, records out. Owns the tasks, the stop and the drain.

Closed loop: workers, each bound to one client, send their next request when the last is answered. Open loop: one
dispatcher sends at absolute instants; one that is late sends at once and the record shows it. A cap on requests in
flight makes the dispatcher wait, and the wait counts, because `intended_ns` stays what the schedule said.

Nothing here interprets an answer. Stopping has two steps: no new requests; then, after the drain limit, what is still
in flight is cancelled and recorded as such.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from loadgen.client import Client
from loadgen.clock import NS_PER_MS, NS_PER_S, RealtimeOffset, Sleeper, cpu_ns, now_ns
from loadgen.record import Int64, Record
from loadgen.transport import Answer
from loadgen.wire import Ask

__all__ = ["Engine", "Health", "Plan"]

HEARTBEAT_NS = 20 * NS_PER_MS
BACKLOG = 32  # answers decoded together
BACKLOG_S = 0.05  # but no later than this
SENDS_BEFORE_YIELD = 32  # a late dispatcher lets reads in between


@dataclass(frozen=True, slots=True)
class Plan:
    """What one process sends in one run. Exactly one of offsets_ns (open loop) and steps (closed loop) is set."""

    run: int
    zero_ns: int  # the run's start, absolute monotonic; the same in every process
    seqs: Sequence[int]  # in order; a closed loop may stop before it has used them all
    offsets_ns: Int64 | None = None  # shape (len(seqs),), ascending
    steps: Sequence[tuple[int, int]] | None = None  # (from this instant of the run, this many workers)
    duration_ns: int | None = None  # no request is begun later
    max_in_flight: int | None = None  # open loop only
    warmup_requests: int = 0  # seqs below this are not measured
    drain_ns: int = 30 * NS_PER_S
    no_progress_ns: int = 180 * NS_PER_S


@dataclass(slots=True)
class Health:
    """How the instrument itself did during a run."""

    loop_lag_ns: list[int] = field(default_factory=list)  # one a heartbeat
    cpu_share: float = 0.0  # CPU seconds per second, of this process
    peak_in_flight: int = 0
    offered: int = 0  # requests the schedule had for this process
    began_ns: int = 0  # relative to the run's start
    ended_ns: int = 0
    interrupted: bool = False
    no_progress: bool = False
    first_intended_ns: int | None = None  # of the requests that are not warm-up
    last_sent_ns: int | None = None
    clock_jump_ns: int = 0  # the largest step of the wall clock against the monotonic one
    unstamped_reads: int = 0  # reads the kernel gave no stamp for


class Engine:
    """Runs one Plan. `stop()` may be called at any time, from the loop's thread."""

    def __init__(
        self,
        plan: Plan,
        clients: Sequence[Client],
        deal: Sequence[int],
        ask: Callable[[int], Ask],
        keep: Callable[[Record], None],
        offset: RealtimeOffset | None = None,
    ) -> None:
        """clients: one an endpoint. deal: client indices, dealt out in turn to workers or arrivals (their weights)."""
        self.health = Health(offered=len(plan.seqs))
        self.in_flight = 0
        self._plan, self._clients, self._deal, self._ask, self._keep = plan, clients, deal, ask, keep
        self._offset = offset
        self._stopping = False
        self._failed: Exception | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._allowed = 0  # workers that may go on
        self._seqs = iter(plan.seqs)
        self._loop = asyncio.get_running_loop()
        self._backlog: list[tuple[Client, Ask, bytes, Answer, int, int]] = []
        self._freed = asyncio.Event()
        self._emptied = asyncio.Event()
        self._stopped = asyncio.Event()
        self._finished = 0
        self._seen = (-1, 0)  # finished, reads of what is in flight

    async def run(self) -> Health:
        """Send everything the plan says and return when each request has its record.

        Raises what `keep` raised (a full disk), after the rest was cancelled.
        """
        plan, health = self._plan, self.health
        with _no_garbage_collection():
            began, cpu_before = now_ns(), cpu_ns()
            heartbeat = asyncio.create_task(self._heartbeat())
            feeder = asyncio.create_task(self._dispatch() if plan.offsets_ns is not None else self._staff())
            try:
                await self._until_done(feeder)
            finally:
                heartbeat.cancel()
                self._make_records()
                health.began_ns, health.ended_ns = began - plan.zero_ns, now_ns() - plan.zero_ns
                health.cpu_share = (cpu_ns() - cpu_before) / max(now_ns() - began, 1)
        if self._failed is not None:
            raise self._failed
        return health

    def stop(self, *, interrupted: bool = False) -> None:
        """Begin no new request; when interrupted, give up what is in flight as well."""
        self.health.interrupted |= interrupted
        self._stopping = True
        self._stopped.set()
        self._freed.set()

    def fail(self, error: Exception) -> None:
        """Something of ours is broken (a full disk, a bug): stop, and let `run` raise it."""
        self._failed = self._failed or error
        self.stop()

    async def _until_done(self, feeder: asyncio.Task[None]) -> None:
        plan = self._plan
        stopped = asyncio.create_task(self._stopped.wait())
        await asyncio.wait({feeder, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if stopped.done():
            feeder.cancel()
        await asyncio.wait({feeder})
        if not feeder.cancelled():
            feeder.result()
        drained = asyncio.create_task(self._drained())
        drain_s = plan.drain_ns / NS_PER_S
        if plan.duration_ns is None and not stopped.done():
            # Bounded by each request's own limits.
            await asyncio.wait({drained, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if not self.health.interrupted:
            await asyncio.wait({drained}, timeout=drain_s)
        stopped.cancel()
        self._cancel_all()
        await drained

    async def _drained(self) -> None:
        while self._tasks:
            self._emptied.clear()
            await self._emptied.wait()

    def _cancel_all(self) -> None:
        for client in self._clients:
            client.transport.stopping = True
        for task in self._tasks:
            task.cancel()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._reap)

    def _reap(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not self._tasks:
            self._emptied.set()

    async def _one(self, client: Client, seq: int, intended_ns: int) -> None:
        plan = self._plan
        self.in_flight += 1
        if self.in_flight > self.health.peak_in_flight:
            self.health.peak_in_flight = self.in_flight
        try:
            ask = self._ask(seq)
            answer, body = await client.send(ask, f"{plan.run}-{seq}")
            self._backlog.append((client, ask, body, answer, seq, intended_ns))
            if len(self._backlog) >= BACKLOG:
                self._make_records()
            elif len(self._backlog) == 1:
                self._loop.call_later(BACKLOG_S, self._make_records)
        except Exception as error:
            self.fail(error)  # ours, for the peer's failures are records
        finally:
            self.in_flight -= 1
            self._finished += 1
            self._freed.set()

    def _make_records(self) -> None:
        """Decode the answers that ended since the last time.

        Together, since the same code over and over runs twice as fast as between other things.
        """
        plan, backlog = self._plan, self._backlog
        self._backlog = []
        try:
            for client, ask, body, answer, seq, intended_ns in backlog:
                record = client.record(
                    ask, body, answer, run=plan.run, seq=seq, intended_ns=intended_ns, zero_ns=plan.zero_ns
                )
                self._note(record)
                self._keep(record)
        except Exception as error:
            self.fail(error)

    def _note(self, record: Record) -> None:
        health = self.health
        if record.sent_ns is not None and (health.last_sent_ns is None or record.sent_ns > health.last_sent_ns):
            health.last_sent_ns = record.sent_ns
        if record.seq >= self._plan.warmup_requests and (
            health.first_intended_ns is None or record.intended_ns < health.first_intended_ns
        ):
            health.first_intended_ns = record.intended_ns

    # Closed loop

    async def _staff(self) -> None:
        """Keep as many workers as the steps say, until the duration is over or the requests are used up."""
        plan = self._plan
        assert plan.steps is not None
        alarm = Sleeper()
        try:
            for at_ns, workers in plan.steps:
                await alarm.until(plan.zero_ns + at_ns)
                for index in range(self._allowed, workers):
                    self._spawn(self._worker(index))
                self._allowed = workers
            if plan.duration_ns is not None:
                over = asyncio.create_task(alarm.until(plan.zero_ns + plan.duration_ns))
                drained = asyncio.create_task(self._drained())
                await asyncio.wait({over, drained}, return_when=asyncio.FIRST_COMPLETED)
                over.cancel()
                drained.cancel()
                self._stopping = True
        finally:
            alarm.close()

    async def _worker(self, index: int) -> None:
        client, zero = self._clients[self._deal[index % len(self._deal)]], self._plan.zero_ns
        while not self._stopping and index < self._allowed:
            seq = next(self._seqs, None)
            if seq is None:
                return
            await self._one(client, seq, now_ns() - zero)

    # Open loop

    async def _dispatch(self) -> None:
        plan, deal = self._plan, self._deal
        assert plan.offsets_ns is not None
        alarm = Sleeper()
        late = 0
        try:
            for seq, at_ns in zip(plan.seqs, plan.offsets_ns.tolist(), strict=True):
                slept = await alarm.until(plan.zero_ns + at_ns)
                late = 0 if slept else late + 1
                if late % SENDS_BEFORE_YIELD == SENDS_BEFORE_YIELD - 1:
                    await asyncio.sleep(0)
                while plan.max_in_flight is not None and self.in_flight >= plan.max_in_flight:
                    self._freed.clear()
                    await self._freed.wait()
                if self._stopping:
                    return
                self._spawn(self._one(self._clients[deal[seq % len(deal)]], seq, at_ns))
        finally:
            alarm.close()

    # The instrument's own health

    async def _heartbeat(self) -> None:
        """Sample how late the loop is; once a second look at the clocks and for any sign of progress."""
        alarm = Sleeper()
        due = now_ns()
        progressed = second = due
        try:
            while True:
                due += HEARTBEAT_NS
                await alarm.until(due)
                present = now_ns()
                self.health.loop_lag_ns.append(present - due)
                due = max(due, present - HEARTBEAT_NS)
                if present - second < NS_PER_S:
                    continue
                second = present
                if self._offset is not None:
                    self._offset.refresh()
                if self._progressed() or not self.in_flight:
                    progressed = present
                elif present - progressed > self._plan.no_progress_ns:
                    self.health.no_progress = True
                    self.stop()
                    self._cancel_all()
        finally:
            alarm.close()

    def _progressed(self) -> bool:
        """Whether anything finished or arrived since the last call. Streams are looked at only if nothing finished."""
        seen = self._seen
        self._seen = self._finished, 0
        if self._finished == seen[0]:
            self._seen = self._finished, sum(client.transport.activity() for client in self._clients)
        return self._seen != seen


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """A full collection with many streams open stops the loop for tens of milliseconds."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


def lag_quantiles_ms(lags_ns: Sequence[int]) -> dict[str, float]:
    """Return p50, p99 and max of loop lags, in ms; empty without samples."""
    if not lags_ns:
        return {}
    p50, p99 = np.quantile(lags_ns, (0.5, 0.99))
    return {"p50": p50 / NS_PER_MS, "p99": p99 / NS_PER_MS, "max": max(lags_ns) / NS_PER_MS}
