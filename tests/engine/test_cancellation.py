"""How a run ends before its time: interrupted, failed, cancelled. Records stay, tasks do not. Virtual time.

`run_virtually` fails every test here that leaves a task behind.
"""

from __future__ import annotations

import asyncio
import errno
import gc
from collections import Counter

import pytest

from loadgen.clock import NS_PER_MS, NS_PER_S
from loadgen.engine.engine import Engine
from loadgen.engine.plan import Plan
from loadgen.record import Outcome, Record
from loadgen.wire import Ask
from tests.fakes import engine_runs
from tests.fakes.engine_runs import ZERO_NS, Ran, closed, opened, run_engine
from tests.fakes.scripted import ScriptedTransport, hangs, takes
from tests.fakes.virtual import VirtualLoop, VirtualSleeper, run_virtually

Patch = pytest.MonkeyPatch


def stop(engine: Engine, _: Ran) -> None:
    engine.stop()


def interrupt(engine: Engine, _: Ran) -> None:
    engine.stop(interrupted=True)


def loads() -> list[Plan]:
    """One of each kind, all with requests in flight from 0 s to 100 s if each takes 10 s."""
    return [
        closed([(0, 3)], duration_ns=100 * NS_PER_S),
        closed([(0, 3)], requests=30),
        closed([(0, 3), (1000, 4)], duration_ns=2000 * NS_PER_S),
        opened([i * NS_PER_S for i in range(100)]),
        opened([i * NS_PER_S for i in range(100)], max_in_flight=3, duration_ns=100 * NS_PER_S),
    ]


@pytest.mark.parametrize("plan", loads())
def test_an_interrupt_ends_the_run_at_once_and_keeps_every_record(monkeypatch: Patch, plan: Plan) -> None:
    ran = run_engine(monkeypatch, plan, takes(10), at=[(25, interrupt)])
    assert ran.error is None
    assert ran.health.interrupted
    assert ran.health.ended_ns == 25 * NS_PER_S
    ran.assert_one_record_each()
    assert set(ran.outcomes) == {Outcome.OK, Outcome.CANCELLED}
    assert all(r.done_ns == 25 * NS_PER_S for r in ran.records if r.outcome is Outcome.CANCELLED)


@pytest.mark.parametrize("plan", loads())
def test_a_stop_begins_nothing_new_and_waits_for_the_rest(monkeypatch: Patch, plan: Plan) -> None:
    ran = run_engine(monkeypatch, plan, takes(10), at=[(25, stop)])
    assert not ran.health.interrupted
    assert max(record.sent_ns or 0 for record in ran.records) <= 25 * NS_PER_S
    assert set(ran.outcomes) == {Outcome.OK}
    ran.assert_one_record_each()
    assert 30 * NS_PER_S <= ran.health.ended_ns <= 35 * NS_PER_S


def test_a_stop_waits_no_longer_than_the_drain_limit(monkeypatch: Patch) -> None:
    plan = closed([(0, 3)], requests=30, drain_ns=5 * NS_PER_S)
    ran = run_engine(monkeypatch, plan, hangs(1, others_s=1), at=[(10.5, stop)])
    assert ran.health.ended_ns == 15_500 * NS_PER_MS
    assert Counter(ran.outcomes)[Outcome.CANCELLED] == 1


@pytest.mark.parametrize("first", [[], [(18.0, stop)]])
def test_an_interrupt_while_draining_ends_the_run_at_once(monkeypatch: Patch, first: list) -> None:
    # It was once not heard before the drain limit: 30 s of waiting after Ctrl-C.
    plan = closed([(0, 3)], duration_ns=20 * NS_PER_S, drain_ns=30 * NS_PER_S)
    ran = run_engine(monkeypatch, plan, hangs(), at=[*first, (22, interrupt)])
    assert ran.health.ended_ns == 22 * NS_PER_S
    assert ran.outcomes == [Outcome.CANCELLED] * 3


def test_an_interrupt_before_the_start_ends_a_run_without_requests(monkeypatch: Patch) -> None:
    for plan in loads():
        ran = run_engine(monkeypatch, plan, takes(10), at=[(-0.5, interrupt)])
        assert ran.records == []
        assert ran.health.ended_ns == -0.5 * NS_PER_S


