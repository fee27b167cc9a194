"""A server on a real socket that says exactly what its script holds, for what no emulator would do.

Each connection gets a thread. Whatever is asked before the run (who are you? how many tokens is a word?) is answered
with 404, so that runs against it name the dialect and the model; what a request of the run gets is the script's matter.
`seen` counts those by X-Request-Id.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Iterator

from loadgen.record import SIZING_RUN

__all__ = ["ANSWER", "Peer", "chunked", "listening"]

NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
EVENT_STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunked(body: bytes, head: bytes = EVENT_STREAM) -> bytes:
    """An answer of one chunk."""
    return head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


ANSWER = chunked(
    b'data: {"choices":[{"index":0,"delta":{"content":"x"}}]}\n\n'
    b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"length"}],"usage":{"prompt_tokens":3,'
    b'"completion_tokens":1}}\n\ndata: [DONE]\n\n'
)

# Called with the peer, the connection and how many POSTs came on it before; returns whether to keep the connection.
Script = Callable[["Peer", socket.socket, int], bool]


class Peer:
    """Answers until its block is left."""

    def __init__(self, script: Script, tls: ssl.SSLContext | None) -> None:
        self.seen: Counter[str] = Counter()
        self.heads: list[str] = []  # of the POSTs
        self.connections = 0  # that carried a POST
        self.over = threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.listener.getsockname()[1]}"
        self._script, self._tls = script, tls
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Hang up on everybody."""
        self.over.set()
        for sock in (self.listener, *self._open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed: no connection is accepted any more
            while True:
                sock, _ = self.listener.accept()
                self._open.append(sock)
                threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError), sock:
            connection = self._tls.wrap_socket(sock, server_side=True) if self._tls else sock
            self._open.append(connection)
            with connection:
                self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        posts = 0
        while (head := _request(connection)) is not None:
            request_id = _field(head, "x-request-id")
            if head.startswith("GET ") or request_id.startswith(f"{SIZING_RUN}-"):
                connection.sendall(NOT_FOUND)
                continue
            self.heads.append(head)
            self.seen[request_id] += 1
            self.connections += posts == 0
            if not self._script(self, connection, posts):
                return
            posts += 1


def _request(connection: socket.socket) -> str | None:
    """Read one request, body included; return its head, None once the client has hung up."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        if not piece:
            return None
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    text = head.decode("latin-1")
    missing = int(_field(text, "content-length") or 0) - len(body)
    while missing > 0:
        missing -= len(connection.recv(65536))
    return text


def _field(head: str, name: str) -> str:
    return next((line.partition(":")[2].strip() for line in head.split("\r\n") if line.lower().startswith(name)), "")


@contextlib.contextmanager
def listening(script: Script, tls: ssl.SSLContext | None = None) -> Iterator[Peer]:
    peer = Peer(script, tls)
    try:
        yield peer
    finally:
        peer.close()
