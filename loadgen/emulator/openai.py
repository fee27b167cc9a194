"""The OpenAI routes as vLLM, llama.cpp, Ollama, LM Studio and OpenAI itself answer them.

One shape, and a `Flavour` for the differences between servers: when the role is sent, whether the last token shares its
event with the finish reason, the form of an error, when headers leave.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import orjson

from .answers import Generation, Site
from .http import Reply, Request
from .physics import Job, Prefixes
from .text import FIRST_ID, WORDS, count_tokens, ids, token_id, words

__all__ = [
    "FLAVOURS",
    "Flavour",
    "chat",
    "completions",
    "error",
    "models",
    "prompt_ids",
    "reset_prefix_cache",
    "timings",
]

DONE = b"data: [DONE]\n\n"
_CLOSE = b"]}\n\n"
MARK = "\0"  # JSON escapes it, so it cannot occur in the rest of a template
MARK_JSON = b"\\u0000"


@dataclass(frozen=True, slots=True)
class Flavour:
    """The differences between servers of the same shape."""

    owned_by: str
    role: str = "alone"  # an event of its own; "every": beside every delta, as Ollama and LM Studio do
    role_content: str | None = ""
    finish_with_last: bool = False
    head_early: bool = False
    timings: bool = False
    close_after: bool = False
    head_extra: str = ""
    check_model: bool = True
    fingerprint: str | None = None
    vllm_fields: bool = False  # return_token_ids, continuous_usage_stats
    done_after_error: bool = False


FLAVOURS = {
    "vllm": Flavour("vllm", finish_with_last=True, head_early=True, vllm_fields=True, done_after_error=True),
    "openai": Flavour("system", head_early=True, fingerprint="fp_emulated"),
    "llamacpp": Flavour(
        "llamacpp",
        role_content=None,
        timings=True,
        close_after=True,
        head_extra="keep-alive: timeout=5, max=100\r\n",
        check_model=False,
        fingerprint="b1-emulated",
    ),
    "ollama": Flavour("library", role="every", fingerprint="fp_ollama"),
    "lmstudio": Flavour("organization_owner", role="every", fingerprint="emulated"),
}

_TYPES = {
    "vllm": {400: "BadRequestError", 404: "NotFoundError", 429: "RateLimitError", 503: "ServiceUnavailableError"},
    "openai": {400: "invalid_request_error", 404: "invalid_request_error", 429: "rate_limit_error"},
    "llamacpp": {400: "invalid_request_error", 404: "not_found_error", 503: "unavailable_error"},
    "ollama": {400: "invalid_request_error", 404: "not_found_error"},
}
_FALLBACK_TYPE = {"vllm": "InternalServerError", "openai": "server_error", "llamacpp": "server_error"}


def error_body(presents: str, status: int, message: str) -> Any:
    """The error object of a server."""
    if presents == "lmstudio":
        return {"error": message}
    kind = _TYPES[presents].get(status, _FALLBACK_TYPE.get(presents, "api_error"))
    if presents == "llamacpp":
        return {"error": {"code": status, "message": message, "type": kind}}
    code: Any = status if presents == "vllm" else ("model_not_found" if status == 404 else None)
    if presents == "ollama":
        code = None
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def error(presents: str, status: int, message: str) -> Reply:
    """An error answer in a server's own words."""
    return Reply(status, error_body(presents, status, message))


def _data(value: Any) -> bytes:
    return b"data: " + orjson.dumps(value) + b"\n\n"


def timings(job: Job) -> dict[str, Any]:
    """llama.cpp's `timings` of a finished job."""
    decode_ns = job.last_due_ns - job.first_due_ns
    prompt_n, predicted_n = job.prompt_tokens - job.cached_tokens, job.output_tokens
    prompt_ms, predicted_ms = job.prefill_ns / 1e6, decode_ns / 1e6
    return {
        "cache_n": job.cached_tokens,
        "prompt_n": prompt_n,
        "prompt_ms": prompt_ms,
        "prompt_per_token_ms": prompt_ms / max(1, prompt_n),
        "prompt_per_second": prompt_n * 1e3 / prompt_ms if prompt_ms else 0.0,
        "predicted_n": predicted_n,
        "predicted_ms": predicted_ms,
        "predicted_per_token_ms": predicted_ms / max(1, predicted_n),
        "predicted_per_second": predicted_n * 1e3 / predicted_ms if predicted_ms else 0.0,
    }


