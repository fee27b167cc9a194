"""A forward proxy of the smallest kind: absolute request targets for http, CONNECT for https."""

from __future__ import annotations

import contextlib
import socket
import threading
import urllib.parse

from tests.fakes.talker import GIVE_UP_S, Talk

__all__ = ["forward"]


def forward(talk: Talk) -> str:
    """A script for `talking`: relay one connection; return what was asked of the proxy."""
    head = talk.read_head()
    method, target, _ = head.split(b"\r\n")[0].decode().split(" ")
    if method == "CONNECT":
        host, _, port = target.rpartition(":")
        first = b""
    else:
        parts = urllib.parse.urlsplit(target)
        assert parts.hostname is not None
        host, port = parts.hostname, str(parts.port)
        path = parts.path.encode()
        first = head.replace(target.encode(), path, 1) + b"\r\n\r\n"
    with socket.create_connection((host, int(port)), timeout=GIVE_UP_S) as server:
        if method == "CONNECT":
            talk.say(b"HTTP/1.1 200 Connection established\r\n\r\n")
        server.sendall(first + talk.take_rest())
        back = threading.Thread(target=pump, args=(server, talk.sock))
        back.start()
        pump(talk.sock, server)
        back.join(GIVE_UP_S)
    return f"{method} {target}"


def pump(source: socket.socket, sink: socket.socket, how: int = socket.SHUT_WR) -> None:
    """Hand on what comes until it ends, then shut the other side down."""
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(how)
