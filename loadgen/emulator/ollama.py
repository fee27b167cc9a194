"""Ollama's native API: NDJSON lines, durations in nanoseconds, models that are loaded and unloaded.

The durations of the last line are those of the physics. `created_at` is the request's arrival on every line but the
last, so that lines can be cut from one template.
"""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from typing import Any

import orjson

from .answers import Delayed, Generation, Site
from .http import Reply, Request
from .openai import MARK, MARK_JSON, prompt_ids
from .physics import NEVER, NS_PER_S, Job
from .text import ids, words

__all__ = ["chat", "generate", "parse_keep_alive", "ps", "show", "tags"]

_UNIT_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_GO_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
_DIGEST = "e" * 64
_SIZE_BYTES = 1_000_000_000


def parse_keep_alive(value: object) -> int | None:
    """The nanoseconds of a number of seconds or a Go duration; None for ever. Raises ValueError."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return None if value < 0 else round(value * NS_PER_S)
    if isinstance(value, str):
        text = value.removeprefix("-")
        if text == "0":
            return 0
        parts = _GO_DURATION.findall(text)
        if parts and "".join(number + unit for number, unit in parts) == text:
            seconds = sum(float(number) * _UNIT_S[unit] for number, unit in parts)
            return None if value.startswith("-") else round(seconds * NS_PER_S)
    raise ValueError(f'time: missing unit in duration "{value}"')


def timestamp(wall_ns: int | None = None) -> str:
    """An RFC 3339 instant with nine decimals, as Go prints it."""
    wall_ns = time.time_ns() if wall_ns is None else wall_ns
    seconds, rest = divmod(wall_ns, NS_PER_S)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


class OllamaAnswer(Generation):
    """An answer of /api/generate or /api/chat."""

    content_type = "application/x-ndjson"

    def __init__(self, site: Site, request: Request, body: dict[str, Any], prompt: object, *, chat: bool) -> None:
        options = body.get("options")
        limit = options.get("num_predict") if isinstance(options, dict) else None
        limit = limit if isinstance(limit, int) and limit > 0 else None
        super().__init__(site, body, prompt, limit, stream=body.get("stream") is not False)
        self.chat = chat
        before, _, after = self._line(MARK).partition(MARK_JSON)
        self.before, self.after = before, after

    def _content(self, text: str) -> dict[str, Any]:
        return {"message": {"role": "assistant", "content": text}} if self.chat else {"response": text}

    def _line(self, text: str) -> bytes:
        value = {"model": self.site.model, "created_at": timestamp(), **self._content(text), "done": False}
        return orjson.dumps(value) + b"\n"

    def _final(self, text: str, tokens: int, job: Job) -> dict[str, Any]:
        value = {"model": self.site.model, "created_at": timestamp(), **self._content(text), "done": True}
        value["done_reason"] = self.finish_reason
        if not self.chat and not self.body.get("raw"):
            value["context"] = prompt_ids(self.prompt) + ids(0, tokens)
        figures = {
            "total_duration": job.last_due_ns - job.arrived_ns,
            "load_duration": job.load_ns,
            "prompt_eval_count": job.prompt_tokens,
            "prompt_eval_duration": job.prefill_ns,
            "eval_count": tokens,
            "eval_duration": job.last_due_ns - job.first_due_ns,
        }
        return value | {name: figure for name, figure in figures.items() if figure}

    def ending(self, first: int, count: int, job: Job) -> list[bytes]:
        return [self.event(first, count), orjson.dumps(self._final("", first + count, job)) + b"\n"]

    def whole(self, job: Job) -> Reply:
        return Reply(200, self._final(words(0, job.output_tokens).decode(), job.output_tokens, job))

    def failure(self, message: str) -> list[bytes]:
        return [orjson.dumps({"error": message}) + b"\n"]


def _named(site: Site, body: dict[str, Any]) -> bool:
    return body.get("model", body.get("name")) in (site.model, f"{site.model}:latest")


def _missing(body: dict[str, Any]) -> Reply:
    return Reply(404, {"error": f"model '{body.get('model', body.get('name'))}' not found"})


def _keep_alive(site: Site, request: Request, body: dict[str, Any]) -> int | None:
    """The `keep_alive` of a body, which is applied: ns, None for ever, -1 where not given."""
    if body.get("keep_alive") is None:
        return -1
    keep_ns = parse_keep_alive(body["keep_alive"])
    site.physics.keep_alive(request.instance, keep_ns)
    return keep_ns


def _load_only(site: Site, request: Request, keep_ns: int | None, content: dict[str, Any]) -> Delayed:
    value = {"model": site.model, "created_at": timestamp(), **content, "done": True}
    if keep_ns == 0:
        site.physics.unload(request.instance)
        return Delayed(Reply(200, {**value, "done_reason": "unload"}), request.arrived_ns)
    ready_ns = site.physics.load(request.instance, request.arrived_ns)
    return Delayed(Reply(200, {**value, "done_reason": "load"}), ready_ns)


def generate(site: Site, request: Request) -> Reply | Generation | Delayed:
    """POST /api/generate"""
    body = request.json()
    if not _named(site, body):
        return _missing(body)
    keep_ns = _keep_alive(site, request, body)
    prompt = body.get("prompt") or ""
    if not prompt:
        return _load_only(site, request, keep_ns, {"response": ""})
    return OllamaAnswer(site, request, body, prompt, chat=False)


def chat(site: Site, request: Request) -> Reply | Generation | Delayed:
    """POST /api/chat"""
    body = request.json()
    if not _named(site, body):
        return _missing(body)
    keep_ns = _keep_alive(site, request, body)
    messages = body.get("messages") or []
    if not messages:
        return _load_only(site, request, keep_ns, {"message": {"role": "assistant", "content": ""}})
    return OllamaAnswer(site, request, body, messages, chat=True)


def _details(site: Site) -> dict[str, Any]:
    return {
        "parent_model": "",
        "format": "gguf",
        "family": "emulated",
        "families": ["emulated"],
        "parameter_size": "1B",
        "quantization_level": "F16",
        "context_length": site.max_model_len,
    }


def _entry(site: Site) -> dict[str, Any]:
    return {"name": site.model, "model": site.model, "size": _SIZE_BYTES, "digest": _DIGEST, "details": _details(site)}


def tags(site: Site, request: Request) -> Reply:
    """GET /api/tags"""
    modified = timestamp(site.created_s * NS_PER_S)
    return Reply(200, {"models": [{**_entry(site), "modified_at": modified, "capabilities": ["completion"]}]})


def ps(site: Site, request: Request) -> Reply:
    """GET /api/ps: the model, if it is loaded."""
    instance, at_ns = site.physics.instances[request.instance], request.arrived_ns
    if not site.physics.is_loaded(request.instance, at_ns) or at_ns < instance.ready_ns:
        return Reply(200, {"models": []})
    left_ns = 100 * 365 * 86400 * NS_PER_S
    if instance.keep_ns != NEVER:
        left_ns = max(instance.idle_ns, instance.ready_ns) + instance.keep_ns - at_ns if not instance.running else 0
    more = {
        "expires_at": timestamp(time.time_ns() + left_ns),
        "size_vram": _SIZE_BYTES,
        "context_length": site.max_model_len,
    }
    return Reply(200, {"models": [_entry(site) | more]})


def show(site: Site, request: Request) -> Reply:
    """POST /api/show"""
    body = request.json()
    if not _named(site, body):
        return _missing(body)
    info = {"general.architecture": "emulated", "emulated.context_length": site.max_model_len}
    return Reply(
        200,
        {
            "license": "",
            "modelfile": f"FROM {site.model}\n",
            "parameters": "",
            "template": "{{ .Prompt }}",
            "details": _details(site),
            "model_info": info,
            "capabilities": ["completion"],
            "modified_at": timestamp(site.created_s * NS_PER_S),
        },
    )
