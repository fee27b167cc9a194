"""What a server, a path or a person wrote, made safe to show: on a terminal, in its width, and in Markdown."""

from __future__ import annotations

import textwrap

from analysis.stats.planning import Seen

__all__ = ["WIDTH", "clean", "detectable_in_words", "escaped", "wrapped"]

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


def detectable_in_words(seen: Seen, least: str, wanted: str) -> str:
    """What that number of runs finds, and how many find what is wanted. least, wanted: the effects in words."""
    text = f"so many runs find {least} {seen.power:.0%} of the time"
    needed = seen.runs_needed
    if needed is None:
        return f"{text}; for {wanted} no number of runs is enough"
    if needed <= seen.runs:
        return f"{text}; the truth seems to lie near the margin, which takes more runs than its {needed}"
    return f"{text}; for {wanted}: {needed} runs a side"
