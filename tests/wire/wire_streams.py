"""Answers to decode, written from the shapes in the servers' sources; shared by the tests of the dialects."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from loadgen.record import Kind
from loadgen.wire import Decoded, Response

SSE, NDJSON, JSON = "text/event-stream; charset=utf-8", "application/x-ndjson", "application/json"
DONE = "[DONE]"


def dumps(message: Any) -> str:
    return message if isinstance(message, str) else json.dumps(message, separators=(",", ":"), ensure_ascii=False)


def sse(*messages: Any, end: str = "\n") -> bytes:
    return "".join(f"data: {dumps(message)}{end}{end}" for message in messages).encode()


def named(*messages: dict[str, Any]) -> bytes:
    return "".join(f"event: {message['type']}\ndata: {dumps(message)}\n\n" for message in messages).encode()


def ndjson(*messages: Any) -> bytes:
    return "".join(dumps(message) + "\n" for message in messages).encode()


def answer(
    body: bytes, content_type: str = SSE, *, status: int = 200, complete: bool = True, reads: list[int] | None = None
) -> Response:
    """A response read in one piece, or in pieces that end at `reads`."""
    ends = np.array([len(body)] if reads is None else reads, np.int64)
    return Response(status, {"content-type": content_type}, body, ends, complete)


def chunk(
    delta: dict[str, Any] | None = None, finish: str | None = None, index: int = 0, **more: Any
) -> dict[str, Any]:
    """A chat chunk as vLLM sends it."""
    choice = {"index": index, "delta": delta or {}, "logprobs": None, "finish_reason": finish}
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1790000000, "model": "m"}
    return {**head, "choices": [choice], **more}


def usage(prompt: int, completion: int, **more: Any) -> dict[str, Any]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion, **more}


def tail(**more: Any) -> dict[str, Any]:
    """The chunk without choices which carries usage."""
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1790000000, "model": "m"}
    return {**head, "choices": [], **more}


ROLE_CHUNK = chunk({"role": "assistant", "content": ""})


def kinds(decoded: Decoded) -> list[str]:
    return [Kind(int(kind)).name.lower() for kind in decoded.event_kind]


def tokens(decoded: Decoded) -> list[int] | None:
    return None if decoded.event_tokens is None else decoded.event_tokens.tolist()


def as_facts(decoded: Decoded) -> dict[str, Any]:
    """Everything in a Decoded, comparable with ==."""
    names = [name for name in Decoded.__slots__ if not name.startswith("event_")]
    arrays = {"event_read": decoded.event_read.tolist(), "event_kind": decoded.event_kind.tolist()}
    dtypes = [str(decoded.event_read.dtype), str(decoded.event_kind.dtype)]
    return {name: getattr(decoded, name) for name in names} | arrays | {"tokens": tokens(decoded), "dtypes": dtypes}
