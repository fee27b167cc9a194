"""The other end of a socket, byte by byte: a script holds each connection and may do what no server should.

`peer.py` reads whole requests and answers them; here the script also decides what is read, when, and how it ends.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

__all__ = ["Talk", "Talker", "chunk", "chunked_head", "sized", "talking"]

CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n"
END = b"0\r\n\r\n"
GIVE_UP_S = 10  # a script that waits for a client in vain


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def chunked_head(extra: bytes = b"") -> bytes:
    """extra: whole header lines."""
    return CHUNKED + extra + b"\r\n"


def sized(body: bytes, status: bytes = b"200 OK", extra: bytes = b"") -> bytes:
    """A whole answer with its length said."""
    return b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%b\r\n%b" % (
        status,
        len(body),
        extra,
        body,
    )


class Talk:
    """One connection, held by a script."""

    def __init__(self, sock: socket.socket, number: int) -> None:
        self.sock, self.number = sock, number  # number: connections accepted before this one
        self._unread = b""

    def read_head(self) -> bytes:
        """Read up to the blank line; raises EOFError when the client has hung up."""
        while b"\r\n\r\n" not in self._unread:
            self._unread += self._recv()
        head, _, self._unread = self._unread.partition(b"\r\n\r\n")
        return head

    def read_body(self, size: int) -> bytes:
        while len(self._unread) < size:
            self._unread += self._recv()
        body, self._unread = self._unread[:size], self._unread[size:]
        return body

    def take_rest(self) -> bytes:
        """The bytes read beyond those asked for."""
        rest, self._unread = self._unread, b""
        return rest

    def read_request(self) -> bytes:
        """Read a whole request; return its body."""
        head = self.read_head().lower()
        return self.read_body(int(head.partition(b"content-length:")[2].partition(b"\r\n")[0]))

    def say(self, *pieces: bytes, gap_s: float = 0.0) -> None:
        """Send the pieces, each in a segment of its own if there is a gap between them."""
        for index, piece in enumerate(pieces):
            if index and gap_s:
                time.sleep(gap_s)
            self.sock.sendall(piece)

    def reset(self) -> None:
        """Close with RST instead of FIN."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def wait_for_end(self) -> None:
        """Wait until the client has closed."""
        with contextlib.suppress(EOFError, OSError):
            while True:
                self._recv()

    def _recv(self) -> bytes:
        data = self.sock.recv(65536)
        if not data:
            raise EOFError
        return data


@dataclass
class Talker:
    """What the talkers of one listener have seen."""

    port: int
    connections: int = 0
    notes: list[object] = field(default_factory=list)  # whatever a script wants to tell the test
    errors: list[BaseException] = field(default_factory=list)


@contextlib.contextmanager
def talking(
    script: Callable[[Talk], object], *, tls: ssl.SSLContext | None = None, receive_bytes: int | None = None
) -> Iterator[Talker]:
    """Listen on loopback; each connection gets a thread that runs `script` and closes when it returns.

    What a script returns is noted, if it is not None. An error in a script fails the test; a client that hangs up or
    resets is none.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as at_exit:
        if receive_bytes is not None:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        talker = Talker(listener.getsockname()[1])
        threads: list[threading.Thread] = []

        def serve(sock: socket.socket, number: int) -> None:
            sock.settimeout(GIVE_UP_S)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                with sock if tls is None else tls.wrap_socket(sock, server_side=True) as talked:
                    note = script(Talk(talked, number))
                    if note is not None:
                        talker.notes.append(note)
            except (EOFError, ConnectionError, ssl.SSLError):
                pass
            except BaseException as error:
                talker.errors.append(error)

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    sock, _ = listener.accept()
                    threads.append(threading.Thread(target=serve, args=(sock, talker.connections)))
                    talker.connections += 1
                    threads[-1].start()

        accepting = threading.Thread(target=accept)
        accepting.start()

        def hang_up() -> None:
            listener.shutdown(socket.SHUT_RDWR)
            for thread in (accepting, *threads):
                thread.join(GIVE_UP_S)

        at_exit.callback(hang_up)
        yield talker
    assert not talker.errors, talker.errors
