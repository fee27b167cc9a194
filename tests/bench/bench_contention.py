"""Does the contention detector find what was put in, and nothing else?

The gate of docs/methodology.md#test-of-the-detector.

    python -m tests.bench.bench_contention [--seeds 100] [--solo 50]

Each campaign has five blocks of two solo runs and a concurrent one. TTFT follows the emulator's law, a fixed part and
one for the prompt's length, with lognormal spread; in the concurrent runs, requests that start inside known windows
take `stretch` times as long. The list of those is the truth that recall and precision are measured against, with
intervals by seed. Time is drawn, not waited for: 100 seeds of the whole grid take ten minutes.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.agents import contention
from analysis.estimate import Estimate
from analysis.records.calls import Calls
from analysis.records.requests import ABSENT
from analysis.stats import intervals
from loadgen.record import Int64

Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]

STRETCHES = (1.1, 1.5, 2.0, 3.0)
SHARES = (0.02, 0.05, 0.10, 0.20)
SIGMAS = (0.15, 0.35)
TAILS = (0.0, 0.02)
TAIL_STRETCH = 4.0  # a slow request of the natural tail takes 2 to 4 times as long
FIXED_NS, PER_TOKEN_NS = 150e6, 0.5e6  # 0.4 s for 500 tokens
BLOCKS = 5
REQUESTS = 200  # of one agent in one concurrent run


@dataclass(frozen=True, slots=True)
class Found:
    """What one campaign came to. Counts are of requests in its concurrent runs."""

    injected: int
    flagged: int
    right: int
    runs_flagged: int  # of BLOCKS: with any flag
    runs_contended: int  # with more flags than the solo runs have
    verdict: str


def campaign(
    seed: int, stretch: float, share: float, sigma: float, tail: float, solo_requests: int = REQUESTS
) -> tuple[Calls, Float64, Bool]:
    """Return the calls of a campaign, their TTFT in ns, and which of them were stretched."""
    rng = np.random.default_rng([seed, *(round(1000 * x) for x in (stretch, share, sigma, tail))])
    parts = []
    for block in range(BLOCKS):
        for agent in range(2):
            parts.append(_run(rng, 3 * block + agent, block, agent, False, 1.0, 0.0, sigma, tail, solo_requests))
        for agent in range(2):
            parts.append(_run(rng, 3 * block + 2, block, agent, True, stretch, share, sigma, tail, REQUESTS))
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    ttft, injected = columns.pop("ttft"), columns.pop("injected").astype(np.bool_)
    n = len(ttft)
    unknown = np.full(n, ABSENT, np.int64)
    sent = columns["turn"] * 10**9
    first = sent + np.rint(ttft).astype(np.int64)
    calls = Calls(
        row=np.arange(n),
        **{name: columns[name] for name in ("run", "block", "agent", "turn", "input_tokens")},
        endpoint=columns["agent"],
        concurrent=columns["concurrent"].astype(np.bool_),
        ok=np.ones(n, np.bool_),
        intended_ns=sent,
        sent_ns=sent,
        sent_last_ns=sent,
        first_ns=first,
        last_ns=first,
        done_ns=first,
        output_tokens=np.ones(n, np.int64),
        first_tokens=np.ones(n, np.int64),
        events=np.ones(n, np.int64),
        **{f"server_{name}_ns": unknown for name in ("load", "prompt_eval", "eval", "queue")},
        agents=("a", "b"),
        endpoints=("a", "b"),
        failures={},
    )
    return calls, ttft, injected


def _run(
    rng: np.random.Generator,
    run: int,
    block: int,
    agent: int,
    concurrent: bool,
    stretch: float,
    share: float,
    sigma: float,
    tail: float,
    n: int,
) -> dict[str, Int64 | Float64]:
    prompts = rng.integers(100, 1000, n)
    ttft = (FIXED_NS + PER_TOKEN_NS * prompts) * rng.lognormal(0, sigma, n)
    slow = rng.random(n) < tail
    ttft[slow] *= rng.uniform(2, TAIL_STRETCH, int(slow.sum()))
    injected = np.zeros(n, np.bool_)
    if share and stretch > 1:
        # Two windows of time, so that what is stretched lies together, as it would.
        wide = round(share * n / 2)
        for start in (rng.integers(0, n // 2 - wide), rng.integers(n // 2, n - wide)):
            injected[start : start + wide] = True
    ttft[injected] *= stretch
    constant = {"run": run, "block": block, "agent": agent, "concurrent": int(concurrent)}
    return {name: np.full(n, value, np.int64) for name, value in constant.items()} | {
        "turn": np.arange(n),
        "input_tokens": prompts,
        "ttft": ttft,
        "injected": injected.astype(np.int64),
    }


def detect(seed: int, stretch: float, share: float, sigma: float, tail: float, solo_requests: int = REQUESTS) -> Found:
    """Make a campaign and let the detector judge it."""
    calls, ttft, injected = campaign(seed, stretch, share, sigma, tail, solo_requests)
    together, alone = contention.flag_calls(calls, ttft, calls.concurrent, by_prompt=True)
    over_runs = contention.stretch_over_runs(calls, ttft, calls.concurrent)
    runs = np.unique(calls.run[calls.concurrent])
    contended = [contention.natural_tail_p(together, alone, calls.run == run) < contention.TAIL_P for run in runs]
    return Found(
        injected=int(injected.sum()),
        flagged=int(together.flagged.sum()),
        right=int((together.flagged & injected).sum()),
        runs_flagged=len(np.unique(calls.run[together.flagged])),
        runs_contended=sum(contended),
        verdict=contention.verdict_of({"TTFT": over_runs})[0],
    )


def shown(estimate: Estimate) -> str:
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return "–".rjust(19)
    return f"{estimate.value:6.3f} {estimate.low:.3f}–{estimate.high:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--solo", type=int, default=REQUESTS, help="requests of an agent in a solo run")
    parser.add_argument("--gate", action="store_true", help="only the cells that the gate is about")
    options = parser.parse_args()
    head = f"{'stretch':>7} {'share':>6} {'sigma':>6} {'tail':>5} {'recall':>19} {'precision':>19}"
    print(head, "run with a flag".rjust(19), "run contended".rjust(19), "verdict contention".rjust(19))
    gate: dict[str, list[Found]] = {"no contention": [], "2x": [], "2x, 2 % tail": []}
    for sigma in SIGMAS[:1] if options.gate else SIGMAS:
        for tail in TAILS:
            for stretch, share in [(1.0, 0.0), *((s, h) for s in STRETCHES for h in SHARES)]:
                if options.gate and stretch not in (1.0, 2.0):
                    continue
                found = [detect(seed, stretch, share, sigma, tail, options.solo) for seed in range(options.seeds)]
                print(f"{stretch:7g} {share:6.2f} {sigma:6.2f} {tail:5.2f}", *figures(found), flush=True)
                if stretch == 1.0 and not tail:
                    gate["no contention"] += found
                if stretch == 2.0 and sigma == SIGMAS[0]:
                    gate["2x, 2 % tail" if tail else "2x"] += found
    print("\ngate: contended runs <= 0.05 with no contention; recall >= 0.9 and precision >= 0.85 at 2x, sigma 0.15")
    for name, found in gate.items():
        print(f"{name:>27}", *figures(found))


def figures(found: list[Found]) -> list[str]:
    """Recall, precision, shares of runs and campaigns; the interval is the hull of Wilson's and of t by seed."""

    def share(part: list[int], whole: list[int]) -> str:
        by_seed = [k / n for k, n in zip(part, whole, strict=True) if n]
        return shown(intervals.proportion(sum(part), sum(whole), by_seed))

    right, runs = [one.right for one in found], [BLOCKS] * len(found)
    return [
        share(right, [one.injected for one in found]),
        share(right, [one.flagged for one in found]),
        share([one.runs_flagged for one in found], runs),
        share([one.runs_contended for one in found], runs),
        share([one.verdict == "contention" for one in found], [1] * len(found)),
    ]


if __name__ == "__main__":
    main()
