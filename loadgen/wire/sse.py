"""Server-sent events (WHATWG HTML, "Server-sent events"): bytes in, events out.

Two ways to the same answer. `EventStream` follows the standard line by line and takes the bytes in any pieces; it is
the oracle. `blocks` takes a whole body at once and only finds the blank lines, at the speed of numpy;
`open_block` then reads a block by the same rules, where it is needed. Bodies that mix line ends or begin with a BOM
go through `EventStream`, so the shape decides the speed and never the result.

An event ends where it becomes known: just past the line end of its blank line, for CRLF just past the CR, because that
is the read which an event belongs to. Payloads stay bytes: only CR and LF end lines, never U+2028 or U+0085.

Beyond the standard: at the end of the body it drops an unfinished event; here it is kept if it is `[DONE]` or a
complete JSON object or array, because servers that forget the last blank line exist and half a message never parses.
And a line `error: {...}`, an unknown field to the standard, is an event named error: llama.cpp once sent errors so.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np
import orjson

from loadgen.wire.blocks import LARGE, Blocks, Offsets, blank_lines, line_feeds

__all__ = ["DONE", "Event", "EventStream", "blocks", "is_whole", "open_block"]

DONE = b"[DONE]"
BOM = b"\xef\xbb\xbf"
LINE_END = re.compile(rb"[\r\n]")


class Event(NamedTuple):
    data: bytes
    end: int  # bytes of the stream up to where the event became known
    name: str = ""  # "" is the standard's default type, "message"
    id: str = ""


class EventStream:
    """The decoder of the standard, for bytes that come in any pieces.

    `feed` returns what the chunk completed; `close` returns the unfinished event if it is worth keeping.
    """

    def __init__(self) -> None:
        self._kept = bytearray()  # the bytes not cut into lines yet
        self._scanned = 0  # how much of `_kept` is known to hold no line end
        self._at = 0  # where `_kept` begins in the stream
        self._first = True
        self._after_cr = False
        self._data: list[bytes] = []
        self._name = ""
        self._id = ""

    def feed(self, chunk: bytes) -> list[Event]:
        events: list[Event] = []
        if self._after_cr and chunk:
            self._after_cr = False
            if chunk[0] == 0x0A:
                chunk, self._at = chunk[1:], self._at + 1
        pending = self._kept
        pending += chunk
        begin, search = 0, LINE_END.search
        while ending := search(pending, max(begin, self._scanned)):
            line, past = bytes(pending[begin : ending.start()]), ending.end()
            if pending[past - 1] == 0x0D:
                if past == len(pending):
                    self._after_cr = True
                elif pending[past] == 0x0A:
                    past += 1
            self._line(line, self._at + ending.end(), events)
            begin = past
        del pending[:begin]
        self._at += begin
        self._scanned = len(pending)
        return events

    def close(self) -> list[Event]:
        """The unfinished event if it is `[DONE]` or complete JSON, else nothing (the standard drops both)."""
        end = self._at + len(self._kept)
        if self._kept:
            self._line(bytes(self._kept), end, [])
            self._kept.clear()
        events: list[Event] = []
        if self._data and is_whole(b"\n".join(self._data)):
            self._line(b"", end, events)
        self._data = []
        return events

    def _line(self, line: bytes, end: int, events: list[Event]) -> None:
        if self._first:
            self._first = False
            line = line.removeprefix(BOM)
        if not line:
            if self._data:
                events.append(Event(b"\n".join(self._data), end, self._name, self._id))
            self._data, self._name = [], ""
            return
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data.append(value)
        elif field == b"event":
            self._name = value.decode("utf-8", "replace")
        elif field == b"error":
            self._data.append(value)
            self._name = "error"
        elif field == b"id" and b"\0" not in value:
            self._id = value.decode("utf-8", "replace")


def blocks(body: bytes) -> Blocks:
    """The blocks of a whole body between blank lines. A block without an event has no payload in `open_block`."""
    text = body
    if b"\r" in body:
        text = body.replace(b"\r\n", b"\n")
        if b"\r" in text or len(body) - len(text) != text.count(b"\n"):
            return _exact(body)
    if text.startswith(BOM):
        return _exact(body)
    starts, stops, ends = _large(text) if len(text) >= LARGE else _small(text)
    if text is not body:
        ends = _before_lf(text, ends)
    rest_at = stops[-1] + 2 if stops else 0
    rest = open_block(text[rest_at:])[0] if rest_at < len(text) else None
    if rest is not None and is_whole(rest):
        starts, stops, ends = [*starts, rest_at], [*stops, len(text)], [*ends, len(body)]
    return Blocks(text, starts, stops, ends, b"\n\n")


def open_block(block: bytes) -> tuple[bytes | None, str]:
    """The payload of the lines of one event, None if they have none, and its name."""
    if block.startswith(b"data: ") and b"\n" not in block:
        return block[6:], ""
    data, name = [], ""
    for line in block.split(b"\n"):
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field in (b"data", b"error"):
            data.append(value)
        if field == b"event":
            name = value.decode("utf-8", "replace")
        elif field == b"error":
            name = "error"
    return b"\n".join(data) if data else None, name


def is_whole(data: bytes) -> bool:
    """Whether an unfinished payload is complete after all; a bare number or word may have been cut short."""
    data = data.strip()
    if data == DONE:
        return True
    if not data.startswith((b"{", b"[")):
        return False
    try:
        orjson.loads(data)
    except orjson.JSONDecodeError:
        return False
    return True


def _small(text: bytes) -> tuple[list[int], list[int], Offsets]:
    starts: list[int] = []
    stops: list[int] = []
    at = 0
    for block in text.split(b"\n\n")[:-1]:
        starts.append(at)
        at += len(block)
        stops.append(at)
        at += 2
    return starts, stops, [stop + 2 for stop in stops]


def _large(text: bytes) -> tuple[list[int], list[int], Offsets]:
    ends = blank_lines(text) + 1
    starts = ends.tolist()
    return [0, *starts[:-1]] if starts else [], (ends - 2).tolist(), ends


def _before_lf(text: bytes, ends: Offsets) -> Offsets:
    """Ends in a body that had a CR before each LF: just past the CR of the blank line, where the event is known."""
    return np.add(ends, np.searchsorted(line_feeds(text), ends) - 1)


def _exact(body: bytes) -> Blocks:
    """The events that the decoder finds, written down again in the ordinary shape."""
    stream = EventStream()
    events = stream.feed(body) + stream.close()
    texts = [
        (b"event: " + event.name.encode() + b"\n" if event.name else b"") + b"data: " + data
        for event in events
        for data in [event.data.replace(b"\n", b"\ndata: ")]
    ]
    starts, stops, _ = _small(b"\n\n".join([*texts, b""]))
    return Blocks(b"\n\n".join(texts), starts, stops, [event.end for event in events], b"\n\n")
