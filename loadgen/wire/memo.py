"""The parts that requests, or short answers, have in common are worked out once.

Requests of one target that ask for the same number of tokens have the same bytes around their prompts.

Short answers that differ only in ids, times and words decode alike, so each shape of answer is decoded once.
Decoding a short answer costs more than receiving it. The first of a shape is decoded and cut around the values that no
decoder reads: ids, creation times and the characters of non-empty text. A later answer that consists of the same parts,
byte for byte, around other such values has the same result. A value must be plain ASCII without quote or backslash, so
that it is one whole JSON string (or number) for certain; every other answer is decoded in full.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import orjson

from loadgen.wire import Ask, Decoded, Response, Target

__all__ = ["remembering", "repeating"]

MARK = "\ue000the prompt\ue000"  # private use: no option of a target holds it by chance
MOST_LENGTHS = 4096
LONGEST_AROUND = 16_384  # bytes: with images among the options it is not kept
PLAIN = rb'[^"\\\x00-\x1f\x7f-\xff]+'
NUMBER = rb"[0-9]+"
LONGEST_BODY = 2048
TAIL_BYTES = 64  # holds the usage counts, which differ between most shapes, and no id
MOST_SHAPES = 1024
TRIALS = 256  # answers after which, with hits in less than half of them, the memory is given up
_VALUE = re.compile(
    rb'"(?:id|created_at)":"(?P<id>[^"\\]*)"|"created":(?P<number>\d+)|"(?:content|text)":"(?P<text>[^"\\]+)"'
)


@dataclass(slots=True)
class Known:
    """An answer that was decoded, and the test for others like it, made when it is first needed: it costs 1 ms."""

    status: int
    content_type: str | None
    body: bytes
    decoded: Decoded
    fits: Callable[[bytes], object] | None = None  # truthy if it does

    def is_like(self, response: Response) -> bool:
        if self.status != response.status or self.content_type != response.headers.get("content-type"):
            return False
        if self.fits is None:
            self.fits = _shape(self.body)
        return bool(self.fits(response.body))


def remembering(decode: Callable[[Response], Decoded]) -> Callable[[Response], Decoded]:
    """`decode` with a memory for short answers that came complete and in one read.

    The arrays of a remembered Decoded are shared and must not be written to.
    """
    known: dict[bytes, Known] = {}
    hits = misses = 0

    def decoded(response: Response) -> Decoded:
        nonlocal hits, misses
        body = response.body
        if len(body) > LONGEST_BODY or len(response.read_ends) != 1 or not response.complete or misses - hits > TRIALS:
            return decode(response)
        tail = body[-TAIL_BYTES:]
        entry = known.get(tail)
        if entry is not None and entry.is_like(response):
            hits += 1
            return entry.decoded
        misses += 1
        result = decode(response)
        if len(known) < MOST_SHAPES:
            known[tail] = Known(response.status, response.headers.get("content-type"), body, result)
        return result

    return decoded


def _shape(body: bytes) -> Callable[[bytes], object]:
    """A test whether another body consists of the same parts as `body` around other values; its result is truthy."""
    parts, at = [], 0
    for value in _VALUE.finditer(body):
        begin, end = value.span(value.lastgroup or 0)
        parts += [re.escape(body[at:begin]), NUMBER if value.lastgroup == "number" else PLAIN]
        at = end
    return re.compile(b"".join([*parts, re.escape(body[at:])])).fullmatch


def repeating(request_body: Callable[[Ask, Target], bytes], target: Target) -> Callable[[Ask], bytes]:
    """`request_body` for one target, which puts a prompt between the bytes that surround every prompt."""
    around: dict[int | None, list[bytes]] = {}  # the bytes before and after the prompt, by output_tokens

    def body(ask: Ask) -> bytes:
        if ask.prompt is None or ask.messages is not None or ask.prompt_ids is not None:
            return request_body(ask, target)
        pieces = around.get(ask.output_tokens)
        if pieces is None:
            pieces = request_body(replace(ask, prompt=MARK), target).split(orjson.dumps(MARK))
            if len(around) < MOST_LENGTHS and sum(map(len, pieces)) < LONGEST_AROUND:
                around[ask.output_tokens] = pieces
        if len(pieces) != 2:  # an option of the target takes the prompt's place
            return request_body(ask, target)
        return pieces[0] + orjson.dumps(ask.prompt) + pieces[1]

    return body
