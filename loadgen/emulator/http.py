"""HTTP/1.1 as a server needs it: bytes to requests, answers to bytes. Pure.

Only what load generators send: Content-Length or chunked bodies, keep-alive by default. Headers are searched for, not
parsed into a dict, because this runs once for each of many thousand requests per second and few of them matter.
"""

from __future__ import annotations

from functools import cache
from http import HTTPStatus
from typing import Any

import orjson

__all__ = ["LAST_CHUNK", "BadRequest", "Reply", "Request", "chunk", "parse", "stream_head"]

LAST_CHUNK = b"0\r\n\r\n"
MAX_HEAD_BYTES = 64 << 10
_REASONS = {status.value: status.phrase for status in HTTPStatus}


class BadRequest(Exception):
    """The client does not speak HTTP/1.1 as the emulator understands it."""


class Request:
    """One request, complete. Headers are searched in the raw head on demand: few are needed."""

    __slots__ = ("_head", "_lower", "arrived_ns", "body", "instance", "keep_alive", "method", "path")

    def __init__(self, method: str, path: str, head: bytes, lower: bytes, body: bytes, keep_alive: bool) -> None:
        self.method = method
        self.path = path
        self._head = head
        self._lower = lower
        self.body = body
        self.keep_alive = keep_alive
        self.arrived_ns = 0  # set by the server: the kernel's stamp of the last byte
        self.instance = 0

    def header(self, name: bytes) -> bytes | None:
        """The value of a header, `name` in lower case."""
        return _header(self._head, self._lower, name)

    def id(self, seq: int) -> str:
        """The id under which the truth of this request is filed."""
        given = self.header(b"x-request-id")
        return given.decode("latin-1") if given else f"#{seq}"

    def json(self) -> dict[str, Any]:
        """The body as an object. Raises ValueError if it is anything else."""
        value = orjson.loads(self.body)
        if not isinstance(value, dict):
            raise ValueError("the body must be a JSON object")
        return value


class Reply:
    """An answer that is ready at once."""

    __slots__ = ("body", "content_type", "headers", "status")

    def __init__(
        self, status: int, body: Any, content_type: str = "application/json", headers: tuple[str, ...] = ()
    ) -> None:
        self.status = status
        self.body: bytes = body if isinstance(body, bytes) else orjson.dumps(body)
        self.content_type = content_type
        self.headers = headers

    def encode(self, *, keep_alive: bool, length: int | None = None, body: bool = True) -> bytes:
        """Head and body. `length` overrides the declared Content-Length; HEAD wants no body."""
        lines = [
            f"HTTP/1.1 {self.status} {_REASONS.get(self.status, 'Unknown')}",
            f"content-type: {self.content_type}",
            f"content-length: {len(self.body) if length is None else length}",
            *self.headers,
        ]
        if not keep_alive:
            lines.append("connection: close")
        return ("\r\n".join(lines) + "\r\n\r\n").encode() + (self.body if body else b"")


@cache
def stream_head(content_type: str, *, keep_alive: bool, extra: str = "") -> bytes:
    """The head of a chunked answer; `extra` is whole header lines."""
    close = "" if keep_alive else "connection: close\r\n"
    return (
        f"HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ncache-control: no-cache\r\n"
        f"transfer-encoding: chunked\r\n{extra}{close}\r\n"
    ).encode()


def chunk(payload: bytes) -> bytes:
    """One chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(payload), payload)


def _header(head: bytes, lower: bytes, name: bytes) -> bytes | None:
    at = lower.find(b"\r\n" + name + b":")
    if at < 0:
        return None
    at += len(name) + 3
    return head[at : head.index(b"\r\n", at)].strip()


def parse(data: bytes | bytearray) -> tuple[Request, int] | None:
    """The first request in `data` and how many bytes it took, or None while it is incomplete."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        if len(data) > MAX_HEAD_BYTES:
            raise BadRequest("request head too large")
        return None
    head = bytes(data[: end + 2])
    lower = head.lower()
    first = head[: head.index(b"\r\n")].split(b" ")
    if len(first) != 3 or not first[2].startswith(b"HTTP/1."):
        raise BadRequest("not an HTTP/1.1 request line")
    stop = end + 4
    if b"\r\ntransfer-encoding:" in lower:
        decoded = _chunked(data, stop)
        if decoded is None:
            return None
        body, stop = decoded
    else:
        try:
            stop += int(_header(head, lower, b"content-length") or 0)
        except ValueError:
            raise BadRequest("Content-Length is not a number") from None
        if len(data) < stop:
            return None
        body = bytes(data[end + 4 : stop])
    connection = _header(head, lower, b"connection")
    if connection is None:
        keep_alive = first[2] != b"HTTP/1.0"
    else:
        keep_alive = connection.lower() == b"keep-alive" or (connection.lower() != b"close" and first[2] != b"HTTP/1.0")
    path = first[1].partition(b"?")[0].decode("latin-1")
    return Request(first[0].decode("latin-1"), path, head, lower, body, keep_alive), stop


def _chunked(data: bytes | bytearray, at: int) -> tuple[bytes, int] | None:
    parts: list[bytes] = []
    while True:
        line_end = data.find(b"\r\n", at)
        if line_end < 0:
            return None
        try:
            size = int(bytes(data[at:line_end]).partition(b";")[0], 16)
        except ValueError:
            raise BadRequest("a chunk size is not hexadecimal") from None
        at = line_end + 2
        if size == 0:
            # Trailers, if any, end with an empty line.
            if data[at : at + 2] == b"\r\n":
                return b"".join(parts), at + 2
            trailer_end = data.find(b"\r\n\r\n", at)
            return None if trailer_end < 0 else (b"".join(parts), trailer_end + 4)
        if len(data) < at + size + 2:
            return None
        parts.append(bytes(data[at : at + size]))
        at += size + 2
