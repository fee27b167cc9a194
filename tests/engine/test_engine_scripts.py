"""Agents in virtual time: the barrier, the coordinator's permits, who waits for whose answer, how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from itertools import count, pairwise
from typing import Any

import pytest

from loadgen.clock import NS_PER_S
from loadgen.engine.engine import Engine
from loadgen.engine.plan import Call, Plan, Script
from loadgen.record import Outcome, Record
from loadgen.wire import Ask
from tests.fakes.engine_runs import ZERO_NS, Ran, run_engine
from tests.fakes.scripted import OneAtATime, Serve, hangs, takes
from tests.fakes.virtual import VirtualLoop

Patch = pytest.MonkeyPatch
NAMES = ("collector", "insight", "third", "fourth")


def scripted(calls: Sequence[int], *, follow: bool = False, think_s: float = 0.0, **more: Any) -> Plan:
    """A plan of one agent for each number of calls; each has a client of its own."""
    seqs = count()
    scripts = [
        Script(at, tuple(Call(next(seqs), follow and k > 0) for k in range(n)), round(think_s * NS_PER_S))
        for at, n in enumerate(calls)
    ]
    return replace(Plan(run=3, zero_ns=ZERO_NS, seqs=range(sum(calls)), scripts=scripts), **more)


def run(patch: Patch, plan: Plan, serve: Any, **more: Any) -> Ran:
    return run_engine(patch, plan, serve, agents=NAMES[: len(plan.scripts)], **more)


def fails(*seqs: int) -> Serve:
    async def serve(seq: int) -> Outcome | None:
        await asyncio.sleep(1)
        return Outcome.RESET if seq in seqs else None

    return serve


def of(ran: Ran, agent: str) -> list[Record]:
    return sorted((record for record in ran.records if record.agent == agent), key=lambda record: record.seq)


def spans(ran: Ran, agent: str) -> list[tuple[float, float, float]]:
    """(intended, sent, done) of an agent's calls, in seconds."""
    return [
        (record.intended_ns / NS_PER_S, (record.sent_ns or 0) / NS_PER_S, (record.done_ns or 0) / NS_PER_S)
        for record in of(ran, agent)
    ]


def test_all_agents_leave_one_barrier_and_make_their_calls_in_order(monkeypatch: Patch) -> None:
    ran = run(monkeypatch, scripted([2, 3]), takes(5), endpoints=2)
    assert spans(ran, "collector") == [(0, 0, 5), (5, 5, 10)]
    assert spans(ran, "insight") == [(0, 0, 5), (5, 5, 10), (10, 10, 15)]
    assert {record.endpoint for record in of(ran, "insight")} == {"endpoint-1"}
    assert ran.health.offered == 5
    assert ran.health.ended_ns == 15 * NS_PER_S
    ran.assert_one_record_each()


def test_one_permit_puts_the_agents_one_after_the_other_and_the_wait_is_in_the_record(monkeypatch: Patch) -> None:
    ran = run(monkeypatch, scripted([2, 1, 1], permits=1), takes(5))
    assert spans(ran, "collector") == [(0, 0, 5), (5, 5, 10)]
    assert spans(ran, "insight") == [(0, 10, 15)]
    assert spans(ran, "third") == [(0, 15, 20)]
    assert ran.health.peak_in_flight == 1


def test_two_permits_for_four_agents(monkeypatch: Patch) -> None:
    ran = run(monkeypatch, scripted([1, 1, 1, 1], permits=2), takes(5))
    assert [spans(ran, name)[0][1] for name in NAMES] == [0, 0, 5, 5]
    assert ran.transports[0].most_in_flight == 2


def test_a_serial_server_alternates_between_two_agents(monkeypatch: Patch) -> None:
    # docs/agents.md#known-answers: n equal calls each, strictly alternating, gives (4n - 1) / 4n of overlap.
    def server(loop: VirtualLoop) -> OneAtATime:
        return OneAtATime(loop, stalled_until_ns=0, each_ns=NS_PER_S)

    ran = run(monkeypatch, scripted([2, 2]), server, makes_server=True)
    walls = [spans(ran, name)[-1][2] - spans(ran, name)[0][1] for name in NAMES[:2]]
    assert walls == [3, 4]
    assert sum(walls) / max(walls) / 2 == 0.875


