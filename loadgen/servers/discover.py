"""The server at an address, found by GETs of its harmless routes, whose answers `identify` judges."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from loadgen.errors import Unreachable
from loadgen.servers.access import PLAIN, Access
from loadgen.servers.control import TIMEOUT_S, Control, NoAnswer, control_of
from loadgen.servers.endpoint import Endpoint
from loadgen.servers.identify import PROBES, Identity, identify
from loadgen.servers.reply import Reply
from loadgen.servers.told_slots import SLOT_ROUTES, slots_told
from loadgen.servers.urls import query_of, root_url

__all__ = ["LOCAL_SERVERS", "ask_again", "ask_server", "find_local", "slots_of"]

LOCAL_SERVERS = {
    "Ollama": "http://127.0.0.1:11434",
    "LM Studio": "http://127.0.0.1:1234",
    "vLLM": "http://127.0.0.1:8000",
    "llama.cpp": "http://127.0.0.1:8080",
}
LOCAL_TIMEOUT_S = 1.0


async def ask_server(url: str, access: Access = PLAIN, *, timeout_s: float = TIMEOUT_S) -> Identity | None:
    """The identity of the server at `url`, whose query goes with every call; None if it is of no known kind.

    Raises Unreachable if it does not answer.
    """
    async with Control(root_url(url), query_of(url), access, timeout_s=timeout_s) as control:
        return await _identified(control, root_url(url))


async def ask_again(endpoint: Endpoint) -> Identity | None:
    """The present identity of the server of `endpoint`. Raises Unreachable if it does not answer any more."""
    async with control_of(endpoint) as control:
        return await _identified(control, endpoint.url)


async def slots_of(endpoint: Endpoint) -> tuple[int, str] | None:
    """(slots that the server reports, the route and key that hold them); None if it reports none."""
    kind = endpoint.target.kind
    async with control_of(endpoint) as control:
        return slots_told(kind, endpoint.target.model, await _replies(control, SLOT_ROUTES.get(kind, ())))


async def find_local(urls: Sequence[str] = tuple(LOCAL_SERVERS.values())) -> dict[str, Identity]:
    """The servers that answer at the usual local addresses, by URL."""

    async def ask(url: str) -> Identity | None:
        try:
            return await ask_server(url, timeout_s=LOCAL_TIMEOUT_S)
        except Unreachable:
            return None

    identities = await asyncio.gather(*map(ask, urls))
    return {url: identity for url, identity in zip(urls, identities, strict=True) if identity is not None}


async def _identified(control: Control, address: str) -> Identity | None:
    try:
        first = await control.get(PROBES[0])
    except NoAnswer as reason:
        raise Unreachable(f"{address}: {reason}") from None
    return identify({PROBES[0]: first, **await _replies(control, PROBES[1:])})


async def _replies(control: Control, paths: Sequence[str]) -> dict[str, Reply]:
    """The answers to GETs of `paths`, by path, without those that had none."""

    async def ask(path: str) -> Reply | None:
        try:
            return await control.get(path)
        except NoAnswer:
            return None

    replies = await asyncio.gather(*map(ask, paths))
    return {path: reply for path, reply in zip(paths, replies, strict=True) if reply is not None}
