"""The functions of numbers.py for figures that are mappings; goes when the last section is typed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from analysis.estimate import Figure, Note, NoteCode
from analysis.report import numbers
from analysis.report.numbers import REFUSED, number

__all__ = ["REFUSED", "decimals_for", "figure_of", "interval", "number", "value"]

E = Mapping[str, Any]
CODES = {code.sentence: code for code in NoteCode}


def figure_of(estimate: E | Figure) -> Figure:
    """The figure of its JSON form; notes without data get their codes."""
    if isinstance(estimate, Figure):
        return estimate
    notes = tuple(estimate.get("notes", ()))
    codes = tuple(Note(CODES[text]) if text in CODES else Note(NoteCode.TEXT, {"text": text}) for text in notes)
    low, high, confidence = (estimate.get(key) for key in ("low", "high", "confidence"))
    return Figure(estimate["value"], low, high, confidence, estimate.get("n", 0), notes, codes)


def decimals_for(estimate: E) -> int:
    return numbers.decimals_for(figure_of(estimate))


def value(estimate: E) -> str:
    return numbers.value(figure_of(estimate))


def interval(estimate: E, width: int = 80) -> str:
    return numbers.interval(figure_of(estimate), width)
