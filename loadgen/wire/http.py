"""HTTP/1.1 framing of one request and one response, as bytes.

On the measured path a response costs one `Framing.feed` per read: it reads the head once and after that only checks the
last five bytes (chunked) or a count (Content-Length). The body is un-chunked once, when the response has ended:
`split` at CRLF does it at C speed when the lengths of the pieces agree with the sizes announced, else a walk does.
A head that was seen before is not parsed again: servers repeat theirs, except for the Date once a second.
Heads are read strictly, as RFC 9112 and RFC 9110 define them, because two readings of one head are two lengths of one
answer. Where the RFCs leave a choice the stricter one is taken: obsolete folding and a lone LF as line end are refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from loadgen.record import Int64
from loadgen.wire import Response

__all__ = ["CHUNKED", "STREAM_END", "UNTIL_CLOSE", "BadHttp", "Framing", "Head", "request_bytes", "request_head"]

MAX_HEAD_BYTES = 256 * 1024


class BadHttp(Exception):
    """The peer does not speak HTTP/1.1. The message quotes the bytes it sent."""


class Head(NamedTuple):
    """A response head. length: -1 chunked, -2 until the connection closes, else the body's bytes."""

    status: int
    headers: dict[str, str]  # shared between responses with the same head, so never changed
    length: int
    keep_alive: bool


STREAM_END = b"\r\n\r\n"  # the only way a chunked body can end, with trailers or without
CHUNKED = -1
UNTIL_CLOSE = -2
# Explicit sets: \s, \d and str.strip() take more than HTTP does, and int() takes signs, underscores and blanks.
_STATUS_LINE = r"HTTP/1\.[0-9] [1-9][0-9]{2}(?: [\t\x20-\x7e\x80-\xff]*)?"
_FIELD_LINE = r"[-!#$%&'*+.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*"
_is_head = re.compile(rf"{_STATUS_LINE}(?:\r\n{_FIELD_LINE})*").fullmatch
_is_status_line = re.compile(_STATUS_LINE).fullmatch
_is_field_line = re.compile(_FIELD_LINE).fullmatch
_is_number = re.compile(r"[0-9]{1,20}").fullmatch
_is_chunk_size = re.compile(rb"[0-9a-fA-F]{1,15}").fullmatch
_lone_line_feed = re.compile(rb"(?<!\r)\n").search
_BLANKS = " \t"
_HEX_DIGITS = b"0123456789abcdefABCDEF"


def request_head(method: str, path: str, host: str, headers: Mapping[str, str]) -> bytes:
    """The part of a request head that does not change from one request to the next.

    `request_bytes` finishes it. Raises ValueError on a header that would break the framing.
    """
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", *(f"{name}: {value}" for name, value in headers.items())]
    if any("\r" in line or "\n" in line for line in lines):
        raise ValueError("a header or path holds a line break")
    return ("\r\n".join(lines) + "\r\n").encode("latin-1")


def request_bytes(head: bytes, request_id: str, body: bytes) -> bytes:
    """The whole request: head, the two fields that vary, body."""
    return b"%bX-Request-Id: %b\r\nContent-Length: %d\r\n\r\n%b" % (head, request_id.encode(), len(body), body)


@lru_cache(maxsize=512)
def parse_head(head: bytes) -> Head:
    """The response head in `head`, which ends before its final blank line. Values of repeated fields are joined.

    Raises BadHttp, which names the first thing that RFC 9112 does not allow.
    """
    text = head.decode("latin-1")
    lines = text.split("\r\n")
    if not _is_head(text):
        raise BadHttp(_fault(lines))
    headers: dict[str, str] = {}
    for line in lines[1:]:
        name, _, value = line.partition(":")
        name, value = name.lower(), value.strip(_BLANKS)
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    old, status = lines[0].startswith("HTTP/1.0"), int(lines[0][9:12])
    if status == 101:
        raise BadHttp("the server switched to another protocol (101), which the request did not ask for")
    length = _length(status, headers, old)
    options = _tokens(headers["connection"]) if "connection" in headers else ()
    keep_alive = length != UNTIL_CLOSE and "close" not in options and (not old or "keep-alive" in options)
    return Head(status, headers, length, keep_alive)


def _length(status: int, headers: dict[str, str], old: bool) -> int:
    """The body's bytes, CHUNKED or UNTIL_CLOSE (RFC 9112, 6.3). Raises BadHttp on fields that contradict or mislead.

    old: the answer is of HTTP/1.0, where a Transfer-Encoding is a fault (6.1).
    """
    coding, announced = headers.get("transfer-encoding"), headers.get("content-length")
    if coding is not None:
        if old:
            raise BadHttp(f"Transfer-Encoding in an HTTP/1.0 answer: {coding[:40]!r}")
        # Others are not understood, and without chunked as the last one the body has no end.
        if coding.lower() != "chunked":
            raise BadHttp(f"Transfer-Encoding is not chunked alone: {coding[:40]!r}")
    if announced is not None:
        values = {value.strip(_BLANKS) for value in announced.split(",")}
        if len(values) > 1:
            raise BadHttp(f"Content-Lengths that differ: {announced[:40]!r}")
        announced = values.pop()
        if not _is_number(announced):
            raise BadHttp(f"Content-Length is not a number: {announced[:40]!r}")
    if status < 200 or status in (204, 304):
        return 0
    if coding is not None:
        return CHUNKED
    return UNTIL_CLOSE if announced is None else int(announced)