@dataclass(frozen=True, slots=True)
class _Pieces:
    """The bytes of a stream that are the same for every answer of a server; the envelope goes before them."""

    role: bytes
    before: bytes  # of a token's words
    after: bytes
    last: dict[str, bytes]  # instead of `after`, by finish reason, where the last token carries it


@cache
def _pieces(presents: str, chat: bool) -> _Pieces:
    flavour = FLAVOURS[presents]
    role = {"role": "assistant", "content": flavour.role_content}
    before, _, after = orjson.dumps(_choice(flavour, chat, MARK, None)).partition(MARK_JSON)
    last = {}
    for reason in ("stop", "length"):
        choice = _choice(flavour, chat, MARK, reason)
        if flavour.vllm_fields:
            choice["stop_reason"] = None
        last[reason] = orjson.dumps(choice).partition(MARK_JSON)[2] + _CLOSE
    opening = {"index": 0, "delta": role, "logprobs": None, "finish_reason": None}
    return _Pieces(orjson.dumps(opening) + _CLOSE, before, after + _CLOSE, last)


def _choice(flavour: Flavour, chat: bool, text: str, finish: str | None) -> dict[str, Any]:
    if not chat:
        return {"index": 0, "text": text, "logprobs": None, "finish_reason": finish}
    delta: dict[str, Any] = {"content": text}
    if flavour.role == "every":
        delta = {"role": "assistant", **delta}
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}


