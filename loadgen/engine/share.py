"""One process's share of one run: clients, engine and journal put together. The same code with one process or many."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from loadgen.clock import cpu_ns
from loadgen.engine.client import Client
from loadgen.engine.engine import Engine
from loadgen.engine.health import Health
from loadgen.engine.plan import Plan
from loadgen.engine.tally import Tally
from loadgen.profile.secrets import REDACTED
from loadgen.record import Record
from loadgen.servers.endpoint import Endpoint
from loadgen.servers.opening import open_poller, open_transport
from loadgen.store.journal import Journal
from loadgen.transport import Limits
from loadgen.wire.dialects import dialect
from loadgen.workload import Workload

__all__ = ["Job", "Running", "Share", "ShareJob", "ShareRun"]

FLUSH_S = 1.0
LAGS_SHOWN = 50  # heartbeats: the last second


@dataclass(frozen=True, slots=True)
class Share:
    """The part of one process in one run."""

    plan: Plan
    endpoints: tuple[Endpoint, ...]
    deal: tuple[int, ...]
    limits: Limits
    tier: str  # kernel | callback | aiohttp
    journal: Path
    writer: int = 0
    read_bytes: int | None = None  # of the kernel tier; see Poller


class Running(Protocol):
    """A share while it runs, in the event loop it was started in."""

    async def run(self) -> Health:
        """The process's health after the run; every record is then in the journal. Raises OSError for a full disk."""

    def look(self) -> Tally:
        """Bring the tally up to date and return it."""

    def interrupt(self) -> None:
        """Begin no request and give up those in flight; `run` then returns. May be called at any time."""


class Job(Protocol):
    """The work of one process in one run: a value that can be pickled, because the process may be another one."""

    def start(self) -> Running:
        """The running share, its transports open in the running event loop."""

    def sockets(self) -> int:
        """The largest number of connections that the process can have open."""


@dataclass(frozen=True, slots=True)
class ShareJob:
    """A share and the workload of its requests."""

    share: Share
    workload: Workload

    def start(self) -> ShareRun:
        return ShareRun(self.share, self.workload, Tally())

    def sockets(self) -> int:
        plan = self.share.plan
        if plan.steps is not None:
            return max(workers for _, workers in plan.steps)
        return plan.max_in_flight or len(plan.seqs)


class ShareRun:
    """Runs one Share in the current event loop. `tally` and `health` may be read, and `stop` called, at any time."""

    def __init__(
        self, share: Share, workload: Workload, tally: Tally, hear: Callable[[int, str], None] | None = None
    ) -> None:
        """hear: see `Engine`."""
        self._share = share
        self.tally = tally
        self._cpu_before_ns = cpu_ns()
        self._worst_send_lag_ns = 0  # since the last `look`
        self._poller = open_poller(share.tier, share.read_bytes)
        self._journal = Journal(share.journal, share.writer)
        self._secrets = [secret for endpoint in share.endpoints for secret in endpoint.access.secrets()]
        self._transports = [
            open_transport(endpoint, share.tier, share.limits, self._poller) for endpoint in share.endpoints
        ]
        self._clients = [
            Client(
                endpoint.name,
                endpoint.target,
                dialect(endpoint.target.api, endpoint.target.path),
                transport,
                endpoint.agent,
            )
            for endpoint, transport in zip(share.endpoints, self._transports, strict=True)
        ]
        offset = self._poller.offset if self._poller else None
        self.engine = Engine(share.plan, self._clients, share.deal, workload.ask, self._keep, offset, hear)

    async def run(self) -> Health:
        """The health after the run; every record is then in the journal's segments. Raises OSError for a full disk."""
        flusher = asyncio.create_task(self._flush_now_and_then())
        try:
            health = await self.engine.run()
        finally:
            flusher.cancel()
            for transport in self._transports:
                await transport.close()
            if self._poller is not None:
                self._poller.close()
            self._journal.flush()
        if self._poller is not None:
            health.clock_jump_ns = self._poller.offset.largest_jump_ns
            health.unstamped_reads = self._poller.unstamped
        return health

    def look(self) -> Tally:
        """Bring the tally up to date and return it."""
        tally, engine = self.tally, self.engine
        tally.in_flight = {}
        for client in self._clients:
            key = client.name, client.agent
            tally.in_flight[key] = tally.in_flight.get(key, 0) + client.in_flight
        tally.begun, tally.due = engine.begun, engine.due()
        tally.loop_lag_ns = max(engine.health.loop_lag_ns[-LAGS_SHOWN:], default=0)
        tally.send_lag_ns, self._worst_send_lag_ns = self._worst_send_lag_ns, 0
        tally.cpu_ns = cpu_ns() - self._cpu_before_ns
        return tally

    def interrupt(self) -> None:
        self.engine.stop(interrupted=True)

    def _keep(self, record: Record) -> None:
        if record.error is not None:
            for secret in self._secrets:
                record.error = record.error.replace(secret, REDACTED)
        if record.sent_ns is not None:
            self._worst_send_lag_ns = max(self._worst_send_lag_ns, record.sent_ns - record.intended_ns)
        self.tally.add(record)
        self._journal.append(record)

    async def _flush_now_and_then(self) -> None:
        more = False
        while True:
            await asyncio.sleep(0 if more else FLUSH_S)  # reads come in between
            try:
                more = self._journal.flush_some()
            except OSError as error:
                self.engine.fail(error)
                return
