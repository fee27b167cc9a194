"""Where the messages of a body begin and end: offsets, so that a message is cut out only if it must be read."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from loadgen.record import Int64

__all__ = ["LARGE", "WINDOW", "Blocks", "Offsets", "blank_lines", "line_feeds", "whole"]

Offsets = list[int] | Int64

LARGE = 4096  # bytes; from here on numpy finds line ends faster than bytes.split cuts at them
# Bytes that numpy scans in one go. glibc maps larger temporaries afresh each time: 96 page faults and 200 µs for the
# 270 KB of a thousand events, half of what decoding them cost.
WINDOW = 1 << 16


class Blocks(NamedTuple):
    """Block i is `text[starts[i]:stops[i]]`: a message with its framing, or framing only. All have the same length."""

    text: bytes  # the body, with plain LF line ends
    starts: list[int]
    stops: list[int]
    ends: Offsets  # bytes of the body as it came, up to where each block is known to be complete
    gap: bytes  # the bytes between two blocks


def line_feeds(text: bytes) -> Int64:
    """The offsets of the line feeds in `text`."""
    data = np.frombuffer(text, np.uint8)
    return np.concatenate([np.flatnonzero(data[at : at + WINDOW] == 0x0A) + at for at in _windows(text)])


def blank_lines(text: bytes) -> Int64:
    """The offsets in `text` of each line feed right after another."""
    data = np.frombuffer(text, np.uint8)
    found = []
    for at in _windows(text):
        feeds = data[at : at + WINDOW + 1] == 0x0A
        found.append(np.flatnonzero(feeds[1:] & feeds[:-1]) + (at + 1))
    return found[0] if len(found) == 1 else np.concatenate(found)


def _windows(text: bytes) -> range:
    return range(0, max(len(text), 1), WINDOW)


def whole(body: bytes) -> Blocks:
    """The body as one block."""
    return Blocks(body, [0], [len(body)], [len(body)], b"")
