"""The timing law in pure virtual time: exact integers, worked by hand."""

from __future__ import annotations

import random
from itertools import pairwise
from statistics import fmean, quantiles

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.emulator import Law
from loadgen.emulator.physics import Job, Physics, Prefixes

MS = 1_000_000
S = 1000 * MS


def run(physics: Physics, jobs: list[Job], step_ns: int | None = None) -> dict[int, list[int]]:
    """Submit in order of arrival, advance from deadline to deadline (or in steps); return due instants by job."""
    due: dict[int, list[int]] = {job.seq: [] for job in jobs}
    waiting = sorted(jobs, key=lambda job: job.arrived_ns)
    now = 0
    while waiting or physics.next_due() is not None:
        next_due = physics.next_due()
        if waiting and (next_due is None or waiting[0].arrived_ns <= next_due):
            physics.submit(waiting.pop(0))
            continue
        assert next_due is not None
        now = next_due if step_ns is None else max(now + step_ns, next_due)
        for job in physics.advance(now):
            due[job.seq].append(now)
    return due


def job(seq: int, at_ms: float, prompt: int = 0, output: int = 3, instance: int = 0, k: int = 1) -> Job:
    return Job(seq, instance, round(at_ms * MS), prompt, output, tokens_per_event=k)


def test_constant_law_is_arrival_plus_ttft_plus_i_gaps() -> None:
    due = run(Physics(Law(ttft_s=0.05, gap_s=0.02)), [job(0, 0), job(1, 7.25)])
    assert due[0] == [50 * MS, 70 * MS, 90 * MS]
    assert due[1] == [round(57.25 * MS), round(77.25 * MS), round(97.25 * MS)]


def test_a_late_caller_shifts_no_deadline() -> None:
    physics = Physics(Law(ttft_s=0.05, gap_s=0.02))
    one = job(0, 0, output=4)
    physics.submit(one)
    assert physics.advance(49 * MS) == []
    assert physics.advance(95 * MS) == [one, one, one]  # 50, 70, 90: late by up to 45 ms
    assert physics.next_due() == 110 * MS
    assert physics.advance(110 * MS) == [one]
    assert (one.first_due_ns, one.last_due_ns) == (50 * MS, 110 * MS)


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=20), st.integers(1, 10**8))
def test_deadlines_do_not_depend_on_when_one_looks(arrivals: list[int], step: int) -> None:
    law = Law(ttft_s=0.01, gap_s=0.003, prefill_tokens_per_s=1000, slots=3)

    def last(step_ns: int | None) -> list[tuple[int, int, int]]:
        jobs = [Job(i, 0, at, i, 1 + i % 4) for i, at in enumerate(sorted(arrivals))]
        run(Physics(law), jobs, step_ns)
        return [(j.first_due_ns, j.last_due_ns, j.queue_ns) for j in jobs]

    assert last(None) == last(step)


def test_prefill_adds_prompt_over_rate() -> None:
    due = run(Physics(Law(ttft_s=0.05, gap_s=0.02, prefill_tokens_per_s=1000)), [job(0, 0, prompt=30, output=1)])
    assert due[0] == [80 * MS]


def test_a_step_grows_with_the_batch() -> None:
    # Alone 20 ms a step; with two running 20 + 5. The first finishes at 100 ms, after which the second is alone.
    law = Law(ttft_s=0.05, gap_s=0.02, batch_slope_s=0.005)
    due = run(Physics(law), [job(0, 0, output=3), job(1, 0, output=4)])
    assert due[0] == [50 * MS, 75 * MS, 100 * MS]
    assert due[1] == [50 * MS, 75 * MS, 100 * MS, 120 * MS]


def test_slots_queue_first_in_first_out() -> None:
    law = Law(ttft_s=0.01, gap_s=0.01, slots=1)
    jobs = [job(0, 0, output=2), job(1, 1, output=1), job(2, 2, output=1)]
    due = run(Physics(law), jobs)
    assert due == {0: [10 * MS, 20 * MS], 1: [30 * MS], 2: [40 * MS]}
    assert [j.queue_ns for j in jobs] == [0, 19 * MS, 28 * MS]


def test_an_arrival_seen_late_starts_when_it_arrived_or_when_its_slot_freed() -> None:
    physics = Physics(Law(ttft_s=0.01, gap_s=0.01, slots=1))
    first = job(0, 0, output=1)
    physics.submit(first)
    physics.advance(50 * MS)  # free since 10 ms
    early, late = job(1, 5, output=1), job(2, 40, output=1)
    physics.submit(early)
    physics.submit(late)
    physics.advance(100 * MS)
    assert (early.queue_ns, early.first_due_ns) == (5 * MS, 20 * MS)
    assert (late.queue_ns, late.first_due_ns) == (0, 50 * MS)


def test_kv_limit_makes_the_head_of_the_queue_wait() -> None:
    # 10 + 5 tokens each: two fit in 30, the third waits for the first to finish at 20 ms.
    law = Law(ttft_s=0.01, gap_s=0.0025, kv_tokens=30)
    due = run(Physics(law), [job(i, 0, prompt=10, output=5) for i in range(3)])
    assert due[0][-1] == due[1][-1] == 20 * MS
    assert due[2][0] == 30 * MS


def test_busy_instances_share_the_gpu() -> None:
    law = Law(ttft_s=0.01, gap_s=0.01, instances=2, gpu_share=1.0)
    alone = run(Physics(law), [job(0, 0, output=3)])
    assert alone[0] == [10 * MS, 20 * MS, 30 * MS]
    both = run(Physics(law), [job(0, 0, output=3), job(1, 0, output=3, instance=1)])
    # The first started alone (10 ms prefill), the second beside it (20 ms); every later step began with two busy.
    assert both[0] == [10 * MS, 30 * MS, 50 * MS]
    assert both[1] == [20 * MS, 40 * MS, 60 * MS]