def _tokens(value: str) -> list[str]:
    """The members of a comma-separated list of tokens, in lower case, because case means nothing in one."""
    return [token.strip(_BLANKS) for token in value.lower().split(",")]


def _fault(lines: list[str]) -> str:
    """One line about the first of a head's lines that is not allowed."""
    if not _is_status_line(lines[0]):
        if "\n" in lines[0]:
            return _lone(lines[0])
        return f"not an HTTP/1.1 answer: {lines[0][:80]!r}"
    line = next(line for line in lines[1:] if not _is_field_line(line))
    if line.startswith((" ", "\t")):
        return f"a header folded over two lines: {line[:80]!r}"
    if "\n" in line:
        return _lone(line)
    name, colon, _ = line.partition(":")
    if not colon:
        return f"not a header line: {line[:80]!r}"
    if not _is_field_line(f"{name}:"):
        blank = name.endswith((" ", "\t"))
        return f"{'a blank before the colon of a header' if blank else 'not the name of a header'}: {line[:80]!r}"
    return f"a control character in a header: {line[:80]!r}"


def _lone(text: str) -> str:
    return f"a line of the head ends in LF alone: {text[:80]!r}"


class Framing:
    """The end of one response, found at constant cost per read, and its body without chunks.

    `reads` are the raw bytes of each read, in order. Code that appends to it calls `advance`, but need not while
    `streaming` is true and the read holds four bytes or more and does not end in `STREAM_END`.
    """

    __slots__ = ("_missing", "_parts", "complete", "head", "head_end", "head_read", "reads", "streaming")

    def __init__(self) -> None:
        self.reads: list[bytes] = []
        self.head: Head | None = None
        self.head_end = 0  # offset in the joined reads where the body begins
        self.head_read = 0  # index of the read that completed the head
        self.streaming = False  # a chunked body has begun
        self.complete = False
        self._missing = 0
        self._parts: list[bytes] | None = None  # the chunked body cut at CRLF, once that is known to be exact

    def feed(self, data: bytes) -> bool:
        """Whether the response is complete with the read `data`. Raises BadHttp."""
        self.reads.append(data)
        return self.advance()

    def advance(self) -> bool:
        """Whether the response is complete with the latest of `reads`. Raises BadHttp."""
        head = self.head
        if head is None:
            return self._read_head()
        if self.streaming:
            tail = self.reads[-1][-5:]
            if len(tail) < 5:
                tail = b"".join(self.reads[-5:])[-5:]
            # A line end before the last two is a server-sent event of CRLF lines inside its chunk, not the end.
            return tail[-4:] == STREAM_END and tail[0] != 10 and self._chunks_complete()
        if head.length == UNTIL_CLOSE:
            return False
        self._missing -= len(self.reads[-1])
        self.complete = self._missing <= 0
        return self.complete

    def eof(self) -> bool:
        """Whether the response is complete now that the peer has closed."""
        if self.head is not None and self.head.length == UNTIL_CLOSE:
            self.complete = True
        return self.complete

    @property
    def keep_alive(self) -> bool:
        """Whether the connection may carry another request."""
        return self.complete and self.head is not None and self.head.keep_alive and self._missing == 0

    def response(self) -> Response:
        """The response as far as it has come, un-chunked. Only after the head has been read."""
        if self.head is None:
            raise BadHttp("no complete response head")
        raw = self.reads[0] if len(self.reads) == 1 else b"".join(self.reads)
        head, start = self.head, self.head_end
        if head.length == CHUNKED:
            body, read_ends = _unchunk(raw, start, self.reads, self._parts)
        else:
            end = len(raw) if head.length == UNTIL_CLOSE else min(len(raw), start + head.length)
            body = raw[start:end]
            read_ends = np.clip(_raw_ends(self.reads), start, end) - start
        return Response(head.status, head.headers, body, read_ends, self.complete)

    def _read_head(self) -> bool:
        raw = self.reads[0] if len(self.reads) == 1 else b"".join(self.reads)
        while True:
            end = raw.find(b"\r\n\r\n", self.head_end)
            if end < 0:
                if not b"HTTP/1.".startswith(raw[self.head_end : self.head_end + 7]):
                    raise BadHttp(f"not an HTTP/1.1 answer: {raw[self.head_end : self.head_end + 80]!r}")
                lone = _lone_line_feed(raw, self.head_end)
                if lone is not None:  # else this waits for an end that does not come
                    raise BadHttp(_lone(raw[self.head_end : lone.end()].decode("latin-1")))
                if len(raw) > MAX_HEAD_BYTES:
                    raise BadHttp(f"no end of the response head within {MAX_HEAD_BYTES} bytes")
                return False
            head = parse_head(raw[self.head_end : end])
            self.head_end = end + 4
            if head.status >= 200:  # else an interim answer, such as 100 Continue
                break
        self.head, self.head_read = head, len(self.reads) - 1
        if head.length == CHUNKED:
            self.streaming = True
            return raw.endswith(b"\r\n\r\n") and len(raw) > self.head_end and self._chunks_complete()
        if head.length == UNTIL_CLOSE:
            return False
        self._missing = head.length - (len(raw) - self.head_end)
        self.complete = self._missing <= 0
        return self.complete

    def _chunks_complete(self) -> bool:
        # Five bytes can lie (a read may end inside a chunk that holds them), so the sizes are followed to the end.
        raw = self.reads[0] if len(self.reads) == 1 else b"".join(self.reads)
        self._parts = _exact_parts(raw[self.head_end :])
        if self._parts is not None:
            self.complete = True
        else:
            _, end = _walk_chunks(raw, self.head_end)
            if end >= 0:
                self.complete = True
                self._missing = end - len(raw)  # bytes after the end: the connection is not reused
        return self.complete


