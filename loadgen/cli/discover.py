"""`loadgen discover`: which servers answer, and as what."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from loadgen.cli import options
from loadgen.cli.exits import Exit, Stop

if TYPE_CHECKING:
    from analysis.probes.small_writes import SmallWrites

__all__ = ["NOBODY", "discover"]

NOBODY = (
    "no server found at the usual local addresses (Ollama 11434, LM Studio 1234, vLLM 8000, llama.cpp 8080); "
    "name one with --url, or start a pretended one: loadgen emulate --port 8000"
)


def discover(
    url: Annotated[
        list[str] | None, typer.Option("--url", help="Ask here instead of the usual local addresses.")
    ] = None,
    small_writes: Annotated[
        bool,
        typer.Option("--small-writes", help="Also send some 20 short requests, to see if tokens are held back."),
    ] = False,
    model: options.Model = None,
    json_: Annotated[bool, typer.Option("--json", help="Machine-readable output.")] = False,
) -> int:
    """List the servers that answer, with their version and models."""
    import asyncio

    import msgspec

    from loadgen.servers.discover import LOCAL_SERVERS, find_local

    for given in url or ():
        if not given.startswith(("http://", "https://")):
            raise Stop(Exit.USAGE, f"--url {given}: must start with http:// or https:// and name a host")
    if model is not None and not small_writes:
        raise Stop(Exit.USAGE, "--model names who answers the requests of --small-writes: add that, or leave it out")
    found = asyncio.run(find_local(url or tuple(LOCAL_SERVERS.values())))
    delays = {at: _small_writes(at, model) for at in found} if small_writes else {}
    if json_:
        rows = [
            {"url": at, "kind": one.kind, "api": one.api, "version": one.version, "models": one.models}
            | ({"small_writes": msgspec.to_builtins(delays[at])} if at in delays else {})
            for at, one in found.items()
        ]
        typer.echo(json.dumps(rows, indent=1))
    if not found:
        raise Stop(Exit.UNREACHABLE, f"nobody we know answers at {', '.join(url)}" if url else NOBODY)
    if json_:
        return Exit.OK
    for at, one in found.items():
        models = ", ".join(one.models[:6]) + (f" and {len(one.models) - 6} more" if len(one.models) > 6 else "")
        typer.echo(f"{at}  {one.label}  --api {one.api}  models: {models or 'none listed'}")
        if at in delays:
            typer.echo(f"  {delays[at].sentence}")
    return Exit.OK


def _small_writes(url: str, model: str | None) -> SmallWrites:
    """Ask the server; whatever it does instead of answering becomes the reason for no verdict."""
    import asyncio
    import secrets

    from analysis.probes.small_writes import find_delay
    from loadgen.cli.measuring import load_profile
    from loadgen.errors import Unreachable, UsageError
    from loadgen.probes.small_writes import Asked, ask_both_ways
    from loadgen.servers.resolve import resolve

    async def ask() -> Asked:
        return await ask_both_ways(await resolve(spec), secrets.randbits(32))

    # The load is not what will be sent; a profile must have one.
    [spec] = load_profile(
        None, [url], {"model": model}, {"load": {"concurrency": 1, "requests": 1}}, quiet=True
    ).targets
    try:
        asked = asyncio.run(ask())
    except (UsageError, Unreachable) as error:
        return find_delay([], str(error))
    return find_delay(asked.pairs, asked.failure)
