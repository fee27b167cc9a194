"""Runs of look-alike messages: understand one by parsing it, recognise those that differ only in a string.

The messages of one answer mostly share every byte but the text of one string (and, with Ollama, a time). `cut` takes a
parsed message apart around such strings; `run` finds how many of the following messages have the same bytes
around them and lets only those through whose strings are sound JSON. What passes parses to the same object with other
strings in those places, so a dialect that understood the first one has understood all of them, without a guess.

Why that holds: a message is let through only if it is part + string + part [+ string + part], byte for byte, each
string a complete JSON string body. `cut` has proved, by parsing the parts with other strings between them, that the
parts leave a parser inside these very strings. Everything else is left to the full parser.
"""

from __future__ import annotations

import re
from functools import cache
from itertools import takewhile
from typing import Any

import orjson

from loadgen.wire.blocks import Blocks

__all__ = ["Path", "cut", "run"]

Path = tuple[str | int, ...]

PROBE = "~other text~"
# Characters not allowed in a JSON string; a backslash is legal, but only the parser can judge what follows it.
UNSAFE = bytes(range(32)) + b'"\\'
BLOCK = 64  # messages compared at once; doubles, so that a failure costs no more than what was gained
MOST = 256  # of them at once: about 64 KB, see blocks.WINDOW
TAIL = 4  # finish, usage and the like: how many other messages to expect at the end


def cut(data: bytes, message: Any, paths: tuple[Path, ...]) -> tuple[list[bytes], int] | None:
    """The bytes around the strings at `paths`, and which of these strings the last path names.

    None where the strings cannot be found in the bytes beyond doubt.
    """
    spans: list[tuple[int, int, Path]] = []
    for path in paths:
        found = _string_after(str(path[-1])).search(data)
        if found is None:
            return None
        spans.append((*found.span(1), path))
    spans.sort(key=lambda span: span[0])
    parts, at = [], 0
    for start, stop, _ in spans:
        parts.append(data[at:start])
        at = stop
    parts.append(data[at:])
    if not _is_proved(parts, message, paths):
        return None
    return parts, [path for _, _, path in spans].index(paths[-1])


def run(blocks: Blocks, at: int, parts: list[bytes], hole: int) -> list[bytes]:
    """The string in `hole` of each block from `at` on, up to the first that is not like `parts`.

    parts: with the framing of the block. The strings are raw JSON string bodies, without quotes, and sound.
    """
    middles = _middles(blocks, at, parts[0], parts[-1])
    if len(parts) == 2:
        return middles[: _sound(middles)]
    columns = [[], []] if not middles else [list(c) for c in zip(*(_halves(m, parts[1]) for m in middles), strict=True)]
    return columns[hole][: min(map(_sound, columns))]


@cache
def _string_after(key: str) -> re.Pattern[bytes]:
    return re.compile(rb'"%s"\s*:\s*"((?:[^"\\]|\\.)*)"' % re.escape(key.encode()))


def _is_proved(parts: list[bytes], message: Any, paths: tuple[Path, ...]) -> bool:
    """Whether another string between the parts arrives at each path: a parser is inside it where a part ends."""
    try:
        probe = orjson.loads(PROBE.encode().join(parts))
        return all(_at(probe, path) == PROBE != _at(message, path) for path in paths)
    except (orjson.JSONDecodeError, LookupError, TypeError):
        return False


def _at(message: Any, path: Path) -> Any:
    for step in path:
        message = message[step]
    return message


def _middles(blocks: Blocks, at: int, first: bytes, last: bytes) -> list[bytes]:
    """The bytes between `first` and `last` in each block from `at` on, up to a block that lacks them.

    Proved for many blocks at once: they are joined again with those ends between them, at the speed of memcmp.
    """
    text, starts, stops, _, gap = blocks
    end = len(starts)
    for _ in range(TAIL):
        if end > at and not _is_like(text, starts[end - 1], stops[end - 1], first, last):
            end -= 1
    middles: list[bytes] = []
    between, size, left, right = last + gap + first, BLOCK, len(first), len(last)
    while at < end:
        past = min(at + size, end)
        inner = [text[start + left : stop - right] for start, stop in zip(starts[at:past], stops[at:past], strict=True)]
        joined, begin, end_of = between.join(inner), starts[at] + left, stops[past - 1] - right
        # A block too short for both parts gives an empty middle here, and makes `joined` too long.
        if not (
            len(joined) == end_of - begin
            and text.startswith(joined, begin)
            and text.startswith(first, begin - left)
            and text.startswith(last, end_of)
        ):
            like = (_is_like(text, starts[i], stops[i], first, last) for i in range(at, past))
            return middles + [middle for middle, _ in zip(inner, takewhile(bool, like), strict=False)]
        middles += inner
        at, size = past, min(size * 2, MOST)
    return middles


def _is_like(text: bytes, start: int, stop: int, first: bytes, last: bytes) -> bool:
    fits = stop - start >= len(first) + len(last)
    return bool(fits and text.startswith(first, start) and text.endswith(last, start, stop))


def _halves(middle: bytes, part: bytes) -> tuple[bytes, bytes]:
    """`middle` before and after `part`; where it is missing, a string that is not sound."""
    before, found, after = middle.partition(part)
    return (before, after) if found else (b'"', b'"')


def _sound(strings: list[bytes]) -> int:
    """The number of `strings`, from the first on, that are JSON string bodies."""
    if _is_plain(b" ".join(strings)):
        return len(strings)
    plain = [string for string in strings if b"\\" not in string]
    fine = _is_plain(b" ".join(plain))
    for count, string in enumerate(strings):
        if (not fine or b"\\" in string) and not _is_string(string):
            return count
    return len(strings)


def _is_plain(raw: bytes) -> bool:
    return len(raw.translate(None, UNSAFE)) == len(raw) and _is_utf8(raw)


def _is_utf8(raw: bytes) -> bool:
    if raw.isascii():
        return True
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_string(raw: bytes) -> bool:
    try:
        orjson.loads(b'"%b"' % raw)
    except orjson.JSONDecodeError:
        return False
    return True
