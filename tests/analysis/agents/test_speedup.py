import numpy as np
import pytest

from analysis.agents import speedup
from analysis.agents.speedup import Walls
from analysis.estimate import NoteCode

SOLO = [20.1, 19.6, 20.4, 19.9, 20.3]
MAKESPAN = np.array([11.2, 10.9, 11.5, 11.0, 11.3])
UNKNOWN = "output tokens of a, b are not known in all runs: equal work cannot be checked"


def walls(**changes):
    """K14's five blocks as two agents of half the solo time each, both as long as the concurrent run."""
    half = np.array(SOLO)[:, None] / 2
    both = np.column_stack([MAKESPAN, MAKESPAN])
    given = {"concurrent": both, "makespan": MAKESPAN, "solo": np.hstack([half, half]), "agents": ("a", "b")}
    return Walls(**given | changes)


def told(estimate):
    return estimate.value, estimate.low, estimate.high


def test_unequal_agents_that_slow_each_other_down():  # K20
    one = speedup.parts(np.array([10, 20]), np.array([12, 24]), 24)
    assert (one.speedup, one.efficiency, one.overlap, one.stretch) == pytest.approx((1.25, 0.625, 1.5, 1.2))
    assert (one.balance, one.ideal_speedup, one.heterogeneous_efficiency) == pytest.approx((0.75, 1.5, 5 / 6))
    assert one.speedup == pytest.approx(one.overlap / one.stretch)
    assert one.efficiency == pytest.approx(one.balance / one.stretch)


def test_time_slicing_overlaps_and_gains_nothing():  # K21
    one = speedup.parts(np.array([10, 10]), np.array([20, 20]), 20)
    assert (one.speedup, one.efficiency, one.overlap, one.stretch) == (1.0, 0.5, 2.0, 2.0)


def test_speedup_over_blocks():  # K14, K15
    found = speedup.parts_over_blocks(walls())
    assert told(found.speedup) == pytest.approx((1.794418, 1.778574, 1.810403), abs=1e-6)
    assert told(found.efficiency) == pytest.approx((0.897209, 0.889287, 0.905201), abs=1e-6)
    assert told(found.fieller_speedup) == pytest.approx((1.794275, 1.778538, 1.810711), abs=1e-6)
    assert told(found.overlap) == (2, 2, 2)
    assert found.speedup.value == pytest.approx(found.overlap.value / found.stretch.value)
    assert (found.speedup.n, found.speedup.sentences) == (5, (UNKNOWN,))


def test_speedup_of_runs_that_are_not_blocked():  # K16
    found = speedup.parts_over_blocks(walls(blocked=False))
    assert told(found.speedup)[1:] == pytest.approx((1.745043, 1.845190), abs=1e-6)
    assert told(found.fieller_speedup)[1:] == pytest.approx((1.745752, 1.844540), abs=1e-6)
    assert found.speedup.has(NoteCode.NOT_BLOCKED)


def test_more_solo_than_concurrent_runs():
    found = speedup.parts_over_blocks(
        walls(concurrent=walls().concurrent[:4], makespan=MAKESPAN[:4], blocked=False),
    )
    assert found.speedup.n == 4
    assert found.speedup.value == pytest.approx(np.exp(np.log(SOLO).mean() - np.log(MAKESPAN[:4]).mean()))


def test_without_solo_runs_there_is_no_speedup():
    found = speedup.parts_over_blocks(walls(solo=None))
    for name in ("speedup", "efficiency", "ideal_speedup", "heterogeneous_efficiency", "stretch", "combined_over_solo"):
        assert getattr(found, name).value is None, name
        assert getattr(found, name).has(NoteCode.NO_SOLO_RUNS)
    assert (found.overlap.value, found.balance.value) == (2, 1)


@pytest.mark.parametrize(
    ("blocks", "interval", "note"),
    [
        (1, False, "no interval from 1 run"),
        (2, False, "no interval from 2 runs"),
        (3, True, "few runs"),
        (5, True, None),
    ],
)
def test_few_blocks_have_no_interval_or_a_marked_one(blocks, interval, note):
    one = walls()
    found = speedup.parts_over_blocks(
        walls(concurrent=one.concurrent[:blocks], makespan=one.makespan[:blocks], solo=one.solo[:blocks])
    )
    assert (found.speedup.low is not None) == interval
    assert found.speedup.value == pytest.approx(1.7944, abs=0.01)
    assert note is None or found.speedup.sentences[0].startswith(note)


