"""Sources sampled beside the runs of a campaign, at a stated rate, and written to disk.

All of it happens in one thread with an event loop of its own, so that neither a slow driver nor a large page of metrics
delays a request; drivers are read in further threads. Only the interpreter is shared with the measuring thread: the
work of one read is a millisecond or two, and no token's stamp depends on when that thread gets its turn.
`Sampler` is the thread; `Looks` runs in it, and needs only an event loop and the clock.

The reads keep to a grid from the start of the sampler on. A read that takes longer than its place leaves places out;
they are not made up for, so that a slow server is not asked more often for being slow.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from loadgen.clock import NS_PER_S, now_ns
from loadgen.manifest import SourceFact, TelemetryFacts
from loadgen.profile import Telemetry
from loadgen.servers.endpoint import Endpoint
from loadgen.telemetry import Absent, Look, Lost, Missed, Source
from loadgen.telemetry.amdgpu import open_amdgpu
from loadgen.telemetry.host import open_host, open_process
from loadgen.telemetry.log import Log
from loadgen.telemetry.nvml import open_nvml
from loadgen.telemetry.servers import open_exporter, open_server

__all__ = ["Looks", "Sampler", "start_sampler"]

GPU_INTERVAL_S = 0.1  # docs/methodology.md#energy: the energy counter steps about as often
READY_S = 6.0  # a server that does not answer within its time is not waited for any longer
FLUSH_S = 2.0  # samples that a crash may cost
JOIN_S = 10.0

Opening = Callable[[], Awaitable[Source]]
OnLook = Callable[[str, Look], None]


async def start_sampler(
    settings: Telemetry,
    endpoints: Sequence[Endpoint],
    directory: Path,
    proxy: str | None = None,
    on_look: OnLook | None = None,
) -> Sampler | None:
    """The sampler, which writes segments into `directory`; None where the profile wants no sampling.

    on_look: also gets each read, in the sampler's thread. Returns once each source has been read, so that a run has
    samples from its first moment on.
    """
    if settings.interval_s == 0:
        return None
    sampler = Sampler(settings, endpoints, directory, proxy, on_look)
    sampler.thread.start()
    await asyncio.to_thread(sampler.ready.wait, READY_S)
    return sampler


class Looks:
    """The reads of each source, on a grid from the start on, until `stop`. All of it in one event loop."""

    def __init__(self, interval_s: float, log: Log, on_look: OnLook | None = None) -> None:
        self.paused = False
        self._interval_s = interval_s
        self._log, self._on_look = log, on_look
        self._stopping = asyncio.Event()
        self._notes: list[str] = []
        self._missed: Counter[tuple[str, str]] = Counter()

    def notes(self) -> list[str]:
        """One line for each thing that went wrong: a source lost, samples lost, reads without an answer."""
        missed = [f"{who}: {n} looks without an answer ({why})" for (who, why), n in sorted(self._missed.items())]
        return [*self._notes, *missed]

    def note(self, text: str) -> None:
        """Keep one line about something that went wrong."""
        self._notes.append(text)

    def stop(self) -> None:
        """Read each source a last time, then end."""
        self._stopping.set()

    async def run(self, sources: Sequence[Source], ready: Callable[[], None]) -> None:
        """Read `sources` until `stop`, then close them. `ready` is called once each was read."""
        start_ns = now_ns()
        try:
            async with asyncio.TaskGroup() as tasks:
                firsts = [asyncio.Event() for _ in sources]
                for source, first in zip(sources, firsts, strict=True):
                    tasks.create_task(self._sample(source, start_ns, first))
                tasks.create_task(self._flush())
                await asyncio.gather(*(first.wait() for first in firsts))
                ready()
        finally:
            for source in sources:
                await source.close()
            self._keep()

    async def _sample(self, source: Source, start_ns: int, first: asyncio.Event) -> None:
        interval_s = self._interval_s
        if source.name in ("nvml", "amdgpu"):
            interval_s = min(interval_s, GPU_INTERVAL_S)
        interval_ns = round(max(interval_s, source.at_most_every_s) * NS_PER_S)
        who = next((str(source.facts[key]) for key in ("endpoint", "exporter") if key in source.facts), source.name)
        stopping = False
        while True:
            try:
                if not self.paused:
                    look = await source.read()
                    self._log.append(source.name, look)
                    if self._on_look is not None:
                        self._on_look(source.name, look)
            except Missed as missed:
                self._missed[who, str(missed)] += 1
            except Lost as lost:
                self._notes.append(f"{who}: {lost}")
                first.set()
                return
            first.set()
            if stopping:
                return
            stopping = await self._slept((now_ns() - start_ns) // interval_ns * interval_ns + interval_ns + start_ns)

    async def _slept(self, until_ns: int) -> bool:
        """Whether it is time to stop; waits for that until `until_ns` (monotonic)."""
        try:
            await asyncio.wait_for(self._stopping.wait(), max(0.0, (until_ns - now_ns()) / NS_PER_S))
        except TimeoutError:
            return False
        return True

    async def _flush(self) -> None:
        while not await self._slept(now_ns() + round(FLUSH_S * NS_PER_S)):
            await asyncio.to_thread(self._keep)

    def _keep(self) -> None:
        try:
            self._log.flush()
        except OSError as error:
            # The records report the full disk themselves; fewer samples are no reason to stop.
            note = f"samples are missing: {os.strerror(error.errno) if error.errno else error}"
            if note not in self._notes:
                self._notes.append(note)


class Sampler:
    """The thread that samples, and the sources it found. `begin` and `stop` are for the thread that measures."""

    def __init__(
        self,
        settings: Telemetry,
        endpoints: Sequence[Endpoint],
        directory: Path,
        proxy: str | None = None,
        on_look: OnLook | None = None,
    ) -> None:
        self.ready = threading.Event()
        self.surprises: list[str] = []  # requested sources that do not exist
        self.thread = threading.Thread(target=self._run, name="telemetry", daemon=True)
        self._settings = settings
        self._endpoints = endpoints
        self._proxy = proxy
        self._log = Log(directory)
        self._looks = Looks(settings.interval_s, self._log, on_look)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._failed: BaseException | None = None
        self._sources: list[dict[str, SourceFact]] = []
        self._absent: list[dict[str, str]] = []

    def begin(self, run: int, zero_ns: int) -> None:
        """Let samples belong to `run` from now on; its zero may be in the future."""
        self._log.begin(run, zero_ns)

    def pause(self, paused: bool) -> None:
        """Read no source while `paused`: another campaign has its turn, and samples of its own."""
        self._looks.paused = paused

    def describe(self) -> TelemetryFacts:
        """The manifest's `telemetry`: the sources that are sampled, and those that are not and why."""
        return TelemetryFacts(
            interval_s=self._settings.interval_s,
            sources=tuple(self._sources),
            absent=tuple(self._absent),
            notes=tuple(self._looks.notes()),
        )

    async def stop(self) -> TelemetryFacts:
        """The final `describe()`, after a last read and with everything on disk. Raises the error of the thread."""
        if self._loop is not None and self.thread.is_alive():
            with contextlib.suppress(RuntimeError):  # it has just ended by itself
                self._loop.call_soon_threadsafe(self._looks.stop)
        await asyncio.to_thread(self.thread.join, JOIN_S)
        if self._failed is not None:
            raise self._failed
        if self.thread.is_alive():
            self._looks.note(f"the last samples are missing: a source did not answer within {JOIN_S:g} s")
        return self.describe()

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException as error:
            self._failed = error
        finally:
            self.ready.set()

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        opened = await asyncio.gather(*(self._open(name, opening) for name, opening in self._openings()))
        sources = [source for source in opened if source is not None]
        self._sources = [{"source": source.name, **source.facts} for source in sources]
        await self._looks.run(sources, self.ready.set)

    def _openings(self) -> list[tuple[str, Opening]]:
        wanted, proxy = self._settings, self._proxy
        openings: list[tuple[str, Opening]] = [("host", _in_thread(open_host)), ("process", _in_thread(open_process))]
        if wanted.gpu in ("auto", "nvml"):
            openings.append(("nvml", _in_thread(open_nvml)))
        if wanted.gpu in ("auto", "amdgpu"):
            openings.append(("amdgpu", _in_thread(open_amdgpu)))
        for endpoint in {endpoint.route(): endpoint for endpoint in self._endpoints}.values():
            openings.append(("server", _asked(open_server, endpoint)))
        for url in wanted.exporters:
            openings.append(("exporter", _asked(open_exporter, url, proxy)))
        return openings

    async def _open(self, name: str, opening: Opening) -> Source | None:
        try:
            return await opening()
        except Absent as absent:
            self._absent.append({"source": name, "reason": str(absent)})
            # Most machines have no GPU of either make: that is no surprise unless one was requested by name.
            if not absent.expected and name in ("server", "exporter", self._settings.gpu):
                self.surprises.append(str(absent))
            return None


def _in_thread(opening: Callable[[], Source]) -> Opening:
    async def opened() -> Source:
        return await asyncio.to_thread(opening)

    return opened


def _asked(opening: Callable[..., Awaitable[Source]], *arguments: object) -> Opening:
    async def opened() -> Source:
        return await opening(*arguments)

    return opened
