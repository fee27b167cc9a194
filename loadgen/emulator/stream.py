"""One answer on its way: the bytes of its next event, changed by a fault if there is one, and the stamps of its sends.

`Stream.step` sends the event that is due. The server's loop has a shorter way for the events in the middle of
a healthy stream (`plain`): constant bytes around one word. Everything else comes through `step`.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from .answers import Generation
from .connection import Connection, Timers
from .faults import AFTER_TOKENS, WHOLE, Fault, cut_short, rewrite
from .http import LAST_CHUNK, Reply, Request, chunk, stream_head
from .physics import NS_PER_S, Job, Physics
from .text import WORDS

__all__ = ["Stream"]

NS_PER_MS = NS_PER_S // 1000
BLOCK_EVENTS = 256  # of a flooding stream, in one send
BLOCKS_A_TURN = 8
monotonic_ns = time.monotonic_ns


class Stream:
    """One answer; `job` says when its events are due. `on_complete` is called once all of it is with the kernel."""

    __slots__ = (
        "connection",
        "events",
        "fault",
        "generation",
        "head_ns",
        "held",
        "job",
        "keep_alive",
        "last",
        "n",
        "on_complete",
        "opened",
        "path",
        "physics",
        "plain",
        "prefix",
        "request_id",
        "send",
        "stamps",
        "status",
        "stop_at",
        "suffix",
        "timers",
    )

    def __init__(
        self,
        connection: Connection,
        generation: Generation,
        request: Request,
        job: Job,
        fault: Fault | None,
        *,
        physics: Physics,
        timers: Timers,
        on_complete: Callable[[Stream], None],
    ) -> None:
        self.physics = physics
        self.timers = timers
        self.on_complete = on_complete
        self.connection = connection
        self.generation = generation
        self.job = job
        self.fault = fault
        self.keep_alive = request.keep_alive
        self.path = request.path
        self.request_id = request.id(job.seq)
        self.status = 200
        self.n = 0  # tokens sent
        self.events = 0  # token-bearing events sent
        self.last = job.output_tokens - 1
        self.stop_at = -1  # a fault strikes when this number of tokens is sent
        if fault is not None and fault.name in AFTER_TOKENS:
            self.stop_at = min(int(fault.arg), self.last)
        self.opened = False
        self.plain = False
        self.prefix = self.suffix = b""
        self.send = connection.sock.send
        self.stamps: list[int] = []
        self.head_ns: int | None = None
        self.held: list[bytes] = []  # events that a fault keeps back until the end

    @property
    def alive(self) -> bool:
        """Whether the connection is open and still carries this answer."""
        return self.connection.stream is self

    # ---- before the first token

    def begin(self) -> None:
        """Send the bytes that leave before the first token, if there are any."""
        fault, generation = self.fault, self.generation
        if not generation.stream or (fault is not None and fault.name in WHOLE):
            return
        if fault is not None:
            if fault.name == "slow-header":
                self.head_ns = monotonic_ns()
                head = self._head()
                self.connection.dribble([(head[i : i + 1], None) for i in range(len(head))], self._arg_ns())
                return
            if fault.name == "role-only":
                self.timers.at(monotonic_ns() + self._arg_ns(), self._open)
                return
            if fault.name == "stall":
                self._send_head()
                return
        job = self.job
        if generation.head_early and not (job.started and job.first_due_ns <= monotonic_ns()):
            self._send_head()

    def _arg_ns(self) -> int:
        assert self.fault is not None
        return round(self.fault.arg * NS_PER_MS)

    def _open(self) -> None:
        if self.alive and not self.opened:
            if self.head_ns is None:
                self._send_head()
            self.opened = True
            self.connection.write(b"".join([chunk(event) for event in self.generation.opening(self.job)]))

    def _head(self) -> bytes:
        generation = self.generation
        head = stream_head(generation.content_type, keep_alive=self.keep_alive, extra=generation.head_extra)
        preface = generation.preface(self.job)
        if not preface:
            return head
        return head + b"".join([chunk(event) for event in self._rewritten(preface, -1)])

    def _send_head(self) -> None:
        self.head_ns = monotonic_ns()
        self.connection.write(self._head())

    # ---- events

    def step(self) -> None:
        """Send the event that is due."""
        job, generation = self.job, self.generation
        first = self.n
        count = min(job.tokens_per_event, job.output_tokens - first)
        is_last = first + count >= job.output_tokens
        if generation.stream and 0 <= self.stop_at <= first:
            if first == 0:
                self._break_off()
            return  # struck already; this event was due in the same turn
        self.n = first + count
        if not generation.stream:
            if is_last:
                self._send_whole()
            return
        payloads = [] if self.opened else generation.opening(job)
        self.opened = True
        if not is_last or (self.fault is not None and self.fault.name == "no-done"):
            payloads.append(generation.event(first, count))
        else:
            payloads += generation.ending(first, count, job)
        payloads = self._rewritten(payloads, self.events)
        self.events += 1
        self._deliver(payloads, is_last)
        if self.stop_at >= 0 and self.n >= self.stop_at and self.alive:
            self._break_off()
        elif is_last:
            self.connection.write(b"", self._complete)
        elif not self.plain:
            self._try_plain()

    def _rewritten(self, payloads: list[bytes], number: int) -> list[bytes]:
        if self.fault is None:
            return payloads
        return rewrite(self.fault, payloads, number, sse="event-stream" in self.generation.content_type)

    def _deliver(self, payloads: list[bytes], is_last: bool) -> None:
        fault = self.fault
        if fault is not None and fault.name in WHOLE:
            self.held += payloads
            if is_last:
                self._send_held(fault)
            else:
                self.stamps.append(0)  # stamped when it leaves
            return
        data = b"".join([chunk(payload) for payload in payloads])
        if self.head_ns is None:
            data = self._head() + data
        if is_last:
            data += LAST_CHUNK
        if fault is not None and fault.name == "split":
            # Set before the pieces leave: the next event may be due meanwhile, and must not bring a second head.
            if self.head_ns is None:
                self.head_ns = monotonic_ns()
            size = max(1, -(-len(data) // max(1, int(fault.arg))))
            pieces = [data[i : i + size] for i in range(0, len(data), size)]
            steps = [(piece, None) for piece in pieces[:-1]]
            self.connection.dribble([*steps, (pieces[-1], self._stamp)], NS_PER_MS)
        else:
            self.connection.write(data, self._stamp)

    def _stamp(self) -> None:
        now_ns = monotonic_ns()
        self.stamps.append(now_ns)
        if self.head_ns is None:
            self.head_ns = now_ns

    def _send_held(self, fault: Fault) -> None:
        if fault.name == "wrong-length":
            body = b"".join(self.held)
            reply = Reply(200, body, self.generation.content_type)
            data = reply.encode(keep_alive=True, length=max(0, len(body) + int(fault.arg)))
            self.connection.closing = True
        else:
            data = self._head() + b"".join([chunk(payload) for payload in self.held]) + LAST_CHUNK
        self._stamp()
        self.stamps = [self.stamps[-1]] * self.events
        self.connection.write(data)

    def _send_whole(self) -> None:
        reply = self.generation.whole(self.job)
        fault, length = self.fault, None
        if fault is not None and fault.name == "bad-json":
            reply.body = cut_short(reply.body)
        if fault is not None and fault.name == "wrong-length":
            length = len(reply.body) + int(fault.arg)
            self.connection.closing = True
        data = reply.encode(keep_alive=self.keep_alive, length=length)
        if fault is not None and fault.name == "slow-header":
            self.head_ns = monotonic_ns()
            pieces = [(data[i : i + 1], None) for i in range(len(data) - 1)]
            self.connection.dribble([*pieces, (data[-1:], self._stamp)], self._arg_ns())
        elif self.stop_at >= 0 and fault is not None and fault.name != "error-event":
            self.n = self.stop_at
            self._stamp()
            self.connection.write(data[: len(data) - len(reply.body) // 2])
            self._break_off()
            return
        else:
            self.connection.write(data, self._stamp)
        self.connection.write(b"", self._complete)

    def _break_off(self) -> None:
        """End the answer early, in the way of its fault."""
        assert self.fault is not None
        self.physics.cancel(self.job, monotonic_ns())
        self.job.left = 0
        name, connection = self.fault.name, self.connection
        if name == "stall-mid":
            if self.head_ns is None:
                self._send_head()
            return
        if name == "error-event":
            head = b"" if self.head_ns is not None else self._head()
            failure = self.generation.failure("the emulator was told to fail here")
            connection.write(head + b"".join([chunk(event) for event in failure]) + LAST_CHUNK, self._stamp_head)
            connection.write(b"", self._complete)
        elif name == "cut":
            connection.closing = True
            connection.close_if_done()
        else:
            connection.reset()

    def _stamp_head(self) -> None:
        if self.head_ns is None:
            self.head_ns = monotonic_ns()

    def _complete(self) -> None:
        self.on_complete(self)

    # ---- the quick ways

    def _try_plain(self) -> None:
        generation, job = self.generation, self.job
        if self.fault is None and generation.plain and job.tokens_per_event == 1 and self.connection.orderly:
            size = len(generation.before) + len(WORDS[0]) + len(generation.after)
            self.prefix = b"%x\r\n" % size + generation.before
            self.suffix = generation.after + b"\r\n"
            self.plain = True

    def pump(self) -> bool:
        """Whether more of a flooding answer is left for the next turn; sends as fast as the socket takes it."""
        for _ in range(BLOCKS_A_TURN):
            if not self.alive or self.job.left < 0:
                return False
            if not self.connection.orderly:
                return True
            if self.n > self.last or (self.stop_at >= 0 and self.n >= self.stop_at):
                return False
            if self.plain and self.n < self.last:
                self._block()
            else:
                self.step()
        return True

    def _block(self) -> None:
        first, stop = self.n, min(self.last, self.n + BLOCK_EVENTS)
        prefix, suffix = self.prefix, self.suffix
        data = prefix + (suffix + prefix).join([WORDS[i & 255] for i in range(first, stop)]) + suffix
        self.n = stop
        self.events += stop - first
        self.stamps += [monotonic_ns()] * (stop - first)
        self.connection.write(data)
