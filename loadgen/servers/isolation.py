"""Making a server forget before a run: unload the model, or empty its prefix cache, where the server offers it.

Ollama: an empty request with keep_alive 0; the unloading is asynchronous, so /api/ps is watched until the model is
gone. LM Studio: its native unload route, one call a loaded instance. vLLM: /reset_prefix_cache, which is there in
development mode only. Only the measured model is touched. These are control calls, made between runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from loadgen.errors import NotCleared, Unreachable
from loadgen.servers.discover import cause
from loadgen.servers.endpoint import Endpoint
from loadgen.transport import tls_context

__all__ = ["clear"]

CALL_TIMEOUT_S = 60.0
POLL_S = 0.1
MOST_POLLS = 600
ABSENT = (404, 405, 501)  # what servers say to a route they do not have


async def clear(endpoint: Endpoint, proxy: str | None = None) -> str | None:
    """Make the server forget; return what was done, None if it offers no way. Raises Unreachable or NotCleared."""
    how = {"ollama": _unload_ollama, "lmstudio": _unload_lmstudio, "vllm": _reset_vllm}.get(endpoint.target.kind)
    if how is None:
        return None
    try:
        async with _session(endpoint) as session:
            return await how(_Calls(session, endpoint, proxy), endpoint.target.model)
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise Unreachable(f"{endpoint.url}: {cause(error, CALL_TIMEOUT_S)}") from None


@asynccontextmanager
async def _session(endpoint: Endpoint) -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.TCPConnector(ssl=tls_context(verify=endpoint.verify_tls, ca_file=endpoint.ca_file))
    timeout = aiohttp.ClientTimeout(total=CALL_TIMEOUT_S)
    headers = endpoint.request_headers()
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, headers=headers) as session:
        yield session


class _Calls:
    """Control calls to one server."""

    def __init__(self, session: aiohttp.ClientSession, endpoint: Endpoint, proxy: str | None) -> None:
        self._session, self._endpoint, self._proxy = session, endpoint, proxy

    async def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Return the JSON answered ({} for an empty body), None if there is no such route."""
        url, shown = self._endpoint.route(path), self._endpoint.url + path
        async with self._session.request(method, url, json=body, proxy=self._proxy) as response:
            if response.status in ABSENT:
                return None
            raw = await response.read()
            if response.status >= 400:
                raise NotCleared(f"{shown} answered HTTP {response.status}")
            if not raw:
                return {}
            try:
                return await response.json(content_type=None)
            except ValueError:
                raise NotCleared(f"{shown} answered what is not JSON") from None


async def _unload_ollama(calls: _Calls, model: str) -> str | None:
    if await calls.call("POST", "/api/generate", {"model": model, "keep_alive": 0, "stream": False}) is None:
        raise NotCleared(f"no model {model} to unload")
    for _ in range(MOST_POLLS):
        loaded = (await calls.call("GET", "/api/ps") or {}).get("models") or []
        if not any(entry.get("model", entry.get("name")) in (model, f"{model}:latest") for entry in loaded):
            return f"unloaded {model}"
        await asyncio.sleep(POLL_S)
    raise NotCleared(f"{model} is still loaded {MOST_POLLS * POLL_S:g} s after it was told to unload")


async def _unload_lmstudio(calls: _Calls, model: str) -> str | None:
    listed = await calls.call("GET", "/api/v1/models")
    models = (listed or {}).get("models")
    if models is None:  # before 0.4 there was no native API, and unknown routes are answered with 200 and an error
        return None
    instances = [
        instance["id"]
        for entry in models
        for instance in entry.get("loaded_instances") or []
        if model in (entry.get("key"), instance["id"])
    ]
    for instance in instances:
        await calls.call("POST", "/api/v1/models/unload", {"instance_id": instance})
    return f"unloaded {model}" if instances else f"{model} was not loaded"


async def _reset_vllm(calls: _Calls, model: str) -> str | None:
    return None if await calls.call("POST", "/reset_prefix_cache") is None else "reset the prefix cache"
