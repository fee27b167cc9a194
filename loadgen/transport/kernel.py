"""The kernel tier: SO_TIMESTAMPNS on the socket, read by recvmsg, one call per readiness event.

All sockets are in one epoll set of loadgen's whose descriptor the event loop watches. One turn of the loop then drains
a batch of ready sockets in a plain loop, which costs the same under asyncio and uvloop and less than a handle each.
The stamp is kept as the 16 bytes the kernel wrote and converted when the answer is complete.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import struct
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from loadgen.clock import NS_PER_S, RealtimeOffset, TimerFd, now_ns
from loadgen.record import Int64
from loadgen.transport.connection import Connection, Exchange

__all__ = ["KernelConnection", "Poller", "stamping_works"]

TIMESPEC = struct.Struct("qq")
FEW = 8
CR = 13
SO_TIMESTAMPNS = 35  # asm-generic/socket.h; Python has no name for it
ANCILLARY_BYTES = socket.CMSG_SPACE(16)
BATCH = 128  # ready sockets per poll
ROUNDS = 8  # polls per turn of the loop, so that timers and sends get theirs
READ_BYTES = 8192  # a token is 300; allocating more each time costs a microsecond
BULK_BYTES = 262_144
CATCH_UP_NS = 2_000_000  # short against the gaps of streams; nothing keeps reads waiting for longer
PACE_NS = 500_000
FREQUENT_NS = 100_000  # tokens closer together than this are worth pacing
SLOW_STREAM_NS = 20 * PACE_NS
TOKENS_PER_LOOK = 1_000  # how often to reconsider the pace, unpaced
PACED_LOOK_NS = 100_000_000  # and paced
EPOLLIN, EPOLLOUT, EPOLLRDHUP = select.EPOLLIN, select.EPOLLOUT, select.EPOLLRDHUP
EVENTS = EPOLLIN | EPOLLRDHUP | select.EPOLLET  # with EPOLLOUT every read would be reported as writable too


class Poller:
    """An epoll set inside the event loop, and the clock offset its stamps need.

    Sockets are edge-triggered: after a read that did not fill its buffer there is nothing left to read, so a ready
    socket costs one recvmsg, and the kernel need not check it again.

    Waking up for every token costs as much as reading it. The stamp does not depend on the time of the read, so under
    many slow streams the set is polled by the clock instead, every `PACE_NS`, as a network card moderates interrupts.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, read_bytes: int | None = None) -> None:
        """read_bytes: the size of every read; else 8 KiB, and more after a read that was full."""
        self._loop = loop
        self.read_bytes = READ_BYTES if read_bytes is None else read_bytes
        self.bulk_bytes = BULK_BYTES if read_bytes is None else read_bytes
        self._epoll = select.epoll()
        self._connections: dict[int, KernelConnection] = {}
        self._streams: dict[int, tuple[Callable[..., Any], Callable[[bytes], None], Callable[[bytes], None]]] = {}
        self._ends: deque[KernelConnection] = deque()  # whose latest read may have been the last of its answer
        self.offset = RealtimeOffset()
        self.unstamped = 0  # reads that came without a stamp and were stamped here instead
        self._pace = TimerFd()
        self._paced = False
        self._tokens = 0  # ordinary reads since `_since_ns`
        self._since_ns = self._drained_ns = now_ns()
        loop.add_reader(self._epoll.fileno(), self._drain)
        loop.add_reader(self._pace.fd, self._tick)

    def add(self, fd: int, connection: KernelConnection) -> None:
        self._connections[fd] = connection
        self._epoll.register(fd, EVENTS)

    def watch_room(self, fd: int, wanted: bool) -> None:
        """Start, or end, reporting to the connection when there is room to write."""
        self._epoll.modify(fd, EVENTS | EPOLLOUT if wanted else EVENTS)

    def remove(self, fd: int) -> None:
        del self._connections[fd]
        self._streams.pop(fd, None)
        self._epoll.unregister(fd)

    def close(self) -> None:
        self._loop.remove_reader(self._pace.fd)
        self._pace.close()
        if not self._paced:
            self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()

    def stream(self, fd: int, exchange: Exchange) -> None:
        """Read `fd` by the short cut from now on: a chunked body over plain TCP has begun."""
        self._streams[fd] = self._connections[fd].recvmsg, exchange.framing.reads.append, exchange.stamps.append

    def end_stream(self, fd: int) -> None:
        self._streams.pop(fd, None)

    def catch_up(self, present_ns: int) -> None:
        """Read what is ready if nothing was read for a while: sending many requests in a row must not merge tokens."""
        if present_ns - self._drained_ns > CATCH_UP_NS:
            self._drain()

    def _drain(self) -> None:
        self._drained_ns = now_ns()
        # The measured path: what follows runs once per token, inline, because a call costs as much as the rest of it.
        connections, streams, poll = self._connections, self._streams, self._epoll.poll
        read_bytes = self.read_bytes
        tokens = 0
        for _ in range(ROUNDS):
            ready = poll(0, BATCH)
            for fd, events in ready:
                stream = streams.get(fd)
                if stream is None or events != EPOLLIN:
                    if fd in connections:  # else one before it in this batch closed it
                        connections[fd].handle(events)
                    continue
                recvmsg, keep, stamp = stream
                try:
                    data, ancillary, _, _ = recvmsg(read_bytes, ANCILLARY_BYTES)
                except BlockingIOError:
                    continue
                except OSError as error:
                    connections[fd].lose(error)  # the socket reports it once
                    continue
                if 4 <= len(data) < read_bytes and ancillary:
                    keep(data)
                    stamp(ancillary[0][2])
                    tokens += 1
                    # A chunked body ends in CRLF CRLF: with another byte four from the end this read is not the last.
                    if data[-4] == CR:
                        self._look_later(fd)
                    continue
                connection = connections[fd]
                connection.take(data, ancillary)
                if len(data) == read_bytes:
                    connection.handle(EPOLLIN)
            if len(ready) < 2:
                break
        self._tokens += tokens
        if self._tokens > TOKENS_PER_LOOK and not self._paced:
            self._choose_pace()

    def _look_later(self, fd: int) -> None:
        """Put off the check for the end of an answer: it takes longer than a read, and many may end together."""
        connection = self._connections[fd]
        connection.unseen = True
        del self._streams[fd]
        self._ends.append(connection)
        if len(self._ends) == 1:
            self._loop.call_soon(self._look)

    def _look(self) -> None:
        until_ns = now_ns() + CATCH_UP_NS
        try:
            while self._ends and now_ns() < until_ns:
                self._ends.popleft().look()
        finally:
            if self._ends:
                self._loop.call_soon(self._look)

    def _tick(self) -> None:
        self._pace.clear()
        self._drain()
        if now_ns() - self._since_ns > PACED_LOOK_NS:
            self._choose_pace()

    def _choose_pace(self) -> None:
        """Pace only where a wait of PACE_NS is short against the gap of a stream, so that it merges no tokens."""
        present = now_ns()
        gap_ns = (present - self._since_ns) / max(self._tokens, 1)
        paced = gap_ns < FREQUENT_NS and gap_ns * len(self._connections) > SLOW_STREAM_NS
        self._tokens, self._since_ns = 0, present
        if paced == self._paced:
            return
        self._paced = paced
        if paced:
            self._loop.remove_reader(self._epoll.fileno())
            self._pace.set(present + PACE_NS, PACE_NS)
        else:
            self._pace.set(0)
            self._loop.add_reader(self._epoll.fileno(), self._drain)


