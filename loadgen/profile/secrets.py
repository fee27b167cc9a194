"""What may be a secret is taken out before a value is written to a file or printed."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit, urlunsplit

__all__ = ["REDACTED", "without_secret_query", "without_secrets"]

REDACTED = "[redacted]"
_SECRET = re.compile(r"(?i)auth|api[-_]?key|^key$|[-_]key$|token$|secret|password|cookie|credential|signature")


def without_secrets(value: Any) -> Any:
    """`value` with the texts redacted whose keys, at any depth, are those of secrets."""
    if isinstance(value, dict):
        return {
            key: REDACTED if _SECRET.search(str(key)) and isinstance(item, str) else without_secrets(item)
            for key, item in value.items()
        }
    return [without_secrets(item) for item in value] if isinstance(value, list) else value


def without_secret_query(url: str) -> str:
    """`url`, or a path, with the values in its query redacted that may be secrets."""
    parts = urlsplit(url)
    query = "&".join(
        f"{name}={REDACTED}" if _SECRET.search(name) else pair
        for pair in parts.query.split("&")
        for name in [pair.partition("=")[0]]
    )
    return urlunsplit(parts._replace(query=query))