def test_think_time_lies_between_calls_and_nowhere_else(monkeypatch: Patch) -> None:
    ran = run(monkeypatch, scripted([3], think_s=2), takes(5))
    assert spans(ran, "collector") == [(0, 0, 5), (7, 7, 12), (14, 14, 19)]
    assert ran.health.ended_ns == 19 * NS_PER_S


def test_the_text_of_an_answer_is_heard_before_the_call_that_needs_it_is_asked_for(monkeypatch: Patch) -> None:
    told: list[Any] = []

    def ask(seq: int) -> Ask:
        told.append(seq)
        return Ask(prompt=f"request {seq}", output_tokens=1)

    plan = scripted([3], follow=True)
    run(monkeypatch, plan, takes(5), ask=ask, hear=lambda seq, text: told.append((seq, text)))
    assert told == [0, (0, "x"), 1, (1, "x"), 2]


def test_text_is_kept_only_where_it_is_needed_or_wanted(monkeypatch: Patch) -> None:
    heard: list[int] = []
    run(monkeypatch, scripted([3]), takes(5), hear=lambda seq, _: heard.append(seq))
    assert heard == []
    run(monkeypatch, scripted([3], keep_text=True), takes(5), hear=lambda seq, _: heard.append(seq))
    assert heard == [0, 1, 2]


def test_calls_that_need_an_answer_that_failed_are_left_out_and_said_so(monkeypatch: Patch) -> None:
    ran = run(monkeypatch, scripted([3, 2], follow=True), fails(0))
    assert [record.outcome for record in of(ran, "collector")] == [Outcome.RESET, Outcome.NOT_SENT, Outcome.NOT_SENT]
    left_out = of(ran, "collector")[1]
    assert left_out.error == "the call whose answer it needs failed"
    assert left_out.sent_ns is None
    assert left_out.intended_ns == NS_PER_S
    assert {record.outcome for record in of(ran, "insight")} == {Outcome.OK}
    assert ran.health.left_out == 2


def test_calls_that_need_no_answer_are_made_after_a_failure(monkeypatch: Patch) -> None:
    ran = run(monkeypatch, scripted([3]), fails(0))
    assert [record.outcome for record in of(ran, "collector")] == [Outcome.RESET, Outcome.OK, Outcome.OK]
    assert ran.health.left_out == 0


def test_an_interruption_while_agents_think_wait_and_ask_leaves_no_task_and_no_later_call(monkeypatch: Patch) -> None:
    def interrupt(engine: Engine, ran: Ran) -> None:
        engine.stop(interrupted=True)

    plan = scripted([2, 2, 2], think_s=100, permits=2)
    ran = run(monkeypatch, plan, hangs(2, others_s=1), at=[(20, interrupt)])
    assert ran.seqs == [0, 2]
    assert ran.outcomes == [Outcome.OK, Outcome.CANCELLED]
    assert ran.health.interrupted
    assert ran.health.ended_ns == 20 * NS_PER_S


def test_a_full_disk_ends_the_agents(monkeypatch: Patch) -> None:
    def full(record: Record) -> None:
        raise OSError(28, "No space left on device")

    ran = run(monkeypatch, scripted([3, 3]), takes(1), keep=full)
    assert isinstance(ran.error, OSError)


def test_no_permits_are_refused() -> None:
    with pytest.raises(ValueError, match="permits must be at least 1"):
        scripted([1], permits=0)


def test_agents_calls_are_numbered_apart(monkeypatch: Patch) -> None:
    ran = run(monkeypatch, scripted([2, 2]), takes(1))
    assert ran.seqs == [0, 1, 2, 3]
    assert all(a.done_ns is not None and a.done_ns <= b.intended_ns for a, b in pairwise(of(ran, "insight")))
