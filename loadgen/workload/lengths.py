"""Lengths in tokens: from a distribution, a seed and a seq to one whole number.

A block of seqs is drawn at a time from a generator seeded by (seed, run, stream, block), so that the length of any seq
is available without drawing those before it, and the cost of a draw is spread over the block.
"""

from __future__ import annotations

import math

import numpy as np

from loadgen.profile.work import Dist, Spread
from loadgen.record import Int64

__all__ = ["Lengths", "draw"]

BLOCK_BITS = 10  # a block takes about 50 us to draw: spread thin, and too short to hold up an event loop
IN_BLOCK = (1 << BLOCK_BITS) - 1
BLOCKS_KEPT = 4


def draw(dist: Dist, rng: np.random.Generator, count: int) -> Int64:
    """`count` random lengths, shape (count,), in whole tokens and clamped to the distribution's min and max.

    lognormal: mean m and standard deviation s of the lengths themselves, so that of the logarithms the variance is
    v = ln(1 + s^2/m^2) and the mean ln m - v/2.
    """
    if dist.fixed is not None:
        return np.full(count, dist.fixed, np.int64)
    if dist.uniform is not None:
        return rng.integers(dist.uniform.low, dist.uniform.high, count, np.int64, endpoint=True)
    if dist.normal is not None:
        return _whole(rng.normal(dist.normal.mean, dist.normal.sd, count), dist.normal)
    assert dist.lognormal is not None
    mean, sd = dist.lognormal.mean, dist.lognormal.sd
    log_variance = math.log1p((sd / mean) ** 2)
    drawn = rng.lognormal(math.log(mean) - log_variance / 2, math.sqrt(log_variance), count)
    return _whole(drawn, dist.lognormal)


def _whole(drawn: np.ndarray[tuple[int], np.dtype[np.float64]], spread: Spread) -> Int64:
    return np.rint(np.clip(drawn, spread.min, spread.max)).astype(np.int64)


class Lengths:
    """The length at each seq. `stream` keeps several of these with one seed apart."""

    def __init__(self, dist: Dist, seed: int, run: int, stream: int) -> None:
        self._dist = dist
        self._key = (seed, run, stream)
        self._fixed = dist.fixed
        self._blocks: dict[int, list[int]] = {}

    def at(self, seq: int) -> int:
        """The length of request `seq`."""
        if self._fixed is not None:
            return self._fixed
        block = self._blocks.get(seq >> BLOCK_BITS)
        if block is None:
            block = self._draw_block(seq >> BLOCK_BITS)
        return block[seq & IN_BLOCK]

    def _draw_block(self, index: int) -> list[int]:
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([*self._key, index])))
        if len(self._blocks) == BLOCKS_KEPT:
            del self._blocks[next(iter(self._blocks))]
        block: list[int] = draw(self._dist, rng, IN_BLOCK + 1).tolist()
        self._blocks[index] = block
        return block
