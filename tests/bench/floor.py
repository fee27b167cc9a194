"""What this host's kernel asks of any client: bare loops that send or read, keep the bytes, and do nothing else.

    python -m tests.bench.floor stream --streams 1000 --rate 50 --tokens 250
    python -m tests.bench.floor ask --streams 64 --requests 40000 --port PORT

`stream`: a sender on one core gives each of many sockets `rate` tokens a second, a reader on another takes each with
one recvmsg and its stamp. `ask`: one request after the other on each socket, answered at once by canned.py.
Prints one JSON line. No client of the same design can cost less, so the table shows these beside the targets.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import resource
import select
import socket
import time
from multiprocessing import Pipe, Process
from multiprocessing.connection import Connection

from loadgen.clock import now_ns
from loadgen.transport.kernel import ANCILLARY_BYTES, EVENTS, READ_BYTES, prepare
from tests.bench.canned import CHUNKS

SERVER_CPU, CLIENT_CPU = 0, 1
TOKEN = CHUNKS[1]
PAUSE_S = 0.0005  # as the poller under many streams
CHECK_EVERY = 16  # sends between two readings of the clock
REQUEST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: emulator\r\nContent-Length: 300\r\n\r\n{" + b" " * 298 + b"}"


def send_tokens(streams: int, rate: float, tokens: int, pipe: Connection) -> None:
    """Serve `streams` sockets and tell how fast this core could give them their tokens."""
    os.sched_setaffinity(0, {SERVER_CPU})
    with socket.create_server(("127.0.0.1", 0), backlog=streams) as listener:
        pipe.send(listener.getsockname()[1])
        peers = [listener.accept()[0] for _ in range(streams)]
    for peer in peers:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sends = [peer.send for peer in peers]
    pipe.recv()
    began, gap_ns = now_ns(), 1e9 / (rate * streams)
    waited = sent = 0
    for _ in range(tokens):
        for send in sends:
            if sent % CHECK_EVERY == 0:
                arrived, due = now_ns(), began + sent * gap_ns
                while (present := now_ns()) < due:
                    pass
                waited += present - arrived
            send(TOKEN)
            sent += 1
    took = now_ns() - began
    pipe.send({"sends_per_s": sent / (took / 1e9), "us_a_send": (took - waited) / sent / 1e3})
    pipe.recv()


def read_streams(streams: int, rate: float, tokens: int) -> dict[str, float]:
    ours, theirs = Pipe()
    sender = Process(target=send_tokens, args=(streams, rate, tokens, theirs))
    sender.start()
    epoll, socks = dial(ours.recv(), streams)
    reads = {fd: sock.recvmsg for fd, sock in socks.items()}
    kept: list[bytes] = []
    stamps: list[bytes] = []
    missing = streams * tokens * len(TOKEN)
    ours.send(None)
    began = os.times()
    while missing > 0:
        ready = epoll.poll(0, 512)
        for fd, _ in ready:
            data, ancillary, _, _ = reads[fd](READ_BYTES, ANCILLARY_BYTES)
            kept.append(data)
            stamps.append(ancillary[0][2])
            missing -= len(data)
        if len(ready) < 8:
            time.sleep(PAUSE_S)
    facts = {**spent(began, os.times(), streams * tokens), "tokens_a_read": streams * tokens / len(kept), **ours.recv()}
    ours.send(None)
    sender.join()
    return facts


def ask(port: int, streams: int, requests: int) -> dict[str, float]:
    epoll, socks = dial(port, streams)
    pairs = {fd: (sock.recvmsg, sock.send) for fd, sock in socks.items()}
    kept: list[bytes] = []
    for _, send in pairs.values():
        send(REQUEST)
    sent = streams
    began = os.times()
    while len(kept) < requests:
        for fd, _ in epoll.poll(-1, 512):
            recvmsg, send = pairs[fd]
            kept.append(recvmsg(READ_BYTES, ANCILLARY_BYTES)[0])
            if sent < requests:
                sent += 1
                send(REQUEST)
    return spent(began, os.times(), requests)


def dial(port: int, count: int) -> tuple[select.epoll, dict[int, socket.socket]]:
    """Open `count` sockets; return the epoll set they are in, and them."""
    epoll = select.epoll()
    socks = {}
    for _ in range(count):
        sock = socket.create_connection(("127.0.0.1", port))
        prepare(sock)
        epoll.register(sock.fileno(), EVENTS)
        socks[sock.fileno()] = sock
    return epoll, socks


def spent(began: os.times_result, ended: os.times_result, count: int) -> dict[str, float]:
    user, system = ended.user - began.user, ended.system - began.system
    return {
        "user_us": user / count * 1e6,
        "system_us": system / count * 1e6,
        "wall_us": (ended.elapsed - began.elapsed) / count * 1e6,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("stream", "ask"))
    parser.add_argument("--streams", type=int, required=True)
    parser.add_argument("--rate", type=float, default=50.0)
    parser.add_argument("--tokens", type=int, default=250)
    parser.add_argument("--requests", type=int, default=40_000)
    parser.add_argument("--port", type=int, help="of canned.py's peer, for ask")
    options = parser.parse_args()
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    os.sched_setaffinity(0, {CLIENT_CPU})
    gc.disable()
    if options.what == "stream":
        facts = read_streams(options.streams, options.rate, options.tokens)
    else:
        facts = ask(options.port, options.streams, options.requests)
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
