"""The shell around the physics: one process, one thread, one epoll loop of its own.

Strategy. There is no asyncio here: a loop that only reads, looks at a heap and sends costs a third of one that makes
callbacks. Each turn (1) sends every token that is due, in the order of the deadlines, each with one `send` of bytes cut
from a template and one clock read just before it, (2) waits for the next deadline or for a socket, (3) reads.

A request's arrival is the kernel's stamp of its last byte (SO_TIMESTAMPNS), turned from REALTIME to MONOTONIC, so the
physics starts when the request came, not when Python got round to it.

Waiting. `epoll.poll` rounds its timeout up to a millisecond, so the loop waits in `select.select` on the epoll's own
descriptor, which takes microseconds, with the thread's timer slack set to 1 ns: it wakes within some tens of
microseconds of a deadline and burns nothing while idle. It never spins.

A slow reader: what the socket does not take is kept and goes out on EPOLLOUT; its stamps are those of the attempt.
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
from .answers import Counters, Generation, Site
from .http import LAST_CHUNK, BadRequest, Reply, Request, chunk, parse, stream_head
from .options import Options, OptionsError
from .physics import NS_PER_S, Job, Physics
from .text import WORDS
from .truth import TruthLog

__all__ = ["Server", "run_emulator"]

SO_TIMESTAMPNS = 35  # not named by the socket module before 3.14
READ_BYTES = 64 << 10
TURN_TOKENS = 256  # tokens sent before sockets are looked at again
BACKLOG = 4096
HOUSEKEEPING_S = 1.0
_TIMESPEC = struct.Struct("@ll")
_IN, _OUT = select.EPOLLIN, select.EPOLLOUT
monotonic_ns = time.monotonic_ns


def realtime_offset_ns() -> int:
    """Return REALTIME - MONOTONIC, from the tightest of 50 bracketed readings."""
    best, offset = 1 << 62, 0
    for _ in range(50):
        before = monotonic_ns()
        wall = time.time_ns()
        after = monotonic_ns()
        if after - before < best:
            best, offset = after - before, wall - (before + after) // 2
    return offset


class Connection:
    """An accepted socket, what came in, and what could not go out yet."""

    __slots__ = ("closing", "fd", "inbox", "instance", "outbox", "sock", "stamp_ns", "stream")

    def __init__(self, sock: socket.socket, instance: int) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.instance = instance
        self.inbox: bytes | bytearray = b""
        self.outbox = bytearray()
        self.stream: Stream | None = None
        self.closing = False  # close as soon as the outbox is empty
        self.stamp_ns = 0


class Stream:
    """One answer on its way: where it stands and what was done when."""

    __slots__ = (
        "connection",
        "generation",
        "head_ns",
        "job",
        "keep_alive",
        "last",
        "n",
        "path",
        "plain",
        "prefix",
        "request_id",
        "send",
        "seq",
        "stamps",
        "suffix",
    )

    def __init__(self, connection: Connection, generation: Generation, request: Request, seq: int) -> None:
        self.connection = connection
        self.generation = generation
        self.seq = seq
        self.path = request.path
        self.request_id = request_id(request, seq)
        self.keep_alive = request.keep_alive
        self.job: Job
        self.n = 0  # tokens sent
        self.last = 0  # number of the last token; below it, the quick path may run
        self.plain = False
        self.prefix = self.suffix = b""
        self.send = connection.sock.send
        self.stamps: list[int] = []
        self.head_ns: int | None = None


def request_id(request: Request, seq: int) -> str:
    """Return the id under which the truth of a request is filed."""
    given = request.headers.get(b"x-request-id")
    return given.decode("latin-1") if given else f"#{seq}"


class Server:
    """Listening sockets, connections and streams. `run` returns when told to stop."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.physics = Physics(options.law)
        self.site = Site(options.presents, options.model, self.physics, options.max_model_len, Counters())
        self.truth = TruthLog(options.truth) if options.truth is not None else None
        self.epoll = select.epoll()
        self.listeners: dict[int, tuple[socket.socket, int]] = {}
        self.connections: dict[int, Connection] = {}
        self.stopping = False
        self._seq = 0
        self._offset_ns = realtime_offset_ns()
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
            self._drop(connection)
        for sock, _ in self.listeners.values():
            sock.close()
        self.listeners.clear()
        self.epoll.close()
        if self.truth is not None:
            self.truth.close()

    def stop(self, *_: object) -> None:
        """End the loop after this turn; also a signal handler."""
        self.stopping = True

    def run(self) -> None:
        """Serve until stopped, until --max-seconds have passed, or until the parent has gone."""
        physics, advance = self.physics, self.physics.advance
        limit_s = self.options.max_seconds
        end_ns = monotonic_ns() + round(limit_s * NS_PER_S) if limit_s is not None else 1 << 62
        housekeeping_ns = 0
        poll = self.epoll.poll
        while not self.stopping:
            now_ns = monotonic_ns()
            if now_ns >= housekeeping_ns:
                if now_ns >= end_ns:
                    break
                housekeeping_ns = min(now_ns + round(HOUSEKEEPING_S * NS_PER_S), end_ns)
                self._offset_ns = realtime_offset_ns()
            due = advance(now_ns, TURN_TOKENS)
            if due:
                self._emit(due)
            next_ns = physics.next_due()
            wake_ns = housekeeping_ns if next_ns is None else min(next_ns, housekeeping_ns)
            if not due and wake_ns > now_ns:
                self._sleep(wake_ns)
            for fd, mask in poll(0, 1024):
                connection = self.connections.get(fd)
                if connection is not None:
                    if mask & _OUT:
                        self._writable(connection)
                    if mask & ~_OUT and self.connections.get(fd) is connection:
                        self._readable(connection)
                elif fd in self.listeners:
                    self._accept(*self.listeners[fd])
                elif fd == 0:
                    self._command()

    def _sleep(self, wake_ns: int) -> None:
        if self.truth is not None:
            self.truth.flush()
        wait_ns = wake_ns - monotonic_ns()
        if wait_ns > 0:
            with contextlib.suppress(InterruptedError):
                select.select([self.epoll], (), (), wait_ns / NS_PER_S)

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
        for _ in range(64):
            try:
                sock, _ = listener.accept()
            except OSError:
                return  # nobody left, or no descriptor: the backlog keeps them
            sock.setblocking(False)
            connection = Connection(sock, instance)
            self.connections[connection.fd] = connection
            self.epoll.register(connection.fd, _IN)

    def _readable(self, connection: Connection) -> None:
        try:
            data, ancillary, _, _ = connection.sock.recvmsg(READ_BYTES, 64)
        except BlockingIOError:
            return
        except OSError:
            data, ancillary = b"", []
        if not data:
            self._drop(connection)
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
        """Answer what is complete in the inbox, one request at a time."""
        while connection.inbox and connection.stream is None and not connection.closing:
            try:
                parsed = parse(connection.inbox)
            except BadRequest as problem:
                connection.closing = True
                self._write(connection, Reply(400, {"error": str(problem)}).encode(keep_alive=False))
                return
            if parsed is None:
                self._continue(connection)
                return
            request, used = parsed
            connection.inbox = connection.inbox[used:]
            self._answer(connection, request)

    def _continue(self, connection: Connection) -> None:
        head, separator, body = bytes(connection.inbox[:READ_BYTES]).partition(b"\r\n\r\n")
        if separator and not body and b"100-continue" in head.lower():
            self._write(connection, b"HTTP/1.1 100 Continue\r\n\r\n")

    def _answer(self, connection: Connection, request: Request) -> None:
        self._seq += 1
        answer = routes.route(self.site, request, connection.stamp_ns)
        if isinstance(answer, Reply):
            if not request.keep_alive:
                connection.closing = True
            self._write(connection, answer.encode(keep_alive=request.keep_alive))
            return
        stream = Stream(connection, answer, request, self._seq)
        connection.stream = stream
        law = self.options.law
        tokens, answer.ended_itself = self.physics.output_length(answer.limit, ignore_eos=answer.ignore_eos)
        job = Job(
            self._seq,
            connection.instance,
            connection.stamp_ns,
            answer.prompt_tokens,
            tokens,
            tokens_per_event=law.tokens_per_event,
            owner=stream,
        )
        stream.job = job
        self.physics.submit(job)
        if answer.head_early and answer.stream and not (job.started and job.first_due_ns <= monotonic_ns()):
            self._send_head(stream)

    # ---- writing

    def _emit(self, due: list[Job]) -> None:
        for job in due:
            stream: Any = job.owner
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
                    self._drop(stream.connection)
                    continue
                if sent != len(data):
                    self._keep(stream.connection, data[sent:])
                    stream.plain = False
            elif stream.connection.stream is stream:
                self._step(stream)

    def _step(self, stream: Stream) -> None:
        """Send one event the careful way: first, last, or anything that is not a template around one word."""
        job, generation = stream.job, stream.generation
        first = stream.n
        count = min(job.tokens_per_event, job.output_tokens - first)
        is_last = first + count >= job.output_tokens
        stream.n = first + count
        if not generation.stream:
            if is_last:
                data = generation.whole(job).encode(keep_alive=stream.keep_alive)
                self._send_stamped(stream, data)
                self._finish(stream)
            return
        payloads = generation.opening() if first == 0 else []
        payloads += generation.ending(first, count, job) if is_last else [generation.event(first, count)]
        data = b"".join([chunk(payload) for payload in payloads])
        if stream.head_ns is None:
            data = self._head(stream) + data
        if is_last:
            data += LAST_CHUNK
        self._send_stamped(stream, data)
        if is_last:
            self._finish(stream)
        elif not stream.plain and generation.plain and job.tokens_per_event == 1 and not stream.connection.outbox:
            size = len(generation.before) + len(WORDS[0]) + len(generation.after)
            stream.prefix = b"%x\r\n" % size + generation.before
            stream.suffix = generation.after + b"\r\n"
            stream.last = job.output_tokens - 1
            stream.plain = True

    def _head(self, stream: Stream) -> bytes:
        generation = stream.generation
        return stream_head(generation.content_type, keep_alive=stream.keep_alive, extra=generation.head_extra)

    def _send_head(self, stream: Stream) -> None:
        stream.head_ns = monotonic_ns()
        self._write(stream.connection, self._head(stream))

    def _send_stamped(self, stream: Stream, data: bytes) -> None:
        now_ns = monotonic_ns()
        stream.stamps.append(now_ns)
        if stream.head_ns is None:
            stream.head_ns = now_ns
        self._write(stream.connection, data)

    def _write(self, connection: Connection, data: bytes) -> None:
        if connection.outbox:
            connection.outbox += data
            return
        try:
            sent = connection.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._drop(connection)
            return
        if sent != len(data):
            self._keep(connection, data[sent:])
        elif connection.closing:
            self._drop(connection)

    def _keep(self, connection: Connection, rest: bytes) -> None:
        connection.outbox += rest
        self.epoll.modify(connection.fd, _IN | _OUT)

    def _writable(self, connection: Connection) -> None:
        try:
            sent = connection.sock.send(connection.outbox)
        except BlockingIOError:
            return
        except OSError:
            self._drop(connection)
            return
        del connection.outbox[:sent]
        if not connection.outbox:
            if connection.closing:
                self._drop(connection)
            else:
                self.epoll.modify(connection.fd, _IN)

    # ---- endings

    def _finish(self, stream: Stream) -> None:
        """The whole answer has been given to the kernel, or waits in the outbox."""
        connection = stream.connection
        if connection.stream is not stream:
            return  # the last send found the connection broken
        self._record(stream, complete=True)
        connection.stream = None
        if not stream.keep_alive or (stream.generation.close_after and stream.generation.stream):
            connection.closing = True
            if not connection.outbox:
                self._drop(connection)
                return
        if connection.inbox:
            self._serve(connection)

    def _drop(self, connection: Connection) -> None:
        """Close a connection, and cancel what ran on it."""
        if self.connections.pop(connection.fd, None) is None:
            return
        stream, connection.stream = connection.stream, None
        if stream is not None:
            self.physics.cancel(stream.job, monotonic_ns())
            stream.plain = False
            self._record(stream, complete=False)
        connection.sock.close()

    def _record(self, stream: Stream, *, complete: bool) -> None:
        job, counters = stream.job, self.site.counters
        job.owner = None  # ends the cycle between job and stream, so that no collector is needed
        done_ns = monotonic_ns()
        counters.prompt_tokens += job.prompt_tokens
        counters.cached_tokens += job.cached_tokens
        counters.generation_tokens += stream.n
        counters.finished[stream.generation.finish_reason if complete else "abort"] += 1
        if complete:
            counters.e2e_s += (done_ns - job.arrived_ns) / NS_PER_S
            counters.queue_s += job.queue_ns / NS_PER_S
            counters.ttft_s += (stream.stamps[0] - job.arrived_ns) / NS_PER_S
        if self.truth is None:
            return
        self.truth.add(
            {
                "request_id": stream.request_id,
                "seq": stream.seq,
                "instance": job.instance,
                "path": stream.path,
                "status": 200,
                "arrived_ns": job.arrived_ns,
                "head_ns": stream.head_ns,
                "token_ns": stream.stamps,
                "done_ns": done_ns,
                "first_due_ns": job.first_due_ns,
                "last_due_ns": job.last_due_ns,
                "queue_ns": job.queue_ns,
                "load_ns": job.load_ns,
                "prefill_ns": job.prefill_ns,
                "input_tokens": job.prompt_tokens,
                "output_tokens": stream.n,
                "fault": None,
                "complete": complete,
            }
        )


def prepare_process(options: Options) -> None:
    """Descriptors, timer slack, affinity, collector: what the process needs before it serves."""
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
    """Serve until a signal, the limit, or the parent's end; return the exit code."""
    try:
        server = Server(options)
    except OptionsError as problem:
        print(f"loadgen emulate: {problem}", file=sys.stderr)
        return 2
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, server.stop)
        prepare_process(options)
        if options.spawned:
            server.watch_parent()
        urls = " ".join(f"http://{options.host}:{port}" for port in server.ports)
        print(f"emulator ready: {options.presents} {options.model} {urls}", flush=True)
        server.run()
    finally:
        server.close()
    return 0