def _raw_ends(reads: list[bytes]) -> Int64:
    return np.fromiter(accumulate(map(len, reads)), np.int64, len(reads))


def _exact_parts(chunked: bytes) -> list[bytes] | None:
    """The parts of a complete chunked body cut at CRLF: [size, data, size, data, …, b"0", b"", b""].

    None if the sizes do not agree with the lengths: a chunk extension, CRLF inside a chunk, trailers, an early end.
    """
    parts = chunked.split(b"\r\n")
    if len(parts) % 2 == 0 or parts[-3:] != [b"0", b"", b""]:
        return None
    announced = parts[0:-3:2]
    if b"".join(announced).translate(None, _HEX_DIGITS):  # int() alone would take b" 5", b"+5" and b"0x5"
        return None
    try:
        sizes = [int(size, 16) for size in announced]
    except ValueError:
        return None
    # A size of 0 is the end: bytes after it are no part of the body.
    return parts if sizes == list(map(len, parts[1:-3:2])) and 0 not in sizes else None


def _walk_chunks(raw: bytes, start: int) -> tuple[list[tuple[int, int]], int]:
    """([(begin, end) of each chunk's data in raw], end of the body), found by following the chunk sizes from `start`.

    The last chunk may be cut short. The end is -1 if the final chunk and its trailers are not all there. Raises BadHttp
    on a size that is no number.
    """
    spans: list[tuple[int, int]] = []
    at = start
    while True:
        line_end = raw.find(b"\r\n", at)
        if line_end < 0:
            return spans, -1
        size_text = raw[at:line_end].partition(b";")[0].rstrip(b" \t")
        if not _is_chunk_size(size_text):
            raise BadHttp(f"not a chunk size: {size_text[:40]!r}")
        size = int(size_text, 16)
        data = line_end + 2
        if size == 0:
            if raw[data : data + 2] == b"\r\n":
                return spans, data + 2
            end = raw.find(b"\r\n\r\n", data)
            return spans, (end + 4 if end >= 0 else -1)
        spans.append((data, min(data + size, len(raw))))
        if data + size + 2 > len(raw):
            return spans, -1
        at = data + size + 2


def _unchunk(raw: bytes, start: int, reads: list[bytes], parts: list[bytes] | None) -> tuple[bytes, Int64]:
    """(body, bytes of it complete after each read)."""
    if parts is not None:
        chunks = parts[1:-3:2]
        body = b"".join(chunks)
        if len(reads) == 1:
            return body, np.array([len(body)], np.int64)
        sizes = np.fromiter(map(len, chunks), np.int64, len(chunks))
        size_lines = np.fromiter(map(len, parts[0:-3:2]), np.int64, len(chunks))
        # On the wire a chunk is its size line, CRLF, data, CRLF.
        data_begin = start + np.cumsum(size_lines + sizes + 4) - sizes - 2
    else:
        spans, _ = _walk_chunks(raw, start)
        body = b"".join([raw[a:b] for a, b in spans])
        data_begin = np.array([a for a, _ in spans], np.int64)
        sizes = np.array([b - a for a, b in spans], np.int64)
    if not len(sizes):
        return body, np.zeros(len(reads), np.int64)
    body_end = np.cumsum(sizes)
    ends = _raw_ends(reads)
    # For each read: the last chunk begun before it ended, and how much of that chunk it had brought.
    which = np.searchsorted(data_begin, ends, side="left") - 1
    inside = np.minimum(ends - data_begin[which], sizes[which])
    return body, np.where(which < 0, 0, body_end[which] - sizes[which] + inside)
