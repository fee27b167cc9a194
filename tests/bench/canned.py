"""A peer that answers every request with the same bytes at once: faster than any client, so only clients are measured.

The answer is what the emulator would say to a one-token chat request. Ends with its standard input.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import sys

EVENTS = (
    b'{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"emulated",'
    b'"choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]}',
    b'{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"emulated",'
    b'"choices":[{"index":0,"delta":{"content":" word"},"logprobs":null,"finish_reason":"length","stop_reason":null}]}',
    b'{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"emulated","choices":[],'
    b'"usage":{"prompt_tokens":16,"completion_tokens":1,"total_tokens":17}}',
    b"[DONE]",
)
CHUNKS = [b"%x\r\ndata: %b\n\n\r\n" % (len(event) + 8, event) for event in EVENTS]
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
ANSWER = b"".join([HEAD, *CHUNKS, b"0\r\n\r\n"])


def serve(cpu: int) -> None:
    os.sched_setaffinity(0, {cpu})
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    listener.setblocking(False)
    print(listener.getsockname()[1], flush=True)
    epoll = select.epoll()
    epoll.register(listener.fileno(), select.EPOLLIN)
    epoll.register(sys.stdin.fileno(), select.EPOLLIN)
    peers: dict[int, socket.socket] = {}
    while True:
        for fd, _ in epoll.poll():
            peer = peers.get(fd)
            if peer is None:
                if fd != listener.fileno():
                    return
                with contextlib.suppress(BlockingIOError):
                    peer = listener.accept()[0]
                    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    peers[peer.fileno()] = peer
                    epoll.register(peer.fileno(), select.EPOLLIN)
                continue
            request = peer.recv(65536)
            if not request:
                epoll.unregister(fd)
                peers.pop(fd).close()
            elif (
                request[-1:] == b"}"
            ):  # the body is one JSON object: it has come to its end, or the next read brings it
                peer.send(ANSWER)


if __name__ == "__main__":
    serve(int(sys.argv[1]))
