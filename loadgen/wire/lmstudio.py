"""LM Studio's own API: POST /api/v1/chat with named events, ended by `chat.end`.

`chat.end` also follows an `error` event, so it is a success only without one before it. The data repeats the event's
name as `type`. The route takes text, not a history of roles: a system message becomes `system_prompt`, the others
become items of `input` in their order; sessions that need roles go to /v1/chat/completions. It can neither force a
length nor fix a seed.
Paths of the OpenAI shape (/v1, /api/v0) are left to openai.py.
"""

from __future__ import annotations

from typing import Any

import orjson

from loadgen.record import Kind
from loadgen.wire import Ask, Decoded, Response, Target, fields
from loadgen.wire.answer import Form, Plain, Tally
from loadgen.wire.answer import decode as decode_answer
from loadgen.wire.sse import blocks, open_block

__all__ = ["DEFAULT_PATH", "decode", "request_body"]

DEFAULT_PATH = "/api/v1/chat"


def request_body(ask: Ask, target: Target) -> bytes:
    if (ask.prompt is None) == (ask.messages is None) or ask.prompt_ids is not None:
        raise ValueError("LM Studio takes exactly one of prompt and messages, and no token ids")
    body: dict[str, Any] = {"model": target.model}
    if ask.messages is None:
        body["input"] = ask.prompt
    else:
        body |= _from_messages(ask.messages)
    body |= {"stream": True, "store": False, "temperature": 0}
    if ask.output_tokens is not None:
        body["max_output_tokens"] = ask.output_tokens
    body |= target.options
    return orjson.dumps({key: value for key, value in body.items() if value is not None})


def decode(response: Response, *, keep_text: bool = False) -> Decoded:
    return decode_answer(response, FORM, keep_text=keep_text)


def _from_messages(messages: list[dict[str, Any]]) -> dict[str, Any]:
    system = [_text(message) for message in messages if message.get("role") in ("system", "developer")]
    items = [
        item for message in messages if message.get("role") not in ("system", "developer") for item in _items(message)
    ]
    lone = len(items) == 1 and items[0]["type"] == "message"
    return {"system_prompt": "\n\n".join(system) or None, "input": items[0]["content"] if lone else items}


def _text(message: dict[str, Any]) -> str:
    return "".join(str(item.get("content", "")) for item in _items(message))


def _items(message: dict[str, Any]) -> list[dict[str, Any]]:
    content = message.get("content")
    if not isinstance(content, list):
        return [{"type": "message", "content": content or ""}]
    return [
        {"type": "image", "data_url": part["image_url"]["url"]}
        if part.get("type") == "image_url"
        else {"type": "message", "content": part.get("text", "")}
        for part in content
    ]


def _take(tally: Tally, message: dict[str, Any], name: str) -> Plain | None:
    kind = message.get("type")
    sort = kind if isinstance(kind, str) else name
    error = fields.error_in(message)
    if error is not None or sort == "error" or name == "error":
        tally.error = error or fields.reason_in_body(orjson.dumps(message)) or "error without a message"
        return None
    if plain := DELTAS.get(sort):
        text = message.get("content")
        bears = isinstance(text, str) and text != ""
        if bears and plain.kind == CONTENT and tally.texts is not None:
            tally.texts.append(str(text))
        tally.kinds.append(plain.kind if bears else EMPTY)
        return plain if bears else None
    if sort == "chat.end":
        tally.terminal = True
        tally.kinds.append(USAGE)
        _take_result(tally, message.get("result"))
    elif sort == "model_load.end":
        tally.result.server_load_ns = fields.span_ns(message.get("load_time_seconds"), fields.NS_PER_S)
        tally.kinds.append(EMPTY)
    elif "output" in message:
        _take_whole(tally, message)
    else:
        tally.kinds.append(TOOL if sort == "tool_call.arguments" else EMPTY)
    return None


def _take_whole(tally: Tally, message: dict[str, Any]) -> None:
    """Take a reply that was not streamed: one event with everything in it."""
    tally.terminal = True
    kinds = [EMPTY]
    for item in message["output"] if isinstance(message["output"], list) else []:
        if not isinstance(item, dict):
            continue
        kind, content = OUTPUTS.get(str(item.get("type")), EMPTY), item.get("content")
        if kind == CONTENT and isinstance(content, str) and tally.texts is not None:
            tally.texts.append(content)
        if kind == TOOL or (isinstance(content, str) and content):
            kinds.append(kind)
    _take_result(tally, message, choice=0)
    tally.kinds.append(CONTENT if CONTENT in kinds else kinds[-1])


def _take_result(tally: Tally, result: Any, choice: int | None = None) -> None:
    stats = result.get("stats") if isinstance(result, dict) else None
    if not isinstance(stats, dict):
        return
    tally.result.input_tokens = fields.count(stats.get("input_tokens"))
    if (tokens := fields.count(stats.get("total_output_tokens"))) is not None:
        tally.count(choice, tokens, final=True)
    tally.result.server_prompt_eval_ns = fields.span_ns(stats.get("time_to_first_token_seconds"), fields.NS_PER_S)
    if (load := fields.span_ns(stats.get("model_load_time_seconds"), fields.NS_PER_S)) is not None:
        tally.result.server_load_ns = load


ROLE, EMPTY, REASONING, CONTENT, TOOL, USAGE = (int(kind) for kind in Kind)
DELTAS = {
    "message.delta": Plain(CONTENT, EMPTY, (("content",),)),
    "reasoning.delta": Plain(REASONING, EMPTY, (("content",),)),
}
OUTPUTS = {"message": CONTENT, "reasoning": REASONING, "tool_call": TOOL}

FORM = Form("text/event-stream", blocks, open_block, _take)
