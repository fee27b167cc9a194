"""Which arm runs when: the plan of a campaign, pure.

A campaign is a list of runs. Each belongs to an *arm*, the condition that is measured, and to a *block*, a repetition
in which every arm occurs once. A run's number is its place in the plan, so that seeds drawn from it do not depend on
what ran before, was interrupted or was resumed.

Randomised order: a random permutation and in the next block its reverse, drawn anew for each pair of blocks
(METHODOLOGY 7.1: ABBA BAAB). A longer plan with the same seed begins with the shorter one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

__all__ = ["CONTROL", "Design", "Planned", "planned"]

Planned = tuple[int, str]  # (block, arm)

ORDER_STREAM = 0x0DE5  # keeps these draws apart from others of the same seed
CONTROL = "control:"  # before an arm's name: its repetition at the start (block -1) and the end (block = blocks)


@dataclass(frozen=True, slots=True)
class Design:
    """What a campaign sets out to measure; the manifest's `design`."""

    arms: tuple[tuple[str, tuple[str, ...]], ...]  # (name, its agents), in the order listed
    primary: str  # the arm that the summary's figures are about
    blocks: int
    order: str = "randomised"  # or fixed: as listed, in every block
    order_seed: int = 0
    isolation: str = "none"  # none | unload | process
    cooldown_s: float = 0.0
    control: str | None = None  # this arm also runs first and last, under the name CONTROL + arm
    until: float | None = None  # relative half-width at which to stop

    @property
    def planned(self) -> tuple[Planned, ...]:
        names = [name for name, _ in self.arms]
        runs = planned(names, self.blocks, self.order, self.order_seed)
        if self.control is None:
            return runs
        return ((-1, CONTROL + self.control), *runs, (self.blocks, CONTROL + self.control))

    def with_blocks(self, blocks: int) -> Design:
        return replace(self, blocks=blocks)

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Design:
        """Return the design that `to_json` told of."""
        arms = tuple((arm["name"], tuple(arm["agents"])) for arm in told["arms"])
        return cls(arms, **{key: value for key, value in told.items() if key not in ("arms", "planned")})

    def to_json(self) -> dict[str, Any]:
        return {
            "arms": [{"name": name, "agents": list(agents)} for name, agents in self.arms],
            "primary": self.primary,
            "blocks": self.blocks,
            "order": self.order,
            "order_seed": self.order_seed,
            "planned": [list(one) for one in self.planned],
            "isolation": self.isolation,
            "cooldown_s": self.cooldown_s,
            "control": self.control,
            "until": self.until,
        }


def planned(arms: Sequence[str], blocks: int, order: str, seed: int) -> tuple[Planned, ...]:
    """Return (block, arm) of every run, in order of execution."""
    runs: list[Planned] = []
    for block in range(blocks):
        places = list(range(len(arms)))
        if order == "randomised":
            pair, second = divmod(block, 2)
            places = np.random.default_rng([seed, pair, ORDER_STREAM]).permutation(len(arms)).tolist()
            places = places[::-1] if second else places
        runs += [(block, arms[place]) for place in places]
    return tuple(runs)
