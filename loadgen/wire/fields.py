"""The error in a server's answer, in one line, and the numbers it reports, if they are numbers.

Servers disagree on the shape of an error: nested (`{"error": {"message": ...}}`), a string (`{"error": "..."}`), flat
(`{"object": "error", "message": ...}`), `{"detail": ...}`, `error_message`, HTML of a proxy, plain text. Whatever it
is, it is a measurement, so only `parse` raises.
"""

from __future__ import annotations

import math
import re
from typing import Any

import orjson

from loadgen.record import NS_PER_MS, NS_PER_S

__all__ = ["NS_PER_MS", "NS_PER_S", "count", "error_in", "number", "one_line", "parse", "reason_in_body", "span_ns"]

LONGEST = 300  # characters of a server's message that a record keeps

HTML_TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)
HTML_TAG = re.compile(r"<[^>]*>")


def parse(data: bytes) -> Any:
    """The value of some JSON; broken UTF-8 becomes U+FFFD, as in event streams. Raises orjson.JSONDecodeError."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        try:
            data.decode()
        except UnicodeDecodeError:
            return orjson.loads(data.decode("utf-8", "replace"))
        raise


def error_in(message: dict[str, Any]) -> str | None:
    """The error that a message of the stream reports, None if it reports none."""
    if error := message.get("error"):
        return _words(error) or one_line(_dump(error))
    if said := message.get("error_message"):
        return _words(said) or one_line(_dump(said))
    if message.get("object") == "error":
        return _words(message) or "error without a message"
    return None


def reason_in_body(body: bytes) -> str:
    """The server's own words from the body of a failed answer, in one line; "" if there are none."""
    try:
        parsed = parse(body)
    except orjson.JSONDecodeError:
        return _from_text(body[:65536].decode("utf-8", "replace"))
    return _words(parsed) or one_line(_dump(parsed))


def one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"


def number(value: Any) -> float | None:
    """A finite, non-negative number, or None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        return None
    return value


def count(value: Any) -> int | None:
    if type(value) is int and value >= 0:
        return value
    valid = number(value)
    return None if valid is None else int(valid)


def span_ns(value: Any, unit_ns: int) -> int | None:
    """The duration `value`, given in units of `unit_ns` nanoseconds, in nanoseconds; None where it is no number."""
    valid = number(value)
    return None if valid is None else round(valid * unit_ns)


def _words(error: Any) -> str:
    """The message inside an error of any known shape, "" if there is none."""
    if isinstance(error, str):
        return one_line(error)
    if isinstance(error, list):
        return one_line("; ".join(filter(None, map(_words, error))))
    if not isinstance(error, dict):
        return ""
    for key in ("error", "message", "error_message", "detail", "msg"):
        if words := _words(error.get(key)):
            where = error.get("loc")
            return f"{words} ({'.'.join(map(str, where))})" if isinstance(where, list) and where else words
    return ""


def _from_text(text: str) -> str:
    title = HTML_TITLE.search(text)
    if title:
        return one_line(title[1])
    return one_line(HTML_TAG.sub(" ", text))


def _dump(error: Any) -> str:
    return "" if error in (None, "", {}, []) else orjson.dumps(error).decode()
