"""The shell around the physics: one process, one thread, one epoll loop of its own.

Strategy. There is no asyncio here: a loop that only reads, checks a heap and sends costs a third of one that makes
callbacks. Each turn (1) sends every token that is due, in the order of the deadlines, each with one `send` of bytes cut
from a template and one clock read just before it, (2) waits for the next deadline or for a socket, (3) reads.

A request's arrival is the kernel's stamp of its last byte (SO_TIMESTAMPNS), turned from REALTIME to MONOTONIC, so the
physics starts when the request came, not when Python read it.

Waiting. `epoll.poll` rounds its timeout up to a millisecond, so the loop waits in `select.select` on the epoll's own
descriptor, which takes microseconds, with the thread's timer slack set to 1 ns. It aims a little early and spins to the
deadline, which also warms the caches, as long as spinning has taken less than a tenth of the time; beyond that (many
thousand deadlines a second) it just waits, and wakes some tens of microseconds late. Idle, it burns nothing.

A slow reader: bytes that the socket does not take are kept and sent on EPOLLOUT; stamps are those of the first attempt.
"""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import select
import signal
import socket
import struct
import sys
import time
from typing import Any

from . import routes
from .answers import Counters, Delayed, Generation, Site
from .connection import Connection, Timers
from .faults import AT_ONCE, Fault, FaultPlan, from_header
from .http import LAST_CHUNK, BadRequest, Reply, Request, parse, stream_head
from .openai import prompt_ids
from .options import Options, OptionsError
from .physics import NEVER, NS_PER_S, Job, Physics
from .stream import Stream
from .text import WORDS
from .truth import TruthLog

__all__ = ["Server", "run_emulator"]

SO_TIMESTAMPNS = 35  # not named by the socket module before 3.14
READ_BYTES = 64 << 10
ACCEPTS_A_TURN = 64
SPIN_LEAD_NS = 150_000  # waking from select takes 50 us (median) on a virtual machine, and cold code as much again
SPIN_SHARE = 0.1
SPIN_CAP_NS = 10_000_000
TURN_TOKENS = 256  # tokens sent before sockets are polled again
BACKLOG = 4096
HOUSEKEEPING_NS = NS_PER_S
_TIMESPEC = struct.Struct("@ll")
_IN, _OUT = select.EPOLLIN, select.EPOLLOUT
monotonic_ns = time.monotonic_ns


def realtime_offset_ns() -> int:
    """REALTIME - MONOTONIC, from the tightest of 50 bracketed readings."""
    best, offset = 1 << 62, 0
    for _ in range(50):
        before = monotonic_ns()
        wall = time.time_ns()
        after = monotonic_ns()
        if after - before < best:
            best, offset = after - before, wall - (before + after) // 2
    return offset


