"""The only module that reads a clock.

Everything is CLOCK_MONOTONIC in integer nanoseconds: slewed by NTP, never stepped. The kernel stamps packets in
CLOCK_REALTIME, so `RealtimeOffset` holds REALTIME − MONOTONIC, taken as the best of many bracketed reads and taken
again every second; a jump (somebody stepped the wall clock) voids the kernel tier for the run. Wall time only labels.

Timers: asyncio and libuv round to a millisecond, which is a visible send lag. `Alarm` is a Linux timerfd, good to
some tens of microseconds and pollable like a socket.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

__all__ = ["NS_PER_MS", "NS_PER_S", "Alarm", "RealtimeOffset", "clock_source", "cpu_ns", "now_ns", "wall_iso"]

NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000

now_ns = time.monotonic_ns
cpu_ns = time.process_time_ns

BRACKETED_READS = 200
JUMP_NS = 50_000  # METHODOLOGY 3.3: a larger change of the offset voids the tier


def wall_iso() -> str:
    """Return the wall time in UTC, ISO 8601, for labels only."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def clock_source() -> str:
    """Name what the kernel counts with (tsc, kvm-clock, …); 'unknown' where it does not tell."""
    path = Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")
    return path.read_text().strip() if path.exists() else "unknown"


def measure_offset_ns() -> tuple[int, int]:
    """Return (REALTIME − MONOTONIC, width of the bracket it was taken in), both in ns."""
    best_width, best = 1 << 62, 0
    for _ in range(BRACKETED_READS):
        before = time.monotonic_ns()
        wall = time.time_ns()
        after = time.monotonic_ns()
        if after - before < best_width:
            best_width, best = after - before, wall - (before + after) // 2
    return best, best_width


class RealtimeOffset:
    """REALTIME − MONOTONIC, kept current. `value_ns` is what a kernel stamp is reduced by."""

    def __init__(self) -> None:
        self.value_ns, self.bracket_ns = measure_offset_ns()
        self.largest_jump_ns = 0

    def refresh(self) -> None:
        value, bracket = measure_offset_ns()
        # A bracket wider than the best so far tells less than what is known already, unless it disagrees outright.
        if bracket > 2 * self.bracket_ns and abs(value - self.value_ns) < bracket:
            return
        self.largest_jump_ns = max(self.largest_jump_ns, abs(value - self.value_ns))
        self.value_ns, self.bracket_ns = value, bracket

    @property
    def void(self) -> bool:
        return self.largest_jump_ns > JUMP_NS


if sys.platform == "linux":
    _libc = ctypes.CDLL(None, use_errno=True)
    CLOCK_MONOTONIC = 1
    TFD_NONBLOCK_CLOEXEC = os.O_NONBLOCK | os.O_CLOEXEC
    TFD_TIMER_ABSTIME = 1

    class Alarm:
        """A one-shot timer at an absolute monotonic instant; `fileno()` is readable once it has passed."""

        def __init__(self) -> None:
            # os.timerfd_create exists from Python 3.13 only.
            self._fd = _libc.timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK_CLOEXEC)
            if self._fd < 0:
                raise OSError(ctypes.get_errno(), "timerfd_create failed")

        def fileno(self) -> int:
            return int(self._fd)

        def set(self, at_ns: int) -> None:
            """Arm for `at_ns`; an instant in the past makes it readable at once."""
            at_ns = max(at_ns, 1)  # 0 would disarm
            spec = struct.pack("qqqq", 0, 0, at_ns // NS_PER_S, at_ns % NS_PER_S)
            if _libc.timerfd_settime(self._fd, TFD_TIMER_ABSTIME, spec, None) < 0:
                raise OSError(ctypes.get_errno(), "timerfd_settime failed")

        def clear(self) -> None:
            """Take the expiry off the descriptor, so that it is no longer readable."""
            with contextlib.suppress(BlockingIOError):  # re-armed since it fired
                os.read(self._fd, 8)

        def close(self) -> None:
            os.close(self._fd)
