"""From a Response to a Decoded: the part that all dialects share.

A dialect brings two functions: one that cuts a body into messages, and `take`, which reads one parsed message into a
`Tally`. `decode` judges status and content type, feeds the messages to `take`, and settles outcome and token counts.

- Success needs a terminal marker, for every choice seen, and no error before it. `[DONE]` and a clean close prove
  nothing.
- A message that reports an error or cannot be parsed ends the reading and is not among the events.
- For a message that only brings text, `take` returns a `Plain`. The messages after it that are alike byte for byte are
  not parsed (templates.py); a run of them must leave the tally as `take` would have left it.
- Tokens, most trusted first: the server's final count, ids or running counts of the events, the number of events.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import orjson

from loadgen.record import IS_TOKEN, NO_INT32, TOKEN_KINDS, Int32, Int64, Kind, Outcome, TokensFrom
from loadgen.wire import Decoded, Response, fields, templates
from loadgen.wire.blocks import Blocks, Offsets, whole
from loadgen.wire.sse import DONE, is_whole

__all__ = ["Form", "Plain", "Tally", "decode"]

DROPPED = 255  # in Tally.kinds: not an event after all (a blank payload)
ONLY_DROPPED = bytes((DROPPED,))
WORTH_A_CUT = 8  # messages that must follow before a search for a run pays
MISSES = 3  # failed attempts to find a run before the search ends
FEW = 16  # events or reads below this: lists beat numpy
CONTENT = int(Kind.CONTENT)
# Bound once: looking a member up in its enum costs 0.1 µs in Python 3.11.
OK, USAGE = Outcome.OK, TokensFrom.USAGE
BEARING = tuple(map(int, TOKEN_KINDS))
ONE_IF_BEARING = IS_TOKEN.astype(np.int32)


class Plain(NamedTuple):
    """A message that did nothing but bring the text at the last of `paths`; others may differ in all of `paths`."""

    kind: int  # with text
    empty: int  # without
    paths: tuple[templates.Path, ...]


@dataclass(slots=True)
class Tally:
    """The content of the messages so far. `result` is filled as they come; the rest is needed to settle it."""

    result: Decoded
    kinds: bytearray = field(default_factory=bytearray)  # a Kind for each message taken
    texts: list[str] | None = None  # answer text, if kept
    tokens_by_event: dict[int, int] = field(
        default_factory=dict
    )  # event -> tokens in it, where the server reports them
    running: dict[int, int] = field(default_factory=dict)  # choice -> running count of its tokens
    choices: dict[int, bool] = field(default_factory=dict)  # choice -> whether it finished
    terminal: bool = False  # a terminal marker was seen
    final_count: bool = False  # result.output_tokens is the server's final count
    error: str | None = None
    outcome: Outcome = Outcome.SERVER_ERROR  # the outcome where `error` is set
    hint: str = ""  # words of a truncated stream that may explain it

    @property
    def finished(self) -> bool:
        return self.terminal and all(self.choices.values())

    def count(self, choice: int | None, tokens: int, *, final: bool) -> None:
        """Note the server's count of the tokens up to the current message: of `choice`, or of the whole answer."""
        self.result.output_tokens = tokens
        self.final_count |= final
        if choice is None:
            return
        here, before = len(self.kinds), self.running.get(choice, 0)
        self.running[choice] = tokens
        self.tokens_by_event.setdefault(here, tokens - before)  # ids of the same event are more exact
        if len(self.running) > 1:
            self.result.output_tokens = sum(self.running.values())


class Form(NamedTuple):
    """How a dialect frames and reads its answers."""

    content_type: str
    blocks: Callable[[bytes], Blocks]
    open: Callable[[bytes], tuple[bytes | None, str]]  # a block's payload, None if it has none, and its name
    take: Callable[[Tally, dict[str, Any], str], Plain | None]


def decode(response: Response, form: Form, *, keep_text: bool) -> Decoded:
    if not 200 <= response.status < 300:
        return Decoded(Outcome.HTTP_ERROR, _http_error(response))
    body, content_type = response.body, response.headers.get("content-type", "")
    if "html" in content_type:
        return Decoded(Outcome.PROTOCOL, _wrong_type(content_type, form, body))
    expected = content_type.startswith(form.content_type)
    tally, blocks = Tally(Decoded(OK), texts=[] if keep_text else None), None
    if expected or not _is_one_message(body):
        blocks = form.blocks(body)
        _read(tally, blocks, form)
    if body and not tally.kinds.strip(ONLY_DROPPED) and tally.error is None:
        # One JSON object under the name of a stream is an answer too, or an error sent without framing.
        if _is_one_message(body):
            tally.kinds.clear()
            blocks = whole(body)
            _read(tally, blocks, form._replace(open=_open_whole))
        elif response.complete and not expected:
            return Decoded(Outcome.PROTOCOL, _wrong_type(content_type, form, body))
    return _settle(tally, response, blocks.ends if blocks else [])


def _is_one_message(body: bytes) -> bool:
    return body.lstrip()[:1] == b"{" and is_whole(body)


def _open_whole(body: bytes) -> tuple[bytes | None, str]:
    return body, ""


