"""A gateway before a server: it passes on what carries its query, turns away the rest, and counts both by path."""

from __future__ import annotations

import ssl
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web

__all__ = ["Gateway", "gateway"]

PASSED_ON = ("content-type", "x-request-id")


@dataclass(slots=True)
class Gateway:
    url: str = ""  # without the query
    passed: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    connections: dict[str, set[object]] = field(default_factory=lambda: defaultdict(set))  # by path


@asynccontextmanager
async def gateway(
    behind: str, query: str = "", *, tls: ssl.SSLContext | None = None, lacking: Collection[str] = ()
) -> AsyncIterator[Gateway]:
    """Serve on a free port of the loopback, in the running loop. An answer is passed on when it is whole.

    lacking: paths that it does not have.
    """
    told = Gateway()
    async with aiohttp.ClientSession() as session:

        async def handle(request: web.BaseRequest) -> web.Response:
            told.connections[request.path].add(request.protocol)
            if request.query_string != query or request.path in lacking:
                told.refused[request.path] += 1
                return web.Response(status=404 if request.path in lacking else 401)
            told.passed[request.path] += 1
            headers = {name: text for name, text in request.headers.items() if name.lower() in PASSED_ON}
            body = await request.read()
            async with session.request(request.method, behind + request.path, data=body, headers=headers) as answer:
                return web.Response(
                    status=answer.status,
                    body=await answer.read(),
                    headers={"Content-Type": answer.headers.get("Content-Type", "text/plain")},
                )

        runner = web.ServerRunner(web.Server(handle))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        told.url = f"http{'s' if tls else ''}://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield told
        finally:
            await runner.cleanup()
