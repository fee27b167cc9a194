"""Microseconds an ask() costs: `python tests/bench/bench_workload.py`. Target: at most 5 for 512 tokens."""

from __future__ import annotations

import time

from loadgen.profile import Work
from loadgen.workload import open_workload

CASES = {
    "512 fixed, unique": {"prompt_tokens": 512},
    "512 lognormal, unique, output drawn": {
        "prompt_tokens": {"lognormal": {"mean": 512, "sd": 256, "max": 8192}},
        "output_tokens": {"normal": {"mean": 128, "sd": 32}},
    },
    "512 fixed, none": {"prompt_tokens": 512, "cache": "none"},
    "512 fixed, shared 256": {"prompt_tokens": 512, "cache": "shared", "shared_prefix_tokens": 256},
    "512 fixed, unique, system": {"prompt_tokens": 512, "system": "Answer in one sentence."},
    "8192 fixed, unique": {"prompt_tokens": 8192},
}
ASKS = 20_000
REPEATS = 5


def main() -> None:
    """Print the best of a few repeats for each case: the others measure the neighbours."""
    for name, work in CASES.items():
        workload = open_workload(Work.model_validate(work), seed=1)
        best_ns = 1 << 62
        for _ in range(REPEATS):
            began_ns = time.perf_counter_ns()
            for seq in range(ASKS):
                workload.ask(seq)
            best_ns = min(best_ns, time.perf_counter_ns() - began_ns)
        print(f"{best_ns / ASKS / 1000:6.2f} us  {name}")


if __name__ == "__main__":
    main()
