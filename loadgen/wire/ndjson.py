"""Newline-delimited JSON: one message per line, cut at 0x0A and nowhere else.

`str.splitlines` would also cut at U+2028 and U+0085, which may stand raw inside JSON strings. CRLF, blank lines, a BOM
and a missing last line end are tolerated; an unfinished last line counts only if it is complete JSON.
"""

from __future__ import annotations

from itertools import accumulate

from loadgen.wire.blocks import LARGE, Blocks, Offsets, line_feeds
from loadgen.wire.sse import BOM, is_whole

__all__ = ["blocks", "open_line"]


def blocks(body: bytes) -> Blocks:
    """The lines of a whole body, as blocks. A block may be a blank line, for which `open_line` has no payload."""
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
