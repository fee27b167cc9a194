"""Newline-delimited JSON: one message a line, cut at 0x0A and nowhere else.

`str.splitlines` would also cut at U+2028 and U+0085, which may stand raw inside JSON strings. CRLF, blank lines, a BOM
and a missing last line end are tolerated; an unfinished last line counts only if it is complete JSON. `LineStream`
takes the bytes in any pieces; `blocks` and `lines` take a whole body at once and give the same answer.
"""

from __future__ import annotations

from itertools import accumulate
from typing import NamedTuple

import numpy as np

from loadgen.record import Int64
from loadgen.wire.blocks import LARGE, Blocks, Offsets, line_feeds
from loadgen.wire.sse import BOM, is_whole

__all__ = ["Line", "LineStream", "blocks", "lines", "open_line"]


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
    found = blocks(body)
    opened = [open_line(body[start:stop])[0] for start, stop in zip(found.starts, found.stops, strict=True)]
    ends = [end for data, end in zip(opened, found.ends, strict=True) if data is not None]
    return [data for data in opened if data is not None], np.array(ends, np.int64)


def blocks(body: bytes) -> Blocks:
    """Cut a whole body at its line feeds. A block may be a blank line; `open_line` tells."""
    ends: Offsets
    if len(body) < LARGE:
        ends = starts = list(accumulate([len(line) + 1 for line in body.split(b"\n")[:-1]]))
    else:
        ends = line_feeds(body) + 1
        starts = ends.tolist()
    stops = [end - 1 for end in starts]
    starts = [0, *starts]
    rest_at = starts.pop()
    if rest_at < len(body) and is_whole(body[rest_at:].removeprefix(BOM if rest_at == 0 else b"")):
        starts, stops, ends = [*starts, rest_at], [*stops, len(body)], [*ends, len(body)]
    if body.startswith(BOM) and starts:
        starts[0] = len(BOM)
    return Blocks(body, starts, stops, ends, b"\n")


def open_line(line: bytes) -> tuple[bytes | None, str]:
    return line.strip() or None, ""
