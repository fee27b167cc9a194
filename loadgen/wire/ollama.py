"""Ollama's own API: /api/chat and /api/generate, NDJSON lines up to one with `done: true`.

`target.options` are model options and go into the body's "options"; the few that Ollama wants beside it (keep_alive,
think, raw and so on) go there. There is no way to force a length. The last line reports counts and durations; the
rest of the total is the wait for a slot. All of them are left out when zero.
"""

from __future__ import annotations

from typing import Any

import orjson

from loadgen.record import Kind
from loadgen.wire import Ask, Decoded, Response, Target, fields
from loadgen.wire.answer import Form, Plain, Tally
from loadgen.wire.answer import decode as decode_answer
from loadgen.wire.ndjson import blocks, open_line

__all__ = ["DEFAULT_PATH", "GENERATE_PATH", "decode", "request_body"]

DEFAULT_PATH = "/api/chat"
GENERATE_PATH = "/api/generate"

BESIDE_OPTIONS = frozenset(
    {"format", "images", "keep_alive", "logprobs", "raw", "shift", "stream", "suffix"}
    | {"system", "template", "think", "tools", "top_logprobs", "truncate"}
)


def request_body(ask: Ask, target: Target) -> bytes:
    if (ask.prompt is None) == (ask.messages is None) or ask.prompt_ids is not None:
        raise ValueError("Ollama takes exactly one of prompt and messages, and no token ids")
    body: dict[str, Any] = {"model": target.model}
    if target.path.endswith("/generate"):
        if ask.messages is not None:
            raise ValueError(f"{target.path} takes a prompt, not messages; use {DEFAULT_PATH}")
        body["prompt"] = ask.prompt
    else:
        body["messages"] = ask.messages or [{"role": "user", "content": ask.prompt}]
    body["stream"] = True
    options: dict[str, Any] = {"temperature": 0}
    if ask.output_tokens is not None:
        options["num_predict"] = ask.output_tokens
    for key, value in target.options.items():
        (body if key in BESIDE_OPTIONS else options)[key] = value
    body["options"] = {key: value for key, value in options.items() if value is not None}
    return orjson.dumps(body)


def decode(response: Response, *, keep_text: bool = False) -> Decoded:
    return decode_answer(response, FORM, keep_text=keep_text)


def _take(tally: Tally, message: dict[str, Any], name: str) -> Plain | None:
    if (error := fields.error_in(message)) is not None:
        tally.error = error
        return None
    inner = message.get("message")
    chat = isinstance(inner, dict)
    bearer: dict[str, Any] = inner if isinstance(inner, dict) else message
    text, thought = bearer.get("content" if chat else "response"), bearer.get("thinking")
    text = text if isinstance(text, str) else ""
    called = bool(bearer.get("tool_calls"))
    if text and tally.texts is not None:
        tally.texts.append(text)
    kind = CONTENT if text else REASONING if thought else TOOL if called else EMPTY
    if message.get("done") is True:
        kind = USAGE if _take_last(tally, message) and kind == EMPTY else kind
        tally.kinds.append(kind)
        return None
    tally.kinds.append(kind)
    if called or (text and thought) or kind == EMPTY:
        return None
    return PLAIN[chat, kind]


def _take_last(tally: Tally, last: dict[str, Any]) -> bool:
    """Whether the last line has token counts; they and the durations are taken."""
    result = tally.result
    tally.terminal = True
    reason = last.get("done_reason")
    result.finish_reason = reason if isinstance(reason, str) else None
    result.input_tokens = fields.count(last.get("prompt_eval_count"))
    result.cached_tokens = fields.count(last.get("prompt_eval_cached_count"))
    if (tokens := fields.count(last.get("eval_count"))) is not None:
        tally.count(0, tokens, final=True)
    total, load, prompt_eval, evaluated = (
        fields.span_ns(last.get(f"{part}_duration"), 1) for part in ("total", "load", "prompt_eval", "eval")
    )
    result.server_load_ns, result.server_prompt_eval_ns, result.server_eval_ns = load, prompt_eval, evaluated
    if total is not None:
        waited = total - (load or 0) - (prompt_eval or 0) - (evaluated or 0)
        result.server_queue_ns = waited if waited > 0 else None
    return tokens is not None or result.input_tokens is not None


ROLE, EMPTY, REASONING, CONTENT, TOOL, USAGE = (int(kind) for kind in Kind)
TIME = ("created_at",)  # differs from line to line and is not used
PLAIN = {
    (True, CONTENT): Plain(CONTENT, EMPTY, (TIME, ("message", "content"))),
    (True, REASONING): Plain(REASONING, EMPTY, (TIME, ("message", "thinking"))),
    (False, CONTENT): Plain(CONTENT, EMPTY, (TIME, ("response",))),
    (False, REASONING): Plain(REASONING, EMPTY, (TIME, ("thinking",))),
}

FORM = Form("application/x-ndjson", blocks, open_line, _take)
