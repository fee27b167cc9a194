"""Where the messages of a body stand in it: offsets, so that a message is cut out only if somebody must read it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from loadgen.record import Int64

__all__ = ["LARGE", "Blocks", "Offsets", "line_feeds", "whole"]

Offsets = list[int] | Int64

LARGE = 4096  # bytes; from here on numpy finds line ends faster than bytes.split cuts at them


class Blocks(NamedTuple):
    """Block i is `text[starts[i]:stops[i]]`: a message with its framing, or framing only. All have the same length."""

    text: bytes  # the body, with plain LF line ends
    starts: list[int]
    stops: list[int]
    ends: Offsets  # bytes of the body as it came, up to where each block is known to be complete
    gap: bytes  # what stands between two blocks


def line_feeds(text: bytes) -> Int64:
    return np.flatnonzero(np.frombuffer(text, np.uint8) == 0x0A)


def whole(body: bytes) -> Blocks:
    """The body as one block."""
    return Blocks(body, [0], [len(body)], [len(body)], b"")
