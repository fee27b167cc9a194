"""The plan of a campaign: which arm runs when, and how a plan may grow."""

from __future__ import annotations

from collections import Counter

import pytest

from loadgen.campaign.design import planned, with_blocks, with_plan
from loadgen.manifest import CONTROL, ArmFacts, DesignFacts, Manifest


@pytest.mark.parametrize("k", [2, 3, 5])
def test_every_arm_occurs_once_a_block_and_each_pair_of_blocks_is_its_own_mirror(k: int) -> None:
    arms = [f"arm {i}" for i in range(k)]
    order = [[arm for block, arm in planned(arms, 8, "randomised", 7) if block == at] for at in range(8)]
    for first, second in zip(order[::2], order[1::2], strict=True):
        assert sorted(first) == arms
        assert second == first[::-1]


def test_two_arms_begin_with_either_as_often_over_many_seeds() -> None:
    begins = Counter(planned(["a", "b"], 2, "randomised", seed)[0][1] for seed in range(400))
    # Binomial(400, 1/2) leaves 160 to 240 with a probability of 5e-5.
    assert 160 < begins["a"] < 240


def test_each_pair_of_blocks_is_drawn_anew() -> None:
    order = planned(["a", "b"], 80, "randomised", 1)
    starts = [arm for block, arm in order[::2] if block % 2 == 0]
    assert set(starts) == {"a", "b"}


def test_a_linear_drift_cancels_over_each_pair_of_blocks() -> None:
    at: dict[str, list[int]] = {arm: [] for arm in "abc"}
    for place, (_, arm) in enumerate(planned("abc", 10, "randomised", 3)):
        at[arm].append(place)
    assert len({sum(places) for places in at.values()}) == 1


def test_fixed_order_is_as_listed() -> None:
    assert planned(["b", "a"], 2, "fixed", 1) == ((0, "b"), (0, "a"), (1, "b"), (1, "a"))


def test_a_longer_plan_begins_with_the_shorter_one() -> None:
    assert planned("abc", 13, "randomised", 9)[:24] == planned("abc", 8, "randomised", 9)


def test_the_control_is_the_first_and_the_last_run_under_a_name_of_its_own() -> None:
    arms = (ArmFacts("a"), ArmFacts("b"))
    design = with_plan(DesignFacts(arms=arms, primary="a", blocks=2, order="fixed", control="b"))
    assert design.planned[0] == (-1, CONTROL + "b")
    assert design.planned[-1] == (2, CONTROL + "b")
    assert [arm for _, arm in design.planned[1:-1]] == ["a", "b", "a", "b"]
    grown = with_blocks(design, 5).planned
    assert grown[:5] == design.planned[:5]
    assert grown[-1] == (5, CONTROL + "b")


def test_a_design_comes_back_from_the_manifest() -> None:
    arms = (ArmFacts("solo", ("x",)), ArmFacts("both", ("x", "y")))
    asked = DesignFacts(arms=arms, primary="both", blocks=3, order_seed=5, isolation="unload", until=0.02)
    design = with_plan(asked)
    assert len(design.planned) == 6
    assert Manifest.from_json(Manifest(design=design).to_json()).design == design
