"""Several processes of this host, each with its share of the same run.

All count from one `zero_ns` of the shared monotonic clock and write segments of their own into one journal, so that
only live tallies and the instrument's health have to be sent back. The parent takes the signals.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from loadgen.engine.eventloop import loop_factory
from loadgen.engine.health import Health
from loadgen.engine.share import Job
from loadgen.engine.tally import Tally
from loadgen.errors import WorkerDied
from loadgen.transport.room import make_room_for_sockets

__all__ = ["run_workers"]

TALLY_EVERY_S = 0.25
JOIN_S = 5
STOP = "stop"


@dataclass(frozen=True, slots=True)
class _Worker:
    """A process and a pipe in each direction: an event loop makes its pipe non-blocking, and answers must be whole."""

    process: BaseProcess
    answers: Connection
    orders: Connection

    def interrupt(self) -> None:
        with contextlib.suppress(BrokenPipeError):  # it has ended
            self.orders.send(STOP)


async def run_workers(
    jobs: Sequence[Job], loop: str, tell: Callable[[Tally], None], stop: asyncio.Event
) -> list[Health]:
    """The healths of the jobs, in the same order; each job runs in a process of its own.

    tell: gets the sum of the tallies, a few times per second. stop: set it to interrupt.
    Raises what a worker raised (OSError for a full disk), or WorkerDied.
    """
    workers = [_start(job, loop) for job in jobs]
    tallies = [Tally() for _ in workers]

    def tell_sum(index: int, tally: Tally) -> None:
        tallies[index] = tally
        total = Tally()
        for each in tallies:
            total = total.plus(each)
        tell(total)

    async def interrupt() -> None:
        await stop.wait()
        for worker in workers:
            worker.interrupt()

    interrupter = asyncio.create_task(interrupt())
    with ThreadPoolExecutor(len(workers)) as threads:
        listeners = [
            asyncio.create_task(_listen(index, worker.answers, threads, tell_sum))
            for index, worker in enumerate(workers)
        ]
        try:
            await asyncio.wait(listeners, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            interrupter.cancel()
            await _end(workers, listeners)
    return [listener.result() for listener in listeners]


def _start(job: Job, loop: str) -> _Worker:
    context = multiprocessing.get_context("spawn")
    answers, answer = context.Pipe(duplex=False)
    order, orders = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(order, answer, job, loop), daemon=True)
    with _signals_held():
        process.start()
    order.close()
    answer.close()
    return _Worker(process, answers, orders)


async def _end(workers: Sequence[_Worker], listeners: Sequence[asyncio.Task[Health]]) -> None:
    """Wait for the workers, which treat the end of their orders as an interruption; kill those that do not end."""
    for worker in workers:
        worker.orders.close()
    # Their messages are still read, because a worker that cannot write its last one does not end.
    await asyncio.wait(listeners, timeout=JOIN_S)
    for worker in workers:
        worker.process.join(JOIN_S)
        if worker.process.is_alive():
            worker.process.kill()  # it ignores SIGTERM
            worker.process.join()
    await asyncio.wait(listeners)
    for worker in workers:
        worker.answers.close()


async def _listen(
    index: int, answers: Connection, threads: ThreadPoolExecutor, tell: Callable[[int, Tally], None]
) -> Health:
    loop = asyncio.get_running_loop()
    while True:
        try:
            message: Any = await loop.run_in_executor(threads, answers.recv)
        except EOFError:
            raise WorkerDied(f"worker {index} ended without a word") from None
        if isinstance(message, Tally):
            tell(index, message)
        elif isinstance(message, Health):
            return message
        else:
            raise message


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """Block Ctrl-C and SIGTERM for processes started inside: they go to the whole group, and the parent decides.

    A mask is inherited, so this holds from the child's first instruction, seconds before it could set a handler.
    """
    resource_tracker.ensure_running()  # else it is started inside, and lifts the mask at its end
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(order: Connection, answer: Connection, job: Job, loop: str) -> None:
    with asyncio.Runner(loop_factory=loop_factory(loop)) as runner:
        try:
            make_room_for_sockets(job.sockets())
            result: Any = runner.run(_work_in_loop(order, answer, job))
        except Exception as error:
            result = error
    with contextlib.suppress(BrokenPipeError):  # the parent is gone; the records are in the journal
        answer.send(result)


async def _work_in_loop(order: Connection, answer: Connection, job: Job) -> Health:
    run = job.start()
    loop = asyncio.get_running_loop()

    def ordered() -> None:
        loop.remove_reader(order.fileno())  # there is only one order; the end of the pipe means that the parent is gone
        run.interrupt()

    async def tell() -> None:
        while True:
            await asyncio.sleep(TALLY_EVERY_S)
            with contextlib.suppress(BrokenPipeError):
                answer.send(run.look())

    loop.add_reader(order.fileno(), ordered)
    teller = asyncio.create_task(tell())
    try:
        return await run.run()
    finally:
        teller.cancel()
        loop.remove_reader(order.fileno())
        with contextlib.suppress(BrokenPipeError):
            answer.send(run.look())