class OpenAIAnswer(Generation):
    """A chat or text completion."""

    def __init__(
        self, site: Site, request: Request, body: dict[str, Any], prompt: object, limit: int | None, *, chat: bool
    ) -> None:
        super().__init__(site, body, prompt, limit, stream=body.get("stream") is True)
        self.chat = chat
        self.flavour = FLAVOURS[site.presents]
        self.head_early = self.flavour.head_early
        self.close_after = self.flavour.close_after
        self.head_extra = self.flavour.head_extra
        options = body.get("stream_options")
        options = options if isinstance(options, dict) else {}
        self.include_usage = bool(options.get("include_usage"))
        extended = self.flavour.vllm_fields
        self.continuous = extended and self.include_usage and bool(options.get("continuous_usage_stats"))
        self.token_ids = extended and bool(body.get("return_token_ids"))
        self.plain = not (self.continuous or self.token_ids)
        self.id = ("chatcmpl-" if chat else "cmpl-") + site.next_id(request)
        if self.stream:
            self._pieces = _pieces(site.presents, chat)
            self._start = b"data: " + orjson.dumps(self._envelope([]))[:-2]  # up to the bracket of `choices`
            self.before, self.after = self._start + self._pieces.before, self._pieces.after

    def _envelope(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        suffix = ".chunk" if self.stream else ""
        return {
            "id": self.id,
            "object": "chat.completion" + suffix if self.chat else "text_completion",
            "created": self.site.created_s,
            "model": self.site.model,
            "choices": choices,
        }

    def _usage(self, job: Job | None, output_tokens: int) -> dict[str, Any]:
        usage: dict[str, Any] = {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": output_tokens,
            "total_tokens": self.prompt_tokens + output_tokens,
        }
        if job is not None and job.cached_tokens:
            usage["prompt_tokens_details"] = {"cached_tokens": job.cached_tokens}
        return usage

    def opening(self, job: Job) -> list[bytes]:
        if not self.chat or self.flavour.role == "every":
            return []
        if self.plain:
            return [self._start + self._pieces.role]
        role = {"role": "assistant", "content": self.flavour.role_content}
        value = self._envelope([{"index": 0, "delta": role, "logprobs": None, "finish_reason": None}])
        if self.token_ids:
            value["prompt_token_ids"] = prompt_ids(self.prompt)
        if self.continuous:
            value["usage"] = self._usage(None, 0)
        return [_data(value)]

    def event(self, first: int, count: int) -> bytes:
        if self.plain:
            return self.before + words(first, count) + self.after
        return self._extended(first, count, None)

    def _extended(self, first: int, count: int, finish: str | None) -> bytes:
        choice = _choice(self.flavour, self.chat, words(first, count).decode(), finish)
        if finish is not None and self.flavour.vllm_fields:
            choice["stop_reason"] = None
        if self.token_ids:
            choice["token_ids"] = ids(first, count)
            if not self.chat and first == 0:
                choice["prompt_token_ids"] = prompt_ids(self.prompt)
        value = self._envelope([choice])
        if self.continuous:
            value["usage"] = self._usage(None, first + count)
        return _data(value)

    def last_fields(self, job: Job) -> dict[str, Any]:
        """The extra fields of the last event with a choice, or of the whole answer."""
        fields: dict[str, Any] = {}
        if self.flavour.fingerprint:
            fields["system_fingerprint"] = self.flavour.fingerprint
        if self.flavour.timings:
            fields["timings"] = timings(job)
        return fields

    def ending(self, first: int, count: int, job: Job) -> list[bytes]:
        events: list[bytes] = []
        if self.flavour.finish_with_last and self.plain:
            events.append(self.before + words(first, count) + self._pieces.last[self.finish_reason])
        elif self.flavour.finish_with_last:
            events.append(self._extended(first, count, self.finish_reason))
        else:
            events.append(self.event(first, count))
            last = self._envelope([_choice(self.flavour, self.chat, "", self.finish_reason)])
            if self.chat:
                last["choices"][0]["delta"] = {}
            last |= self.last_fields(job)
            if self.include_usage:
                last.pop("timings", None)
            events.append(_data(last))
        if self.include_usage:
            value = self._envelope([])
            value["usage"] = self._usage(job, first + count)
            if self.flavour.timings:
                value["timings"] = timings(job)
            events.append(_data(value))
        events.append(DONE)
        return events

    def whole(self, job: Job) -> Reply:
        text = words(0, job.output_tokens).decode()
        choice: dict[str, Any]
        if self.chat:
            choice = {"index": 0, "message": {"role": "assistant", "content": text}, "logprobs": None}
        else:
            choice = {"index": 0, "text": text, "logprobs": None}
        choice["finish_reason"] = self.finish_reason
        if self.token_ids:
            choice["token_ids"] = ids(0, job.output_tokens)
        value = self._envelope([choice])
        value["usage"] = self._usage(job, job.output_tokens)
        return Reply(200, value | self.last_fields(job))

    def failure(self, message: str) -> list[bytes]:
        event = _data(error_body(self.site.presents, 500, message))
        return [event, DONE] if self.flavour.done_after_error else [event]


def prompt_ids(prompt: object) -> list[int]:
    """The token ids of a prompt, by the same law as its count."""
    if isinstance(prompt, str):
        return [token_id(word) for word in prompt.split()]
    if isinstance(prompt, int):
        return [prompt]
    if isinstance(prompt, list):
        return [token for part in prompt for token in prompt_ids(part)]
    if isinstance(prompt, dict):
        return prompt_ids(prompt.get("content", prompt.get("text")))
    return []


def detokenize(site: Site, request: Request) -> Reply:
    """POST /detokenize: the text of generated ids; any other id becomes "?"."""
    index = [token - FIRST_ID for token in request.json().get("tokens", [])]
    text = " ".join(WORDS[i][1:].decode() if 0 <= i < len(WORDS) else "?" for i in index)
    return Reply(200, {"prompt": text})


def _limit(body: dict[str, Any], *names: str) -> int | None:
    for name in names:
        value = body.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None


def _refusal(site: Site, body: dict[str, Any]) -> Reply | None:
    model = body.get("model")
    if FLAVOURS[site.presents].check_model and model is not None and model != site.model:
        text = f"model '{model}' not found" if site.presents == "ollama" else f"The model `{model}` does not exist."
        return error(site.presents, 404, text)
    return None


def _too_long(site: Site, answer: Generation) -> Reply | None:
    need = answer.prompt_tokens + (answer.limit or 1)
    if need <= site.max_model_len:
        return None
    text = (
        f"This model's maximum context length is {site.max_model_len} tokens. "
        f"However, you requested {need} tokens. Please reduce the length of the input or the output."
    )
    return error(site.presents, 400, text)


def chat(site: Site, request: Request) -> Reply | Generation:
    """POST /v1/chat/completions"""
    body = request.json()
    refusal = _refusal(site, body)
    if refusal is not None:
        return refusal
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        return error(site.presents, 400, "`messages` must be a list that is not empty")
    names = ("max_tokens",) if site.presents == "ollama" else ("max_completion_tokens", "max_tokens")
    answer = OpenAIAnswer(site, request, body, messages, _limit(body, *names), chat=True)
    return _too_long(site, answer) or answer


def completions(site: Site, request: Request) -> Reply | Generation:
    """POST /v1/completions"""
    body = request.json()
    refusal = _refusal(site, body)
    if refusal is not None:
        return refusal
    prompt = body.get("prompt")
    if not isinstance(prompt, (str, list)):
        return error(site.presents, 400, "`prompt` must be text or a list")
    answer = OpenAIAnswer(site, request, body, prompt, _limit(body, "max_tokens") or 16, chat=False)
    return _too_long(site, answer) or answer


def models(site: Site, request: Request) -> Reply:
    """GET /v1/models"""
    entry: dict[str, Any] = {
        "id": site.model,
        "object": "model",
        "created": site.created_s,
        "owned_by": FLAVOURS[site.presents].owned_by,
    }
    if site.presents == "vllm":
        entry |= {"root": site.model, "parent": None, "max_model_len": site.max_model_len, "permission": []}
    if site.presents == "llamacpp":
        entry["meta"] = {"n_ctx_train": site.max_model_len, "n_vocab": len(WORDS)}
    return Reply(200, {"object": "list", "data": [entry]})


def tokenize(site: Site, request: Request) -> Reply:
    """POST /tokenize: vLLM's fields, or llama.cpp's `content`."""
    body = request.json()
    prompt = body.get("messages") or body.get("prompt") or body.get("content") or ""
    tokens = prompt_ids(prompt)
    if site.presents == "llamacpp":
        return Reply(200, {"tokens": tokens})
    return Reply(200, {"count": count_tokens(prompt), "max_model_len": site.max_model_len, "tokens": tokens})


def reset_prefix_cache(site: Site, request: Request) -> Reply:
    """POST /reset_prefix_cache; as with a vLLM that is not in development mode, not there without --prefix-cache."""
    if not site.physics.law.prefix_cache:
        return Reply(404, {"detail": "Not Found"})
    site.physics.instances[request.instance].prefixes = Prefixes()
    return Reply(200, b"")


def vllm_metrics(site: Site, request: Request) -> Reply:
    """GET /metrics: the gauges and counters of vLLM that tools read most."""
    counters, law = site.counters[request.instance], site.physics.law
    instance = site.physics.instances[request.instance]
    lines: list[str] = []

    def put(kind: str, name: str, value: float, labels: str = "") -> None:
        family = name.removesuffix("_total") if kind == "counter" else name
        if not any(line == f"# TYPE vllm:{family} {kind}" for line in lines):
            lines.append(f"# TYPE vllm:{family} {kind}")
        lines.append(f'vllm:{name}{{engine="0",model_name="{site.model}"{labels}}} {value}')

    put("gauge", "num_requests_running", instance.running)
    put("gauge", "num_requests_waiting", len(instance.queue))
    put("gauge", "kv_cache_usage_perc", instance.kv_used / law.kv_tokens if law.kv_tokens else 0.0)
    put("counter", "prompt_tokens_total", counters.prompt_tokens)
    put("counter", "generation_tokens_total", counters.generation_tokens)
    put("counter", "prefix_cache_queries_total", counters.prompt_tokens if law.prefix_cache else 0)
    put("counter", "prefix_cache_hits_total", counters.cached_tokens)
    put("counter", "num_preemptions_total", 0)
    for reason, count in counters.finished.items():
        put("counter", "request_success_total", count, f',finished_reason="{reason}"')
    done = sum(count for reason, count in counters.finished.items() if reason in ("stop", "length"))
    for name, total in (
        ("time_to_first_token_seconds", counters.ttft_s),
        ("e2e_request_latency_seconds", counters.e2e_s),
        ("request_queue_time_seconds", counters.queue_s),
    ):
        label = f'engine="0",model_name="{site.model}"'
        lines.append(f"# TYPE vllm:{name} histogram")
        lines.append(f'vllm:{name}_bucket{{{label},le="+Inf"}} {done}')
        lines += [f"vllm:{name}_sum{{{label}}} {total}", f"vllm:{name}_count{{{label}}} {done}"]
    return Reply(200, ("\n".join(lines) + "\n").encode(), "text/plain; version=0.0.4; charset=utf-8")


def props(site: Site, request: Request) -> Reply:
    """GET /props of llama.cpp."""
    return Reply(
        200,
        {
            "default_generation_settings": {"n_ctx": site.max_model_len},
            "total_slots": site.physics.law.slots or 1,
            "model_path": site.model,
            "build_info": "b1-emulated",
            "is_sleeping": False,
        },
    )


def slots(site: Site, request: Request) -> Reply:
    """GET /slots of llama.cpp."""
    total, busy = site.physics.law.slots or 1, site.physics.instances[request.instance].running
    return Reply(200, [{"id": i, "n_ctx": site.max_model_len, "is_processing": i < busy} for i in range(total)])
