"""What `blocks` of the two stream forms must agree with: whole bodies opened event by event, and NDJSON in any pieces.

The oracle of server-sent events is `loadgen.wire.sse.EventStream`, which the measured path itself uses for odd bodies.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from loadgen.record import Int64
from loadgen.wire import ndjson, sse
from loadgen.wire.sse import BOM, is_whole

__all__ = ["Line", "LineStream", "events", "lines"]


def events(body: bytes) -> tuple[list[bytes], Int64, list[str] | None]:
    """The payloads of a whole body, where each event ended in it, and their names (None if none has one)."""
    found = sse.blocks(body)
    opened = [sse.open_block(found.text[start:stop]) for start, stop in zip(found.starts, found.stops, strict=True)]
    ends = [end for (data, _), end in zip(opened, found.ends, strict=True) if data is not None]
    names = [name for data, name in opened if data is not None]
    return [data for data, _ in opened if data is not None], np.array(ends, np.int64), names if any(names) else None


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
        """The last line if its LF is missing and it is complete JSON, else nothing."""
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
    """The lines of a whole body that are not blank, and where each ended in it."""
    found = ndjson.blocks(body)
    opened = [ndjson.open_line(body[start:stop])[0] for start, stop in zip(found.starts, found.stops, strict=True)]
    ends = [end for data, end in zip(opened, found.ends, strict=True) if data is not None]
    return [data for data in opened if data is not None], np.array(ends, np.int64)
