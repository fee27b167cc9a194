"""The metrics and states that servers under load report, and exporters beside them, read over HTTP.

vLLM, SGLang and llama.cpp have /metrics, llama.cpp also /slots, Ollama and LM Studio a list of what is loaded. The
first answer decides whether there is such a source: a page for people, a 404 or another format is reported once and not
requested again. After that, a missing answer of a busy server is only counted, and requested again.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from loadgen.clock import NS_PER_S, now_ns
from loadgen.profile.secrets import without_secret_query
from loadgen.servers.access import Access
from loadgen.servers.control import Control, NoAnswer, control_of
from loadgen.servers.endpoint import Endpoint
from loadgen.servers.reply import Reply
from loadgen.telemetry import Absent, Look, Missed, Source, Value, labelled
from loadgen.telemetry.prometheus import NotPrometheus, gpu_names, remembering_parser

__all__ = ["open_exporter", "open_server"]

TIMEOUT_S = 5.0
QUICK = ("/metrics", "/slots")
STATUS_EVERY_S = 1.0  # lists of models change rarely, and servers were not made to answer for them often
ACCEPT = "text/plain;version=0.0.4, application/json;q=0.5"

Decode = Callable[[Reply], Sequence[Value]]

HINTS = {
    "llamacpp": "start llama-server with --metrics",
    "sglang": "start SGLang with --enable-metrics",
}


class _Refused(Exception):
    """The server answers without values, and would do so again."""


async def open_server(endpoint: Endpoint) -> Source:
    """The source for the state that the server at `endpoint` reports. Raises Absent where it reports none."""
    routes = _routes(endpoint.target.kind, endpoint.name)
    if not routes:
        raise Absent(
            f"{endpoint.name}: {endpoint.label or endpoint.target.kind} tells nothing of its state", expected=True
        )
    # With the query of the requests, /metrics too: a gateway that needs it needs it on every route, and a server's own
    # /metrics ignores it.
    control = control_of(endpoint, timeout_s=TIMEOUT_S, accept=ACCEPT)
    asked = [
        _Route(control, path, endpoint.route(path), decode, {"endpoint": endpoint.name}) for path, decode in routes
    ]
    return await _open("server", control, asked, HINTS.get(endpoint.target.kind))


async def open_exporter(url: str, proxy: str | None = None) -> Source:
    """The source for the metrics of the exporter at `url`; without a path, /metrics is meant. Raises Absent."""
    parts = urllib.parse.urlsplit(url)
    whole = url if parts.path.strip("/") else urllib.parse.urlunsplit(parts._replace(path="/metrics"))
    name = parts.netloc
    parse = remembering_parser(exporter=name)

    def decode(reply: Reply) -> list[Value]:
        return gpu_names(parse(reply.text))

    control = Control(whole, access=Access(proxy=proxy), timeout_s=TIMEOUT_S, accept=ACCEPT)
    return await _open("exporter", control, [_Route(control, "", whole, decode, {"exporter": name})], None)


@dataclass(frozen=True, slots=True)
class _Route:
    """One page that is read at intervals. labels: of every value, and the facts of the source."""

    control: Control
    path: str
    url: str
    decode: Decode
    labels: dict[str, str]

    async def read(self) -> Look:
        """One answer's values and its duration. Raises Missed, also for a refusal of a server that answered before."""
        try:
            return await self.ask()
        except _Refused as refused:
            # A server that is overloaded, restarting or behind a gateway may answer 503 for a while.
            raise Missed(str(refused)) from None

    async def ask(self) -> Look:
        """One answer's values and its duration. Raises Missed or _Refused."""
        before = now_ns()
        try:
            reply = await self.control.get(self.path)
        except NoAnswer as reason:
            raise (_Refused if reason.lasting else Missed)(str(reason)) from None
        after = now_ns()
        if reply.status != 200:
            raise _Refused(f"HTTP {reply.status}")
        if reply.media_type == "text/html":
            raise _Refused("a web page, not metrics")
        try:
            values = list(self.decode(reply))
        except NotPrometheus as error:
            raise _Refused(str(error)) from None
        if not values:
            raise _Refused("no metric in it")
        took = Value("scrape_duration_seconds", labelled(**self.labels), (after - before) / NS_PER_S)
        return Look((before + after) // 2, [*values, took])


def _routes(kind: str, name: str) -> list[tuple[str, Decode]]:
    """The routes to try, best first."""
    parse = remembering_parser(endpoint=name)

    def metrics(reply: Reply) -> list[Value]:
        return parse(reply.text)

    def with_name(decode: Callable[[Any, str], list[Value]]) -> Decode:
        return lambda reply: decode(_json(reply), name)

    routes: dict[str, list[tuple[str, Decode]]] = {
        "vllm": [("/metrics", metrics)],
        "sglang": [("/metrics", metrics)],
        "llamacpp": [("/metrics", metrics), ("/slots", with_name(_slots))],
        "ollama": [("/api/ps", with_name(_ollama))],
        "lmstudio": [("/api/v1/models", with_name(_lmstudio)), ("/api/v0/models", with_name(_lmstudio_v0))],
    }
    return routes.get(kind, [])


async def _open(name: str, control: Control, routes: Sequence[_Route], hint: str | None) -> Source:
    """The source for the first route that gives values. A route that only fails to answer may yet, and is taken."""
    reasons = []
    for route in routes:
        address = without_secret_query(route.url)
        try:
            await route.ask()
        except _Refused as refused:
            reasons.append(f"{address}: {refused}")
            continue
        except Missed:
            pass
        except BaseException:
            await control.close()
            raise
        slow = 0.0 if urllib.parse.urlsplit(route.url).path.endswith(QUICK) else STATUS_EVERY_S
        return Source(name, route.read, {**route.labels, "url": address}, control.close, slow)
    await control.close()
    raise Absent("; ".join(reasons) + (f" ({hint})" if hint else ""))


def _json(reply: Reply) -> Any:
    try:
        return reply.json()
    except ValueError:
        raise NotPrometheus("it is not JSON") from None


def _entries(answer: Any, key: str) -> list[dict[str, Any]]:
    entries = answer.get(key) if isinstance(answer, dict) else None
    if not isinstance(entries, list):
        raise NotPrometheus(f"no list of {key} in it")
    return [entry for entry in entries if isinstance(entry, dict)]


def _slots(answer: Any, endpoint: str) -> list[Value]:
    """The slots of llama.cpp that work. A server that was started without --metrics reports them too."""
    slots = _entries({"slots": answer}, "slots")
    busy = sum(bool(slot.get("is_processing")) for slot in slots)
    here = labelled(endpoint=endpoint)
    return [
        Value("llamacpp:requests_processing", here, float(busy)),
        Value("llamacpp:slots", here, float(len(slots))),
    ]


def _ollama(answer: Any, endpoint: str) -> list[Value]:
    """The models that Ollama has loaded, and the bytes of each on the GPU (all of it when the two sizes are equal)."""
    models = _entries(answer, "models")
    values = [Value("ollama:models_loaded", labelled(endpoint=endpoint), float(len(models)))]
    for model in models:
        here = labelled(endpoint=endpoint, model=model.get("name", ""))
        for key, name in (("size", "size"), ("size_vram", "vram"), ("context_length", "context")):
            if isinstance(model.get(key), int | float):
                unit = "tokens" if name == "context" else "bytes"
                values.append(Value(f"ollama:model_{name}_{unit}", here, float(model[key])))
    return values


def _lmstudio(answer: Any, endpoint: str) -> list[Value]:
    """The number of loaded instances per model of LM Studio. A model loaded in the middle of a run shows here."""
    loaded = {str(model.get("key", "")): model.get("loaded_instances") for model in _entries(answer, "models")}
    return _loaded({key: len(instances) for key, instances in loaded.items() if isinstance(instances, list)}, endpoint)


def _lmstudio_v0(answer: Any, endpoint: str) -> list[Value]:
    models = _entries(answer, "data")
    return _loaded({str(model.get("id", "")): int(model.get("state") == "loaded") for model in models}, endpoint)


def _loaded(instances: dict[str, int], endpoint: str) -> list[Value]:
    total = Value("lmstudio:models_loaded", labelled(endpoint=endpoint), float(sum(map(bool, instances.values()))))
    return [total] + [
        Value("lmstudio:model_instances", labelled(endpoint=endpoint, model=model), float(n))
        for model, n in sorted(instances.items())
        if n
    ]