class Server:
    """Listening sockets, connections and streams. `run` returns after `stop`."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.physics = Physics(options.law)
        counters = tuple(Counters() for _ in range(options.law.instances))
        self.site = Site(options.presents, options.model, self.physics, options.max_model_len, counters)
        self.truth = TruthLog(options.truth) if options.truth is not None else None
        self.epoll = select.epoll()
        self.listeners: dict[int, tuple[socket.socket, int]] = {}
        self.connections: dict[int, Connection] = {}
        self.timers = Timers()
        self.faults = FaultPlan(options.faults, options.law.seed)
        self.stopping = False
        self._floods: list[Stream] = []
        self._epoll_list = [self.epoll.fileno()]
        self._spin_ns = 0  # how long it may spin now
        self._slept_ns = monotonic_ns()
        self._seq = 0
        self._offset_ns = realtime_offset_ns()
        self._parent = os.getppid()
        # A byte written by a signal wakes the wait, which Python would otherwise resume (PEP 475).
        self._signals = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.epoll.register(self._signals[0], _IN)
        self.ports = self._listen()

    # ---- life

    def _listen(self) -> list[int]:
        ports: list[int] = []
        for instance in range(self.options.law.instances):
            sock = socket.socket(socket.AF_INET6 if ":" in self.options.host else socket.AF_INET, socket.SOCK_STREAM)
            self.listeners[sock.fileno()] = (sock, instance)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)  # accepted sockets inherit both
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            port = self.options.port + instance if self.options.port else 0
            try:
                sock.bind((self.options.host, port))
                sock.listen(BACKLOG)
            except OSError as problem:
                self.close()
                raise OptionsError(f"cannot listen on {self.options.host}:{port}: {problem.strerror}") from None
            sock.setblocking(False)
            self.epoll.register(sock.fileno(), _IN)
            ports.append(int(sock.getsockname()[1]))
        return ports

    def close(self) -> None:
        """Close every socket and the log."""
        for connection in list(self.connections.values()):
            connection.lose()
        for sock, _ in self.listeners.values():
            sock.close()
        self.listeners.clear()
        self.epoll.close()
        for end in self._signals:
            os.close(end)
        if self.truth is not None:
            self.truth.close()

    def stop(self) -> None:
        """End the loop after this turn."""
        self.stopping = True

    def obey_signals(self) -> None:
        """End the loop on SIGINT and SIGTERM; for the main thread of a process that does nothing else."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(self._signals[1])

    def run(self) -> None:
        """Serve until stopped, until --max-seconds have passed, or until the parent has gone."""
        physics, advance, timers = self.physics, self.physics.advance, self.timers
        limit_s = self.options.max_seconds
        if limit_s is not None:
            timers.at(monotonic_ns() + round(limit_s * NS_PER_S), self.stop)
        self._keep_house()
        poll = self.epoll.poll
        while not self.stopping:
            now_ns = monotonic_ns()
            timers.run(now_ns)
            due = advance(now_ns, TURN_TOKENS)
            if due:
                self._emit(due)
            elif not self._floods:
                self._sleep(physics.next_due() or NEVER, timers.next_ns() or NEVER)
            if self._floods:
                self._pump()
            for fd, mask in poll(0, 1024):
                connection = self.connections.get(fd)
                if connection is not None:
                    if mask & _OUT:
                        connection.writable()
                    if mask & ~_OUT and not connection.closed:
                        self._readable(connection)
                elif fd in self.listeners:
                    self._accept(*self.listeners[fd])
                elif fd == self._signals[0]:
                    self.stopping = True
                elif fd == 0:
                    self._command()

    def _keep_house(self) -> None:
        self._offset_ns = realtime_offset_ns()
        # A sibling that was forked may hold our standard input open beyond the parent's end.
        if self.options.spawned and os.getppid() != self._parent:
            self.stop()
        self.timers.at(monotonic_ns() + HOUSEKEEPING_NS, self._keep_house)

    def _sleep(self, due_ns: int, otherwise_ns: int) -> None:
        """Wait for a deadline of the physics, another instant, or a socket, the first of them."""
        if self.truth is not None:
            self.truth.flush()
        now_ns = monotonic_ns()
        wake_ns = min(due_ns, otherwise_ns)
        self._spin_ns = min(SPIN_CAP_NS, self._spin_ns + int((now_ns - self._slept_ns) * SPIN_SHARE))
        self._slept_ns = now_ns
        spins = wake_ns == due_ns and self._spin_ns > SPIN_LEAD_NS
        wait_ns = wake_ns - now_ns - (SPIN_LEAD_NS if spins else 0)
        if wait_ns > 0:
            with contextlib.suppress(InterruptedError):
                ready, _, _ = select.select(self._epoll_list, (), (), wait_ns / NS_PER_S)
                if ready:
                    return
        if spins:
            began_ns = at_ns = monotonic_ns()
            while at_ns < wake_ns:
                at_ns = monotonic_ns()
            self._spin_ns -= at_ns - began_ns

    def watch_parent(self) -> None:
        """Take commands from standard input; its end means that the parent has gone."""
        self.epoll.register(0, _IN)

    def _command(self) -> None:
        words = os.read(0, 4096)
        if not words:
            self.stop()
        for word in words.split():
            if word == b"sync":
                if self.truth is not None:
                    self.truth.flush()
                os.write(1, b"synced\n")

    # ---- reading

    def _accept(self, listener: socket.socket, instance: int) -> None:
        for _ in range(ACCEPTS_A_TURN):
            try:
                sock, _ = listener.accept()
            except OSError:
                return  # none left, or no descriptor: the backlog keeps them
            sock.setblocking(False)
            connection = Connection(sock, instance, self.epoll, self.timers, self._lost)
            self.connections[connection.fd] = connection
            if self.faults.for_accept():
                connection.reset()

    def _readable(self, connection: Connection) -> None:
        try:
            data, ancillary, _, _ = connection.sock.recvmsg(READ_BYTES, 64)
        except BlockingIOError:
            return
        except OSError:
            data, ancillary = b"", []
        if not data:
            connection.lose()
            return
        now_ns = monotonic_ns()
        connection.stamp_ns = now_ns
        if ancillary:
            seconds, nanoseconds = _TIMESPEC.unpack(ancillary[0][2])
            connection.stamp_ns = min(now_ns, seconds * NS_PER_S + nanoseconds - self._offset_ns)
        if connection.inbox:
            if isinstance(connection.inbox, bytes):
                connection.inbox = bytearray(connection.inbox)
            connection.inbox += data
        else:
            connection.inbox = data
        self._serve(connection)

    def _serve(self, connection: Connection) -> None:
        """Answer the complete requests in the inbox, one at a time."""
        while connection.inbox and connection.stream is None:
            if connection.waiting or connection.closing or connection.closed:
                return
            try:
                parsed = parse(connection.inbox)
            except BadRequest as problem:
                connection.closing = True
                connection.write(Reply(400, {"error": str(problem)}).encode(keep_alive=False))
                connection.close_if_done()
                return
            if parsed is None:
                self._continue(connection)
                return
            request, used = parsed
            connection.inbox = connection.inbox[used:]
            request.arrived_ns, request.instance = connection.stamp_ns, connection.instance
            self._answer(connection, request)

    def _continue(self, connection: Connection) -> None:
        head, separator, body = bytes(connection.inbox[:READ_BYTES]).partition(b"\r\n\r\n")
        if separator and not body and b"100-continue" in head.lower():
            connection.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    # ---- answering

    def _answer(self, connection: Connection, request: Request) -> None:
        self._seq += 1
        fault: Fault | None = None
        if request.method == "POST" and request.path in routes.GENERATES:
            asked = request.header(b"x-emulator-fault")
            drawn = self.faults.for_request()
            try:
                fault = drawn if asked is None else from_header(asked)
            except ValueError as problem:
                self._reply(connection, request, routes.error(self.site, request, 400, str(problem)), None)
                return
            if fault is not None and fault.name in AT_ONCE:
                self._fail_at_once(connection, request, fault)
                return
        answer = routes.route(self.site, request)
        if isinstance(answer, Reply):
            self._reply(connection, request, answer, fault)
        elif isinstance(answer, Delayed):
            reply = answer.reply
            connection.waiting = True
            self.timers.at(answer.at_ns, lambda: self._reply_later(connection, request, reply))
        else:
            self._generate(connection, request, answer, fault)

    def _reply(self, connection: Connection, request: Request, reply: Reply, fault: Fault | None) -> None:
        if not request.keep_alive:
            connection.closing = True
        head_ns = monotonic_ns()
        connection.write(reply.encode(keep_alive=request.keep_alive, body=request.method != "HEAD"))
        connection.close_if_done()
        if request.path in routes.GENERATES:
            self.site.counters[request.instance].finished["error"] += 1
            self._log_reply(request, reply.status, fault, head_ns, complete=True)

    def _reply_later(self, connection: Connection, request: Request, reply: Reply) -> None:
        connection.waiting = False
        if not connection.closed:
            connection.write(reply.encode(keep_alive=request.keep_alive))
            connection.closing = connection.closing or not request.keep_alive
            connection.close_if_done()
            self._serve(connection)

    def _fail_at_once(self, connection: Connection, request: Request, fault: Fault) -> None:
        if fault.name == "html":
            page = b"<!doctype html><title>gateway</title><p>Something went wrong.</p>"
            self._reply(connection, request, Reply(200, page, "text/html"), fault)
        elif fault.name == "empty":
            head = stream_head("text/event-stream; charset=utf-8", keep_alive=True)
            connection.write(head + LAST_CHUNK)
            self._log_fault(request, 200, fault)
        elif fault.name in ("refuse", "never-answer"):
            self._log_fault(request, 0, fault)
            connection.waiting = True
            if fault.name == "refuse":
                connection.reset()
        else:
            reply = routes.error(self.site, request, int(fault.name), f"the emulator was told to answer {fault.name}")
            if fault.name != "500":
                reply.headers = ("retry-after: 1",)
            self._reply(connection, request, reply, fault)

    def _generate(self, connection: Connection, request: Request, generation: Generation, fault: Fault | None) -> None:
        physics = self.physics
        tokens, generation.ended_itself = physics.output_length(generation.limit, ignore_eos=generation.ignore_eos)
        per_event = self.options.law.tokens_per_event
        if fault is not None and fault.name == "multi":
            per_event = max(1, int(fault.arg))
        job = Job(
            self._seq,
            connection.instance,
            request.arrived_ns,
            generation.prompt_tokens,
            tokens,
            tokens_per_event=per_event,
        )
        if self.options.law.prefix_cache:
            prefixes = physics.instances[connection.instance].prefixes
            job.cached_tokens = prefixes.lookup(prompt_ids(generation.prompt))
        stream = Stream(
            connection,
            generation,
            request,
            job,
            fault,
            physics=physics,
            timers=self.timers,
            on_complete=self.finish,
        )
        job.owner = connection.stream = stream
        if fault is None or fault.name != "stall":
            physics.submit(job)
        stream.begin()

    # ---- sending

    def _emit(self, due: list[Job]) -> None:
        for job in due:
            stream: Any = job.owner
            if stream is None:
                continue  # its connection broke earlier in this list
            n = stream.n
            if stream.plain and n < stream.last:
                data = stream.prefix + WORDS[n & 255] + stream.suffix
                stream.n = n + 1
                now_ns = monotonic_ns()
                stream.stamps.append(now_ns)
                try:
                    sent = stream.send(data)
                except BlockingIOError:
                    sent = 0
                except OSError:
                    stream.connection.lose()
                    continue
                if sent != len(data):
                    stream.connection.keep(data[sent:])
                    stream.plain = False
            elif stream.alive:
                if self.physics.flood and stream.generation.stream:
                    self._floods.append(stream)
                elif self.physics.flood:
                    stream.n = stream.last - (stream.last % job.tokens_per_event)
                    stream.step()
                else:
                    stream.step()

    def _pump(self) -> None:
        """Give each flooding stream its turn."""
        self._floods = [stream for stream in self._floods if stream.pump()]

    # ---- endings

    def finish(self, stream: Stream) -> None:
        """End a stream whose whole answer has been given to the kernel, or waits in the outbox."""
        connection = stream.connection
        if connection.stream is not stream:
            return  # the last send found the connection broken
        self._record(stream, complete=True)
        connection.stream = None
        unannounced = stream.generation.close_after and stream.generation.stream
        if stream.fault is not None and stream.fault.name == "close-idle":
            if stream.fault.arg:
                self.timers.at(monotonic_ns() + round(stream.fault.arg * 1e6), lambda: self._close_idle(connection))
            else:
                unannounced = True
        if not stream.keep_alive or unannounced:
            connection.closing = True
        # After the send: `finish` may run just before the last piece of a dribble is out.
        connection.close_if_done()
        if connection.inbox:
            self._serve(connection)

    def _close_idle(self, connection: Connection) -> None:
        if connection.stream is None:
            connection.lose()

    def _lost(self, connection: Connection) -> None:
        """Cancel the request of a connection that has closed."""
        self.connections.pop(connection.fd, None)
        stream, connection.stream = connection.stream, None
        if isinstance(stream, Stream):
            self.physics.cancel(stream.job, monotonic_ns())
            stream.plain = False
            self._record(stream, complete=False)

    def _record(self, stream: Stream, *, complete: bool) -> None:
        job, counters = stream.job, self.site.counters[stream.job.instance]
        job.owner = None  # ends the cycle between job and stream, so that no collector is needed
        done_ns = monotonic_ns()
        counters.prompt_tokens += job.prompt_tokens
        counters.cached_tokens += job.cached_tokens
        counters.generation_tokens += stream.n
        counters.finished[stream.generation.finish_reason if complete else "abort"] += 1
        if complete and stream.stamps:
            counters.e2e_s += (done_ns - job.arrived_ns) / NS_PER_S
            counters.queue_s += job.queue_ns / NS_PER_S
            counters.ttft_s += (stream.stamps[0] - job.arrived_ns) / NS_PER_S
        self._log(
            job,
            request_id=stream.request_id,
            path=stream.path,
            status=200,
            head_ns=stream.head_ns,
            token_ns=stream.stamps,
            done_ns=done_ns,
            output_tokens=stream.n,
            fault=stream.fault,
            complete=complete,
        )

    def _log_fault(self, request: Request, status: int, fault: Fault) -> None:
        self._log_reply(request, status, fault, monotonic_ns() if status else None, complete=False)

    def _log_reply(
        self, request: Request, status: int, fault: Fault | None, head_ns: int | None, *, complete: bool
    ) -> None:
        """Log a request that was never given to the physics."""
        self._log(
            Job(self._seq, request.instance, request.arrived_ns, 0, 0),
            request_id=request.id(self._seq),
            path=request.path,
            status=status,
            head_ns=head_ns,
            token_ns=[],
            done_ns=monotonic_ns(),
            output_tokens=0,
            fault=fault,
            complete=complete,
        )

    def _log(self, job: Job, *, fault: Fault | None, **fields: object) -> None:
        """Add an entry to the truth: the times of the job, and `fields`, which are the other names of `Truth`."""
        if self.truth is None:
            return
        fields |= {
            "seq": job.seq,
            "instance": job.instance,
            "arrived_ns": job.arrived_ns,
            "first_due_ns": job.first_due_ns,
            "last_due_ns": job.last_due_ns,
            "queue_ns": job.queue_ns,
            "load_ns": job.load_ns,
            "prefill_ns": job.prefill_ns,
            "input_tokens": job.prompt_tokens,
            "cached_tokens": job.cached_tokens,
            "fault": None if fault is None else str(fault),
        }
        self.truth.add(fields)


def prepare_process(options: Options) -> None:
    """Prepare the process before it serves: descriptors, timer slack, affinity, garbage collector."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # The default slack of 50 us would be added to every wait.
    with contextlib.suppress(OSError), open("/proc/self/timerslack_ns", "w") as slack:
        slack.write("1")
    if options.cpu is not None:
        os.sched_setaffinity(0, {options.cpu})
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 50, 100)


def run_emulator(options: Options) -> int:
    """The exit code, after serving until a signal, the limit, or the parent's end."""
    try:
        server = Server(options)
    except (OptionsError, OSError) as problem:
        print(f"loadgen emulate: {problem}", file=sys.stderr)
        return 2
    try:
        server.obey_signals()
        prepare_process(options)
        if options.spawned:
            server.watch_parent()
        host = f"[{options.host}]" if ":" in options.host else options.host
        urls = " ".join(f"http://{host}:{port}" for port in server.ports)
        print(f"emulator ready: {options.presents} {options.model} {urls}", flush=True)
        server.run()
    finally:
        signal.set_wakeup_fd(-1)
        server.close()
    return 0
