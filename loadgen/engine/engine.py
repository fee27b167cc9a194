"""One run: a plan through clients, records out. Owns the tasks, the stop and the drain.

Closed loop: workers, each bound to one client, send their next request when the last is answered. Open loop: one
dispatcher sends at absolute instants; one that is late sends at once and the record shows it. A cap on requests in
flight makes the dispatcher wait, and the wait counts, because `intended_ns` stays what the schedule said. Scripts:
agents leave one barrier, the run's zero; each waits for one of the coordinator's permits, makes its calls one after the
other and gives the permit back.

Nothing here interprets an answer. Stopping has two steps: no new requests; then, after the drain limit, what is still
in flight is cancelled and recorded as such. However a run ends, no task of it outlives `run`.
"""

from __future__ import annotations

import asyncio
import gc
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

import numpy as np

from loadgen.clock import NS_PER_MS, NS_PER_S, RealtimeOffset, Sleeper, cpu_ns, now_ns
from loadgen.engine.client import Client
from loadgen.engine.health import Health
from loadgen.engine.plan import Plan, Script
from loadgen.record import Outcome, Record
from loadgen.transport import Answer
from loadgen.wire import Ask

__all__ = ["Engine"]

HEARTBEAT_NS = 20 * NS_PER_MS
BACKLOG = 32  # answers, decoded together
MOST_BACKLOG = 256  # beyond that decoding has to keep up with the answers, even if reads wait
DECODE_NS = 2 * NS_PER_MS  # at a stretch; an answer of tens of thousands of tokens takes longer all the same
BACKLOG_S = 0.05  # but no later than this
SENDS_BEFORE_YIELD = 32  # a late dispatcher lets reads in between


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
        hear: Callable[[int, str], None] | None = None,
    ) -> None:
        """clients: one per endpoint, with scripts one per agent. deal: client indices, dealt out in turn to workers or
        arrivals (their weights). hear: gets (seq, text of the answer) before the call that needs it is made.
        """
        self.health = Health(offered=len(plan.seqs))
        self.begun = self.in_flight = 0
        self._plan, self._clients, self._deal, self._ask, self._keep = plan, clients, deal, ask, keep
        self._offset, self._hear = offset, hear
        self._stopping = False
        self._failed: Exception | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._allowed = 0  # workers that may go on
        self._present: set[int] = set()  # workers that have not ended yet, perhaps busy with their last request
        self._seqs = iter(plan.seqs)
        self._loop = asyncio.get_running_loop()
        self._backlog: deque[tuple[Client, Ask, bytes, Answer, int, int]] = deque()
        self._decoding = False  # answers will be decoded in the next turn of the loop
        self._freed = asyncio.Event()
        self._used_up = self._loop.create_future()  # a closed loop has begun all its requests
        self._closed = self._loop.create_future()  # no request is begun any more: duration over, or `stop` called
        self._interrupted = self._loop.create_future()  # nor is one waited for
        self._emptied = self._loop.create_future()  # nothing is in flight; a new one for each wait
        self._finished = 0
        self._seen = (-1, 0)  # finished, reads of what is in flight

    async def run(self) -> Health:
        """The health of the process once everything in the plan is sent and each request begun has its record.

        Raises what `keep` or `ask` raised (a full disk, a bug), after the rest was answered or cancelled.
        """
        plan, health = self._plan, self.health
        with _no_garbage_collection():
            began, cpu_before = now_ns(), cpu_ns()
            heartbeat = asyncio.create_task(self._heartbeat())
            feeder = asyncio.create_task(self._feed())
            try:
                await self._until_done(feeder)
            finally:
                await self._clear_away(heartbeat, feeder)
                while self._backlog:
                    self._make_record(*self._backlog.popleft())
                health.began_ns, health.ended_ns = began - plan.zero_ns, now_ns() - plan.zero_ns
                health.cpu_share = (cpu_ns() - cpu_before) / max(now_ns() - began, 1)
        if self._failed is not None:
            raise self._failed
        return health

    def due(self) -> int:
        """The number of requests the schedule wanted sent by now; without a schedule, the number begun."""
        plan = self._plan
        if plan.offsets_ns is None:
            return self.begun
        return int(np.searchsorted(plan.offsets_ns, now_ns() - plan.zero_ns, side="right"))

    def stop(self, *, interrupted: bool = False) -> None:
        """Begin no new request; when interrupted, give up what is in flight as well."""
        self._close()
        if interrupted:
            self.health.interrupted = True
            _settle(self._interrupted)

    def fail(self, error: Exception) -> None:
        """Stop because of a fault of loadgen's host or code (a full disk, a bug), which `run` then raises."""
        self._failed = self._failed or error
        self.stop()

    async def _until_done(self, feeder: asyncio.Task[None]) -> None:
        """Wait until every request is answered or may be given up."""
        plan, first = self._plan, asyncio.FIRST_COMPLETED
        # An uncapped open loop ends with its schedule: a dispatcher that is late at the very end still sends.
        scheduled = plan.offsets_ns is not None and plan.max_in_flight is None
        over = None if scheduled else self._close_when_over()
        try:
            await asyncio.wait({feeder, self._used_up, self._closed}, return_when=first)
            feeder.cancel()
            await asyncio.wait({feeder})
            if not feeder.cancelled():
                feeder.result()
            over = over or self._close_when_over()
            # The drain limit begins when the run is over; until then requests are bounded by their own limits.
            await self._emptied_or(self._closed)
            await self._emptied_or(self._interrupted, timeout_s=plan.drain_ns / NS_PER_S)
        finally:
            if over is not None:
                over.cancel()

    def _close_when_over(self) -> asyncio.TimerHandle | None:
        plan = self._plan
        if plan.duration_ns is None:
            return None
        remaining_ns = plan.zero_ns + plan.duration_ns - now_ns()
        return self._loop.call_later(max(remaining_ns, 0) / NS_PER_S, self._close)

    async def _emptied_or(self, other: asyncio.Future[None], timeout_s: float | None = None) -> None:
        """Wait until nothing is in flight, `other` is done, or the time is over. Nothing may begin meanwhile."""
        if self._tasks:
            self._emptied = self._loop.create_future()
            await asyncio.wait({self._emptied, other}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)

    async def _clear_away(self, *helpers: asyncio.Task[None]) -> None:
        """Give up what is still in flight and wait until no task of this run is left."""
        self._close()
        self._cancel_all()
        for helper in helpers:
            helper.cancel()
        await asyncio.wait({*helpers, *self._tasks})

    def _close(self) -> None:
        self._stopping = True
        self._freed.set()
        _settle(self._closed)

    def _cancel_all(self) -> None:
        for client in self._clients:
            client.transport.stopping = True
        for task in self._tasks:
            task.cancel()

    async def _feed(self) -> None:
        plan = self._plan
        if plan.offsets_ns is not None:
            await self._dispatch()
        elif plan.steps is not None:
            await self._staff()
        else:
            await self._perform()

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._reap)

    def _reap(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        self._freed.set()
        if not self._tasks:
            _settle(self._emptied)

    async def _one(self, client: Client, seq: int, intended_ns: int, *, heed: bool = False) -> bool:
        """Make one request; the result is whether the text of its answer was handed on. heed: hand it on."""
        plan = self._plan
        self.begun += 1
        self.in_flight += 1
        client.in_flight += 1
        if self.in_flight > self.health.peak_in_flight:
            self.health.peak_in_flight = self.in_flight
        try:
            ask = self._ask(seq)
            answer, body = await client.send(ask, f"{plan.run}-{seq}")
            # The text alone: the next call waits for it, and the record need not be made yet.
            text = client.text(answer) if heed else None
            self._backlog.append((client, ask, body, answer, seq, intended_ns))
            if len(self._backlog) > MOST_BACKLOG:
                self._make_record(*self._backlog.popleft())
                client.transport.catch_up()  # many answers may end together, and tokens of others must not wait
            elif len(self._backlog) >= BACKLOG:
                self._decode_soon()
            elif len(self._backlog) == 1:
                self._loop.call_later(BACKLOG_S, self._decode_soon)
            if text is not None and self._hear is not None:
                self._hear(seq, text)
            return text is not None
        except Exception as error:
            self.fail(error)  # of loadgen, because the peer's failures are records
        finally:
            self.in_flight -= 1
            client.in_flight -= 1
            self._finished += 1
        return False

    def _decode_soon(self) -> None:
        if not self._decoding:
            self._decoding = True
            self._loop.call_soon(self._make_records)

    def _make_records(self) -> None:
        """Decode the answers that ended since the last time, for as long as reads may wait.

        Together, because the same code repeated runs twice as fast as between other work.
        """
        until_ns = now_ns() + DECODE_NS
        while self._backlog and now_ns() < until_ns:
            self._make_record(*self._backlog.popleft())
        self._decoding = False
        if self._backlog:
            self._decode_soon()

    def _make_record(self, client: Client, ask: Ask, body: bytes, answer: Answer, seq: int, intended_ns: int) -> None:
        plan = self._plan
        try:
            record = client.record(
                ask, body, answer, run=plan.run, seq=seq, intended_ns=intended_ns, zero_ns=plan.zero_ns
            )
            self._note(record)
            self._keep(record)
        except Exception as error:
            self.fail(error)  # and continue: the other answers may still get their records

    def _note(self, record: Record) -> None:
        health = self.health
        if record.sent_ns is not None and (health.last_sent_ns is None or record.sent_ns > health.last_sent_ns):
            health.last_sent_ns = record.sent_ns
        if record.done_ns is not None and (health.last_done_ns is None or record.done_ns > health.last_done_ns):
            health.last_done_ns = record.done_ns
        if record.seq >= self._plan.warmup_requests and (
            health.first_intended_ns is None or record.intended_ns < health.first_intended_ns
        ):
            health.first_intended_ns = record.intended_ns

    # Closed loop

    async def _staff(self) -> None:
        """Keep the number of workers that the steps state."""
        plan = self._plan
        assert plan.steps is not None
        alarm = Sleeper()
        try:
            for at_ns, workers in plan.steps:
                await alarm.until(plan.zero_ns + at_ns)
                self._allowed = workers
                for index in range(workers):
                    # A worker that was to end and is still busy with its last request stays instead.
                    if index not in self._present:
                        self._present.add(index)
                        self._spawn(self._worker(index))
        finally:
            alarm.close()

    async def _worker(self, index: int) -> None:
        client, zero = self._clients[self._deal[index % len(self._deal)]], self._plan.zero_ns
        duration_ns = self._plan.duration_ns
        while not self._stopping and index < self._allowed:
            intended_ns = now_ns() - zero
            if duration_ns is not None and intended_ns >= duration_ns:
                break  # the timer that ends the run may be a little late
            seq = next(self._seqs, None)
            if seq is None:
                _settle(self._used_up)
                break
            await self._one(client, seq, intended_ns)
        self._present.discard(index)

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
                # Tasks, not in_flight: a request counts from here on, not from when its task first runs.
                while plan.max_in_flight is not None and len(self._tasks) >= plan.max_in_flight and not self._stopping:
                    self._freed.clear()
                    await self._freed.wait()
                if self._stopping:
                    return
                self._spawn(self._one(self._clients[deal[seq % len(deal)]], seq, at_ns))
        finally:
            alarm.close()

    # Scripts

    async def _perform(self) -> None:
        """Let all agents go at the barrier."""
        plan = self._plan
        with closing(Sleeper()) as alarm:
            await alarm.until(plan.zero_ns)
        permits = asyncio.Semaphore(plan.permits or max(len(plan.scripts), 1))
        for script in plan.scripts:
            self._spawn(self._follow(script, permits))

    async def _follow(self, script: Script, permits: asyncio.Semaphore) -> None:
        """Make one agent's calls. Its first is due at the barrier, so a wait for the permit is in the record."""
        plan, client = self._plan, self._clients[script.client]
        async with permits:
            due_ns, heard = 0, False
            for at, call in enumerate(script.calls):
                if self._stopping:
                    return
                if at:
                    due_ns = now_ns() - plan.zero_ns
                if call.follows and not heard:
                    self._leave_out(client, call.seq, due_ns)
                    continue
                if at and script.think_ns:
                    due_ns += script.think_ns
                    await self._think_until(plan.zero_ns + due_ns)
                    if self._stopping:
                        return
                needed = at + 1 < len(script.calls) and script.calls[at + 1].follows
                heard = await self._one(client, call.seq, due_ns, heed=needed or plan.keep_text)

    async def _think_until(self, at_ns: int) -> None:
        """Sleep until `at_ns`, or until the run is over."""
        await asyncio.wait({self._closed}, timeout=max(at_ns - now_ns(), 0) / NS_PER_S)

    def _leave_out(self, client: Client, seq: int, due_ns: int) -> None:
        """Record a call that cannot be made because the answer it needs did not come."""
        why = "the call whose answer it needs failed"
        self.health.left_out += 1
        try:
            self._keep(
                Record(self._plan.run, seq, client.name, due_ns, Outcome.NOT_SENT, agent=client.agent, error=why)
            )
        except Exception as error:
            self.fail(error)

    # The instrument's own health

    async def _heartbeat(self) -> None:
        """Sample how late the loop is; once per second check the clocks and the progress."""
        try:
            with closing(Sleeper()) as alarm:
                await self._beat(alarm)
        except Exception as error:
            self.fail(error)  # without this task nothing would end a run that hangs

    async def _beat(self, alarm: Sleeper) -> None:
        due = now_ns()
        progressed = second = due
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

    def _progressed(self) -> bool:
        """Whether anything finished or arrived since the last call. Streams are checked only if nothing finished."""
        before = self._seen
        self._seen = self._finished, 0
        if self._finished == before[0]:
            self._seen = self._finished, sum(client.transport.activity() for client in self._clients)
        return self._seen != before


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Switch the garbage collector off: a full collection with many streams open stops the loop for tens of ms."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        if was_enabled:
            gc.enable()


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
