"""Live counters beside a command that measures: where they go, and until when."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loadgen.cli.exits import Exit, Stop

if TYPE_CHECKING:
    from pathlib import Path

    from analysis.summary import Summary
    from loadgen.campaign.campaign import Campaign
    from loadgen.cli.options import Measuring
    from loadgen.engine.tally import Tally
    from loadgen.exporter import AgentFigures, Exporter

__all__ = ["Outlets", "export", "exporting"]

LINGER_S = 30.0  # two scrapes at Prometheus's usual interval of 15 s


@dataclass(frozen=True, slots=True)
class Outlets:
    """What the options ask for. instance: what to call this run where no scrape names it."""

    port: int | None
    host: str
    push_gateway: str | None
    remote_write: str | None
    instance: str

    @classmethod
    def of(cls, given: Measuring, directory: Path) -> Outlets:
        """The outlets that the options ask for, of the campaign in `directory`."""
        return cls(given.prometheus_port, given.prometheus_host, given.push_gateway, given.remote_write, str(directory))

    @property
    def any(self) -> bool:
        return self.port is not None or self.push_gateway is not None or self.remote_write is not None


@contextlib.contextmanager
def exporting(outlets: Outlets, profile: str, *, quiet: bool) -> Iterator[Exporter | None]:
    """Serve while inside; on the way out push, and stay until the final counts were fetched.

    Raises Stop if the port is not free, or nothing could be sent to a URL. A push that fails is reported and changes
    nothing: the run is on disk.
    """
    if not outlets.any:
        yield None
        return
    from loadgen.exporter import Exporter, ExportError, check_push_gateway, check_remote_write, serve

    exporter = Exporter(profile, outlets.instance)
    try:
        for check, url in ((check_push_gateway, outlets.push_gateway), (check_remote_write, outlets.remote_write)):
            if url is not None:
                check(url)
        server = None if outlets.port is None else serve(exporter, outlets.port, outlets.host)
    except ExportError as error:
        raise Stop(Exit.USAGE, str(error)) from None
    try:
        yield exporter
    finally:
        _push(exporter, outlets)
        if server is not None:
            _linger(exporter, quiet=quiet)
            server.shutdown()
            server.server_close()


def export(campaign: Campaign, exporter: Exporter) -> Callable[[Tally], None]:
    """Let `exporter` follow `campaign`; return what to call with each tally."""
    import analysis

    exporter.describe(campaign.manifest)

    def made() -> None:
        exporter.count_runs(len(campaign.manifest.runs), len(campaign.design.planned))
        if campaign.manifest.runs and campaign.manifest.crew:
            exporter.show_agents(_agents(analysis.summarise(campaign.directory)))

    campaign.call_after_runs(made)
    campaign.on_look = exporter.show_look
    return exporter.show


def _agents(summary: Summary) -> AgentFigures:
    from loadgen.exporter import AgentFigures

    if not summary.agents:
        return AgentFigures()
    agents = summary.agents
    speedup, efficiency = ((figure.value, figure.low, figure.high) for figure in (agents.speedup, agents.efficiency))
    return AgentFigures(
        speedup,
        efficiency,
        agents.overlap_efficiency.value,
        agents.contention.verdict,
    )


def _push(exporter: Exporter, outlets: Outlets) -> None:
    from loadgen.exporter import ExportError, push, remote_write

    for send, url in ((push, outlets.push_gateway), (remote_write, outlets.remote_write)):
        if url is not None and exporter.over:
            try:
                send(exporter, url, outlets.instance)
            except ExportError as error:
                print(f"loadgen: {error}", file=sys.stderr)


def _linger(exporter: Exporter, *, quiet: bool) -> None:
    if not exporter.over or exporter.wait_for_last_scrape(0):
        return
    if not quiet:
        print(
            f"/metrics stays until the final counts are scraped, at most {LINGER_S:g} s; Ctrl-C ends it",
            file=sys.stderr,
        )
    with contextlib.suppress(KeyboardInterrupt):
        exporter.wait_for_last_scrape(LINGER_S)
