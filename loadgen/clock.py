"""The only module that reads a clock.

Everything is CLOCK_MONOTONIC in integer nanoseconds: slewed by NTP, never stepped. The kernel stamps packets in
CLOCK_REALTIME, so `RealtimeOffset` holds REALTIME − MONOTONIC, taken as the best of many bracketed reads and taken
again every second; a jump (the wall clock was stepped) voids the kernel tier for the run. Wall time only labels.

Timers: asyncio and libuv round to a millisecond, which is a visible send lag. `Sleeper` uses a Linux timerfd, good to
some tens of microseconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import struct
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from loadgen.record import NS_PER_MS, NS_PER_S

__all__ = [
    "NS_PER_MS",
    "NS_PER_S",
    "RealtimeOffset",
    "Sleeper",
    "TimerFd",
    "clock_source",
    "cpu_ns",
    "now_ns",
    "wall_iso",
    "wall_ns",
]

now_ns = time.monotonic_ns
cpu_ns = time.process_time_ns

BRACKETED_READS = 200
JUMP_NS = 50_000  # docs/methodology.md#kernel-stamps: a larger change of the offset voids the tier


def wall_iso() -> str:
    """The wall time in UTC, ISO 8601, for labels only."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def wall_ns() -> int:
    """The wall time in ns since 1970, for labels only."""
    return time.time_ns()


def clock_source() -> str:
    """The kernel's clock source (tsc, kvm-clock, …); 'unknown' where it is not exposed."""
    path = Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")
    return path.read_text().strip() if path.exists() else "unknown"


def measure_offset_ns() -> tuple[int, int]:
    """(REALTIME − MONOTONIC, width of the bracket it was taken in), both in ns."""
    best_width, best = 1 << 62, 0
    for _ in range(BRACKETED_READS):
        before = time.monotonic_ns()
        wall = time.time_ns()
        after = time.monotonic_ns()
        if after - before < best_width:
            best_width, best = after - before, wall - (before + after) // 2
    return best, best_width


class RealtimeOffset:
    """REALTIME − MONOTONIC, kept current: `value_ns` is subtracted from a kernel stamp."""

    def __init__(self) -> None:
        self.value_ns, self.bracket_ns = measure_offset_ns()
        self.largest_jump_ns = 0

    def refresh(self) -> None:
        value, bracket = measure_offset_ns()
        # A bracket wider than the best so far is less exact than the present value, unless the two disagree outright.
        if bracket > 2 * self.bracket_ns and abs(value - self.value_ns) < bracket:
            return
        self.largest_jump_ns = max(self.largest_jump_ns, abs(value - self.value_ns))
        self.value_ns, self.bracket_ns = value, bracket

    @property
    def void(self) -> bool:
        return self.largest_jump_ns > JUMP_NS


class Sleeper:
    """Absolute sleeps for one task at a time."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._woken: asyncio.Future[None] | None = None
        self._timer = TimerFd() if sys.platform == "linux" else None
        if self._timer is not None:
            self._loop.add_reader(self._timer.fd, self._fired)

    async def until(self, at_ns: int) -> bool:
        """Whether `at_ns` (monotonic) was still to come; sleeps until then."""
        remaining_ns = at_ns - now_ns()
        if remaining_ns <= 0:
            return False
        if self._timer is None:
            await asyncio.sleep(remaining_ns / NS_PER_S)
            return True
        self._woken = self._loop.create_future()
        self._timer.set(at_ns)
        await self._woken
        return True

    def close(self) -> None:
        if self._timer is not None:
            self._loop.remove_reader(self._timer.fd)
            self._timer.close()

    def _fired(self) -> None:
        assert self._timer is not None
        self._timer.clear()
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)


CLOCK_MONOTONIC = 1
TFD_TIMER_ABSTIME = 1


class TimerFd:
    """timerfd_create(2): readable once its instant has passed. Python has it from 3.13 only."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.fd: int = self._libc.timerfd_create(CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create failed")

    def set(self, at_ns: int, every_ns: int = 0) -> None:
        """Fire at `at_ns` (monotonic; 0 never), and then each `every_ns` if that is not 0."""
        spec = struct.pack("qqqq", *divmod(every_ns, NS_PER_S), *divmod(at_ns, NS_PER_S))
        if self._libc.timerfd_settime(self.fd, TFD_TIMER_ABSTIME, spec, None) < 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime failed")

    def clear(self) -> None:
        with contextlib.suppress(BlockingIOError):  # set again since it fired
            os.read(self.fd, 8)

    def close(self) -> None:
        os.close(self.fd)
