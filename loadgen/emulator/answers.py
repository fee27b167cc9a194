"""Answers that a dialect hands to the server: a `Reply` that is ready, or a `Generation` the physics will time.

A generation is bytes only: it knows the bytes of the opening, each token and the ending, never when they are sent.
Payloads are unframed (no chunk sizes), so that faults can rewrite, split or merge them; the server frames. The events
of one answer are `before + words + after`, which the server turns into constant bytes around one word.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from .http import Reply, Request
from .physics import Job, Physics
from .text import count_tokens, words

__all__ = ["Counters", "Delayed", "Generation", "Site"]


@dataclass(slots=True)
class Counters:
    """Totals over the server's life, for its metrics pages."""

    prompt_tokens: int = 0
    generation_tokens: int = 0
    cached_tokens: int = 0
    finished: dict[str, int] = field(default_factory=lambda: {"stop": 0, "length": 0, "abort": 0, "error": 0})
    ttft_s: float = 0.0
    e2e_s: float = 0.0
    queue_s: float = 0.0


@dataclass(slots=True)
class Site:
    """The facts about the server that its dialects use."""

    presents: str  # which server it claims to be
    model: str
    physics: Physics
    max_model_len: int
    counters: tuple[Counters, ...]  # one per instance
    created_s: int = field(default_factory=lambda: int(time.time()))
    answered: int = 0  # requests seen so far; numbers the ids that clients are given

    def next_id(self, request: Request) -> str:
        """The request's own id, or a fresh one."""
        self.answered += 1
        given = request.header(b"x-request-id")
        return given.decode("latin-1") if given else f"{self.answered:012x}"


@dataclass(frozen=True, slots=True)
class Delayed:
    """A reply that waits for an instant, such as the end of a model's loading."""

    reply: Reply
    at_ns: int


class Generation:
    """An answer that takes time. Dialects override the methods; the defaults fit a stream of templated events."""

    content_type = "text/event-stream; charset=utf-8"
    head_extra = ""
    head_early = False  # headers leave as soon as the request is accepted, before the first token
    close_after = False  # after a streamed answer the connection is closed without having said so
    before = b""
    after = b""
    plain = True  # an event is exactly before + words + after

    def __init__(self, site: Site, body: dict[str, Any], prompt: object, limit: int | None, *, stream: bool) -> None:
        self.site = site
        self.body = body
        self.prompt = prompt
        self.prompt_tokens = count_tokens(prompt)
        self.limit = limit
        self.ignore_eos = bool(body.get("ignore_eos"))
        self.stream = stream
        self.ended_itself = False  # set when the length is drawn: whether it ends by itself, not by its limit

    @property
    def finish_reason(self) -> str:
        return "stop" if self.ended_itself else "length"

    def preface(self, job: Job) -> list[bytes]:
        """The events that leave with the head, where the head leaves early."""
        return []

    def opening(self, job: Job) -> list[bytes]:
        """The events that precede the first token and are sent with it."""
        return []

    def event(self, first: int, count: int) -> bytes:
        """The event that carries tokens `first` to `first + count - 1`; never the last ones."""
        return self.before + words(first, count) + self.after

    def ending(self, first: int, count: int, job: Job) -> list[bytes]:
        """The events from the last tokens to the terminal marker; the first carries the tokens."""
        raise NotImplementedError

    def whole(self, job: Job) -> Reply:
        """The answer in one piece, for a request without streaming."""
        raise NotImplementedError

    def failure(self, message: str) -> list[bytes]:
        """The events by which this server reports an error inside a stream."""
        raise NotImplementedError