def _read(tally: Tally, blocks: Blocks, form: Form) -> None:
    text, starts, stops = blocks.text, blocks.starts, blocks.stops
    at, total, misses, open_block, loads = 0, len(starts), 0, form.open, orjson.loads
    while at < total:
        block = text[starts[at] : stops[at]]
        data, name = open_block(block)
        if data == DONE:
            return
        at += 1
        if data is None:
            tally.kinds.append(DROPPED)
            continue
        try:
            message = loads(data)
        except orjson.JSONDecodeError:
            message = _repaired(data)
        if type(message) is dict:
            plain = form.take(tally, message, name)
        else:
            plain = None
            _note_unreadable(tally, data, name)
        if tally.error is not None:
            return
        if plain is None or total - at < WORTH_A_CUT or misses >= MISSES:
            continue
        texts = _like(blocks, at, block, data, message, plain)
        misses = 0 if len(texts) >= WORTH_A_CUT else misses + 1
        _take_run(tally, plain, texts)
        at += len(texts)


def _repaired(data: bytes) -> Any:
    try:
        return fields.parse(data)
    except orjson.JSONDecodeError:
        return None


def _note_unreadable(tally: Tally, data: bytes, name: str) -> None:
    """Drop a blank message; any other that is not a JSON object ends the reading."""
    if not data.strip():
        tally.kinds.append(DROPPED)
        return
    tally.error = fields.one_line(data.decode("utf-8", "replace"))
    if name != "error":
        tally.error, tally.outcome = f"not a JSON object: {tally.error}", Outcome.PROTOCOL


def _like(blocks: Blocks, at: int, block: bytes, data: bytes, message: dict[str, Any], plain: Plain) -> list[bytes]:
    """The texts of the blocks from `at` on that are like `block`, whose payload is `data`."""
    cut = templates.cut(data, message, plain.paths) if block.endswith(data) else None
    if cut is None:
        return []
    parts, hole = cut
    parts[0] = block[: len(block) - len(data)] + parts[0]
    return templates.run(blocks, at, parts, hole)


def _take_run(tally: Tally, plain: Plain, texts: list[bytes]) -> None:
    """Take messages like `plain` with other `texts`, given as raw JSON strings without quotes."""
    if all(texts):
        tally.kinds += bytes((plain.kind,)) * len(texts)
    else:
        tally.kinds += bytes([plain.kind if text else plain.empty for text in texts])
    if tally.texts is not None and plain.kind == CONTENT and texts:
        tally.texts += orjson.loads(b'["%b"]' % b'","'.join(texts))


def _settle(tally: Tally, response: Response, ends: Offsets) -> Decoded:
    result, kinds, finished = tally.result, tally.kinds, tally.finished
    bearing = sum(map(kinds.count, BEARING))
    result.event_read = _event_read(ends[: len(kinds)], response.read_ends)
    result.event_kind = np.frombuffer(kinds, np.uint8)
    _count_tokens(tally, bearing, final=finished or tally.final_count)
    if DROPPED in kinds:
        is_event = result.event_kind != DROPPED
        result.event_read, result.event_kind = result.event_read[is_event], result.event_kind[is_event]
        result.event_tokens = None if result.event_tokens is None else result.event_tokens[is_event]
    if tally.texts is not None:
        result.text = "".join(tally.texts)
    if finished:
        result.outcome = OK if bearing or result.output_tokens else Outcome.EMPTY
    elif tally.error is not None:
        result.outcome, result.error = tally.outcome, tally.error
    else:
        result.outcome, result.error = Outcome.TRUNCATED, _truncated(tally, response)
    return result


def _count_tokens(tally: Tally, bearing: int, *, final: bool) -> None:
    result, counts = tally.result, tally.tokens_by_event
    counted = result.output_tokens if final else None  # a count that came with the text is only a running one
    within = bool(counts) and _covers(tally, counted)
    if counted is not None:
        result.tokens_from = USAGE
    elif within:
        result.output_tokens, result.tokens_from = sum(counts.values()), TokensFrom.IDS
    else:
        result.output_tokens, result.tokens_from = (bearing, TokensFrom.EVENTS) if bearing else (None, None)
    if within:
        result.event_tokens = tokens = np.zeros(len(tally.kinds), np.int32)
        tokens[list(counts)] = list(counts.values())
    elif bearing and counted == bearing:
        result.event_tokens = ONE_IF_BEARING.take(result.event_kind)


def _covers(tally: Tally, counted: int | None) -> bool:
    """Whether the counts per event can be trusted: each event that bears tokens has one, and they add up."""
    counts, total = tally.tokens_by_event, sum(tally.tokens_by_event.values())
    if total <= 0 or min(counts.values()) < 0 or (counted is not None and total > counted):
        return False
    return all(at in counts for at, kind in enumerate(tally.kinds) if kind in BEARING)


def _event_read(ends: Offsets, read_ends: Int64) -> Int32:
    """The index of the read that completed each event."""
    events, reads = len(ends), len(read_ends)
    if not events:
        return NO_INT32
    if reads <= 1:
        return np.zeros(events, np.int32)
    if events < FEW and reads < FEW:
        bounds = read_ends.tolist()
        return np.array([min(bisect_left(bounds, end), reads - 1) for end in ends], np.int32)
    index = read_ends.searchsorted(ends).astype(np.int32)
    return index if index[-1] < reads else np.minimum(index, reads - 1)


def _http_error(response: Response) -> str:
    reason = fields.reason_in_body(response.body)
    return f"{reason} (HTTP {response.status})" if reason else f"HTTP {response.status}"


def _wrong_type(content_type: str, form: Form, body: bytes) -> str:
    said = fields.reason_in_body(body)
    note = f"expected {form.content_type}, got {content_type or 'no content type'}"
    return f"{said} ({note})" if said else note


def _truncated(tally: Tally, response: Response) -> str:
    how = "the answer ended" if response.complete else "the connection ended"
    what = "with no event" if not tally.kinds else "without a terminal marker"
    return f"{tally.hint}: {how} {what}" if tally.hint else f"{how} {what}"
