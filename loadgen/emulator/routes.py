"""The routes of each server that the emulator can pretend to be.

The routes that generate exist under every identity; those that identify a server exist only under its own, because no
real server answers both `/api/version` and `/version`.
"""

from __future__ import annotations

from collections.abc import Callable

from . import lmstudio, ollama, openai
from .answers import Delayed, Generation, Site
from .http import Reply, Request

__all__ = ["GENERATES", "error", "route"]

Answer = Reply | Generation | Delayed
Handler = Callable[[Site, Request], Answer]


def _health(site: Site, request: Request) -> Reply:
    return Reply(200, {"status": "ok"}) if site.presents == "llamacpp" else Reply(200, b"", "text/plain")


def _fixed(body: object, content_type: str = "application/json") -> Handler:
    return lambda site, request: Reply(200, body, content_type)


_EVERYWHERE: dict[tuple[str, str], Handler] = {
    ("POST", "/v1/chat/completions"): openai.chat,
    ("POST", "/v1/completions"): openai.completions,
    ("GET", "/v1/models"): openai.models,
    ("POST", "/api/generate"): ollama.generate,
    ("POST", "/api/chat"): ollama.chat,
    ("POST", "/api/v1/chat"): lmstudio.chat,
    ("POST", "/api/v0/chat/completions"): lmstudio.chat_v0,
}
_OWN: dict[str, dict[tuple[str, str], Handler]] = {
    "vllm": {
        ("GET", "/health"): _health,
        ("GET", "/version"): _fixed({"version": "0.32.0+emulated"}),
        ("GET", "/metrics"): openai.vllm_metrics,
        ("POST", "/tokenize"): openai.tokenize,
        ("POST", "/detokenize"): openai.detokenize,
        ("POST", "/reset_prefix_cache"): openai.reset_prefix_cache,
    },
    "openai": {},
    "llamacpp": {
        ("GET", "/health"): _health,
        ("GET", "/props"): openai.props,
        ("GET", "/slots"): openai.slots,
        ("POST", "/tokenize"): openai.tokenize,
    },
    "ollama": {
        ("GET", "/"): _fixed(b"Ollama is running", "text/plain; charset=utf-8"),
        ("GET", "/api/version"): _fixed({"version": "0.33.0"}),
        ("GET", "/api/tags"): ollama.tags,
        ("GET", "/api/ps"): ollama.ps,
        ("POST", "/api/show"): ollama.show,
    },
    "lmstudio": {
        ("GET", "/api/v1/models"): lmstudio.models_v1,
        ("GET", "/api/v0/models"): lmstudio.models_v0,
        ("POST", "/api/v1/models/load"): lmstudio.load,
        ("POST", "/api/v1/models/unload"): lmstudio.unload,
    },
}
GENERATES = {path for method, path in _EVERYWHERE if method == "POST"}
_TABLES = {name: _EVERYWHERE | own for name, own in _OWN.items()}


def route(site: Site, request: Request) -> Answer:
    """The answer to a request."""
    method = "GET" if request.method == "HEAD" else request.method
    handler = _TABLES[site.presents].get((method, request.path))
    if handler is None:
        return unknown(site, request)
    try:
        return handler(site, request)
    except ValueError as problem:
        return error(site, request, 400, str(problem))


def error(site: Site, request: Request, status: int, message: str) -> Reply:
    """An error in the words of the dialect the path belongs to."""
    if request.path.startswith("/api/v1/"):
        return Reply(status, {"error": {"type": "internal_error", "message": message}})
    if request.path.startswith("/api/"):
        return Reply(status, {"error": message})
    return openai.error(site.presents, status, message)


def unknown(site: Site, request: Request) -> Reply:
    """The answer to an unknown path."""
    if site.presents == "lmstudio":
        text = f"Unexpected endpoint or method. ({request.method} {request.path})"
        return Reply(200, {"error": text})
    if site.presents == "ollama":
        return Reply(404, b"404 page not found", "text/plain")
    if site.presents == "llamacpp":
        return openai.error("llamacpp", 404, "File Not Found")
    return Reply(404, {"detail": "Not Found"})
