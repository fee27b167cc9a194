"""LM Studio's own routes: named events on /api/v1/chat, statistics beside the OpenAI shape on /api/v0.

The events that precede the first token (chat.start, model_load.start or prompt_processing.start) leave when the
request is accepted; the events that close those phases leave with the first token.
"""

from __future__ import annotations

from typing import Any

import orjson

from .answers import Delayed, Generation, Site
from .http import Reply, Request
from .openai import MARK, MARK_JSON, OpenAIAnswer
from .physics import NS_PER_S, Job
from .text import words

__all__ = ["chat", "chat_v0", "load", "models_v0", "models_v1", "unload"]


def _event(name: str, **fields: Any) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + orjson.dumps({"type": name, **fields}) + b"\n\n"


def _rate(job: Job) -> float:
    decode_ns = job.last_due_ns - job.first_due_ns
    return (job.output_tokens - 1) * NS_PER_S / decode_ns if decode_ns else 0.0


class NativeAnswer(Generation):
    """An answer of POST /api/v1/chat."""

    head_early = True

    def __init__(self, site: Site, body: dict[str, Any], prompt: object, limit: int | None) -> None:
        super().__init__(site, body, prompt, limit, stream=body.get("stream") is True)
        before, _, after = _event("message.delta", content=MARK).partition(MARK_JSON)
        self.before, self.after = before, after

    def preface(self, job: Job) -> list[bytes]:
        events = [_event("chat.start", model_instance_id=self.site.model)]
        if job.load_ns:
            events.append(_event("model_load.start", model_instance_id=self.site.model))
        else:
            events.append(_event("prompt_processing.start"))
        return events

    def opening(self, job: Job) -> list[bytes]:
        events: list[bytes] = []
        if job.load_ns:
            seconds = job.load_ns / NS_PER_S
            events.append(_event("model_load.end", model_instance_id=self.site.model, load_time_seconds=seconds))
            events.append(_event("prompt_processing.start"))
        return [*events, _event("prompt_processing.end"), _event("message.start")]

    def _result(self, job: Job, tokens: int) -> dict[str, Any]:
        stats: dict[str, Any] = {
            "input_tokens": job.prompt_tokens,
            "total_output_tokens": tokens,
            "reasoning_output_tokens": 0,
            "tokens_per_second": _rate(job),
            "time_to_first_token_seconds": (job.first_due_ns - job.arrived_ns - job.load_ns) / NS_PER_S,
        }
        if job.load_ns:
            stats["model_load_time_seconds"] = job.load_ns / NS_PER_S
        output = [{"type": "message", "content": words(0, tokens).decode()}]
        value: dict[str, Any] = {"model_instance_id": self.site.model, "output": output, "stats": stats}
        if self.body.get("store") is not False:
            value["response_id"] = f"resp_{job.seq}"
        return value

    def ending(self, first: int, count: int, job: Job) -> list[bytes]:
        result = self._result(job, first + count)
        return [self.event(first, count), _event("message.end"), _event("chat.end", result=result)]

    def whole(self, job: Job) -> Reply:
        return Reply(200, self._result(job, job.output_tokens))

    def failure(self, message: str) -> list[bytes]:
        problem = {"type": "internal_error", "message": message}
        result = {"model_instance_id": self.site.model, "output": [], "stats": {}}
        return [_event("error", error=problem), _event("chat.end", result=result)]


class StatsAnswer(OpenAIAnswer):
    """An answer of POST /api/v0/chat/completions: the OpenAI shape and three more objects on its last part."""

    def last_fields(self, job: Job) -> dict[str, Any]:
        stats = {
            "tokens_per_second": _rate(job),
            "time_to_first_token": (job.first_due_ns - job.arrived_ns) / NS_PER_S,
            "generation_time": (job.last_due_ns - job.first_due_ns) / NS_PER_S,
            "stop_reason": "eosFound" if self.ended_itself else "maxPredictedTokensReached",
        }
        info = {"arch": "emulated", "quant": "F16", "format": "gguf", "context_length": self.site.max_model_len}
        runtime = {"name": "emulated", "version": "1.0.0", "supported_formats": ["gguf"]}
        return {**super().last_fields(job), "stats": stats, "model_info": info, "runtime": runtime}


def _missing(body: dict[str, Any]) -> Reply:
    text = f"Model '{body.get('model')}' not found."
    return Reply(404, {"error": {"type": "model_not_found", "message": text, "param": "model", "code": None}})


def chat(site: Site, request: Request) -> Reply | Generation:
    """POST /api/v1/chat"""
    body = request.json()
    if body.get("model") != site.model:
        return _missing(body)
    prompt = [body.get("system_prompt") or "", body.get("input") or ""]
    limit = body.get("max_output_tokens")
    return NativeAnswer(site, body, prompt, limit if isinstance(limit, int) and limit > 0 else None)


def chat_v0(site: Site, request: Request) -> Reply | Generation:
    """POST /api/v0/chat/completions"""
    body = request.json()
    if body.get("model") not in (None, site.model):
        return Reply(404, {"error": f"Model '{body.get('model')}' not found."})
    limit = body.get("max_tokens")
    limit = limit if isinstance(limit, int) and limit > 0 else None
    return StatsAnswer(site, request, body, body.get("messages") or [], limit, chat=True)


def models_v1(site: Site, request: Request) -> Reply:
    """GET /api/v1/models"""
    loaded = []
    if site.physics.is_loaded(request.instance, request.arrived_ns):
        config = {"context_length": site.max_model_len, "parallel": site.physics.law.slots or 4}
        loaded = [{"id": site.model, "config": config}]
    entry = {
        "type": "llm",
        "publisher": "emulated",
        "key": site.model,
        "display_name": site.model,
        "architecture": "emulated",
        "quantization": {"name": "F16", "bits_per_weight": 16},
        "size_bytes": 1_000_000_000,
        "params_string": "1B",
        "loaded_instances": loaded,
        "max_context_length": site.max_model_len,
        "format": "gguf",
        "capabilities": {"vision": False, "trained_for_tool_use": False},
        "description": None,
    }
    return Reply(200, {"models": [entry]})


def models_v0(site: Site, request: Request) -> Reply:
    """GET /api/v0/models"""
    loaded = site.physics.is_loaded(request.instance, request.arrived_ns)
    entry: dict[str, Any] = {
        "id": site.model,
        "object": "model",
        "type": "llm",
        "publisher": "emulated",
        "arch": "emulated",
        "compatibility_type": "gguf",
        "quantization": "F16",
        "state": "loaded" if loaded else "not-loaded",
        "max_context_length": site.max_model_len,
    }
    if loaded:
        entry["loaded_context_length"] = site.max_model_len
    return Reply(200, {"object": "list", "data": [entry]})


def load(site: Site, request: Request) -> Reply | Delayed:
    """POST /api/v1/models/load"""
    body = request.json()
    if body.get("model") != site.model:
        return _missing(body)
    ready_ns = max(site.physics.load(request.instance, request.arrived_ns), request.arrived_ns)
    seconds = (ready_ns - request.arrived_ns) / NS_PER_S
    value = {"type": "llm", "instance_id": site.model, "load_time_seconds": seconds, "status": "loaded"}
    return Delayed(Reply(200, value), ready_ns)


def unload(site: Site, request: Request) -> Reply:
    """POST /api/v1/models/unload"""
    body = request.json()
    if body.get("instance_id") != site.model:
        return _missing({"model": body.get("instance_id")})
    site.physics.unload(request.instance)
    return Reply(200, {"instance_id": site.model})
