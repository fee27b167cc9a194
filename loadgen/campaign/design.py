"""The plan of a campaign: which arm runs when. Pure.

A campaign is a list of runs. Each belongs to an *arm*, the condition that is measured, and to a *block*, a repetition
in which every arm occurs once. A run's number is its place in the plan, so that seeds drawn from it do not depend on
the runs before it, or on an interruption.

Randomised order: a random permutation and in the next block its reverse, drawn anew for each pair of blocks
(docs/methodology.md#order-of-runs: ABBA BAAB). A longer plan with the same seed begins with the shorter one.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from loadgen.manifest import CONTROL, DesignFacts, Manifest, Planned

__all__ = ["SEED_BITS", "missing", "planned", "with_blocks", "with_plan"]

SEED_BITS = 62  # of a seed that is drawn
ORDER_STREAM = 0x0DE5  # keeps these draws apart from others of the same seed


def with_plan(design: DesignFacts) -> DesignFacts:
    """`design` with its planned runs: every arm in every block, and the control before and after them."""
    runs = planned([arm.name for arm in design.arms], design.blocks, design.order, design.order_seed)
    if design.control is not None:
        name = CONTROL + design.control
        runs = ((-1, name), *runs, (design.blocks, name))
    return msgspec.structs.replace(design, planned=runs)


def with_blocks(design: DesignFacts, blocks: int) -> DesignFacts:
    """`design` with another number of blocks. Its plan begins with the same runs."""
    return with_plan(msgspec.structs.replace(design, blocks=blocks))


def missing(manifest: Manifest) -> list[tuple[int, Planned]]:
    """(number, (block, arm)) of the planned runs that were not made to their end, in order of execution."""
    made = {(run.block, run.arm) for run in manifest.runs if run.whole}
    return [(run, planned) for run, planned in enumerate(manifest.planned_design.planned) if planned not in made]


def planned(arms: Sequence[str], blocks: int, order: str, seed: int) -> tuple[Planned, ...]:
    """(block, arm) of every run, in order of execution. order: randomised, or fixed: as listed, in every block."""
    runs: list[Planned] = []
    for block in range(blocks):
        places = list(range(len(arms)))
        if order == "randomised":
            pair, second = divmod(block, 2)
            places = np.random.default_rng([seed, pair, ORDER_STREAM]).permutation(len(arms)).tolist()
            places = places[::-1] if second else places
        runs += [(block, arms[place]) for place in places]
    return tuple(runs)
