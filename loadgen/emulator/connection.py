"""One accepted socket: bytes out as fast as it takes them, in order, or dribbled on purpose.

Bytes that the socket does not take are kept and sent on EPOLLOUT. A connection that fails calls `on_lost` once, and
ignores later writes, so that writers need not check after every send.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush

__all__ = ["Connection", "Timers"]

Callback = Callable[[], None]
READ = select.EPOLLIN
READ_WRITE = select.EPOLLIN | select.EPOLLOUT
_LINGER_0 = struct.pack("ii", 1, 0)


class Timers:
    """Callbacks at instants; the server's loop runs those that are due."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Callback]] = []
        self._count = 0

    def at(self, at_ns: int, callback: Callback) -> None:
        """Call `callback` at an instant, or in the next turn if it has passed."""
        self._count += 1
        heappush(self._heap, (at_ns, self._count, callback))

    def next_ns(self) -> int | None:
        """The instant of the next callback."""
        return self._heap[0][0] if self._heap else None

    def run(self, now_ns: int) -> None:
        """Run the callbacks that are due."""
        while self._heap and self._heap[0][0] <= now_ns:
            heappop(self._heap)[2]()


class Connection:
    """An accepted socket, the bytes that came in, and those that could not go out yet."""

    __slots__ = (
        "_dribble",
        "_epoll",
        "_every_ns",
        "_on_lost",
        "_timers",
        "closed",
        "closing",
        "fd",
        "inbox",
        "instance",
        "outbox",
        "sock",
        "stamp_ns",
        "stream",
        "waiting",
    )

    def __init__(
        self,
        sock: socket.socket,
        instance: int,
        epoll: select.epoll,
        timers: Timers,
        on_lost: Callable[[Connection], None],
    ) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.instance = instance
        self.inbox: bytes | bytearray = b""
        self.outbox = bytearray()
        self.stream: object | None = None  # the answer under way: kept here for the server, and never touched
        self.waiting = False  # an answer is set for later; no other may be served before
        self.closing = False  # close as soon as everything is out
        self.closed = False
        self.stamp_ns = 0  # arrival of the last byte read
        self._epoll = epoll
        self._timers = timers
        self._on_lost = on_lost
        self._dribble: deque[tuple[bytes, Callback | None]] = deque()
        self._every_ns = 0
        epoll.register(self.fd, READ)

    @property
    def orderly(self) -> bool:
        """Whether all earlier bytes were sent: a send would follow them on the wire at once."""
        return not (self.outbox or self._dribble)

    def write(self, data: bytes, before: Callback | None = None) -> None:
        """Send in order; `before` runs just before the send (it stamps, or it ends the answer)."""
        if self._dribble:
            self._dribble.append((data, before))
            return
        if before is not None:
            before()
        if self.closed or not data:
            return
        if self.outbox:
            self.outbox += data
            return
        try:
            sent = self.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.lose()
            return
        if sent != len(data):
            self.keep(data[sent:])

    def keep(self, rest: bytes) -> None:
        """Keep the bytes that a send left over, until the socket takes more."""
        self.outbox += rest
        self._epoll.modify(self.fd, READ_WRITE)

    def dribble(self, pieces: list[tuple[bytes, Callback | None]], every_ns: int) -> None:
        """Send pieces one by one, the first now, or after pieces already on their way."""
        idle = not self._dribble
        self._dribble.extend(pieces)
        self._every_ns = every_ns
        if idle:
            self._drip()

    def _drip(self) -> None:
        if self.closed or not self._dribble:
            return
        data, before = self._dribble.popleft()
        held, self._dribble = self._dribble, deque()
        self.write(data, before)
        held.extend(self._dribble)  # bytes that `before` wrote come after those that were there
        self._dribble = held
        if held:
            self._timers.at(time.monotonic_ns() + self._every_ns, self._drip)
        else:
            self.close_if_done()

    def writable(self) -> None:
        """Send the bytes that were kept."""
        try:
            sent = self.sock.send(self.outbox)
        except BlockingIOError:
            return
        except OSError:
            self.lose()
            return
        del self.outbox[:sent]
        if not self.outbox:
            self._epoll.modify(self.fd, READ)
            self.close_if_done()

    def close_if_done(self) -> None:
        """Close, if `closing` is set and everything is out."""
        if self.closing and self.orderly:
            self.lose()

    def lose(self) -> None:
        """Close now; bytes not sent are dropped."""
        if not self.closed:
            self.closed = True
            self.sock.close()
            self._dribble.clear()
            self._on_lost(self)

    def reset(self) -> None:
        """Close with an RST."""
        if not self.closed:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0)
            self.lose()
