"""Newline-delimited JSON: one message a line, cut at 0x0A and nowhere else.

`str.splitlines` would also cut at U+2028 and U+0085, which may stand raw inside JSON strings. CRLF, blank lines, a BOM
and a missing last line end are tolerated; an unfinished last line counts only if it is complete JSON. `LineStream`
takes the bytes in any pieces; `lines` takes a whole body at once and gives the same answer. Lines may be of any length.
"""

from __future__ import annotations

from itertools import accumulate
from typing import NamedTuple

import numpy as np

from loadgen.record import Int64
from loadgen.wire.sse import BOM, LARGE, Ends, is_whole, line_feeds

__all__ = ["Line", "LineStream", "lines", "split"]


class Line(NamedTuple):
    data: bytes
    end: int  # bytes of the stream up to where the line became known: just past its LF


class LineStream:
    """Lines from bytes that come in any pieces."""

    def __init__(self) -> None:
        self._kept = bytearray()
        self._scanned = 0
        self._at = 0
        self._first = True

    def feed(self, chunk: bytes) -> list[Line]:
        found: list[Line] = []
        kept = self._kept
        kept += chunk
        begin = 0
        while (ending := kept.find(b"\n", max(begin, self._scanned))) >= 0:
            self._line(bytes(kept[begin:ending]), self._at + ending + 1, found)
            begin = ending + 1
        del kept[:begin]
        self._at += begin
        self._scanned = len(kept)
        return found

    def close(self) -> list[Line]:
        """Return the last line if its LF is missing and it is complete JSON, else nothing."""
        found: list[Line] = []
        self._line(bytes(self._kept), self._at + len(self._kept), found)
        self._kept.clear()
        return [line for line in found if is_whole(line.data)]

    def _line(self, line: bytes, end: int, found: list[Line]) -> None:
        if self._first:
            self._first = False
            line = line.removeprefix(BOM)
        if line := line.strip():
            found.append(Line(line, end))


def lines(body: bytes) -> tuple[list[bytes], Int64]:
    """Return the lines of a whole body that are not blank, and where each ended in it."""
    data, ends = split(body)
    return data, np.array(ends, np.int64)


def split(body: bytes) -> tuple[list[bytes], Ends]:
    """Do what `lines` does, with a list of ends where they are few."""
    data = body.split(b"\n")
    ends = _ends(body, data)
    rest = data.pop()
    if body.startswith(BOM):
        data, rest = ([data[0][len(BOM) :], *data[1:]], rest) if data else (data, rest[len(BOM) :])
    data = [line.strip() for line in data]
    if not all(data):
        ends = [int(end) for line, end in zip(data, ends, strict=True) if line]
        data = [line for line in data if line]
    if (rest := rest.strip()) and is_whole(rest):
        data.append(rest)
        ends = [*ends, len(body)]
    return data, ends


def _ends(body: bytes, data: list[bytes]) -> Ends:
    if len(body) < LARGE:
        return list(accumulate([len(line) + 1 for line in data[:-1]]))
    return line_feeds(body) + 1
