"""The OpenAI shape: vLLM, SGLang, llama.cpp, llama_cpp.server, transformers serve, Ollama /v1, LM Studio /v1 and v0.

Servers differ in what they accept, so a request asks only for what its kind of server is known to take;
`target.options` goes into the body last and wins, an option of null takes a field out. Servers also differ in what they
send, so `_take` searches any message for every known sign and needs no kind: usage on any chunk, llama.cpp `timings`,
vLLM `metrics`, LM Studio `stats`, token ids, reasoning under two names, and the events of llama.cpp's own /completion.
"""

from __future__ import annotations

from typing import Any

import orjson

from loadgen.record import Kind
from loadgen.wire import Ask, Decoded, Response, Target, fields
from loadgen.wire.answer import Form, Plain, Tally
from loadgen.wire.answer import decode as decode_answer
from loadgen.wire.sse import blocks, open_block

__all__ = ["COMPLETIONS_PATH", "DEFAULT_PATH", "decode", "request_body"]

DEFAULT_PATH = "/v1/chat/completions"
COMPLETIONS_PATH = "/v1/completions"
NATIVE_PATH = "/completion"  # llama.cpp's own

# What each kind of server takes beyond the common fields. transformers serve refuses unknown fields with 422, and
# llama_cpp.server sends no usage even if asked.
TELLS_USAGE = frozenset({"vllm", "sglang", "llamacpp", "ollama", "lmstudio", "openai"})
TELLS_RUNNING_USAGE = frozenset({"vllm", "sglang"})
IGNORES_EOS = frozenset({"vllm", "sglang", "llamacpp"})
HAS_MIN_TOKENS = frozenset({"vllm", "sglang"})
TAKES_IDS = frozenset({"vllm", "sglang", "llamacpp", "openai"})
CAPS = frozenset({"max_tokens", "max_completion_tokens", "n_predict"})

ROLE, EMPTY, REASONING, CONTENT, TOOL, USAGE = (int(kind) for kind in Kind)


def request_body(ask: Ask, target: Target) -> bytes:
    options = dict(target.options)
    running_usage = options.pop("continuous_usage_stats", False) and target.kind in TELLS_RUNNING_USAGE
    body: dict[str, Any] = {"model": target.model, **_prompt(ask, target), "stream": True, "temperature": 0}
    native = target.path.endswith(NATIVE_PATH)
    if ask.output_tokens is not None and not CAPS & options.keys():
        body["n_predict" if native else "max_tokens"] = ask.output_tokens
    if target.force_length and ask.output_tokens is not None:
        if target.kind in IGNORES_EOS:
            body["ignore_eos"] = True
        if target.kind in HAS_MIN_TOKENS:
            body["min_tokens"] = ask.output_tokens
    if target.kind in TELLS_USAGE and not native:
        body["stream_options"] = {"include_usage": True}
        if running_usage:
            body["stream_options"]["continuous_usage_stats"] = True
    return orjson.dumps(_merged(body, options))


def decode(response: Response, *, keep_text: bool = False) -> Decoded:
    return decode_answer(response, FORM, keep_text=keep_text)


def _prompt(ask: Ask, target: Target) -> dict[str, Any]:
    if sum(given is not None for given in (ask.prompt, ask.messages, ask.prompt_ids)) != 1:
        raise ValueError("an Ask needs exactly one of prompt, messages and prompt_ids")
    if target.path.endswith("/chat/completions"):
        if ask.prompt_ids is not None:
            raise ValueError(f"{target.path} takes no token ids; use {COMPLETIONS_PATH}")
        return {"messages": ask.messages or [{"role": "user", "content": ask.prompt}]}
    if ask.messages is not None:
        raise ValueError(f"{target.path} takes a prompt, not messages; use {DEFAULT_PATH}")
    if ask.prompt_ids is not None and target.kind not in TAKES_IDS:
        raise ValueError(f"{target.kind} takes no token ids as a prompt; send text")
    return {"prompt": ask.prompt if ask.prompt_ids is None else ask.prompt_ids}


