"""Raw clients of the emulator: nothing between the test and the socket."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from loadgen.emulator import Law, spawn
from loadgen.emulator.spawn import Emulator

SO_TIMESTAMPNS = 35
LAW = Law(ttft_s=0.010, gap_s=0.002, output_tokens=5)


@pytest.fixture(scope="session")
def vllm() -> Iterator[Emulator]:
    with spawn(LAW) as emulator:
        yield emulator


@pytest.fixture(scope="session")
def ollama_server() -> Iterator[Emulator]:
    with spawn(LAW, presents="ollama", model="tiny:1b") as emulator:
        yield emulator


@pytest.fixture(scope="session")
def lmstudio_server() -> Iterator[Emulator]:
    with spawn(LAW, presents="lmstudio") as emulator:
        yield emulator


@pytest.fixture(scope="session")
def llamacpp_server() -> Iterator[Emulator]:
    with spawn(LAW, presents="llamacpp") as emulator:
        yield emulator


@dataclass
class Seen:
    """What a raw client saw of one answer."""

    data: bytes = b""
    reads: list[tuple[int, bytes]] = field(default_factory=list)  # kernel stamp (REALTIME ns), bytes
    reset: bool = False
    closed: bool = False

    @property
    def status(self) -> int:
        return int(self.data.split(b" ", 2)[1])

    @property
    def head(self) -> bytes:
        return self.data.partition(b"\r\n\r\n")[0].lower()

    @property
    def body(self) -> bytes:
        raw = self.data.partition(b"\r\n\r\n")[2]
        return unchunk(raw) if b"chunked" in self.head else raw

    def events(self) -> list[Any]:
        """The JSON of each `data:` line but [DONE]."""
        lines = [line for line in self.body.split(b"\n") if line.startswith(b"data: ")]
        return [json.loads(line[6:]) for line in lines if line[6:].strip() != b"[DONE]"]

    def lines(self) -> list[Any]:
        """The JSON of each line of NDJSON."""
        return [json.loads(line) for line in self.body.splitlines() if line.strip()]


def unchunk(raw: bytes) -> bytes:
    parts, at = [], 0
    while at < len(raw):
        end = raw.index(b"\r\n", at)
        size = int(raw[at:end], 16)
        parts.append(raw[end + 2 : end + 2 + size])
        at = end + 2 + size + 2
    return b"".join(parts)


def build(path: str, body: Any = None, method: str | None = None, **headers: str) -> bytes:
    payload = b"" if body is None else json.dumps(body).encode()
    method = method or ("GET" if body is None else "POST")
    lines = [f"{method} {path} HTTP/1.1", "Host: emulator", f"Content-Length: {len(payload)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + payload


def chat_body(tokens: int = 5, *, stream: bool = True, **more: Any) -> dict[str, Any]:
    message = {"role": "user", "content": "one two three"}
    return {"model": "emulated", "messages": [message], "max_tokens": tokens, "stream": stream, **more}


def dial(port: int) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), timeout=5)
    sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    return sock


def is_complete(data: bytes) -> bool:
    head, separator, body = data.partition(b"\r\n\r\n")
    if not separator:
        return False
    if b"chunked" in head.lower():
        return body.endswith(b"0\r\n\r\n")
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return len(body) >= int(line[15:])
    return False


def receive(sock: socket.socket, *, wait_s: float = 3.0, until_closed: bool = False) -> Seen:
    """Read one answer, or until the connection ends, or until `wait_s` of silence."""
    seen = Seen()
    sock.settimeout(wait_s)
    while until_closed or not is_complete(seen.data):
        try:
            data, ancillary, _, _ = sock.recvmsg(65536, 64)
        except TimeoutError:
            break
        except ConnectionResetError:
            seen.reset = True
            break
        if not data:
            seen.closed = True
            break
        seconds, nanoseconds = struct.unpack("@ll", ancillary[0][2])
        seen.reads.append((seconds * 10**9 + nanoseconds, data))
        seen.data += data
    return seen


def ask(port: int, request: bytes, *, wait_s: float = 3.0, until_closed: bool = False) -> Seen:
    with dial(port) as sock:
        sock.sendall(request)
        return receive(sock, wait_s=wait_s, until_closed=until_closed)


def chat(port: int, tokens: int = 5, *, wait_s: float = 3.0, until_closed: bool = False, **headers: str) -> Seen:
    request = build("/v1/chat/completions", chat_body(tokens), **headers)
    return ask(port, request, wait_s=wait_s, until_closed=until_closed)
