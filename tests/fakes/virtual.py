"""Virtual time: an event loop that never waits, and the clocks of engine and sampler following it.

When nothing is ready, the loop jumps to its next timer, so an hour of schedule takes milliseconds and every instant is
exact. Nothing ready and no timer means that all tasks wait for each other: a deadlock, and an error.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest

from loadgen.clock import NS_PER_S

T = TypeVar("T")

START_NS = 5_000 * NS_PER_S  # not 0: an absolute instant taken for a relative one must show


class Deadlock(AssertionError):
    """Nothing is ready and no timer is set."""


class _NeverBlocks(selectors.DefaultSelector):
    """Finds what is ready; what it should wait for is passed to `advance` instead."""

    advance: Callable[[float | None], None]
    turn: Callable[[], None]

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.turn()
        ready = super().select(0)
        if not ready:
            self.advance(timeout)
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time is an int of nanoseconds that only timers move."""

    def __init__(self) -> None:
        selector = _NeverBlocks()
        selector.advance = self._advance
        selector.turn = self.read
        self._now_ns = START_NS
        self.reads_ns: list[int] = []  # when sockets would have been read: once a turn, and on demand
        super().__init__(selector)
        self._clock_resolution = (
            1e-10  # asyncio runs timers due within it: less than a nanosecond, more than a rounding
        )

    def now_ns(self) -> int:
        return self._now_ns

    def time(self) -> float:
        return self._now_ns / NS_PER_S

    def stall(self, length_ns: int) -> None:
        """Let time pass while nothing runs, as a busy process would."""
        self._now_ns += length_ns

    def read(self) -> None:
        self.reads_ns.append(self._now_ns)

    def _advance(self, timeout_s: float | None) -> None:
        if timeout_s is None:
            raise Deadlock("nothing is ready and no timer is set")
        self._now_ns = max(self._now_ns, round((self.time() + timeout_s) * NS_PER_S))


class VirtualSleeper:
    """loadgen.clock.Sleeper on the running VirtualLoop."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        self._loop = loop
        self._closed = False

    async def until(self, at_ns: int) -> bool:
        assert not self._closed
        if at_ns <= self._loop.now_ns():
            return False
        woken = self._loop.create_future()
        timer = self._loop.call_at(at_ns / NS_PER_S, lambda: woken.done() or woken.set_result(None))
        try:
            await woken
        finally:
            timer.cancel()
        return True

    def close(self) -> None:
        self._closed = True


def run_virtually(patch: pytest.MonkeyPatch, main: Callable[[VirtualLoop], Coroutine[Any, Any, T]]) -> T:
    """Run `main(loop)` in virtual time, the clock of engine, deadlines and sampler. No task may be left behind."""

    async def checked() -> T:
        try:
            return await main(loop)
        finally:
            left = asyncio.all_tasks() - {asyncio.current_task()}
            assert not left, f"tasks left behind: {left}"

    with asyncio.Runner(loop_factory=VirtualLoop) as runner, patch.context() as patched:
        loop = runner.get_loop()
        assert isinstance(loop, VirtualLoop)
        patched.setattr("loadgen.engine.engine.now_ns", loop.now_ns)
        patched.setattr("loadgen.transport.deadlines.now_ns", loop.now_ns)
        patched.setattr("loadgen.telemetry.sampler.now_ns", loop.now_ns)
        patched.setattr("loadgen.engine.engine.Sleeper", VirtualSleeper)
        return runner.run(checked())
