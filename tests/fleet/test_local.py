"""One run on two processes against the emulator: nothing twice, nothing lost, and every end it can come to."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import resource
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from loadgen.clock import now_ns
from loadgen.emulator import Law, spawn
from loadgen.emulator.spawn import Emulator
from loadgen.engine.health import Health
from loadgen.engine.plan import Plan
from loadgen.engine.share import Share, ShareJob
from loadgen.engine.tally import Tally
from loadgen.errors import WorkerDied
from loadgen.fleet.local import run_workers
from loadgen.profile import Work
from loadgen.record import Outcome
from loadgen.servers.endpoint import Endpoint
from loadgen.store.journal import segments
from loadgen.transport import Limits
from loadgen.wire import Target
from loadgen.workload import open_workload

WORKERS = 2
ENDLESS = 20_000  # tokens of an answer that takes a hundred seconds


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    with spawn(Law(ttft_s=0.01, gap_s=0.005)) as emulator:
        yield emulator


def shares(emulator: Emulator, journal: Path, requests: int) -> list[Share]:
    """Two workers of two requests at a time; worker p takes every second seq from p on."""
    target = Target("openai", "vllm", "emulated", "/v1/chat/completions")
    zero_ns = now_ns()
    return [
        Share(
            plan=Plan(run=0, zero_ns=zero_ns, seqs=range(worker, requests, WORKERS), steps=[(0, 2)]),
            endpoints=(Endpoint("emulator", emulator.url, target),),
            deal=(0,),
            limits=Limits(),
            tier="kernel",
            journal=journal,
            writer=worker,
        )
        for worker in range(WORKERS)
    ]


def run(
    parts: list[Share], *, act: Callable[[asyncio.Event], None] | None = None, output_tokens: int = 5
) -> tuple[list[Health], Tally]:
    """Run the shares; call `act(stop)` once all workers are busy; return the healths and the last tally."""
    told: list[Tally] = []

    async def main() -> list[Health]:
        stop = asyncio.Event()
        workload = open_workload(Work.model_validate({"prompt_tokens": 8, "output_tokens": output_tokens}), seed=1)
        running = asyncio.create_task(
            run_workers([ShareJob(part, workload) for part in parts], "uvloop", told.append, stop)
        )
        while act is not None and not running.done():
            await asyncio.sleep(0.05)
            if told and sum(told[-1].in_flight.values()) == 2 * WORKERS:
                act(stop)
                break
        try:
            return await running
        finally:
            assert asyncio.all_tasks() == {asyncio.current_task()}

    try:
        healths = asyncio.run(main())
    finally:
        assert multiprocessing.active_children() == []
    return healths, told[-1]


def rows(journal: Path) -> list[dict[str, Any]]:
    return [row for path in segments(journal) for row in pq.read_table(path).to_pylist()]


def test_two_workers_send_every_request_once(emulator: Emulator, tmp_path: Path) -> None:
    resource_tracker.ensure_running()  # one for all runs of a process
    before = len(os.listdir("/proc/self/fd"))
    healths, tally = run(shares(emulator, tmp_path, requests=101))
    recorded = rows(tmp_path)
    assert sorted(row["seq"] for row in recorded) == list(range(101))
    assert {row["outcome"] for row in recorded} == {Outcome.OK}
    assert [health.offered for health in healths] == [51, 50]
    assert [health.peak_in_flight for health in healths] == [2, 2]
    assert all(health.loop_lag_ns for health in healths)
    assert (tally.total().outcomes[Outcome.OK], tally.total().output_tokens, tally.begun) == (101, 505, 101)
    assert set(tally.in_flight.values()) == {0}
    assert len(os.listdir("/proc/self/fd")) <= before + 1


def test_an_interrupt_reaches_every_worker_and_keeps_the_records(emulator: Emulator, tmp_path: Path) -> None:
    parts = shares(emulator, tmp_path, requests=1000)
    healths, tally = run(parts, act=lambda stop: stop.set(), output_tokens=ENDLESS)
    assert [health.interrupted for health in healths] == [True, True]
    # Those in flight alone: none came to its end, and no other began.
    assert Counter(row["outcome"] for row in rows(tmp_path)) == {Outcome.CANCELLED: 4}
    assert tally.total().outcomes[Outcome.CANCELLED] == 4


def test_a_worker_that_dies_is_told_and_the_other_one_is_stopped(emulator: Emulator, tmp_path: Path) -> None:
    def kill_one(_: asyncio.Event) -> None:
        pid = min(child.pid for child in multiprocessing.active_children() if child.pid is not None)
        os.kill(pid, signal.SIGKILL)

    parts = shares(emulator, tmp_path, requests=1000)
    with pytest.raises(WorkerDied, match="ended without a word"):
        run(parts, act=kill_one, output_tokens=ENDLESS)
    assert [row["outcome"] for row in rows(tmp_path)] == [Outcome.CANCELLED] * 2  # the other one's


def test_what_a_worker_raises_is_raised(emulator: Emulator, tmp_path: Path) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    first, second = shares(emulator, tmp_path, requests=1000)
    if hard == resource.RLIM_INFINITY:
        pytest.skip("this system grants any number of open files")
    greedy = replace(second, plan=replace(second.plan, steps=[(0, hard + 1)]))
    with pytest.raises(OSError, match="ulimit -n"):
        run([first, greedy])
