"""Server-sent events (WHATWG HTML, "Server-sent events"): bytes in, events out.

Two ways to the same answer. `EventStream` follows the standard line by line and takes the bytes in any pieces; it is
the oracle. `events` takes a whole body at once: a body of the ordinary shape (one line end throughout, one `data:` line
an event, perhaps an `event:` line before it) is cut by `bytes.split`, and counting the line ends proves that nothing
else was in it. Any other body goes to `EventStream`, so the shape decides the speed and never the result.

An event ends where it becomes known: just past the line end of its blank line, for CRLF just past the CR, because that
is the read which an event belongs to. Payloads stay bytes: only CR and LF end lines, never U+2028 or U+0085.
At the end of the body the standard drops an unfinished event; here it is kept if it is `[DONE]` or a complete JSON
object or array, because servers that forget the last blank line exist and half a message never parses.
"""

from __future__ import annotations

import re
from itertools import accumulate
from typing import NamedTuple

import numpy as np
import orjson

from loadgen.record import Int64

__all__ = ["DONE", "Event", "EventStream", "events", "split"]

DONE = b"[DONE]"
BOM = b"\xef\xbb\xbf"
LINE_END = re.compile(rb"[\r\n]")
LARGE = 4096  # bytes; from here on numpy finds the line ends faster than lists add them up

Ends = list[int] | Int64
Columns = tuple[list[bytes], Ends, list[str] | None]  # payloads, ends, names


class Event(NamedTuple):
    data: bytes
    end: int  # bytes of the stream up to where the event became known
    name: str = ""  # "" is the standard's default type, "message"
    id: str = ""


class EventStream:
    """The decoder of the standard, for bytes that come in any pieces.

    `feed` returns what the chunk completed; `close` returns the unfinished event if it is worth keeping.
    """

    def __init__(self, *, start: int = 0) -> None:
        """start: bytes of the stream before the first one fed; a BOM counts only at 0."""
        self._kept = bytearray()  # what has not been cut into lines yet
        self._scanned = 0  # how much of `_kept` is known to hold no line end
        self._at = start  # where `_kept` begins in the stream
        self._first = start == 0
        self._after_cr = False
        self._data: list[bytes] = []
        self._name = ""
        self._id = ""

    def feed(self, chunk: bytes) -> list[Event]:
        found: list[Event] = []
        if self._after_cr and chunk:
            self._after_cr = False
            if chunk[0] == 0x0A:
                chunk, self._at = chunk[1:], self._at + 1
        kept = self._kept
        kept += chunk
        begin, search = 0, LINE_END.search
        while ending := search(kept, max(begin, self._scanned)):
            line, past = bytes(kept[begin : ending.start()]), ending.end()
            if kept[past - 1] == 0x0D:
                if past == len(kept):
                    self._after_cr = True
                elif kept[past] == 0x0A:
                    past += 1
            self._line(line, self._at + ending.end(), found)
            begin = past
        del kept[:begin]
        self._at += begin
        self._scanned = len(kept)
        return found

    def close(self) -> list[Event]:
        """Return the unfinished event if it is `[DONE]` or complete JSON, else nothing (the standard drops both)."""
        end = self._at + len(self._kept)
        if self._kept:
            self._line(bytes(self._kept), end, [])
            self._kept.clear()
        found: list[Event] = []
        if self._data and is_whole(b"\n".join(self._data)):
            self._line(b"", end, found)
        self._data = []
        return found

    def _line(self, line: bytes, end: int, found: list[Event]) -> None:
        if self._first:
            self._first = False
            line = line.removeprefix(BOM)
        if not line:
            if self._data:
                found.append(Event(b"\n".join(self._data), end, self._name, self._id))
            self._data, self._name = [], ""
            return
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data.append(value)
        elif field == b"event":
            self._name = value.decode("utf-8", "replace")
        elif field == b"id" and b"\0" not in value:
            self._id = value.decode("utf-8", "replace")


def events(body: bytes) -> tuple[list[bytes], Int64, list[str] | None]:
    """Return the payloads of a whole body, where each event ended in it, and their names (None if none has one)."""
    data, ends, names = split(body)
    return data, np.array(ends, np.int64), names


def split(body: bytes) -> Columns:
    """Do what `events` does, with a list of ends where they are few: making an array costs more than filling it."""
    line_end = b"\r\n" if b"\r" in body else b"\n"
    blank = line_end * 2
    cut = len(body) if body.endswith(blank) else body.rfind(blank) + len(blank)
    if cut >= len(blank):
        whole = body[:cut]
        found = _unnamed(whole, line_end) or _named(whole, line_end)
        if found is not None:
            return found if cut == len(body) else _with_rest(found, body, cut)
    return _columns(_exact(body, 0))


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


def _unnamed(body: bytes, line_end: bytes) -> Columns | None:
    lead = b"data: " if body.startswith(b"data: ") else b"data:"
    if not body.startswith(lead) or (lead == b"data:" and line_end + b"data: " in body):
        return None
    data = body[len(lead) : -2 * len(line_end)].split(line_end * 2 + lead)
    ends = _ends(body, line_end, data, len(lead) + 2 * len(line_end), lines=2)
    return None if ends is None else (data, ends, None)


def _named(body: bytes, line_end: bytes) -> Columns | None:
    lead, inner = b"event: ", line_end + b"data: "
    if not body.startswith(lead):
        return None
    blocks = body[len(lead) : -2 * len(line_end)].split(line_end * 2 + lead)
    ends = _ends(body, line_end, blocks, len(lead) + 2 * len(line_end), lines=3)
    cut = [block.partition(inner) for block in blocks]
    if ends is None or not all(found for _, found, _ in cut):
        return None
    return [data for _, _, data in cut], ends, [name.decode("utf-8", "replace") for name, _, _ in cut]


def _ends(body: bytes, line_end: bytes, blocks: list[bytes], around: int, lines: int) -> Ends | None:
    """Where each block with `around` bytes of framing ended, or None if `body` is more than blocks of `lines` lines.

    Known at the CR of the blank line if the line end is CRLF.
    """
    expected = lines * len(blocks)
    if line_end == b"\r\n" and not body.count(b"\r") == body.count(b"\r\n") == expected:
        return None
    if len(body) < LARGE:
        if body.count(b"\n") != expected:
            return None
        ends = list(accumulate([len(block) + around for block in blocks]))
        return ends if line_end == b"\n" else [end - 1 for end in ends]
    at = line_feeds(body)
    return None if len(at) != expected else at[lines - 1 :: lines] + (2 - len(line_end))


def line_feeds(body: bytes) -> Int64:
    return np.flatnonzero(np.frombuffer(body, np.uint8) == 0x0A)


def _exact(body: bytes, start: int) -> list[Event]:
    stream = EventStream(start=start)
    return stream.feed(body) + stream.close()


def _columns(found: list[Event]) -> Columns:
    names = [event.name for event in found]
    return [event.data for event in found], [event.end for event in found], names if any(names) else None


def _with_rest(found: Columns, body: bytes, cut: int) -> Columns:
    data, ends, names = found
    more, more_ends, more_names = _columns(_exact(body[cut:], cut))
    if more_names is not None or names is not None:
        names = (names or [""] * len(data)) + (more_names or [""] * len(more))
    return data + more, list(ends) + list(more_ends), names
