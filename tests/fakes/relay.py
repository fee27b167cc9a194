"""A proxy that hands on every piece as it comes, with Nagle's algorithm on or off."""

from __future__ import annotations

import contextlib
import socket
import threading
import urllib.parse
from collections.abc import Iterator

from tests.fakes.proxy import pump
from tests.fakes.talker import GIVE_UP_S

__all__ = ["relaying"]


@contextlib.contextmanager
def relaying(url: str, *, nodelay: bool) -> Iterator[str]:
    """Yield the URL of a proxy before the server at `url`. nodelay: set TCP_NODELAY towards the clients."""
    behind = urllib.parse.urlsplit(url)
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        threads: list[threading.Thread] = []

        def start(source: socket.socket, sink: socket.socket) -> None:
            threads.append(threading.Thread(target=pump, args=(source, sink, socket.SHUT_RDWR)))
            threads[-1].start()

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    server = socket.create_connection((behind.hostname, behind.port), GIVE_UP_S)
                    server.settimeout(None)
                    server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, int(nodelay))
                    stack.callback(client.close)
                    stack.callback(server.close)
                    start(client, server)
                    start(server, client)

        accepting = threading.Thread(target=accept)
        accepting.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        for thread in (accepting, *threads):
            thread.join(GIVE_UP_S)
