"""`loadgen discover`: which servers answer, and as what."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from loadgen.cli.exits import Exit, Stop

__all__ = ["NOBODY", "discover"]

NOBODY = (
    "no server found at the usual local addresses (Ollama 11434, LM Studio 1234, vLLM 8000, llama.cpp 8080); "
    "name one with --url, or start a pretended one: loadgen emulate --port 8000"
)


def discover(
    url: Annotated[
        list[str] | None, typer.Option("--url", help="Ask here instead of the usual local addresses.")
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Machine-readable output.")] = False,
) -> int:
    """List the servers that answer, with their version and models."""
    import asyncio

    from loadgen.discover import LOCAL_SERVERS, find_local

    for given in url or ():
        if not given.startswith(("http://", "https://")):
            raise Stop(Exit.USAGE, f"--url {given}: must start with http:// or https:// and name a host")
    found = asyncio.run(find_local(url or tuple(LOCAL_SERVERS.values())))
    if json_:
        rows = [
            {"url": at, "kind": one.kind, "api": one.api, "version": one.version, "models": one.models}
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
    return Exit.OK