class KernelConnection(Connection):
    """A connected, non-blocking socket in a Poller."""

    __slots__ = ("_fd", "_poller", "_short_cut", "_sock", "_unsent", "recvmsg")

    def __init__(self, sock: socket.socket, poller: Poller) -> None:
        super().__init__()
        self._sock, self._poller = sock, poller
        self._fd = sock.fileno()
        self._unsent = memoryview(b"")
        self.recvmsg = sock.recvmsg
        self._short_cut = False  # the poller appends the reads itself
        poller.add(self._fd, self)

    def start(self, exchange: Exchange, request: bytes) -> None:
        super().start(exchange, request)
        assert exchange.sent_ns is not None
        self._poller.catch_up(exchange.sent_ns)

    def stamps_ns(self, stamps: list[bytes]) -> Int64:
        if len(stamps) < FEW:  # below that a call into numpy costs more than the work
            offset_ns = self._poller.offset.value_ns
            return np.array([s * NS_PER_S + ns - offset_ns for s, ns in map(TIMESPEC.unpack, stamps)], np.int64)
        seconds_ns = np.frombuffer(b"".join(stamps), np.int64).reshape(-1, 2)
        return seconds_ns[:, 0] * NS_PER_S + (seconds_ns[:, 1] - self._poller.offset.value_ns)

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._poller.remove(self._fd)
            self._sock.close()
            self.deliver = _nobody  # breaks the cycle through the bound method: nothing collects garbage in a run

    def handle(self, events: int) -> None:
        """Handle what the poller's short cut does not: writing, heads, errors, TLS."""
        self.look()
        if events & EPOLLOUT:
            self._write_on()
            if not self._unsent and not self.closed:
                self._poller.watch_room(self._fd, False)
        size = self._poller.read_bytes
        while not self.closed:
            try:
                data, ancillary, _, _ = self.recvmsg(size, ANCILLARY_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                self.lose(error)
                return
            self.take(data, ancillary)
            # A full buffer uses up the edge but perhaps not the data; and no edge comes after the peer's end.
            if len(data) < size and not events & EPOLLRDHUP:
                return
            size = self._poller.bulk_bytes

    def lose(self, error: OSError) -> None:
        """Close after an error of the socket."""
        self._peer_closed(error)

    def take(self, data: bytes, ancillary: list[tuple[int, int, bytes]]) -> None:
        """Deliver one read of any kind."""
        if not data:
            self._peer_closed()
            return
        if ancillary:
            stamp = ancillary[0][2]
        else:
            self._poller.unstamped += 1
            stamp = TIMESPEC.pack(*divmod(now_ns() + self._poller.offset.value_ns, NS_PER_S))
        self.deliver(data, stamp)
        exchange = self.exchange
        if self._short_cut:
            if exchange is None:
                self._short_cut = False
                self._poller.end_stream(self._fd)
        elif exchange is not None and exchange.framing.streaming and self._tls is None:
            self._short_cut = True
            self._poller.stream(self._fd, exchange)

    def look(self) -> None:
        if self.unseen:
            super().look()
            self._short_cut = self.exchange is not None
            if self.exchange is not None:
                self._poller.stream(self._fd, self.exchange)

    def _write(self, payload: bytes) -> None:
        try:
            sent = self._sock.send(payload)
        except OSError:
            sent = 0  # full, or broken: `_write_on` finds out which
        if sent == len(payload):
            self._written()
            return
        self._unsent = memoryview(payload)[sent:]
        self._write_on()
        if self._unsent:
            self._poller.watch_room(self._fd, True)

    def _write_on(self) -> None:
        try:
            self._unsent = self._unsent[self._sock.send(self._unsent) :]
        except BlockingIOError:
            return
        except OSError as error:
            # The peer may have answered (with an error, say) before it closed: read that first.
            self._unsent = memoryview(b"")
            self.handle(EPOLLIN)
            self._peer_closed(error)
            return
        if not self._unsent:
            self._written()


def _nobody(data: bytes, stamp: bytes) -> None:
    """The reader of a closed connection."""


def prepare(sock: socket.socket) -> None:
    """Ask for kernel stamps and no Nagle delay on a new socket."""
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


SELF_TESTS = 4  # failures in a row before a lower tier is taken
SELF_TEST_GAP_NS = 20_000_000
FIRST_STAMP_NS = 300_000_000
ASK_AGAIN_NS = 1_000_000
_stamping_sockets: list[socket.socket] = []


def stamping_works() -> str | None:
    """The fault of kernel stamps over loopback, in one line; None where the stamps are right.

    Linux switches stamping on a moment after the first socket asks for it, by a work queue, and off again when the last
    such socket is closed. So one socket that asks stays open for the life of the process, each test waits until stamps
    come, and only several tests in a row that fail count. Takes about 50 ms where stamps are right.
    """
    wrong = _keep_stamping()
    for _ in range(SELF_TESTS if wrong is None else 0):
        wrong = _self_test()
        if wrong is None:
            return None
    return wrong


def _keep_stamping() -> str | None:
    """The reason why the system refuses the socket that keeps stamping on; None once it is open."""
    if not _stamping_sockets:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        except OSError as error:
            sock.close()
            return f"SO_TIMESTAMPNS is refused: {error.strerror}"
        _stamping_sockets.append(sock)
    return None


def _self_test() -> str | None:
    """The fault of two stamps, in one line; None if both are right. Writes twice, 20 ms apart, and reads both late."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        writer = stack.enter_context(socket.create_connection(listener.getsockname()))
        reader = stack.enter_context(listener.accept()[0])
        reader.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        late = stack.enter_context(contextlib.closing(select.epoll()))  # empty: polling it is a sleep
        if not _first_stamp(writer, reader, late):
            return "recvmsg brings no stamp"
        offset, worst_ns = RealtimeOffset(), 0
        for _ in range(2):
            written_ns = now_ns()
            writer.sendall(b"x")
            late.poll(SELF_TEST_GAP_NS / NS_PER_S)
            stamp = _read_stamp(reader)
            if stamp is None:
                return "recvmsg brings no stamp"
            seconds, nanoseconds = TIMESPEC.unpack(stamp)
            worst_ns = max(worst_ns, abs(seconds * NS_PER_S + nanoseconds - offset.value_ns - written_ns))
    if worst_ns > SELF_TEST_GAP_NS // 4:
        return f"stamps are {worst_ns / 1e6:.1f} ms off"
    return None


def _first_stamp(writer: socket.socket, reader: socket.socket, late: select.epoll) -> bool:
    """Whether a read brings a stamp within FIRST_STAMP_NS."""
    until_ns = now_ns() + FIRST_STAMP_NS
    while now_ns() < until_ns:
        writer.sendall(b"x")
        if _read_stamp(reader) is not None:
            return True
        late.poll(ASK_AGAIN_NS / NS_PER_S)
    return False


def _read_stamp(reader: socket.socket) -> bytes | None:
    """The 16 bytes of one read's stamp; None where it has none."""
    _, ancillary, _, _ = reader.recvmsg(1, ANCILLARY_BYTES)
    return ancillary[0][2] if ancillary and len(ancillary[0][2]) == TIMESPEC.size else None
