"""Making a server forget before a run: unload the model, or empty its prefix cache, where the server offers it.

Ollama: an empty request with keep_alive 0; the unloading is asynchronous, so /api/ps is watched until the model is
gone. LM Studio: its native unload route, one call per loaded instance. vLLM: /reset_prefix_cache, which is there in
development mode only. Only the measured model is touched. These are control calls, made between runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from loadgen.errors import NotCleared, Unreachable
from loadgen.servers.control import Control, NoAnswer, control_of
from loadgen.servers.endpoint import Endpoint
from loadgen.servers.reply import Reply

__all__ = ["clear"]

CALL_TIMEOUT_S = 60.0
POLL_S = 0.1
MOST_POLLS = 600
ABSENT = (404, 405, 501)  # statuses of servers for a route they do not have


async def clear(endpoint: Endpoint) -> str | None:
    """The action taken to make the server forget; None if it offers no way. Raises Unreachable or NotCleared."""
    how = {"ollama": _unload_ollama, "lmstudio": _unload_lmstudio, "vllm": _reset_vllm}.get(endpoint.target.kind)
    if how is None:
        return None
    try:
        async with control_of(endpoint, timeout_s=CALL_TIMEOUT_S) as control:
            return await how(_Calls(control, endpoint.url), endpoint.target.model)
    except NoAnswer as reason:
        raise Unreachable(f"{endpoint.url}: {reason}") from None


class _Calls:
    """Control calls to one server that must succeed, except that it need not have the route."""

    def __init__(self, control: Control, url: str) -> None:
        self._control, self._url = control, url

    async def get(self, path: str) -> Any:
        return self._json(path, await self._control.get(path))

    async def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        return self._json(path, await self._control.post(path, body))

    def _json(self, path: str, reply: Reply) -> Any:
        """The JSON of an answer, {} for an empty body, None if there is no such route. Raises NotCleared."""
        if reply.status in ABSENT:
            return None
        if not reply.ok:
            raise NotCleared(f"{self._url}{path} answered HTTP {reply.status}")
        try:
            return reply.json() if reply.body else {}
        except ValueError:
            raise NotCleared(f"{self._url}{path} answered what is not JSON") from None


async def _unload_ollama(calls: _Calls, model: str) -> str | None:
    if await calls.post("/api/generate", {"model": model, "keep_alive": 0, "stream": False}) is None:
        raise NotCleared(f"no model {model} to unload")
    for _ in range(MOST_POLLS):
        loaded = (await calls.get("/api/ps") or {}).get("models") or []
        if not any(entry.get("model", entry.get("name")) in (model, f"{model}:latest") for entry in loaded):
            return f"unloaded {model}"
        await asyncio.sleep(POLL_S)
    raise NotCleared(f"{model} is still loaded {MOST_POLLS * POLL_S:g} s after it was told to unload")


async def _unload_lmstudio(calls: _Calls, model: str) -> str | None:
    listed = await calls.get("/api/v1/models")
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
        await calls.post("/api/v1/models/unload", {"instance_id": instance})
    return f"unloaded {model}" if instances else f"{model} was not loaded"


async def _reset_vllm(calls: _Calls, model: str) -> str | None:
    return None if await calls.post("/reset_prefix_cache") is None else "reset the prefix cache"
