"""The rates over the measured windows: requests, tokens, and requests that met the objectives, per second.

A request counts, with all its tokens, if it was completed inside the window; each run gives one value. Where the
window is too short for that (a closed loop of a few rounds, a burst) the whole run counts, from the first request sent
to the last answered, ramp and drain included, and the figure has a note.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.estimate import Estimate, Float64, NoteCode, note, refused
from analysis.records.measured import Measured
from analysis.records.requests import ABSENT, Bool
from analysis.records.windows import Window
from analysis.stats import intervals

__all__ = ["Span", "event_rates", "of_runs", "rates", "spans_of"]


@dataclass(frozen=True, slots=True)
class Span:
    """The time over which completions of a run are counted; ns on the run's clock."""

    run: int
    from_ns: int
    to_ns: int
    whole_run: bool = False


def spans_of(m: Measured) -> tuple[Span, ...]:
    """The window of each run, or the whole runs if windows are shorter than a request usually takes.

    A window that holds every answer of its run counts as long enough.
    """
    lasted = (m.requests.done_ns - m.requests.intended_ns)[m.answered]
    usual = float(np.median(lasted)) if len(lasted) else 0.0
    if all(window.to_ns - window.from_ns > usual or _holds_all(m, window) for window in m.windows):
        return tuple(Span(window.run, window.from_ns, window.to_ns) for window in m.windows)
    spans = []
    for window in m.windows:
        answered = (m.requests.run == window.run) & m.answered
        sent, done = m.requests.sent_ns[answered], m.requests.done_ns[answered]
        ends = (int(sent.min()), int(done.max())) if answered.any() else (0, 0)
        spans.append(Span(window.run, *ends, whole_run=True))
    return tuple(spans)


def _holds_all(m: Measured, window: Window) -> bool:
    answered = (m.requests.run == window.run) & m.answered
    if not answered.any():
        return False
    return bool(
        window.from_ns <= m.requests.sent_ns[answered].min() and m.requests.done_ns[answered].max() <= window.to_ns
    )


@dataclass(frozen=True, slots=True)
class _Rate:
    """The rate of completions in each run."""

    per_s: tuple[float, ...]  # shape (runs,), NaN for a run whose window is empty
    n: int  # completions
    confidence: float

    def estimate(self) -> Estimate:
        values = [value for value in self.per_s if not math.isnan(value)]
        if not values:
            return refused(note(NoteCode.EMPTY_WINDOW), self.n)
        return intervals.over_runs(values, self.n, self.confidence)


def rates(m: Measured, good: Bool | None = None, chosen: Bool | None = None) -> dict[str, Estimate]:
    """The estimates of the scalar metrics: {metric: estimate}.

    good: shape (n,), whether each request met the objectives; None if there are no objectives. chosen: count only these
    requests.
    """
    spans = spans_of(m)
    notes = (note(NoteCode.WHOLE_RUN),) if any(span.whole_run for span in spans) else ()
    figures = {
        "requests_per_s": _requests(m, spans, chosen).estimate(),
        "output_tokens_per_s": _token_rate(m, spans, chosen, [m.count_tokens()]),
        "total_tokens_per_s": _token_rate(m, spans, chosen, [m.count_tokens(), m.requests.input_tokens]),
        "goodput_per_s": refused(note(NoteCode.NO_REQUEST_OBJECTIVE)),
    }
    if good is not None:
        figures["goodput_per_s"] = _requests(m, spans, good if chosen is None else good & chosen).estimate()
    return {name: figure.noted(*notes) for name, figure in figures.items()}


def of_runs(m: Measured, good: Bool | None = None) -> dict[str, list[float | None]]:
    """The values behind the scalar metrics, one per run in order of `m.windows`; None where a run has none."""
    spans = spans_of(m)
    values = {"requests_per_s": _requests(m, spans, None).per_s}
    for name, counts in (
        ("output_tokens_per_s", [m.count_tokens()]),
        ("total_tokens_per_s", [m.count_tokens(), m.requests.input_tokens]),
    ):
        values[name] = _tokens(m, spans, None, counts)[0].per_s
    if good is not None:
        values["goodput_per_s"] = _requests(m, spans, good).per_s
    return {name: [None if math.isnan(value) else value for value in runs] for name, runs in values.items()}


def event_rates(m: Measured) -> list[float]:
    """The token-bearing events per second of each run that has a window: the load on the stamps."""
    per_s = _rate(m, spans_of(m), None, m.tokens.events.astype(np.float64)).per_s
    return [rate for rate in per_s if not math.isnan(rate)]


def _requests(m: Measured, spans: Sequence[Span], chosen: Bool | None) -> _Rate:
    return _rate(m, spans, chosen, np.ones(len(m.requests)))


def _rate(m: Measured, spans: Sequence[Span], chosen: Bool | None, amount: Float64) -> _Rate:
    done = m.requests.done_ns
    counted = m.requests.ok if chosen is None else m.requests.ok & chosen
    per_s, n = [], 0
    for span in spans:
        here = counted & (m.requests.run == span.run) & (done >= span.from_ns) & (done <= span.to_ns)
        seconds = (span.to_ns - span.from_ns) / 1e9
        per_s.append(float(amount[here].sum()) / seconds if seconds > 0 else math.nan)
        n += int(here.sum())
    return _Rate(tuple(per_s), n, m.confidence)


def _tokens(
    m: Measured, spans: Sequence[Span], chosen: Bool | None, counts: Sequence[NDArray[np.int64]]
) -> tuple[_Rate, Bool]:
    """(the rate of the tokens that were counted, whether a request has no count of its own, shape (n,))."""
    uncounted = np.zeros(len(m.requests), np.bool_)
    total = np.zeros(len(m.requests))
    for count in counts:
        uncounted |= count == ABSENT
        total += np.where(count == ABSENT, 0, count)
    uncounted &= m.requests.ok if chosen is None else m.requests.ok & chosen
    if len(counts) == 1:
        total += np.where(uncounted, m.tokens.events, 0)
    rate = _rate(m, spans, chosen, total)
    if uncounted.any() and len(counts) > 1:
        rate = _Rate((math.nan,) * len(spans), rate.n, rate.confidence)
    return rate, uncounted


def _token_rate(
    m: Measured, spans: Sequence[Span], chosen: Bool | None, counts: Sequence[NDArray[np.int64]]
) -> Estimate:
    """The rate of tokens; a lower bound without a value where a request has no count."""
    rate, uncounted = _tokens(m, spans, chosen, counts)
    if not uncounted.any():
        return rate.estimate()
    if len(counts) > 1:
        return refused(note(NoteCode.COUNTS_UNKNOWN), rate.n)
    least = rate.estimate().value
    return Estimate(None, least, None, None, rate.n, (note(NoteCode.COUNTS_UNKNOWN), note(NoteCode.COUNTED_EVENTS)))
