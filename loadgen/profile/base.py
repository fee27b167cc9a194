"""What the models of a profile share: strict and frozen, unknown keys named first, faults that become one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Annotated, Any, NoReturn
from urllib.parse import SplitResult, urlsplit

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

__all__ = [
    "MOST_TOKENS",
    "Count",
    "Model",
    "Positive",
    "Tokens",
    "brief",
    "did_you_mean",
    "fault",
    "http_parts",
    "not_one_of",
    "unknown_key",
]

MOST_TOKENS = 10_000_000

Tokens = Annotated[int, Field(ge=1, le=MOST_TOKENS)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


def fault(text: str, at: str = "") -> NoReturn:
    """Raise what `faults.one_line` prints as `<file>: <path>[.at] <text>`."""
    raise PydanticCustomError("profile", "{text}", {"text": text, "at": at})


def did_you_mean(word: object, choices: Iterable[str]) -> str:
    """A hint at the closest of `choices`, with a space before it; empty if none is close."""
    close = difflib.get_close_matches(str(word), list(choices), n=1, cutoff=0.65)
    return f" (did you mean {close[0]}?)" if close else ""


def unknown_key(key: object, keys: Iterable[str]) -> NoReturn:
    """Raise the fault of a key that is none of `keys`."""
    keys = list(keys)
    hint = did_you_mean(key, keys) or f"; known keys: {', '.join(keys)}"
    fault(f"is not a known key{hint}", at=str(key))


def not_one_of(value: object, choices: list[str]) -> str:
    """The text of the fault of a value that is none of `choices`."""
    return f"must be one of {', '.join(choices)}, got {brief(value)}{did_you_mean(value, choices)}"


def brief(value: object) -> str:
    """`value`, short enough for one line."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    if value is None:
        return "nothing"
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


class Model(BaseModel):
    """A frozen part of a profile. Subclasses complete short forms in `_completed`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _prepared(cls, data: Any) -> Any:
        """Unknown keys come before all other faults, because a misspelt key also looks like a missing one."""
        for key in data if isinstance(data, dict) else ():
            if key not in cls.model_fields:
                unknown_key(key, cls.model_fields)
        return cls._completed(data)

    @classmethod
    def _completed(cls, data: Any) -> Any:
        """`data` in its full form, where a model has short forms or defaults that depend on other keys."""
        return data


def http_parts(url: str, ending: str = "") -> SplitResult:
    """The parts of an absolute http(s) URL; `ending` closes the message about any other."""
    # Credentials can only stand before an @: a value that has one is not repeated.
    ending = "" if "@" in url else ending
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        fault(f"is not a URL, write e.g. http://localhost:8000{ending}")
    if parts.scheme not in ("http", "https") or not host:
        fault(f"must start with http:// or https:// and name a host{ending}")
    return parts
