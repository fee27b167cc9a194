"""Bytes to events, without a socket or a clock: HTTP framing, SSE, NDJSON and one module per dialect.

The transport hands over a `Response`: the un-chunked body, and for each read how much of the body it completed.
A dialect turns it into a `Decoded`: which read each event came in, its kind, counts, timings and the outcome.
Nothing here knows when anything happened; the client joins reads to stamps.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from loadgen.record import NO_INT32, NO_UINT8, Int32, Int64, Outcome, TokensFrom, UInt8

__all__ = ["Ask", "Decoded", "Response", "Target"]


@dataclass(slots=True)
class Ask:
    """The content of one request: one of prompt, messages and prompt_ids is set. Treat as frozen, as a `Record`."""

    prompt: str | None = None
    messages: list[dict[str, Any]] | None = None
    prompt_ids: list[int] | None = None  # token ids, for servers that take them (vLLM completions)
    input_tokens: int | None = None  # the length the workload aimed at; None if it has none
    output_tokens: int | None = None  # the cap to request; None leaves it to the server
    session: str | None = None
    turn: int | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """The facts about a server that a dialect needs to build a request: no address, no secrets."""

    api: str  # openai | ollama | lmstudio
    kind: str  # vllm | sglang | llamacpp | llamacpp-python | transformers | ollama | lmstudio | openai (unknown)
    model: str
    path: str  # e.g. /v1/chat/completions, /api/chat, /api/generate, /api/v1/chat
    options: dict[str, Any] = field(default_factory=dict)  # merged into the body as they are (Ollama: into "options")
    force_length: bool = True  # ask for exactly output_tokens where the server can (ignore_eos, min_tokens)


@dataclass(slots=True)
class Response:
    """One HTTP answer as it stood when it ended, complete or not.

    read_ends: shape (reads,), ascending: bytes of `body` complete after each read; reads of the head alone end at 0.
    complete: the HTTP framing was seen to its end. False when the connection ended or was given up before.
    """

    status: int
    headers: dict[str, str]  # names in lower case
    body: bytes
    read_ends: Int64
    complete: bool


@dataclass(slots=True)
class Decoded:
    """A Response as its dialect reads it. Arrays have shape (events,), in order of arrival."""

    outcome: Outcome  # OK, EMPTY, HTTP_ERROR, SERVER_ERROR, TRUNCATED or PROTOCOL
    error: str | None = None  # one line, the server's own words first
    event_read: Int32 = field(default_factory=lambda: NO_INT32)  # index of the read that completed the event
    event_kind: UInt8 = field(default_factory=lambda: NO_UINT8)
    event_tokens: Int32 | None = None  # tokens each event carries, None where unknown
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    tokens_from: TokensFrom | None = None
    finish_reason: str | None = None
    server_load_ns: int | None = None
    server_prompt_eval_ns: int | None = None
    server_eval_ns: int | None = None
    server_queue_ns: int | None = None
    text: str | None = None  # joined answer text, only where the caller wants it (sessions need it)
