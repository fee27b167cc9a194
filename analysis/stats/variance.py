"""Where the doubt comes from: runs that differ, or requests within them. METHODOLOGY 4.1.

One-way random effects: Var(mean) = s2_run / n + s2_req / (n m) for n runs of m requests. More requests a run shrink
only the second term, so the shares tell what to add. Give logarithms of latencies for shares of relative spread.
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
    requests: float  # a run; where they are unequal, what they are worth in the mean squares

    @property
    def of_mean(self) -> float:
        """The standard error of the mean over all runs."""
        return math.sqrt((self.run**2 + self.request**2 / self.requests) / self.runs)

    @property
    def run_share(self) -> float | None:
        """The share of the mean's variance that only more runs shrink; None where nothing varies."""
        within = self.request**2 / self.requests
        total = self.run**2 + within
        return self.run**2 / total if total > 0 else None


def components(runs: Sequence[Float64]) -> Components | None:
    """Return the components from the mean squares; None with fewer than two runs or no run with two requests.

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


def advice(parts: Components, optimal: float | None = None) -> str:
    """Return in one sentence whether to add runs or requests.

    optimal: the requests a run that cost least (planning.optimal_requests), where the costs are known; without them the
    larger part of the doubt decides.
    """
    share = parts.run_share
    if share is None:
        return "Nothing varies: neither more runs nor more requests would change this figure."
    if optimal is not None and math.isfinite(optimal):
        more_requests, told = parts.requests < optimal, f" ({optimal:.0f} requests a run would cost least)"
    else:
        more_requests, told = share < 0.5, ""
    if more_requests:
        return f"Add requests to each run: {1 - share:.0%} of the doubt comes from requests within runs{told}."
    if share < 0.5:
        return f"Add runs, not requests to each: the runs are long enough as they are{told}."
    return f"Add runs: {share:.0%} of the doubt comes from differences between runs, which longer runs keep{told}."
