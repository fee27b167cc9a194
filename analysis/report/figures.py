"""The functions of numbers.py for figures that are mappings; goes when the last section is typed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from analysis.estimate import Figure, Note, NoteCode
from analysis.report import numbers
from analysis.report.numbers import REFUSED, number

__all__ = ["REFUSED", "Attributes", "attributes", "decimals_for", "figure_of", "interval", "number", "value"]

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


class Attributes:
    """A mapping read by attributes, until the summary is typed. A key that is missing is None."""

    def __init__(self, plain: Mapping[str, Any]) -> None:
        self._plain = plain

    def __getattr__(self, name: str) -> Any:
        if name == "values" and name not in self._plain:
            return lambda: [attributes(value) for value in self._plain.values()]
        if name in RAW:
            return self._plain.get(name)
        return attributes(self._plain.get(name))

    def __getitem__(self, key: str) -> Any:
        return attributes(self._plain[key])

    def items(self) -> list[tuple[str, Any]]:
        return [(key, attributes(value)) for key, value in self._plain.items()]

    def __bool__(self) -> bool:
        return bool(self._plain)

    latency = rate = statistic = __getattr__


RAW = ("agents", "telemetry", "energy", "slots")


def attributes(value: Any) -> Any:
    """The value with attributes for keys, and Figures for the JSON of figures."""
    if isinstance(value, Mapping):
        return figure_of(value) if {"value", "low", "high"} <= value.keys() else Attributes(value)
    return tuple(map(attributes, value)) if isinstance(value, list) else value
