"""Limits without a timer per request: a wheel of tenths of a second.

Adding and removing are a dictionary operation each, nothing is re-armed per token, and a finished exchange leaves no
trace, so a million short requests under a two-minute limit cost no memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

from loadgen.clock import NS_PER_MS, NS_PER_S, now_ns

__all__ = ["Deadlines"]

TICK_NS = 100 * NS_PER_MS


class Deadlines:
    """Calls `check(item)` once its instant has passed; the check may return a later instant to be called again."""

    def __init__(self, loop: asyncio.AbstractEventLoop, check: Callable[[Any], int | None]) -> None:
        self._loop = loop
        self._check = check
        self._slots: dict[int, dict[Any, None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._next = 0  # the earliest slot not yet checked

    def add(self, item: Any, at_ns: int) -> int:
        """The slot of `item`, to give to `remove`; `item` is watched until `at_ns` (monotonic)."""
        if self._timer is None:
            self._next = now_ns() // TICK_NS
            self._timer = self._loop.call_later(TICK_NS / NS_PER_S, self._tick)
        slot = max(at_ns // TICK_NS + 1, self._next)  # an instant long past must not go into a slot already checked
        self._slots.setdefault(slot, {})[item] = None
        return slot

    def remove(self, item: Any, slot: int) -> None:
        watched = self._slots.get(slot)
        if watched is not None:
            watched.pop(item, None)
            if not watched:
                del self._slots[slot]

    def __iter__(self) -> Iterator[Any]:
        """Everything that is watched."""
        return chain.from_iterable(self._slots.values())

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._slots.clear()

    def _tick(self) -> None:
        slots = range(self._next, now_ns() // TICK_NS + 1)
        self._next = slots.stop  # before the checks: what they add again belongs to a slot still to come
        for slot in slots:
            for item in self._slots.pop(slot, {}):
                self._look(item)
        self._timer = self._loop.call_later(TICK_NS / NS_PER_S, self._tick) if self._slots else None

    def _look(self, item: Any) -> None:
        try:
            again = self._check(item)
        except Exception as error:  # a bug in one check must not disarm the limits of all others
            self._loop.call_exception_handler({"message": "a deadline's check failed", "exception": error})
            return
        if again is not None:
            item.slot = self.add(item, again)
