"""The kind of a server, judged from its answers to a few GET requests, which are made in `discover`.

The shape of the JSON decides, never the status alone: LM Studio answers 200 to any path, with an error text. The order
matters, because servers borrow each other's routes: the most particular sign comes first, a bare /v1/models last.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from loadgen.servers.reply import Reply, json_by_path

__all__ = ["PROBES", "Identity", "identify"]

PROBES = (
    "/api/version",
    "/version",
    "/v1/models",
    "/props",
    "/api/v1/models",
    "/api/v0/models",
    "/server_info",
    "/health",
    "/",
)


@dataclass(frozen=True, slots=True)
class Identity:
    kind: str  # as in Target.kind
    api: str  # openai | ollama | lmstudio
    version: str | None
    models: list[str]  # loaded ones first where the server reports them, else in its order
    model_lens: dict[str, int] = field(default_factory=dict)  # context length in tokens, where reported
    label: str = ""  # for people: name and version


LABELS = {
    "vllm": "vLLM",
    "sglang": "SGLang",
    "llamacpp": "llama.cpp",
    "llamacpp-python": "llama_cpp.server",
    "transformers": "transformers serve",
    "ollama": "Ollama",
    "lmstudio": "LM Studio",
    "openai": "OpenAI-compatible server",
}


def identify(answers: Mapping[str, Reply]) -> Identity | None:
    """The identity of the server that gave `answers`; None if it is of no known kind.

    answers: by path, of `PROBES`; some may be missing."""
    json = json_by_path(answers)
    listed = _listed(json.get("/v1/models"))
    lens = {model: length for model, entry in listed.items() if (length := _length(entry))}
    native = _rows(json.get("/api/v1/models"), "models")
    older = _rows(json.get("/api/v0/models"), "data")
    if any("key" in row for row in native):
        return _lmstudio(native)
    if any("state" in row or "compatibility_type" in row for row in older):
        return _lmstudio_v0(older)
    version = _text(json.get("/api/version"), "version")
    if version is not None or _says(answers.get("/"), b"Ollama is running"):
        return _identity("ollama", "ollama", version, list(listed), lens)
    kind = _openai_kind(answers, json, listed)
    if kind is None:
        return None
    if kind == "llamacpp" and (slot_length := _slot_length(json.get("/props"))):
        lens = dict.fromkeys(listed, slot_length)  # the context of a slot, not the one that the model was trained for
    return _identity(kind, "openai", _version(kind, json), list(listed), lens)


def _openai_kind(answers: Mapping[str, Reply], json: dict[str, Any], listed: dict[str, dict[str, Any]]) -> str | None:
    """The kind of a server of the OpenAI shape; None where it has not that shape."""
    owners = {entry.get("owned_by") for entry in listed.values()}
    if "sglang" in owners or _is_sglang_info(json.get("/server_info")):
        return "sglang"
    if "llamacpp" in owners or "default_generation_settings" in _mapping(json.get("/props")):
        return "llamacpp"
    if "vllm" in owners:
        return "vllm"
    if "me" in owners and any("permissions" in entry for entry in listed.values()):
        return "llamacpp-python"
    if _is_transformers(answers, json):
        return "transformers"
    if listed or isinstance(_mapping(json.get("/v1/models")).get("data"), list):
        return "openai"
    if _text(json.get("/version"), "version") is not None and answers["/version"].content_type.startswith(
        "application/json"
    ):
        return "vllm"  # a key guards its /v1, not its /version
    return None


def _is_transformers(answers: Mapping[str, Reply], json: dict[str, Any]) -> bool:
    """Whether it is transformers serve, which names itself nowhere: JSON at /health, FastAPI's 404 where others answer.

    Its /v1/models fails without a hub cache, and has no `owned_by` to recognise it by.
    """
    if _mapping(json.get("/health")).get("status") != "ok":
        return False
    missing = [answers[path] for path in ("/version", "/props", "/api/version") if path in answers]
    fastapi = bool(missing) and all(
        reply.status == 404 and _mapping(reply.json_or_none()).get("detail") == "Not Found" for reply in missing
    )
    return fastapi and (answers.get("/v1/models") is not None)


def _is_sglang_info(info: Any) -> bool:
    return not {"disaggregation_mode", "internal_states", "mem_fraction_static"}.isdisjoint(_mapping(info))


def _version(kind: str, json: dict[str, Any]) -> str | None:
    path, key = {"llamacpp": ("/props", "build_info"), "sglang": ("/server_info", "version")}.get(
        kind, ("/version", "version")
    )
    return _text(json.get(path), key)


def _lmstudio(rows: list[dict[str, Any]]) -> Identity:
    rows = [row for row in rows if row.get("type") != "embedding" and isinstance(row.get("key"), str)]
    rows.sort(key=lambda row: not row.get("loaded_instances"))
    lens = {}
    for row in rows:
        instances = [_mapping(instance) for instance in row.get("loaded_instances") or []]
        loaded = [_mapping(instance.get("config")).get("context_length") for instance in instances]
        if length := _first_int(*loaded, row.get("max_context_length")):
            lens[row["key"]] = length
    return _identity("lmstudio", "lmstudio", None, [row["key"] for row in rows], lens)


def _lmstudio_v0(rows: list[dict[str, Any]]) -> Identity:
    """The identity of LM Studio before 0.4: it has no API of its own for chat, so the OpenAI shape is used."""
    rows = [row for row in rows if row.get("type") != "embeddings" and isinstance(row.get("id"), str)]
    rows.sort(key=lambda row: row.get("state") != "loaded")
    lens = {row["id"]: _first_int(row.get("loaded_context_length"), row.get("max_context_length")) for row in rows}
    lengths = {model: length for model, length in lens.items() if length}
    return _identity("lmstudio", "openai", None, [row["id"] for row in rows], lengths)


def _identity(kind: str, api: str, version: str | None, models: list[str], lens: dict[str, int]) -> Identity:
    label = LABELS[kind] if version is None else f"{LABELS[kind]} {version}"
    return Identity(kind, api, version, models, lens, label)


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _rows(value: Any, key: str) -> list[dict[str, Any]]:
    rows = _mapping(value).get(key)
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def _listed(models: Any) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in _rows(models, "data") if isinstance(row.get("id"), str)}


def _text(value: Any, key: str) -> str | None:
    member = _mapping(value).get(key)
    return member if isinstance(member, str) else None


def _says(reply: Reply | None, words: bytes) -> bool:
    return reply is not None and reply.ok and reply.body.strip().startswith(words)


def _length(entry: dict[str, Any]) -> int | None:
    meta = _mapping(entry.get("meta"))
    return _first_int(entry.get("max_model_len"), meta.get("n_ctx"), meta.get("n_ctx_train"))


def _slot_length(props: Any) -> int | None:
    return _first_int(_mapping(_mapping(props).get("default_generation_settings")).get("n_ctx"))


def _first_int(*values: Any) -> int | None:
    return next((value for value in values if type(value) is int and value > 0), None)
