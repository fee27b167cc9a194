"""Which path means what, for each server the emulator can pretend to be.

The routes that generate exist under every identity; those a client probes to find out whom it talks to exist only
under their own, for a server that answers `/api/version` and `/version` alike is none that exists.
"""

from __future__ import annotations

from collections.abc import Callable

from . import openai
from .answers import Generation, Site
from .http import Reply, Request

__all__ = ["IDENTITIES", "error", "route"]

Handler = Callable[[Site, Request, int], Reply | Generation]

IDENTITIES = ("vllm", "ollama", "lmstudio", "llamacpp", "openai")


def _health(site: Site, request: Request, at_ns: int) -> Reply:
    return Reply(200, {"status": "ok"}) if site.presents == "llamacpp" else Reply(200, b"", "text/plain")


_EVERYWHERE: dict[tuple[str, str], Handler] = {
    ("POST", "/v1/chat/completions"): lambda site, request, at_ns: openai.chat(site, request),
    ("POST", "/v1/completions"): lambda site, request, at_ns: openai.completions(site, request),
    ("GET", "/v1/models"): lambda site, request, at_ns: openai.models(site),
    ("GET", "/health"): _health,
}
_OWN: dict[str, dict[tuple[str, str], Handler]] = {
    "vllm": {
        ("GET", "/version"): lambda site, request, at_ns: Reply(200, {"version": "0.32.0+emulated"}),
        ("GET", "/metrics"): lambda site, request, at_ns: openai.vllm_metrics(site),
        ("POST", "/tokenize"): lambda site, request, at_ns: openai.tokenize(site, request),
    },
    "openai": {},
    "llamacpp": {
        ("GET", "/props"): lambda site, request, at_ns: openai.props(site),
        ("GET", "/slots"): lambda site, request, at_ns: openai.slots(site),
        ("POST", "/tokenize"): lambda site, request, at_ns: openai.tokenize(site, request),
    },
    "ollama": {},
    "lmstudio": {},
}
_TABLES = {name: _EVERYWHERE | own for name, own in _OWN.items()}


def route(site: Site, request: Request, at_ns: int) -> Reply | Generation:
    """Return the answer to a request that arrived at `at_ns`."""
    handler = _TABLES[site.presents].get((request.method, request.path))
    if handler is None:
        return unknown(site, request)
    try:
        return handler(site, request, at_ns)
    except ValueError as problem:
        return error(site, request, 400, str(problem))


def error(site: Site, request: Request, status: int, message: str) -> Reply:
    """Return an error in the words of the dialect the path belongs to."""
    if request.path.startswith("/api/"):
        return Reply(status, {"error": message})
    return openai.error(site.presents, status, message)


def unknown(site: Site, request: Request) -> Reply:
    """Return what the server says to a path it does not know."""
    if site.presents == "lmstudio":
        text = f"Unexpected endpoint or method. ({request.method} {request.path})"
        return Reply(200, {"error": text})
    if site.presents == "ollama":
        return Reply(404, b"404 page not found", "text/plain")
    if site.presents == "llamacpp":
        return openai.error("llamacpp", 404, "File Not Found")
    return Reply(404, {"detail": "Not Found"})
