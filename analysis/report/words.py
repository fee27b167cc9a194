"""What a server, a path or a person wrote, made safe to show: on a terminal, in its width, and in Markdown."""

from __future__ import annotations

import textwrap

__all__ = ["WIDTH", "clean", "escaped", "wrapped"]

WIDTH = 80
MARKUP = "\\`*_[]<>|#"


def clean(text: object) -> str:
    """`text` with a space for each character that would move a cursor, change a terminal or turn the writing around."""
    return "".join(char if char.isprintable() else " " for char in str(text))


def wrapped(text: str, first: str = "", rest: str = "  ") -> list[str]:
    """Clean lines of at most `WIDTH` columns that begin with `first`, then `rest`."""
    return textwrap.wrap(clean(text), WIDTH, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False)


def escaped(text: object) -> str:
    """Text that Markdown shows as it is: a server's words must not become a link or a tag."""
    return "".join(f"\\{char}" if char in MARKUP else char for char in clean(text))
