"""Words that renderers and sections share: texts without control characters, and what a number of runs finds."""

from __future__ import annotations

from analysis.stats.planning import Seen

__all__ = ["clean", "detectable_in_words"]


def clean(text: object) -> str:
    """`text` with a space for each character that would move a cursor, change a terminal or turn the writing around."""
    return "".join(char if char.isprintable() else " " for char in str(text))


def detectable_in_words(seen: Seen, least: str, wanted: str) -> str:
    """What that number of runs finds, and how many find what is wanted. least, wanted: the effects in words."""
    text = f"so many runs find {least} {seen.power:.0%} of the time"
    needed = seen.runs_needed
    if needed is None:
        return f"{text}; for {wanted} no number of runs is enough"
    if needed <= seen.runs:
        return f"{text}; the truth seems to lie near the margin, which takes more runs than its {needed}"
    return f"{text}; for {wanted}: {needed} runs a side"
