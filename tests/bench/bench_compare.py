"""Does `compare` call the same server different, and does it see what was planted? On the emulator's physics.

    python -m tests.bench.bench_compare [--campaigns 100] [--planted 20]

Each campaign is one interleaved campaign of two arms and six blocks, simulated in virtual time by the very physics that
the emulator's sockets wait for, written as a run's directory and compared as `loadgen compare DIR:a DIR:b` does. Runs
differ: every block has a level of its own (drift of the machine, 3 %), every run another (1 %), and each step its
jitter. A/A: both arms are the same law, and every metric that `compare` knows is in the family; a campaign counts as
called different if any of them is. Ends with 1 if one of the three claims does not hold.
"""

from __future__ import annotations

import argparse
import heapq
import math
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from analysis.compare.compare import compare
from analysis.compare.comparison import Comparison
from analysis.compare.sides import Side, read_side
from loadgen.emulator.physics import Job, Law, Physics
from tests.analysis import handmade

BLOCKS, REQUESTS, CONCURRENCY, TOKENS = 6, 40, 4, 16
TTFT_S, GAP_S, JITTER = 0.05, 0.01, 0.2
SD_BLOCK, SD_RUN = 0.03, 0.01
MARGIN = 0.05
WRONG_AT_MOST = 0.05


def simulated_run(number: int, law: Law) -> list[dict[str, Any]]:
    """Return the records of a closed loop on `law`, exact to the nanosecond."""
    physics = Physics(law)
    events: dict[int, list[int]] = {}
    waiting = [0] * CONCURRENCY  # when each client sends next
    running: dict[int, Job] = {}
    sent = 0
    rows = []
    while sent < REQUESTS or running:
        while sent < REQUESTS and waiting:
            job = Job(sent, 0, heapq.heappop(waiting), 16, TOKENS)
            physics.submit(job)
            running[sent], events[sent] = job, []
            sent += 1
        at_ns = physics.next_due()
        assert at_ns is not None
        for job in physics.advance(at_ns):
            events[job.seq].append(at_ns)
            if job.left == 0:
                del running[job.seq]
                heapq.heappush(waiting, at_ns)
                stamps = [stamp / 1e6 for stamp in events[job.seq]]
                rows.append(handmade.request(job.arrived_ns / 1e6, stamps, run=number, seq=job.seq, output=TOKENS))
    return rows


def campaign(folder: Path, factor: float, seed: int) -> dict[str, Side]:
    """The two sides of a simulated campaign of arms a and b, b's times longer by `factor`."""
    rng = np.random.default_rng([seed, 20])
    rows: list[dict[str, Any]] = []
    entries: list[dict[str, Any]] = []
    planned: list[list[Any]] = []
    for block in range(BLOCKS):
        level = rng.lognormal(0, SD_BLOCK)
        order = [("a", 1.0), ("b", factor)] if rng.random() < 0.5 else [("b", factor), ("a", 1.0)]
        for arm, scale in order:
            number = len(entries)
            times = level * scale * rng.lognormal(0, SD_RUN)
            law = Law(ttft_s=TTFT_S * times, gap_s=GAP_S * times, jitter=JITTER, seed=int(rng.integers(1 << 40)))
            made = simulated_run(number, law)
            rows += made
            last_ms = max(row["done_ns"] for row in made) / 1e6
            entries.append(handmade.run(number, (0, last_ms), offered=REQUESTS, block=block, arm=arm))
            planned.append([block, arm])
    design = {"arms": [{"name": arm, "agents": []} for arm in "ab"], "primary": "a", "blocks": BLOCKS}
    path = handmade.directory(folder / str(seed), rows, runs=entries, design={**design, "planned": planned})
    return {"a": read_side(path, "a"), "b": read_side(path, "b")}


def verdicts(told: Comparison) -> Counter[str]:
    return Counter(shown.verdict for shown in told.metrics.values())


def same_called_different(folder: Path, campaigns: int) -> bool:
    called = {"paired by block": 0, "as if unpaired": 0, "without Holm": 0}
    for seed in range(campaigns):
        sides = campaign(folder, 1.0, seed)
        told = compare(sides["a"], sides["b"], margin=MARGIN)
        assert told.paired
        called["paired by block"] += any(name.startswith("different") for name in verdicts(told))
        called["without Holm"] += any((shown.p or 1) < 0.05 for shown in told.metrics.values())
        loose = compare(sides["a"], _apart(sides["b"]), margin=MARGIN)
        assert not loose.paired
        called["as if unpaired"] += any(name.startswith("different") for name in verdicts(loose))
    for how, times in called.items():
        print(f"A/A, {told.family.size} metrics, {how}: {times} of {campaigns} called different")
    return max(called["paired by block"], called["as if unpaired"]) <= math.floor(WRONG_AT_MOST * campaigns)


def _apart(side: Side) -> Side:
    """The same runs as if they had come from a campaign of their own."""

    return replace(side, name="elsewhere")


def planted(folder: Path, campaigns: int, factor: float, first_seed: int) -> Counter[str]:
    found: Counter[str] = Counter()
    for seed in range(first_seed, first_seed + campaigns):
        sides = campaign(folder, factor, seed)
        told = compare(sides["a"], sides["b"], margin=MARGIN, metrics=["e2e_mean_ms"])
        found.update(verdicts(told))
    shown = ", ".join(f"{verdict} {times}" for verdict, times in found.most_common())
    print(f"planted {factor - 1:.0%}, E2E mean, {BLOCKS} pairs, margin {MARGIN:.0%}: {shown}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--campaigns", type=int, default=100, help="A/A campaigns (100)")
    parser.add_argument("--planted", type=int, default=20, help="campaigns of each planted difference (20)")
    options = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        held = same_called_different(folder, options.campaigns)
        ten = planted(folder, options.planted, 1.10, first_seed=10_000)
        one = planted(folder, options.planted, 1.01, first_seed=20_000)
    found = ten["different"] >= 0.95 * options.planted
    inside = (
        one["equivalent"] >= 0.75 * options.planted and one["different"] + one["inconclusive"] <= 0.1 * options.planted
    )
    for claim, holds in (
        (f"A/A: at most {WRONG_AT_MOST:.0%} called different", held),
        ("planted 10 % is found", found),
        ("planted 1 % is called equivalent", inside),
    ):
        print(f"{'holds' if holds else 'FAILS'}: {claim}")
    print(f"{time.monotonic() - began:.0f} s")
    return 0 if held and found and inside else 1


if __name__ == "__main__":
    sys.exit(main())