def test_faster_than_alone_is_flagged():
    quick = np.column_stack([MAKESPAN, MAKESPAN]) * 0.8
    found = speedup.parts_over_blocks(walls(concurrent=quick, makespan=MAKESPAN * 0.8))
    assert found.speedup.value > found.ideal_speedup.value
    assert "above the ideal speedup: a, b ran faster than alone" in found.speedup.sentences


def test_unequal_work_compares_token_rates():
    """The agents write half as much together as alone: twice the speedup of the times, none in the tokens."""
    both, alone = np.full((5, 2), 100.0), np.full((5, 2), 200.0)
    found = speedup.parts_over_blocks(walls(concurrent_tokens=both, solo_tokens=alone))
    assert found.speedup.value == pytest.approx(1.794418 / 2, abs=1e-6)
    assert found.speedup.sentences[0].startswith("unequal work (a: 100 tokens against 200 alone; b: 100")
    assert found.efficiency.value == pytest.approx(1.794418 / 4, abs=1e-6)


def test_equal_work_makes_token_rates_and_times_agree():
    tokens = np.full((5, 2), 100.0)
    found = speedup.parts_over_blocks(walls(concurrent_tokens=tokens * 1.02, solo_tokens=tokens))
    assert found.combined_over_solo.value == pytest.approx(1.794418 * 1.02, abs=1e-6)
    assert found.speedup.value == pytest.approx(1.794418, abs=1e-6)
    assert found.speedup.sentences == ()


@pytest.mark.parametrize("where", ["solo_tokens", "concurrent_tokens"])
def test_an_agent_whose_tokens_one_run_does_not_tell_is_named_beside_one_that_did_more(where):
    tokens = {"solo_tokens": np.full((5, 2), 100.0), "concurrent_tokens": np.full((5, 2), 100.0)}
    tokens["concurrent_tokens"][:, 0] = 150
    tokens[where][3, 1] = np.nan
    found = speedup.parts_over_blocks(walls(**tokens))
    assert speedup.tokens_differ(walls(**tokens)) == ["a: 150 tokens against 100 alone"]
    for name in ("speedup", "efficiency", "ideal_speedup", "heterogeneous_efficiency", "stretch"):
        assert UNKNOWN.replace("a, b", "b") in getattr(found, name).sentences, name
        assert getattr(found, name).has(NoteCode.UNEQUAL_WORK, NoteCode.UNEQUAL_TIMES), name


def test_unknown_tokens_are_no_rate():
    found = speedup.parts_over_blocks(walls(concurrent_tokens=np.full((5, 2), np.nan), solo_tokens=np.ones((5, 2))))
    assert (found.combined_over_solo.value, found.combined_over_solo.sentences) == (
        None,
        ("output tokens unknown",),
    )
    assert found.speedup.value == pytest.approx(1.794418, abs=1e-6)


def test_makespans_that_may_be_anything_leave_the_speedup_unbounded():
    found = speedup.parts_over_blocks(
        Walls(np.array([[5.0], [200.0], [1.0]]), np.array([5.0, 200.0, 1.0]), np.array([[10.0], [10.0], [10.0]]))
    )
    assert (found.speedup.low, found.speedup.high) == (None, None)
    assert found.speedup.has(NoteCode.UNBOUNDED)


def test_fairness():
    assert speedup.jain(np.array([3.0, 3.0])) == pytest.approx(1)
    assert speedup.jain(np.array([5.0, 0.0, 0.0, 0.0])) == pytest.approx(0.25)
    assert speedup.jain(np.array([1.0, 3.0])) == pytest.approx(0.8)


@pytest.mark.parametrize(("solo", "together"), [([1.0], [1.0, 2.0]), ([0.0, 1.0], [1.0, 1.0]), ([], [])])
def test_walls_that_are_none_are_refused(solo, together):
    with pytest.raises(ValueError, match="wall times"):
        speedup.parts(np.array(solo), np.array(together), 1.0)
