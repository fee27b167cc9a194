"""Several processes of this host, each with its share of the same run.

All count from one `zero_ns` of the shared monotonic clock and write segments of their own into one journal, so that
nothing has to be sent back but live tallies and the instrument's health. The parent takes the signals.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import signal
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

from loadgen.engine import Health
from loadgen.fleet.share import Share, ShareRun, raise_file_limit
from loadgen.loops import loop_factory
from loadgen.tally import Tally
from loadgen.workload import Workload

__all__ = ["WorkerDied", "run_workers"]

TALLY_EVERY_S = 0.25
STOP = "stop"


class WorkerDied(Exception):
    """A worker process ended without a word."""


async def run_workers(
    shares: Sequence[Share], workload: Workload, loop: str, tell: Callable[[Tally], None], stop: asyncio.Event
) -> list[Health]:
    """Run each share in a process of its own; return their healths in the same order.

    tell: gets the sum of the tallies, a few times a second. stop: set it to interrupt.
    Raises what a worker raised (OSError for a full disk), or WorkerDied.
    """
    context = multiprocessing.get_context("spawn")
    workers = []
    for share in shares:
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs, share, workload, loop), daemon=True)
        process.start()
        theirs.close()
        workers.append((process, ours))
    tallies = [Tally() for _ in workers]

    def told(index: int, tally: Tally) -> None:
        tallies[index] = tally
        total = Tally()
        for each in tallies:
            total = total.plus(each)
        tell(total)

    async def interrupt() -> None:
        await stop.wait()
        for _, pipe in workers:
            pipe.send(STOP)

    interrupter = asyncio.create_task(interrupt())
    try:
        return await asyncio.gather(*(_listen(index, pipe, told) for index, (_, pipe) in enumerate(workers)))
    finally:
        interrupter.cancel()
        for process, pipe in workers:
            process.join(5)
            if process.is_alive():
                process.terminate()
            pipe.close()


async def _listen(index: int, pipe: Connection, told: Callable[[int, Tally], None]) -> Health:
    loop = asyncio.get_running_loop()
    while True:
        readable = loop.create_future()
        loop.add_reader(pipe.fileno(), readable.set_result, None)
        try:
            await readable
        finally:
            loop.remove_reader(pipe.fileno())
        try:
            message: Any = pipe.recv()
        except EOFError:
            raise WorkerDied(f"worker {index} ended without a word") from None
        if isinstance(message, Tally):
            told(index, message)
        elif isinstance(message, Health):
            return message
        else:
            raise message


def _work(pipe: Connection, share: Share, workload: Workload, loop: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise_file_limit(_sockets(share))
    with asyncio.Runner(loop_factory=loop_factory(loop)) as runner:
        try:
            result: Any = runner.run(_work_in_loop(pipe, share, workload))
        except Exception as error:
            result = error
    pipe.send(result)


async def _work_in_loop(pipe: Connection, share: Share, workload: Workload) -> Health:
    run = ShareRun(share, workload, Tally())
    loop = asyncio.get_running_loop()

    def heard() -> None:
        try:
            pipe.recv()
        except EOFError:
            loop.remove_reader(pipe.fileno())  # the parent is gone
        run.engine.stop(interrupted=True)

    async def tell() -> None:
        while True:
            await asyncio.sleep(TALLY_EVERY_S)
            pipe.send(run.look())

    loop.add_reader(pipe.fileno(), heard)
    teller = asyncio.create_task(tell())
    try:
        return await run.run()
    finally:
        teller.cancel()
        loop.remove_reader(pipe.fileno())
        pipe.send(run.look())


def _sockets(share: Share) -> int:
    """The most connections this share can have open."""
    plan = share.plan
    if plan.steps is not None:
        return max(workers for _, workers in plan.steps)
    return plan.max_in_flight or len(plan.seqs)
