"""The components of a mean's variance: differences between runs, and between requests within them.

See docs/methodology.md#the-unit-is-the-run.

One-way random effects: Var(mean) = s2_run / n + s2_req / (n m) for n runs of m requests. More requests per run shrink
only the second term, so the shares show which to add. Give logarithms of latencies for shares of relative spread.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Components", "advice", "components"]

Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Components:
    """Standard deviations in the unit of the values."""

    run: float  # of the runs' true means; 0 where the runs differ no more than their requests explain
    request: float  # of requests within a run
    runs: int
    requests: float  # per run; where they are unequal, their weight in the mean squares

    @property
    def run_share(self) -> float | None:
        """The share of the mean's variance that only more runs shrink; None where nothing varies."""
        within = self.request**2 / self.requests
        total = self.run**2 + within
        return self.run**2 / total if total > 0 else None


def components(runs: Sequence[Float64]) -> Components | None:
    """The components from the mean squares; None with fewer than two runs or no run with two requests.

    runs: the values of each run's requests, each of shape (m_i,); empty ones are left out. With unequal m_i the
    weight is (N - sum m_i^2 / N) / (n - 1), as in Searle, Casella & McCulloch, Variance Components (1992), 3.6.
    """
    held = [run for run in runs if len(run)]
    sizes = np.array([len(run) for run in held], dtype=np.float64)
    n, total = len(held), float(sizes.sum())
    if n < 2 or total <= n:
        return None
    means = np.array([float(run.mean()) for run in held])
    grand = float((sizes * means).sum()) / total
    between = float((sizes * (means - grand) ** 2).sum()) / (n - 1)
    within = sum(float(((run - mean) ** 2).sum()) for run, mean in zip(held, means, strict=True)) / (total - n)
    worth = (total - float((sizes**2).sum()) / total) / (n - 1)
    return Components(math.sqrt(max(0.0, between - within) / worth), math.sqrt(within), n, worth)


def advice(parts: Components) -> str:
    """One sentence on whether to add runs or requests: whichever brings the larger part of the variance."""
    share = parts.run_share
    if share is None:
        return "Nothing varies: neither more runs nor more requests would change this figure."
    if share < 0.5:
        return f"Add requests to each run: {1 - share:.0%} of the doubt comes from requests within runs."
    return f"Add runs: {share:.0%} of the doubt comes from differences between runs, which longer runs keep."
