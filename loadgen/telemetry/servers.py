"""What the servers under load say of themselves, and what exporters beside them say, asked for over HTTP.

vLLM, SGLang and llama.cpp have /metrics, llama.cpp also /slots, Ollama and LM Studio a list of what is loaded. The
first answer decides whether there is such a source: a page for people, a 404 or another format is told once and not
asked for again. After that a server that is too busy to answer is only missed, and asked again.
"""

from __future__ import annotations

import json
import os
import urllib.parse
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import aiohttp

from loadgen.clock import NS_PER_S, now_ns
from loadgen.profile.profile import without_secret_query
from loadgen.servers.endpoint import Endpoint
from loadgen.telemetry import Absent, Look, Missed, Source, Value, labelled
from loadgen.telemetry.prometheus import NotPrometheus, gpu_names, remembering_parser
from loadgen.transport import tls_context

__all__ = ["open_exporter", "open_server"]

TIMEOUT_S = 5.0
QUICK = ("/metrics", "/slots")
STATUS_EVERY_S = 1.0  # lists of models change rarely, and their makers did not expect to be asked often
MAX_BODY_BYTES = 16 * 1024 * 1024
ACCEPT = {"Accept": "text/plain;version=0.0.4, application/json;q=0.5"}

Decode = Callable[[str], Sequence[Value]]

HINTS = {
    "llamacpp": "start llama-server with --metrics",
    "sglang": "start SGLang with --enable-metrics",
}


class _Refused(Exception):
    """It answers, and will answer the same next time."""


async def open_server(endpoint: Endpoint, proxy: str | None = None) -> Source:
    """Return what the server at `endpoint` tells. Raises Absent where it tells nothing."""
    told = _told(endpoint.target.kind, endpoint.name)
    if not told:
        raise Absent(
            f"{endpoint.name}: {endpoint.label or endpoint.target.kind} tells nothing of its state", expected=True
        )
    headers = {
        name: value
        for name, value in endpoint.request_headers().items()
        if name.lower() not in ("content-type", "accept", "accept-encoding")
    }
    tls = tls_context(verify=endpoint.verify_tls, ca_file=endpoint.ca_file)
    session = _session(headers, tls)
    # With the query of the requests, /metrics too: a gateway that wants it wants it on every route, and a server's own
    # /metrics does not look at it.
    asked = [(endpoint.route(path), decode) for path, decode in told]
    return await _open("server", session, asked, proxy, HINTS.get(endpoint.target.kind), endpoint=endpoint.name)


async def open_exporter(url: str, proxy: str | None = None) -> Source:
    """Return what the exporter at `url` tells; without a path, /metrics is meant. Raises Absent."""
    parts = urllib.parse.urlsplit(url)
    whole = url if parts.path.strip("/") else urllib.parse.urlunsplit(parts._replace(path="/metrics"))
    name = parts.netloc

    parse = remembering_parser(exporter=name)

    def decode(text: str) -> list[Value]:
        return gpu_names(parse(text))

    return await _open("exporter", _session({}, tls_context()), [(whole, decode)], proxy, None, exporter=name)


def _session(headers: dict[str, str], tls: Any) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=tls, limit=2),
        timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
        headers={"User-Agent": "loadgen", **ACCEPT, **headers},
    )


def _told(kind: str, name: str) -> list[tuple[str, Decode]]:
    """Return the routes to try, best first."""

    metrics = remembering_parser(endpoint=name)

    def with_name(decode: Callable[[Any, str], list[Value]]) -> Decode:
        return lambda text: decode(_json(text), name)

    routes: dict[str, list[tuple[str, Decode]]] = {
        "vllm": [("/metrics", metrics)],
        "sglang": [("/metrics", metrics)],
        "llamacpp": [("/metrics", metrics), ("/slots", with_name(_slots))],
        "ollama": [("/api/ps", with_name(_ollama))],
        "lmstudio": [("/api/v1/models", with_name(_lmstudio)), ("/api/v0/models", with_name(_lmstudio_v0))],
    }
    return routes.get(kind, [])


async def _open(
    source: str,
    session: aiohttp.ClientSession,
    asked: Sequence[tuple[str, Decode]],
    proxy: str | None,
    hint: str | None,
    **labels: str,
) -> Source:
    """Take the first route that gives values. One that only fails to answer may yet: it is taken as it is."""
    reasons = []
    for url, decode in asked:
        shown = without_secret_query(url)
        try:
            await _ask(session, url, decode, proxy, labels)
        except _Refused as refused:
            reasons.append(f"{shown}: {refused}")
            continue
        except Missed:
            pass
        except BaseException:
            await session.close()
            raise
        read = _reader(session, url, decode, proxy, labels)
        slow = 0.0 if urllib.parse.urlsplit(url).path.endswith(QUICK) else STATUS_EVERY_S
        return Source(source, read, {**labels, "url": shown}, session.close, slow)
    await session.close()
    raise Absent("; ".join(reasons) + (f" ({hint})" if hint else ""))


