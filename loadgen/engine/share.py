"""One process's share of one run: clients, engine and journal put together. The same code with one process or many."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import resource
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from loadgen.clock import cpu_ns
from loadgen.engine.client import Client
from loadgen.engine.engine import Engine, Health, Plan
from loadgen.engine.tally import Tally
from loadgen.profile.profile import REDACTED
from loadgen.record import Record
from loadgen.servers.urls import with_query
from loadgen.store.journal import Journal
from loadgen.transport import Address, Limits, Transport, tls_context
from loadgen.transport.sockets import SocketTransport
from loadgen.wire import Target
from loadgen.wire.dialects import dialect
from loadgen.workload import Workload

if TYPE_CHECKING:
    from loadgen.transport.kernel import Poller

__all__ = ["Endpoint", "Job", "Running", "Share", "ShareJob", "ShareRun", "make_room_for_sockets", "open_transport"]

FLUSH_S = 1.0
SPARE_FILES = 64
LAGS_SHOWN = 50  # heartbeats: the last second
PLENTY_OF_FILES = 65_536
SHORTEST_SECRET = 6  # a shorter word may be part of any text


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server as resolved before the run: where, which dialect and model, and how to authenticate."""

    name: str
    url: str  # scheme, host, port and perhaps a path that goes before the dialect's
    target: Target
    label: str = ""  # name and version, for people
    query: str = ""  # of the URL as given, such as api-version=2024-10-21
    headers: Mapping[str, str] = field(default_factory=dict)  # never the key itself
    api_key_env: str | None = None  # read where it is used, so that no file or pickle holds the key
    verify_tls: bool = True
    ca_file: str | None = None
    agent: str = ""  # whose requests these are, where several agents have options of their own

    def address(self) -> Address:
        parts = urllib.parse.urlsplit(self.url)
        tls = tls_context(verify=self.verify_tls, ca_file=self.ca_file) if parts.scheme == "https" else None
        return Address(parts.hostname or "", parts.port or (443 if tls else 80), tls)

    def path(self) -> str:
        return with_query(urllib.parse.urlsplit(self.url).path.rstrip("/") + self.target.path, self.query)

    def route(self, path: str = "") -> str:
        """Return the URL of another route of this server, for a control call."""
        return with_query(self.url + path, self.query)

    def request_headers(self) -> dict[str, str]:
        headers = {
            "Content-Type": "application/json",
            "Accept": "text/event-stream, application/x-ndjson, application/json",
            "Accept-Encoding": "identity",
            "User-Agent": "loadgen",
            **self.headers,
        }
        if self.api_key_env:
            headers["Authorization"] = f"Bearer {os.environ[self.api_key_env]}"
        return headers

    def secrets(self) -> list[str]:
        """What a server may repeat in the text of an error and no file may hold: the key, the values of headers."""
        values = [*self.headers.values(), os.environ.get(self.api_key_env or "", "")]
        words = {word for value in values for word in (value, *value.split()) if len(word) >= SHORTEST_SECRET}
        return sorted(words, key=len, reverse=True)


@dataclass(frozen=True, slots=True)
class Share:
    """What one process does in one run."""

    plan: Plan
    endpoints: tuple[Endpoint, ...]
    deal: tuple[int, ...]
    limits: Limits
    tier: str  # kernel | callback | aiohttp
    journal: Path
    writer: int = 0
    proxy: str | None = None
    read_bytes: int | None = None  # of the kernel tier; see Poller


class Running(Protocol):
    """What one process does in one run, while it does it. In the event loop it was started in."""

    async def run(self) -> Health:
        """Run to the end; every record is in the journal afterwards. Raises OSError for a full disk."""

    def look(self) -> Tally:
        """Bring the tally up to date and return it."""

    def interrupt(self) -> None:
        """Begin nothing new and give up what is in flight; `run` then returns. May be called at any time."""


class Job(Protocol):
    """What one process is to do in one run: a value that can be pickled, for it may be a process of its own."""

    def start(self) -> Running:
        """Open the transports in the running event loop."""

    def sockets(self) -> int:
        """Return the most connections it can have open."""


@dataclass(frozen=True, slots=True)
class ShareJob:
    """A share and what its requests ask."""

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
        self._worst_send_lag_ns = 0  # since the last look
        self._poller = open_poller(share.tier, share.read_bytes)
        self._journal = Journal(share.journal, share.writer)
        self._secrets = [secret for endpoint in share.endpoints for secret in endpoint.secrets()]
        if share.proxy is not None and (password := urllib.parse.urlsplit(share.proxy).password):
            self._secrets += [password]
        self._transports = [
            open_transport(endpoint, share.tier, share.limits, self._poller, share.proxy)
            for endpoint in share.endpoints
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
        """Run to the end; every record is in the journal's segments afterwards. Raises OSError for a full disk."""
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


def open_poller(tier: str, read_bytes: int | None = None) -> Poller | None:
    """Return what the transports of the kernel tier share in the running loop; None for any other tier."""
    if tier != "kernel":
        return None
    from loadgen.transport.kernel import Poller  # needs epoll, so Linux alone

    return Poller(asyncio.get_running_loop(), read_bytes)


def open_transport(
    endpoint: Endpoint, tier: str, limits: Limits, poller: Poller | None, proxy: str | None = None
) -> Transport:
    """Return a transport to `endpoint`. poller: with the kernel tier, and only with it."""
    address, path, headers = endpoint.address(), endpoint.path(), endpoint.request_headers()
    if tier == "aiohttp":
        from loadgen.transport.aio import AiohttpTransport

        return AiohttpTransport(address, path, headers, limits, proxy)
    return SocketTransport(address, path, headers, limits, poller)


def make_room_for_sockets(wanted: int) -> None:
    """Let this process hold `wanted` sockets, and more if that costs nothing, for an open loop may need any number.

    Raises OSError, in words, if the system does not.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    need = max(wanted + SPARE_FILES, min(PLENTY_OF_FILES, hard if hard != resource.RLIM_INFINITY else PLENTY_OF_FILES))
    if soft < need and soft != resource.RLIM_INFINITY:
        if hard != resource.RLIM_INFINITY and hard < need:
            words = f"{wanted} connections need {wanted + SPARE_FILES} open files, the limit is {hard} (ulimit -n)"
            raise OSError(words)
        resource.setrlimit(resource.RLIMIT_NOFILE, (need, hard))
    # Linux doubles a table that is full, and in a process of several threads waits for the other processors to notice:
    # 10 to 30 ms at the 256th socket, the 512th and so on, in which nothing is read. So it grows before the run, if
    # the system lets it: the run is right without.
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    last = PLENTY_OF_FILES if allowed == resource.RLIM_INFINITY else min(allowed, PLENTY_OF_FILES)
    with contextlib.suppress(OSError), open(os.devnull, "rb") as file:
        os.close(fcntl.fcntl(file.fileno(), fcntl.F_DUPFD_CLOEXEC, last - 1))
