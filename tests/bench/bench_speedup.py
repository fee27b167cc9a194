"""Does the speedup's 95 % interval hold the true speedup 95 times in 100?

See docs/methodology.md#speedup-of-agents.

    python -m tests.bench.bench_speedup [--campaigns 2000]

Two agents with lognormal wall times, alone and together, of which blocks share a part (`rho`); the true speedup is
1.8. Blocked campaigns take the paired t on logs, the others Welch's t on logs; Fieller's interval is the check.
"""

from __future__ import annotations

import argparse
import math

import numpy as np
from numpy.typing import NDArray

from analysis.agents.speedup import Walls, parts_over_blocks
from analysis.stats import intervals

Float64 = NDArray[np.float64]

TRUE = 1.8
CELLS = [(n, cv, rho) for n in (3, 5, 10) for cv in (0.05, 0.15) for rho in (0.0, 0.8)]


def campaign(rng: np.random.Generator, blocks: int, cv: float, rho: float, *, blocked: bool = True) -> Walls:
    """Return the walls of one campaign. cv: of a sum of solo walls and of a makespan; rho: their correlation."""
    sigma = math.sqrt(math.log(1 + cv * cv))
    common = rng.normal(size=blocks)

    def noise() -> Float64:
        return np.exp(sigma * (math.sqrt(rho) * common + math.sqrt(1 - rho) * rng.normal(size=blocks)))

    total, makespan = 20 * noise(), 20 / TRUE * noise()
    return Walls(
        concurrent=np.column_stack([makespan, 0.95 * makespan]),
        makespan=makespan,
        solo=np.column_stack([0.5 * total, 0.5 * total]),
        blocked=blocked,
    )


def covered(campaigns: int, blocks: int, cv: float, rho: float, seed: int) -> dict[str, int]:
    """The number of `campaigns` intervals that held the truth, by method."""
    rng = np.random.default_rng([seed, blocks, round(1000 * cv), round(10 * rho)])
    held = {"paired t on logs": 0, "Fieller, paired": 0, "Welch on logs": 0, "Fieller, unpaired": 0}
    for _ in range(campaigns):
        for blocked, names in (
            (True, ("paired t on logs", "Fieller, paired")),
            (False, ("Welch on logs", "Fieller, unpaired")),
        ):
            found = parts_over_blocks(campaign(rng, blocks, cv, rho, blocked=blocked))
            for name, one in zip(names, (found.speedup, found.fieller_speedup), strict=True):
                # No bound is a bound that holds the truth.
                held[name] += (one.low is None or one.low <= TRUE) and (one.high is None or one.high >= TRUE)
    return held


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--campaigns", type=int, default=2000)
    options = parser.parse_args()
    for blocks, cv, rho in CELLS:
        print(f"{blocks} blocks, CV {cv:.0%}, rho {rho:g}")
        for name, k in covered(options.campaigns, blocks, cv, rho, seed=7).items():
            share = intervals.proportion(k, options.campaigns)
            print(f"  {name:<20} {k / options.campaigns:.3f}  ({share.low:.3f}–{share.high:.3f})", flush=True)


if __name__ == "__main__":
    main()