def _reader(
    session: aiohttp.ClientSession, url: str, decode: Decode, proxy: str | None, labels: dict[str, str]
) -> Callable[[], Awaitable[Look]]:
    async def read() -> Look:
        try:
            return await _ask(session, url, decode, proxy, labels)
        except _Refused as refused:
            # A server that is overloaded, restarting or behind a gateway may say 503 for a while.
            raise Missed(str(refused)) from None

    return read


async def _ask(
    session: aiohttp.ClientSession, url: str, decode: Decode, proxy: str | None, labels: dict[str, str]
) -> Look:
    """Return one answer's values and how long it took. Raises Missed or _Refused."""
    before = now_ns()
    try:
        async with session.get(url, proxy=proxy, allow_redirects=False) as response:
            body = bytearray()
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    raise _Refused(f"more than {MAX_BODY_BYTES >> 20} MiB")
            status, kind = response.status, response.content_type
    except TimeoutError:
        raise Missed(f"no answer within {TIMEOUT_S:g} s") from None
    except (aiohttp.ClientError, OSError) as error:
        raise Missed(_cause(error)) from None
    except UnicodeError:  # of the resolver
        raise _Refused("no host can have that name") from None
    after = now_ns()
    if status != 200:
        raise _Refused(f"HTTP {status}")
    if kind == "text/html":
        raise _Refused("a web page, not metrics")
    try:
        values = list(decode(body.decode("utf-8", errors="replace")))
    except NotPrometheus as error:
        raise _Refused(str(error)) from None
    if not values:
        raise _Refused("no metric in it")
    took = Value("scrape_duration_seconds", labelled(**labels), (after - before) / NS_PER_S)
    return Look((before + after) // 2, [*values, took])


def _cause(error: Exception) -> str:
    """Return why, without the address, which the caller names, and without anything a server said."""
    code = getattr(getattr(error, "os_error", error), "errno", None)
    return os.strerror(code).lower() if isinstance(code, int) else type(error).__name__


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise NotPrometheus("it is not JSON") from None


def _entries(told: Any, key: str) -> list[dict[str, Any]]:
    entries = told.get(key) if isinstance(told, dict) else None
    if not isinstance(entries, list):
        raise NotPrometheus(f"no list of {key} in it")
    return [entry for entry in entries if isinstance(entry, dict)]


def _slots(told: Any, endpoint: str) -> list[Value]:
    """llama.cpp: which slots work. Told also by a server that was started without --metrics."""
    slots = _entries({"slots": told}, "slots")
    busy = sum(bool(slot.get("is_processing")) for slot in slots)
    here = labelled(endpoint=endpoint)
    return [
        Value("llamacpp:requests_processing", here, float(busy)),
        Value("llamacpp:slots", here, float(len(slots))),
    ]


def _ollama(told: Any, endpoint: str) -> list[Value]:
    """Ollama: the models loaded, and how much of each lies on the GPU (all of it when the two sizes are equal)."""
    models = _entries(told, "models")
    values = [Value("ollama:models_loaded", labelled(endpoint=endpoint), float(len(models)))]
    for model in models:
        here = labelled(endpoint=endpoint, model=model.get("name", ""))
        for key, name in (("size", "size"), ("size_vram", "vram"), ("context_length", "context")):
            if isinstance(model.get(key), int | float):
                unit = "tokens" if name == "context" else "bytes"
                values.append(Value(f"ollama:model_{name}_{unit}", here, float(model[key])))
    return values


def _lmstudio(told: Any, endpoint: str) -> list[Value]:
    """LM Studio: how many instances of each model are loaded. A model loaded in the middle of a run shows here."""
    loaded = {str(model.get("key", "")): model.get("loaded_instances") for model in _entries(told, "models")}
    return _loaded({key: len(instances) for key, instances in loaded.items() if isinstance(instances, list)}, endpoint)


def _lmstudio_v0(told: Any, endpoint: str) -> list[Value]:
    models = _entries(told, "data")
    return _loaded({str(model.get("id", "")): int(model.get("state") == "loaded") for model in models}, endpoint)


def _loaded(instances: dict[str, int], endpoint: str) -> list[Value]:
    total = Value("lmstudio:models_loaded", labelled(endpoint=endpoint), float(sum(map(bool, instances.values()))))
    return [total] + [
        Value("lmstudio:model_instances", labelled(endpoint=endpoint, model=model), float(n))
        for model, n in sorted(instances.items())
        if n
    ]