def test_cold_load_keep_alive_and_unload() -> None:
    law = Law(ttft_s=0.01, gap_s=0.01, load_s=1.0, keep_alive_s=5.0)
    physics = Physics(law)
    jobs = [job(0, 0, output=1), job(1, 500, output=1), job(2, 3000, output=1), job(3, 9000, output=1)]
    due = run(physics, jobs)
    assert [d[0] for d in due.values()] == [1010 * MS, 1010 * MS, 3010 * MS, 10010 * MS]
    assert [j.load_ns for j in jobs] == [S, 500 * MS, 0, S]
    assert physics.instances[0].loads == 2
    physics.unload(0)
    assert not physics.is_loaded(0, 10011 * MS)


def test_tokens_per_event_keep_the_step_time() -> None:
    due = run(Physics(Law(ttft_s=0.01, gap_s=0.01)), [job(0, 0, output=7, k=3)])
    assert due[0] == [10 * MS, 20 * MS, 30 * MS]


def test_jitter_is_seeded_and_has_mean_one() -> None:
    law = Law(ttft_s=0, gap_s=0.01, jitter=0.5, seed=7)
    due, again = (run(Physics(law), [job(0, 0, output=20_001)])[0] for _ in range(2))
    assert due == again
    gaps = [b - a for a, b in pairwise(due)]
    assert fmean(gaps) == pytest.approx(10 * MS, rel=0.02)
    assert run(Physics(Law(ttft_s=0, gap_s=0.01, jitter=0.5, seed=8)), [job(0, 0, output=9)])[0] != due[:9]


def test_mm1_sojourn_agrees_with_theory() -> None:
    """K33: mu 10, lambda 8: mean 0.5 s, p50 0.3466 s, p95 1.4979 s, p99 2.3026 s. Correlated, hence the wide bounds.

    Arrivals and services are given the same seed on purpose: drawn from equal streams, they once moved together, and
    the mean came out at 0.24 s.
    """
    rng = random.Random(33)
    physics = Physics(Law(mm1_rate=10.0, seed=33))
    at, jobs = 0.0, []
    for i in range(60_000):
        at += rng.expovariate(8.0)
        jobs.append(Job(i, 0, round(at * S), 0, 1))
    run(physics, jobs)
    sojourn = [(j.last_due_ns - j.arrived_ns) / S for j in jobs]
    assert fmean(sojourn) == pytest.approx(0.5, rel=0.10)
    cuts = quantiles(sojourn, n=20)
    assert cuts[9] == pytest.approx(0.346574, rel=0.10)
    assert cuts[18] == pytest.approx(1.497866, rel=0.12)
    assert quantiles(sojourn, n=100)[98] == pytest.approx(2.302585, rel=0.15)


def test_md1_wait_agrees_with_theory() -> None:
    """K33: constant service of 0.1 s, lambda 8: mean wait 0.2 s."""
    rng = random.Random(34)
    at, jobs = 0.0, []
    for i in range(40_000):
        at += rng.expovariate(8.0)
        jobs.append(Job(i, 0, round(at * S), 0, 1))
    run(Physics(Law(ttft_s=0.1, slots=1)), jobs)
    assert fmean(j.queue_ns for j in jobs) / S == pytest.approx(0.2, rel=0.10)


def test_mm1_divides_its_service_over_the_tokens() -> None:
    one = job(0, 0, output=4)
    due = run(Physics(Law(mm1_rate=10.0, seed=1)), [one])[0]
    assert due[-1] == one.service_ns
    assert len({b - a for a, b in pairwise(due)}) == 1


def test_cancelling_frees_the_slot_at_that_instant() -> None:
    physics = Physics(Law(ttft_s=0.01, gap_s=0.01, slots=1))
    first, second, third = job(0, 0, output=100), job(1, 0, output=1), job(2, 0, output=1)
    for one in (first, second, third):
        physics.submit(one)
    physics.advance(25 * MS)
    physics.cancel(second, 26 * MS)  # still queued
    physics.cancel(first, 30 * MS)
    assert physics.advance(100 * MS) == [third]
    assert third.first_due_ns == 40 * MS
    assert physics.instances[0].running == 0


def test_zero_gap_hands_a_job_over_once() -> None:
    physics = Physics(Law(ttft_s=0.01, gap_s=0.0))
    one = job(0, 0, output=1000)
    physics.submit(one)
    assert physics.flood
    assert physics.advance(10 * MS) == [one]
    assert physics.next_due() is None


def test_output_length_rule() -> None:
    plain = Physics(Law(output_tokens=9))
    assert plain.output_length(4) == (4, False)
    assert plain.output_length(None) == (9, True)
    geometric = Physics(Law(output_tokens=10_000, eos_mean_tokens=20, seed=3))
    drawn = [geometric.output_length(None)[0] for _ in range(20_000)]
    assert fmean(drawn) == pytest.approx(20, rel=0.05)
    assert geometric.output_length(7, ignore_eos=True) == (7, False)


def test_prefix_cache_finds_whole_blocks_but_never_the_last_token() -> None:
    cache = Prefixes(blocks=100)
    prompt = list(range(40))
    assert cache.lookup(prompt) == 0
    assert cache.lookup(prompt) == 32
    assert cache.lookup(prompt[:32]) == 16
    assert cache.lookup([9, *prompt]) == 0


@pytest.mark.parametrize(
    "bad", [{"ttft_s": -1}, {"slots": 0}, {"instances": 0}, {"mm1_rate": 0}, {"gap_s": float("nan")}]
)
def test_a_law_that_cannot_be_is_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        Law(**bad)  # type: ignore[arg-type]