@pytest.mark.parametrize("plan", loads())
def test_a_full_disk_ends_the_run_and_is_raised(monkeypatch: Patch, plan: Plan) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")

    def keep(record: Record) -> None:
        if record.seq == 4:
            raise full

    ran = run_engine(monkeypatch, plan, takes(10), keep=keep)
    assert ran.error is full
    served = sorted(seen.seq for seen in ran.transports[0].served)
    assert ran.seqs == [seq for seq in served if seq != 4]
    assert ran.transports[0].served[-1].sent_ns - ZERO_NS <= 21_050 * NS_PER_MS  # seq 4 ended at 14, 20 or 21 s


def test_a_record_that_cannot_be_kept_does_not_take_its_batch_along(monkeypatch: Patch) -> None:
    def keep(record: Record) -> None:
        if record.seq == 0:
            raise OSError(errno.ENOSPC, "No space left on device")

    ran = run_engine(monkeypatch, opened([0] * 10), takes(1), keep=keep)
    assert isinstance(ran.error, OSError)
    assert ran.seqs == list(range(1, 10))


@pytest.mark.parametrize("plan", loads())
def test_a_bug_in_the_workload_ends_the_run_and_is_raised(monkeypatch: Patch, plan: Plan) -> None:
    bug = ZeroDivisionError("a bug of ours")

    def ask(seq: int) -> Ask:
        if seq == 4:
            raise bug
        return engine_runs.ask(seq)

    ran = run_engine(monkeypatch, plan, takes(10), ask=ask)
    assert ran.error is bug
    assert 4 not in ran.seqs
    assert set(ran.outcomes) == {Outcome.OK}
    ran.assert_one_record_each()


def test_the_first_of_several_errors_is_raised(monkeypatch: Patch) -> None:
    def keep(record: Record) -> None:
        raise OSError(f"record {record.seq}")

    ran = run_engine(monkeypatch, closed([(0, 1)], requests=9), takes(1), keep=keep)
    assert str(ran.error) == "record 0"


@pytest.mark.parametrize("missing", [0, 1], ids=["the heartbeat's", "the feeder's"])
def test_an_alarm_that_cannot_be_had_is_raised(monkeypatch: Patch, missing: int) -> None:
    # Out of file descriptors, say. The heartbeat guards against hangs: a run must not go on without it.
    made: list[VirtualSleeper] = []

    class Scarce(VirtualSleeper):
        def __init__(self) -> None:
            super().__init__()
            made.append(self)
            if len(made) == missing + 1:
                raise OSError(errno.EMFILE, "Too many open files")

    async def main(loop: VirtualLoop) -> None:
        transport = ScriptedTransport(takes(1), loop)
        engine = Engine(
            closed([(0, 1)], requests=100), [transport.client()], (0,), engine_runs.ask, lambda record: None
        )
        with monkeypatch.context() as patched:  # undone before run_virtually undoes its own
            patched.setattr("loadgen.engine.engine.Sleeper", Scarce)
            await engine.run()

    with pytest.raises(OSError, match="Too many open files"):
        run_virtually(monkeypatch, main)


@pytest.mark.parametrize("plan", loads())
@pytest.mark.parametrize("second", [-0.5, 10.0, 25.0])
def test_cancelling_the_run_itself_leaves_no_task_and_one_record_each(
    monkeypatch: Patch, plan: Plan, second: float
) -> None:
    async def main(loop: VirtualLoop) -> Ran:
        ran = Ran(transports=[ScriptedTransport(takes(10), loop)])
        engine = Engine(plan, [ran.transports[0].client()], (0,), engine_runs.ask, ran.records.append)
        running = asyncio.create_task(engine.run())
        loop.call_at((ZERO_NS + round(second * NS_PER_S)) / NS_PER_S, running.cancel)
        with pytest.raises(asyncio.CancelledError):
            await running
        assert loop.now_ns() == ZERO_NS + round(second * NS_PER_S)
        assert engine.in_flight == 0
        return ran

    run_virtually(monkeypatch, main).assert_one_record_each()


@pytest.mark.parametrize("enabled", [True, False])
def test_garbage_collection_is_off_during_a_run_and_afterwards_as_it_was(monkeypatch: Patch, enabled: bool) -> None:
    seen: list[bool] = []
    was_enabled = gc.isenabled()
    try:
        gc.enable() if enabled else gc.disable()
        run_engine(
            monkeypatch, closed([(0, 1)], requests=3), takes(1), at=[(1.5, lambda *_: seen.append(gc.isenabled()))]
        )
        assert (seen, gc.isenabled()) == ([False], enabled)
    finally:
        gc.enable() if was_enabled else gc.disable()
