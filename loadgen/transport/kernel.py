"""The kernel tier: SO_TIMESTAMPNS on the socket, read by recvmsg, one call a readiness event.

All sockets sit in one epoll set of our own whose descriptor the event loop watches. One turn of the loop then drains
a batch of ready sockets in a plain loop, which costs the same under asyncio and uvloop and less than a handle each.
The stamp is kept as the 16 bytes the kernel wrote and converted when the answer is complete.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import struct
from collections.abc import Callable

import numpy as np

from loadgen.clock import NS_PER_S, RealtimeOffset, now_ns
from loadgen.record import Int64
from loadgen.transport.connection import Connection

__all__ = ["KernelConnection", "Poller", "stamping_works"]

SO_TIMESTAMPNS = 35  # asm-generic/socket.h; Python has no name for it
ANCILLARY_BYTES = socket.CMSG_SPACE(16)
BATCH = 512  # ready sockets drained in one turn of the loop, so that timers and sends get theirs
READ_BYTES = 8192  # a token is 300; allocating more each time costs a microsecond
BULK_BYTES = 262_144  # after a read that filled its buffer


class Poller:
    """An epoll set inside the event loop, and the clock offset its stamps need."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._epoll = select.epoll()
        self.handlers: dict[int, Callable[[], None]] = {}
        self.offset = RealtimeOffset()
        self.unstamped = 0  # reads that came without a stamp and were stamped here instead
        loop.add_reader(self._epoll.fileno(), self._drain)

    def add(self, fd: int, handler: Callable[[], None]) -> None:
        self.handlers[fd] = handler
        self._epoll.register(fd, select.EPOLLIN)

    def wait_for(self, fd: int, handler: Callable[[], None], *, writable: bool = False) -> None:
        """Change what a registered descriptor waits for, and who is called."""
        self.handlers[fd] = handler
        self._epoll.modify(fd, select.EPOLLIN | select.EPOLLOUT if writable else select.EPOLLIN)

    def remove(self, fd: int) -> None:
        if self.handlers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def close(self) -> None:
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()

    def _drain(self) -> None:
        handlers = self.handlers
        for fd, _ in self._epoll.poll(0, BATCH):
            handler = handlers.get(fd)
            if handler is not None:  # else an earlier handler of this batch closed it
                handler()


class KernelConnection(Connection):
    """A connected, non-blocking socket in a Poller."""

    def __init__(self, sock: socket.socket, poller: Poller) -> None:
        self._sock, self._poller = sock, poller
        self._fd = sock.fileno()
        self._recvmsg = sock.recvmsg
        self._read_bytes = READ_BYTES
        self._unsent = memoryview(b"")
        super().__init__()
        poller.add(self._fd, self._readable)

    def stamps_ns(self, stamps: list[bytes]) -> Int64:
        seconds_ns = np.frombuffer(b"".join(stamps), np.int64).reshape(-1, 2)
        return seconds_ns[:, 0] * NS_PER_S + (seconds_ns[:, 1] - self._poller.offset.value_ns)

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._poller.remove(self._fd)
            self._sock.close()

    def _readable(self) -> None:
        try:
            data, ancillary, _, _ = self._recvmsg(self._read_bytes, ANCILLARY_BYTES)
        except BlockingIOError:
            return  # an event of a descriptor number that was closed and given out again within one batch
        except OSError as error:
            self._peer_closed(error)
            return
        if not data:
            self._peer_closed()
            return
        if len(data) == self._read_bytes:
            self._read_bytes = BULK_BYTES
        elif self._read_bytes == BULK_BYTES and len(data) < READ_BYTES:
            self._read_bytes = READ_BYTES
        self.deliver(data, ancillary[0][2] if ancillary else self._stamp_here())

    def _stamp_here(self) -> bytes:
        self._poller.unstamped += 1
        return struct.pack("qq", *divmod(now_ns() + self._poller.offset.value_ns, NS_PER_S))

    def _write(self, payload: bytes) -> None:
        try:
            sent = self._sock.send(payload)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._peer_closed(error)
            return
        if sent == len(payload):
            self._written()
        else:
            self._unsent = memoryview(payload)[sent:]
            self._poller.wait_for(self._fd, self._writable, writable=True)

    def _writable(self) -> None:
        # The peer may answer (with an error, say) before it has read everything; that answer is read all the same.
        try:
            self._unsent = self._unsent[self._sock.send(self._unsent) :]
        except BlockingIOError:
            self._readable()
            return
        except OSError as error:
            self._peer_closed(error)
            return
        if not self._unsent:
            self._poller.wait_for(self._fd, self._readable)
            self._written()


def prepare(sock: socket.socket) -> None:
    """Ask for kernel stamps and no Nagle delay on a new socket."""
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


SELF_TEST_GAP_NS = 20_000_000


def stamping_works() -> str | None:
    """Write twice, 20 ms apart, over loopback and read both late: None if each read has its own right stamp.

    Otherwise one line saying what is wrong. Takes about 50 ms.
    """
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        writer = stack.enter_context(socket.create_connection(listener.getsockname()))
        reader = stack.enter_context(listener.accept()[0])
        try:
            reader.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        except OSError as error:
            return f"SO_TIMESTAMPNS is refused: {error.strerror}"
        offset = RealtimeOffset()
        return _self_test(writer, reader, offset)


def _self_test(writer: socket.socket, reader: socket.socket, offset: RealtimeOffset) -> str | None:
    late = select.epoll()
    written, stamped = [], []
    for _ in range(2):
        written.append(now_ns())
        writer.sendall(b"x")
        late.poll(SELF_TEST_GAP_NS / NS_PER_S)  # nothing registered: a sleep, so that the read is late
        _, ancillary, _, _ = reader.recvmsg(1, ANCILLARY_BYTES)
        if not ancillary or len(ancillary[0][2]) != 16:
            return "recvmsg brings no stamp"
        seconds, nanoseconds = struct.unpack("qq", ancillary[0][2])
        stamped.append(seconds * NS_PER_S + nanoseconds - offset.value_ns)
    late.close()
    worst_ns = max(abs(s - w) for s, w in zip(stamped, written, strict=True))
    if worst_ns > SELF_TEST_GAP_NS // 4:
        return f"stamps are {worst_ns / 1e6:.1f} ms off"
    return None
