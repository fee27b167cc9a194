"""`loadgen discover`: which servers answer, and as what."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

from loadgen.cli.exits import Exit, Stop
from loadgen.cli.measuring import NO_SERVER, load_profile
from loadgen.cli.options import Given, takes

if TYPE_CHECKING:
    from pydantic import JsonValue

    from analysis.probes.small_writes import SmallWrites

__all__ = ["discover"]

ANY_LOAD: dict[str, JsonValue] = {
    "load": {"concurrency": 1, "requests": 1}
}  # not what will be sent; a profile must have one


@dataclass(frozen=True, kw_only=True)
class Discovering(Given):
    """What the options of `discover` say."""

    small_writes: bool


@takes("discover", Discovering)
def discover(given: Discovering) -> int:
    """List the servers that answer, with their version and models."""
    import asyncio

    import msgspec

    from loadgen.servers.discover import LOCAL_SERVERS, find_local

    for url in given.url or ():
        if not url.startswith(("http://", "https://")):
            raise Stop(Exit.USAGE, f"--url {url}: must start with http:// or https:// and name a host")
    if given.target and not given.small_writes:
        raise Stop(Exit.USAGE, "--model names who answers the requests of --small-writes: add that, or leave it out")
    servers = asyncio.run(find_local(given.url or tuple(LOCAL_SERVERS.values())))
    delays = {at: _small_writes(at, given.target) for at in servers} if given.small_writes else {}
    if given.json:
        rows = [
            {"url": at, "kind": server.kind, "api": server.api, "version": server.version, "models": server.models}
            | ({"small_writes": msgspec.to_builtins(delays[at])} if at in delays else {})
            for at, server in servers.items()
        ]
        typer.echo(json.dumps(rows, indent=1))
    if not servers:
        raise Stop(Exit.UNREACHABLE, f"nobody we know answers at {', '.join(given.url)}" if given.url else NO_SERVER)
    if given.json:
        return Exit.OK
    for at, server in servers.items():
        models = ", ".join(server.models[:6])
        more = f" and {len(server.models) - 6} more" if len(server.models) > 6 else ""
        typer.echo(f"{at}  {server.label}  --api {server.api}  models: {models + more or 'none listed'}")
        if at in delays:
            typer.echo(f"  {delays[at].sentence}")
    return Exit.OK


def _small_writes(url: str, target: dict[str, JsonValue]) -> SmallWrites:
    import asyncio
    import secrets

    from loadgen.probes.small_writes import probe_small_writes

    [spec] = load_profile(None, [url], target, dict(ANY_LOAD), quiet=True).targets
    return asyncio.run(probe_small_writes(spec, secrets.randbits(32)))