def _merged(body: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    asked = options.pop("stream_options", body.get("stream_options"))
    body |= options
    if isinstance(asked, dict):
        asked = body.get("stream_options", {}) | asked
    body["stream_options"] = asked if body["stream"] else None  # vLLM refuses it without streaming
    return {key: value for key, value in body.items() if value is not None}


def _take(tally: Tally, message: dict[str, Any], name: str) -> Plain | None:
    if name == "error" or "error" in message or "error_message" in message or message.get("object") == "error":
        error = fields.error_in(message)
        if error is not None or name == "error":
            tally.error = error or fields.reason_in_body(orjson.dumps(message)) or "error without a message"
            return None
    choices = message.get("choices")
    if not isinstance(choices, list):
        choices = []
        if isinstance(message.get("stop"), bool):
            _take_native(tally, message)
            return None
    if len(choices) == 1 and type(choices[0]) is dict:
        kind, plain = _take_choice(tally, choices[0])
        final = plain is None and bool(choices[0].get("finish_reason"))
    else:
        kind, plain, final = _take_choices(tally, choices), None, _is_final(choices)
    if tally.error is not None:
        return None
    if message.get("model") == "":
        tally.hint = "an event without a model name, as Ollama sends when it loses an error"
    if "usage" in message or "timings" in message or "metrics" in message or "stats" in message:
        counted = _take_counts(tally, message, choices, final=final)
        if counted and final and kind == EMPTY:
            kind = USAGE
        plain = None if counted else plain
    tally.kinds.append(kind)
    return plain


def _take_choices(tally: Tally, choices: list[Any]) -> int:
    kinds = [_take_choice(tally, choice)[0] for choice in choices if isinstance(choice, dict)]
    return max(kinds, key=RANK.__getitem__, default=EMPTY)


def _is_final(choices: list[Any]) -> bool:
    return not choices or any(isinstance(choice, dict) and choice.get("finish_reason") for choice in choices)


def _take_choice(tally: Tally, choice: dict[str, Any]) -> tuple[int, Plain | None]:
    """(kind of the event, a Plain if `choice` holds one text and nothing else). Its end, if any, is noted."""
    index, reason = choice.get("index"), choice.get("finish_reason")
    if type(index) is not int:
        index = 0
    if reason:
        tally.terminal = tally.choices[index] = True
        _take_reason(tally, reason)
    elif index not in tally.choices:
        tally.choices[index] = False
    kind, plain = _kind(tally, choice, index)
    ids = choice.get("token_ids")
    if isinstance(ids, list):
        here = len(tally.kinds)
        tally.tokens_by_event[here] = tally.tokens_by_event.get(here, 0) + len(ids)
        return kind, None
    if reason:
        return EMPTY if kind == ROLE else kind, None
    return kind, plain if index == 0 else None  # only the text of choice 0 is kept


def _kind(tally: Tally, choice: dict[str, Any], index: int) -> tuple[int, Plain | None]:
    delta = choice.get("delta") or choice.get("message")
    if not isinstance(delta, dict):
        text = _text(choice.get("text"))
        return _keep(tally, index, text), PLAIN_TEXT if text else None
    content = delta.get("content")
    text = content if type(content) is str else _text(content)
    if len(delta) == 1 and text:
        return _keep(tally, index, text), PLAIN_CONTENT[0]
    thought, thought_too = delta.get("reasoning"), delta.get("reasoning_content")
    other = _has_other(tally, index, delta)
    if text:
        _keep(tally, index, text)
        return CONTENT, None if thought or thought_too or other else PLAIN_CONTENT["role" in delta]
    if other == CONTENT:
        return CONTENT, None
    if thought or thought_too:
        lone = not (other or (thought and thought_too))  # two of them are copies, and differ together
        return REASONING, (PLAIN_REASONING if thought else PLAIN_REASONING_CONTENT)["role" in delta] if lone else None
    return other or (ROLE if "role" in delta else EMPTY), None


def _has_other(tally: Tally, index: int, delta: dict[str, Any]) -> int:
    """CONTENT for a refusal, TOOL for a piece of a tool call, 0 for neither."""
    if refusal := _text(delta.get("refusal")):
        return _keep(tally, index, refusal)
    return TOOL if ("tool_calls" in delta or "function_call" in delta) and _is_call(delta) else 0


def _keep(tally: Tally, index: int, text: str) -> int:
    if text and tally.texts is not None and index == 0:
        tally.texts.append(text)
    return CONTENT if text else EMPTY


def _text(value: Any) -> str:
    """The text of a string, or of a list of parts as some servers send it."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "".join(_text(part.get("text")) for part in value if isinstance(part, dict))
    return ""


def _is_call(delta: dict[str, Any]) -> bool:
    """Whether a piece of a tool call was generated: its name or its arguments."""
    calls = delta.get("tool_calls")
    parts = [call.get("function") for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []
    parts.append(delta.get("function_call"))
    return any(part.get("name") or part.get("arguments") for part in parts if isinstance(part, dict))


def _take_reason(tally: Tally, reason: Any) -> None:
    if isinstance(reason, dict):
        reason = reason.get("type")
    if tally.result.finish_reason is None:
        tally.result.finish_reason = str(reason)
    if reason == "error":
        tally.terminal, tally.error = False, "finish_reason: error"


def _take_counts(tally: Tally, message: dict[str, Any], choices: list[Any], *, final: bool) -> bool:
    """Whether `message` has token counts or server timings; they are taken."""
    counted, index = False, None
    if choices:
        first = choices[0].get("index") if isinstance(choices[0], dict) else 0
        index = first if type(first) is int else 0
    if usage := message.get("usage"):
        counted |= _take_usage(tally, usage, index, final=final)
    if timings := message.get("timings"):
        counted |= _take_timings(tally, timings, index, final=final)
    if isinstance(times := message.get("metrics"), dict):
        _take_spans(tally, times, VLLM_SPANS)
        counted = True
    if isinstance(times := message.get("stats"), dict):
        _take_spans(tally, times, LMSTUDIO_SPANS)
        counted = True
    return counted


def _take_usage(tally: Tally, usage: Any, index: int | None, *, final: bool) -> bool:
    """Whether `usage` holds counts; they are taken. A zero one holds none (Ollama puts one on every chunk)."""
    if not isinstance(usage, dict):
        return False
    prompt, completion = fields.count(usage.get("prompt_tokens")), fields.count(usage.get("completion_tokens"))
    if not (prompt or completion):
        return False
    if prompt is not None:
        tally.result.input_tokens = prompt
    details = usage.get("prompt_tokens_details")
    if isinstance(details, dict) and (cached := fields.count(details.get("cached_tokens"))) is not None:
        tally.result.cached_tokens = cached
    if completion is not None:
        tally.count(index, completion, final=final)
    return True


def _take_timings(tally: Tally, timings: Any, index: int | None, *, final: bool) -> bool:
    """Whether `timings` of llama.cpp holds counts, used where there is no usage, or durations; they are taken."""
    if not isinstance(timings, dict):
        return False
    result = tally.result
    cached, fresh = fields.count(timings.get("cache_n")), fields.count(timings.get("prompt_n"))
    if result.cached_tokens is None:
        result.cached_tokens = cached
    if result.input_tokens is None and fresh is not None:
        result.input_tokens = fresh + (cached or 0)
    if (predicted := fields.count(timings.get("predicted_n"))) is not None and not tally.final_count:
        tally.count(index, predicted, final=final)
    _take_spans(tally, timings, LLAMACPP_SPANS)
    return True


def _take_spans(tally: Tally, times: dict[str, Any], spans: dict[str, tuple[str, int]]) -> None:
    for name, (key, unit_ns) in spans.items():
        if (span := fields.span_ns(times.get(key), unit_ns)) is not None:
            setattr(tally.result, name, span)


def _take_native(tally: Tally, message: dict[str, Any]) -> None:
    """Take one event of llama.cpp's own /completion: running counts on each, `stop: true` on the last."""
    stop = message["stop"]
    kind = _keep(tally, 0, _text(message.get("content")))
    if stop:
        tally.terminal = True
        _take_reason(tally, NATIVE_REASONS.get(str(message.get("stop_type")), "stop"))
        tally.result.input_tokens = fields.count(message.get("tokens_evaluated"))
    if (predicted := fields.count(message.get("tokens_predicted"))) is not None:
        tally.count(0, predicted, final=stop)
    timings = message.get("timings")
    if timings:
        _take_timings(tally, timings, 0, final=stop)
    tally.kinds.append(USAGE if kind == EMPTY and stop else kind)


def _plain(kind: int, *way: str | int) -> tuple[Plain, Plain]:
    """Two templates of the text at `way`: without and with a role beside it."""
    return Plain(kind, EMPTY, (("choices", 0, *way),)), Plain(kind, ROLE, (("choices", 0, *way),))


PLAIN_TEXT = _plain(CONTENT, "text")[0]
PLAIN_CONTENT = _plain(CONTENT, "delta", "content")
PLAIN_REASONING = _plain(REASONING, "delta", "reasoning")
PLAIN_REASONING_CONTENT = _plain(REASONING, "delta", "reasoning_content")

RANK = {EMPTY: 0, ROLE: 1, TOOL: 2, REASONING: 3, CONTENT: 4}  # which kind names an event that holds several
NATIVE_REASONS = {"limit": "length"}  # eos and word are a stop

VLLM_SPANS = {
    "server_queue_ns": ("queue_time_ms", fields.NS_PER_MS),
    "server_prompt_eval_ns": ("time_to_first_token_ms", fields.NS_PER_MS),  # scheduled to first token, queue excluded
    "server_eval_ns": ("generation_time_ms", fields.NS_PER_MS),
}
LLAMACPP_SPANS = {
    "server_prompt_eval_ns": ("prompt_ms", fields.NS_PER_MS),
    "server_eval_ns": ("predicted_ms", fields.NS_PER_MS),
}
LMSTUDIO_SPANS = {
    "server_prompt_eval_ns": ("time_to_first_token", fields.NS_PER_S),
    "server_eval_ns": ("generation_time", fields.NS_PER_S),
}

FORM = Form("text/event-stream", blocks, open_block, _take)
