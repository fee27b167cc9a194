"""How fast the emulator is on one core, against a reader on another that does nothing but `recv`.

    python tests/bench/bench_emulator.py [--streams 2500] [--gap-ms 20] [--seconds 4]

Prints three figures: tokens/s of many paced streams (with the CPU each token cost and how late tokens
were), short keep-alive requests/s, and the bytes/s of flooding streams. The reader is pinned to the second core,
the emulator to the first.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import socket
import time
from pathlib import Path

from loadgen.emulator import Law, spawn

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """Return the CPU seconds, user and system, a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def request(tokens: int, *, stream: bool = True) -> bytes:
    body = {"model": "emulated", "messages": [{"role": "user", "content": "a b c"}], "stream": stream}
    text = json.dumps({**body, "max_tokens": tokens}).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: "
    return head.encode() + b"%d\r\n\r\n" % len(text) + text


def dial(port: int, count: int) -> list[socket.socket]:
    return [socket.create_connection(("127.0.0.1", port)) for _ in range(count)]


def read_streams(socks: list[socket.socket], payload: bytes, spread_s: float) -> tuple[int, int]:
    """Send one request on each socket, evenly over `spread_s`; read all to their ends. Return (events, bytes)."""
    epoll = select.epoll()
    by_fd = {sock.fileno(): sock for sock in socks}
    for sock in socks:
        epoll.register(sock.fileno(), select.EPOLLIN)
    events = read = done = sent = 0
    began = time.monotonic()
    while done < len(socks):
        while sent < len(socks) and time.monotonic() - began >= sent * spread_s / len(socks):
            socks[sent].sendall(payload)
            sent += 1
        for fd, _ in epoll.poll(0.001, 4096):
            data = by_fd[fd].recv(1 << 18)
            events += data.count(b'"content":" ')
            read += len(data)
            if data.endswith(b"\r\n0\r\n\r\n") or not data:
                done += 1
    epoll.close()
    return events, read


def bench_tokens(streams: int, gap_ms: float, seconds: float, cpus: tuple[int, int]) -> None:
    law = Law(ttft_s=0.05, gap_s=gap_ms / 1e3)
    tokens = int(seconds * 1e3 / gap_ms)
    with spawn(law, cpu=cpus[0]) as emulator:
        socks = dial(emulator.port, streams)
        before, mine, began = cpu_s(emulator.pid), time.process_time(), time.monotonic()
        events, _ = read_streams(socks, request(tokens), min(1.0, gap_ms / 1e3))
        wall, used = time.monotonic() - began, cpu_s(emulator.pid) - before
        truths = emulator.truth().values()
        gap_ns = round(gap_ms * 1e6)
        late = sorted((at - t.first_due_ns - i * gap_ns) / 1e3 for t in truths for i, at in enumerate(t.token_ns))
        steady = sum(len(t.token_ns) for t in truths) / (
            (max(t.token_ns[-1] for t in truths) - min(t.token_ns[0] for t in truths)) / 1e9
        )
        mine = time.process_time() - mine
        for sock in socks:
            sock.close()
    print(
        f"tokens:   {streams} streams x {1e3 / gap_ms:.0f}/s asked {streams * 1e3 / gap_ms:,.0f}/s, "
        f"sent {steady:,.0f}/s ({events:,} read in {wall:.2f} s), {used / events * 1e6:.2f} us CPU/token, "
        f"emulator {used / wall:.0%} of its core, reader {mine / wall:.0%}; tokens late by "
        f"p50 {late[len(late) // 2]:,.0f} us, p99 {late[int(len(late) * 0.99)]:,.0f} us"
    )


def bench_requests(connections: int, seconds: float, cpus: tuple[int, int], *, stream: bool) -> None:
    payload = request(1, stream=stream)
    with spawn(Law(ttft_s=0, gap_s=0), cpu=cpus[0]) as emulator:
        socks = dial(emulator.port, connections)
        epoll = select.epoll()
        by_fd = {sock.fileno(): sock for sock in socks}
        for sock in socks:
            epoll.register(sock.fileno(), select.EPOLLIN)
        before, mine, began = cpu_s(emulator.pid), time.process_time(), time.monotonic()
        for sock in socks:
            sock.send(payload)
        answers = 0
        while time.monotonic() - began < seconds:
            for fd, _ in epoll.poll(0.1, 4096):
                sock = by_fd[fd]
                sock.recv(65536)
                answers += 1
                sock.send(payload)
        wall, used = time.monotonic() - began, cpu_s(emulator.pid) - before
        mine = time.process_time() - mine
        epoll.close()
        for sock in socks:
            sock.close()
    print(
        f"requests: {answers / wall:,.0f}/s {'streamed' if stream else 'whole'} of one token on {connections} kept "
        f"connections, {used / answers * 1e6:.1f} us CPU/request, emulator {used / wall:.0%}, reader {mine / wall:.0%}"
    )


def bench_flood(streams: int, tokens: int, cpus: tuple[int, int]) -> None:
    with spawn(Law(ttft_s=0, gap_s=0), cpu=cpus[0]) as emulator:
        socks = dial(emulator.port, streams)
        began = time.monotonic()
        events, read = read_streams(socks, request(tokens), 0.0)
        wall = time.monotonic() - began
        for sock in socks:
            sock.close()
    print(f"flood:    {events / wall:,.0f} events/s, {read / wall / 1e6:,.0f} MB/s over {streams} streams")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=2500)
    parser.add_argument("--gap-ms", type=float, default=20.0)
    parser.add_argument("--seconds", type=float, default=4.0)
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    cpus = (cores[0], cores[-1])
    os.sched_setaffinity(0, {cpus[1]})
    bench_tokens(options.streams, options.gap_ms, options.seconds, cpus)
    bench_requests(256, min(3.0, options.seconds), cpus, stream=True)
    bench_requests(256, min(3.0, options.seconds), cpus, stream=False)
    bench_flood(8, 20_000, cpus)


if __name__ == "__main__":
    main()
