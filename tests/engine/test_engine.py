"""The engine in virtual time: loads, steps, ends and its own health, to the nanosecond."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import numpy as np
import pytest

from loadgen.clock import NS_PER_MS, NS_PER_S
from loadgen.engine.engine import DECODE_NS, HEARTBEAT_NS, Engine
from loadgen.record import Outcome, Record
from loadgen.wire import Ask
from tests.fakes import engine_runs
from tests.fakes.engine_runs import ZERO_NS, Ran, closed, opened, run_engine
from tests.fakes.scripted import OneAtATime, hangs, takes
from tests.fakes.virtual import Deadlock, VirtualLoop, VirtualSleeper, run_virtually

Patch = pytest.MonkeyPatch


def in_flight_at(ran: Ran, second: float) -> int:
    """Requests between their sending and their end at an instant of the run."""
    at_ns = ZERO_NS + round(second * NS_PER_S)
    served = [seen for transport in ran.transports for seen in transport.served]
    return sum(seen.sent_ns <= at_ns and (seen.done_ns is None or at_ns < seen.done_ns) for seen in served)


# --- closed loop -----------------------------------------------------------------------------------------------------


def test_a_closed_loop_keeps_exactly_n_in_flight_for_ten_minutes(monkeypatch: Patch) -> None:
    ran = run_engine(monkeypatch, closed([(0, 4)], duration_ns=600 * NS_PER_S), takes(10))
    assert ran.transports[0].most_in_flight == 4
    assert all(in_flight_at(ran, second) == 4 for second in range(600))
    assert len(ran.records) == 4 * 60
    assert ran.seqs == list(range(4 * 60))
    assert {record.sent_ns for record in ran.records} == {10 * NS_PER_S * k for k in range(60)}
    assert ran.health.peak_in_flight == 4
    assert (ran.health.began_ns, ran.health.ended_ns) == (-NS_PER_S, 600 * NS_PER_S)


def test_a_closed_loop_ends_with_its_last_request(monkeypatch: Patch) -> None:
    ran = run_engine(monkeypatch, closed([(0, 3)], requests=10), takes(1))
    assert ran.seqs == list(range(10))
    assert set(ran.outcomes) == {Outcome.OK}
    assert ran.health.ended_ns == 4 * NS_PER_S
    assert ran.health.offered == 10


def test_the_workers_step_up_and_down(monkeypatch: Patch) -> None:
    steps = [(0.0, 2), (10.0, 5), (20.0, 1), (30.0, 3)]
    ran = run_engine(monkeypatch, closed(steps, duration_ns=40 * NS_PER_S), takes(0.9))
    seen = {second: in_flight_at(ran, second) for second in (0, 9.5, 10, 19.5, 21.5, 29.5, 30, 39.5)}
    assert seen == {0: 2, 9.5: 2, 10: 5, 19.5: 5, 21.5: 1, 29.5: 1, 30: 3, 39.5: 3}
    ran.assert_one_record_each()


def test_a_worker_told_to_go_ends_its_request_first(monkeypatch: Patch) -> None:
    ran = run_engine(monkeypatch, closed([(0, 3), (1, 1)], duration_ns=20 * NS_PER_S), takes(7))
    assert [in_flight_at(ran, second) for second in (0.5, 1.5, 6.5, 7.5)] == [3, 3, 3, 1]
    assert set(ran.outcomes) == {Outcome.OK}


def test_a_step_down_and_up_while_requests_are_in_flight_adds_no_worker(monkeypatch: Patch) -> None:
    # Those that were to go and had not gone yet once stayed beside the newly hired: 6 in flight instead of 4.
    ran = run_engine(monkeypatch, closed([(0, 4), (1, 2), (2, 4)], duration_ns=60 * NS_PER_S), takes(5))
    assert ran.transports[0].most_in_flight == 4
    assert in_flight_at(ran, 30) == 4


def test_requests_used_up_end_a_run_whose_next_step_is_an_hour_away(monkeypatch: Patch) -> None:
    ran = run_engine(monkeypatch, closed([(0, 2), (3600, 4)], requests=6), takes(1))
    assert ran.seqs == list(range(6))
    assert ran.health.ended_ns == 3 * NS_PER_S


def test_requests_used_up_end_a_run_before_its_duration(monkeypatch: Patch) -> None:
    ran = run_engine(monkeypatch, closed([(0, 2)], requests=6, duration_ns=3600 * NS_PER_S), takes(1))
    assert ran.health.ended_ns == 3 * NS_PER_S


def test_a_process_without_a_worker_in_a_step_waits_for_the_next(monkeypatch: Patch) -> None:
    # A concurrency of 1 on two processes leaves one of them with none.
    ran = run_engine(monkeypatch, closed([(0, 0), (5, 1)], duration_ns=10 * NS_PER_S), takes(1))
    assert sorted(record.sent_ns or 0 for record in ran.records) == [s * NS_PER_S for s in range(5, 10)]


def test_no_request_begins_at_the_end_of_the_duration_or_later(monkeypatch: Patch) -> None:
    def a_millisecond_late(loop: VirtualLoop, delay: float, *call: Any, **context: Any) -> asyncio.TimerHandle:
        return loop.call_at(loop.time() + delay + 0.001, *call, **context)

    def server(loop: VirtualLoop) -> OneAtATime:
        return OneAtATime(loop, stalled_until_ns=0, each_ns=NS_PER_S)

    monkeypatch.setattr(VirtualLoop, "call_later", a_millisecond_late)  # as asyncio's and libuv's timers can be
    ran = run_engine(monkeypatch, closed([(0, 1)], duration_ns=10 * NS_PER_S), server, makes_server=True)
    assert max(record.sent_ns or 0 for record in ran.records) == 9 * NS_PER_S
    assert ran.health.ended_ns == 10 * NS_PER_S


def test_what_is_in_flight_at_the_end_is_drained(monkeypatch: Patch) -> None:
    ran = run_engine(monkeypatch, closed([(0, 2)], duration_ns=10 * NS_PER_S, drain_ns=30 * NS_PER_S), takes(4))
    assert ran.health.ended_ns == 12 * NS_PER_S
    assert set(ran.outcomes) == {Outcome.OK}


def test_without_a_duration_a_slow_answer_is_bounded_by_its_own_limits_alone(monkeypatch: Patch) -> None:
    ran = run_engine(monkeypatch, closed([(0, 2)], requests=2, drain_ns=NS_PER_S), takes(100))
    assert set(ran.outcomes) == {Outcome.OK}


def test_a_workers_endpoint_is_dealt_by_weight_and_kept(monkeypatch: Patch) -> None:
    plan = closed([(0, 8)], requests=80)
    ran = run_engine(monkeypatch, plan, takes(1), endpoints=2, deal=(0, 0, 0, 1))
    assert [transport.most_in_flight for transport in ran.transports] == [6, 2]
    assert Counter(record.endpoint for record in ran.records) == {"endpoint-0": 60, "endpoint-1": 20}


def test_a_closed_loops_request_is_intended_when_its_worker_is_free(monkeypatch: Patch) -> None:
    ran = run_engine(monkeypatch, closed([(0, 2)], requests=8), takes(0.25))
    assert all(record.intended_ns == record.sent_ns for record in ran.records)


# --- open loop -------------------------------------------------------------------------------------------------------


def test_an_open_loop_sends_at_exactly_the_offsets(monkeypatch: Patch) -> None:
    rng = np.random.default_rng(5)
    offsets = np.sort(rng.integers(0, 60 * NS_PER_S, 500)).tolist()
    ran = run_engine(monkeypatch, opened(offsets), takes(30))
    assert [ran.records[i].seq for i in np.argsort([r.seq for r in ran.records])] == list(range(500))
    by_seq = sorted(ran.records, key=lambda record: record.seq)
    assert [record.sent_ns for record in by_seq] == offsets
    assert [record.intended_ns for record in by_seq] == offsets
    assert [record.done_ns for record in by_seq] == [at + 30 * NS_PER_S for at in offsets]


def test_arrivals_do_not_wait_for_answers(monkeypatch: Patch) -> None:
    ran = run_engine(monkeypatch, opened([i * NS_PER_S for i in range(50)]), takes(100))
    assert ran.transports[0].most_in_flight == ran.health.peak_in_flight == 50


def test_a_late_request_is_sent_at_once_and_keeps_its_intended_start(monkeypatch: Patch) -> None:
    offsets = [i * 100 * NS_PER_MS for i in range(10)]

    def slow_to_build(seq: int) -> Ask:
        if seq == 3:
            loop = asyncio.get_running_loop()
            assert isinstance(loop, VirtualLoop)
            loop.stall(350 * NS_PER_MS)  # from 0.3 s to 0.65 s nothing runs
        return engine_runs.ask(seq)

    ran = run_engine(monkeypatch, opened(offsets), takes(0.01), ask=slow_to_build)
    by_seq = sorted(ran.records, key=lambda record: record.seq)
    assert [record.intended_ns for record in by_seq] == offsets
    slips_ms = [((record.sent_ns or 0) - record.intended_ns) // NS_PER_MS for record in by_seq]
    assert slips_ms == [0, 0, 0, 350, 250, 150, 50, 0, 0, 0]
    assert max(ran.health.loop_lag_ns) == 330 * NS_PER_MS  # of the heartbeat due at 0.32 s


def test_a_capped_open_loop_counts_the_wait_for_a_slot(monkeypatch: Patch) -> None:
    # docs/methodology.md#known-answers, K31: 200 arrivals every 10 ms, server stalled until 1 s, then 1 ms each, first
    # in, first out.
    def server(loop: VirtualLoop) -> OneAtATime:
        return OneAtATime(loop, stalled_until_ns=ZERO_NS + NS_PER_S, each_ns=NS_PER_MS)

    plan = opened([i * 10 * NS_PER_MS for i in range(200)], max_in_flight=1)
    ran = run_engine(monkeypatch, plan, server, makes_server=True)
    assert ran.transports[0].most_in_flight == ran.health.peak_in_flight == 1
    by_seq = sorted(ran.records, key=lambda record: record.seq)
    latency_ms = np.array([(record.done_ns or 0) - record.intended_ns for record in by_seq]) / NS_PER_MS
    assert latency_ms.mean() == pytest.approx(281.28, abs=1e-9)
    assert np.quantile(latency_ms, (0.5, 0.9, 0.99)) == pytest.approx([105.5, 821.9, 983.09], abs=1e-9)
    assert latency_ms.max() == 1001
    assert int(np.argmax(latency_ms == 1)) == 112
    service_ms = np.array([(record.done_ns or 0) - (record.sent_ns or 0) for record in by_seq]) / NS_PER_MS
    assert service_ms.mean() == 6  # what an instrument that starts its watch at the send would tell


def test_a_cap_holds_among_arrivals_of_one_instant(monkeypatch: Patch) -> None:
    # The requests of a burst were once counted when their tasks first ran: up to 32 passed a cap of 2.
    ran = run_engine(monkeypatch, opened([0] * 50, max_in_flight=2), takes(1))
    assert ran.transports[0].most_in_flight == 2
    assert ran.seqs == list(range(50))
    assert ran.health.ended_ns == 25 * NS_PER_S


def test_a_capped_open_loop_sends_nothing_after_its_duration(monkeypatch: Patch) -> None:
    # 100 arrivals in 10 s against a server that answers one a second: the other 90 were offered and never sent.
    plan = opened([i * 100 * NS_PER_MS for i in range(100)], max_in_flight=1, duration_ns=10 * NS_PER_S)
    ran = run_engine(monkeypatch, plan, takes(1))
    assert ran.seqs == list(range(10))
    assert (ran.health.offered, ran.health.ended_ns) == (100, 10 * NS_PER_S)


def test_the_drain_limit_of_an_open_loop_begins_with_the_end_of_its_duration(monkeypatch: Patch) -> None:
    plan = opened([0, NS_PER_S], duration_ns=60 * NS_PER_S, drain_ns=5 * NS_PER_S)
    ran = run_engine(monkeypatch, plan, takes(50))
    assert set(ran.outcomes) == {Outcome.OK}


def test_arrivals_are_dealt_over_endpoints_by_weight(monkeypatch: Patch) -> None:
    plan = opened([i * NS_PER_MS for i in range(100)])
    ran = run_engine(monkeypatch, plan, takes(1), endpoints=3, deal=(0, 1, 0, 2, 0))
    assert [len(transport.served) for transport in ran.transports] == [60, 20, 20]


# --- ends ------------------------------------------------------------------------------------------------------------


def test_after_the_drain_limit_what_is_left_is_cancelled_and_recorded(monkeypatch: Patch) -> None:
    plan = closed([(0, 3)], duration_ns=10 * NS_PER_S, drain_ns=5 * NS_PER_S)
    ran = run_engine(monkeypatch, plan, hangs(1, others_s=4))
    assert ran.health.ended_ns == 15 * NS_PER_S
    assert Counter(ran.outcomes) == {Outcome.OK: 6, Outcome.CANCELLED: 1}
    assert [record.seq for record in ran.records if record.outcome is Outcome.CANCELLED] == [1]
    ran.assert_one_record_each()


def test_a_run_that_hangs_is_ended_by_the_guard(monkeypatch: Patch) -> None:
    ran = run_engine(monkeypatch, closed([(0, 3)], requests=100, no_progress_ns=60 * NS_PER_S), hangs(others_s=0))
    assert ran.health.no_progress
    assert 60 * NS_PER_S <= ran.health.ended_ns <= 63 * NS_PER_S
    assert ran.outcomes == [Outcome.CANCELLED] * 3


def test_one_stream_that_still_brings_something_keeps_the_guard_off(monkeypatch: Patch) -> None:
    plan = closed([(0, 2)], requests=2, no_progress_ns=60 * NS_PER_S)

    def trickle(engine: Engine, ran: Ran) -> None:
        ran.transports[0].reads += 1

    ran = run_engine(monkeypatch, plan, takes(200), at=[(second, trickle) for second in range(0, 200, 50)])
    assert not ran.health.no_progress
    assert set(ran.outcomes) == {Outcome.OK}


def test_a_quiet_schedule_is_not_a_hang(monkeypatch: Patch) -> None:
    ran = run_engine(monkeypatch, opened([0, 300 * NS_PER_S], no_progress_ns=60 * NS_PER_S), takes(1))
    assert not ran.health.no_progress
    assert ran.seqs == [0, 1]


def test_what_the_peer_did_is_a_record_and_the_run_goes_on(monkeypatch: Patch) -> None:
    async def serve(seq: int) -> Outcome | None:
        await asyncio.sleep(1)
        return Outcome.RESET if seq % 2 else None

    ran = run_engine(monkeypatch, closed([(0, 2)], requests=10), serve)
    assert ran.outcomes == [Outcome.OK, Outcome.RESET] * 5


def test_records_reach_the_journal_while_the_run_goes_on(monkeypatch: Patch) -> None:
    seen: list[int] = []
    run_engine(
        monkeypatch,
        closed([(0, 1)], duration_ns=100 * NS_PER_S),
        takes(1),
        at=[(50, lambda _, ran: seen.append(len(ran.records)))],
    )
    assert seen == [49]  # the one that ended at this instant is decoded a moment later


def test_a_plan_that_could_never_send_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing would ever be sent"):
        opened([0], max_in_flight=0)  # a cap of 1 shared by two processes


# --- health ----------------------------------------------------------------------------------------------------------


def test_warm_up_requests_are_recorded_but_do_not_open_the_window(monkeypatch: Patch) -> None:
    ran = run_engine(monkeypatch, closed([(0, 2)], requests=10, warmup_requests=4), takes(1))
    assert ran.seqs == list(range(10))
    assert ran.health.first_intended_ns == 2 * NS_PER_S
    assert ran.health.last_sent_ns == 4 * NS_PER_S


def test_a_run_of_warm_up_alone_has_no_first_request(monkeypatch: Patch) -> None:
    ran = run_engine(monkeypatch, closed([(0, 2)], requests=4, warmup_requests=4), takes(1))
    assert ran.health.first_intended_ns is None


def test_the_heartbeat_samples_the_loop_50_times_a_second(monkeypatch: Patch) -> None:
    ran = run_engine(monkeypatch, closed([(0, 1)], duration_ns=10 * NS_PER_S), takes(1))
    assert len(ran.health.loop_lag_ns) == pytest.approx(11 * NS_PER_S / HEARTBEAT_NS, abs=2)
    assert set(ran.health.loop_lag_ns) == {0}


def test_answers_that_end_together_are_decoded_with_reads_in_between(monkeypatch: Patch) -> None:
    async def serve(seq: int) -> None:
        await asyncio.sleep(5 if seq == 0 else 1)  # one goes on, and its tokens have to be read

    kept_ns: list[int] = []

    def keep(record: Record) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        loop.stall(NS_PER_MS)  # what decoding takes
        if record.seq:
            kept_ns.append(loop.now_ns())

    ran = run_engine(monkeypatch, closed([(0, 1000)], requests=1000), serve, keep=keep)
    ran.assert_one_record_each()
    reads_ns = np.array(ran.transports[0].loop.reads_ns)
    meanwhile = reads_ns[(reads_ns >= ZERO_NS + NS_PER_S) & (reads_ns < kept_ns[-1])]
    assert np.diff(meanwhile, append=kept_ns[-1]).max() <= DECODE_NS + NS_PER_MS


# --- the fakes themselves --------------------------------------------------------------------------------------------


def test_a_deadlock_in_virtual_time_is_an_error(monkeypatch: Patch) -> None:
    async def forever(loop: VirtualLoop) -> None:
        await loop.create_future()

    with pytest.raises(Deadlock):
        run_virtually(monkeypatch, forever)


def test_virtual_timers_fire_to_the_nanosecond(monkeypatch: Patch) -> None:
    async def main(loop: VirtualLoop) -> list[int]:
        sleeper = VirtualSleeper()
        seen = []
        for offset in (1, 2, 999_999_999, 3_600 * NS_PER_S + 7):
            await sleeper.until(ZERO_NS + offset)
            seen.append(loop.now_ns() - ZERO_NS)
        return seen

    assert run_virtually(monkeypatch, main) == [1, 2, 999_999_999, 3_600 * NS_PER_S + 7]


def test_the_scripted_records_pass_through_the_real_client(monkeypatch: Patch) -> None:
    ran = run_engine(monkeypatch, closed([(0, 1)], requests=1), takes(2))
    record: Record = ran.records[0]
    assert (record.run, record.endpoint, record.status, record.output_tokens) == (3, "endpoint-0", 200, 1)
    assert record.event_ns.tolist() == [record.done_ns]


def test_a_dispatcher_late_at_the_end_of_an_open_loop_still_sends_what_was_due(monkeypatch: Patch) -> None:
    due = [NS_PER_S - 2_000_000, NS_PER_S - 1_000_000]
    plan = opened(due, duration_ns=NS_PER_S, zero_ns=ZERO_NS - 2 * NS_PER_S)
    assert sorted(record.seq for record in run_engine(monkeypatch, plan, takes(1)).records) == [0, 1]
