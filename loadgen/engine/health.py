"""The state of the measuring process during a run, as data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from loadgen.clock import NS_PER_MS

__all__ = ["Health", "lag_quantiles_ms"]


@dataclass(slots=True)
class Health:
    """The state of the instrument itself during a run."""

    loop_lag_ns: list[int] = field(default_factory=list)  # one per heartbeat
    cpu_share: float = 0.0  # CPU seconds per second, of this process
    peak_in_flight: int = 0
    offered: int = 0  # requests the schedule had for this process
    began_ns: int = 0  # relative to the run's start
    ended_ns: int = 0
    interrupted: bool = False
    no_progress: bool = False
    left_out: int = 0  # calls of scripts not made, because the answer they needed never came
    first_intended_ns: int | None = None  # of the requests that are not warm-up
    last_sent_ns: int | None = None
    last_done_ns: int | None = None
    clock_jump_ns: int = 0  # the largest step of the wall clock against the monotonic one
    unstamped_reads: int = 0  # reads the kernel gave no stamp for


def lag_quantiles_ms(lags_ns: Sequence[int]) -> dict[str, float]:
    """The p50, p99 and max of loop lags, ms; empty without samples."""
    if not lags_ns:
        return {}
    p50, p99 = np.quantile(lags_ns, (0.5, 0.99))
    return {"p50": p50 / NS_PER_MS, "p99": p99 / NS_PER_MS, "max": max(lags_ns) / NS_PER_MS}
