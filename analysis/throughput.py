"""How much was done per second of the measured windows: requests, tokens, and requests that met the objectives.

A request counts where it was completed inside the window, all its tokens with it. Where the window is too short for
that (a closed loop of a few rounds, a burst) the whole run counts, from the first request sent to the last answered,
ramp and drain included, and the figure says so.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis import intervals
from analysis.estimate import Estimate, refused
from analysis.measured import Measured
from analysis.requests import ABSENT, Bool

__all__ = ["Span", "rates", "spans_of"]

Float64 = NDArray[np.float64]

BINS = 10  # a run: METHODOLOGY 4.5 asks for batches much longer than requests last, and at least ten
WHOLE_RUN = "window shorter than a request: whole run, ramp and drain included"
COUNTED_EVENTS = "at least this: tokens counted as events for some requests"


@dataclass(frozen=True, slots=True)
class Span:
    """The time over which completions of a run are counted; ns on the run's clock."""

    run: int
    from_ns: int
    to_ns: int
    whole_run: bool = False


def spans_of(m: Measured) -> tuple[Span, ...]:
    """Return for each run its window, or the whole run if no window is longer than a request usually takes."""
    lasted = (m.requests.done_ns - m.requests.intended_ns)[m.answered]
    usual = float(np.median(lasted)) if len(lasted) else 0.0
    if all(window.to_ns - window.from_ns > usual for window in m.windows):
        return tuple(Span(window.run, window.from_ns, window.to_ns) for window in m.windows)
    spans = []
    for window in m.windows:
        mine = (m.requests.run == window.run) & m.answered
        sent, done = m.requests.sent_ns[mine], m.requests.done_ns[mine]
        ends = (int(sent.min()), int(done.max())) if mine.any() else (0, 0)
        spans.append(Span(window.run, *ends, whole_run=True))
    return tuple(spans)


def rates(
    m: Measured, good: Bool | None = None, chosen: Bool | None = None, runs: Collection[int] | None = None
) -> dict[str, Estimate]:
    """Return the scalar metrics.

    good: shape (n,), which requests met the objectives; None if there are none. chosen: count only these requests.
    runs: over the windows of only these runs.
    """
    spans = tuple(span for span in spans_of(m) if runs is None or span.run in runs)
    output = m.count_tokens()
    inputs = m.requests.input_tokens
    done = m.requests.ok if chosen is None else m.requests.ok & chosen
    rate = _rate_over(m, spans)
    figures = {
        "requests_per_s": rate(np.ones(len(m.requests)), done),
        "output_tokens_per_s": _token_rate(m, rate, done, [output]),
        "total_tokens_per_s": _token_rate(m, rate, done, [output, inputs]),
        "goodput_per_s": refused("no objective that a single request can meet was stated"),
    }
    if good is not None:
        figures["goodput_per_s"] = rate(np.ones(len(m.requests)), done & good)
    note = (WHOLE_RUN,) if any(span.whole_run for span in spans) else ()
    return {name: figure.noted(*note) for name, figure in figures.items()}


def _rate_over(m: Measured, spans: tuple[Span, ...]) -> Callable[[Float64, Bool], Estimate]:
    def rate(amount: Float64, counted: Bool) -> Estimate:
        bins, seconds, n = [], 0.0, 0
        for span in spans:
            done = m.requests.done_ns
            chosen = counted & (m.requests.run == span.run) & (done >= span.from_ns) & (done <= span.to_ns)
            place = (done[chosen] - span.from_ns) * BINS // max(1, span.to_ns - span.from_ns)
            bins.append(np.bincount(np.minimum(place, BINS - 1), weights=amount[chosen], minlength=BINS))
            seconds += (span.to_ns - span.from_ns) / 1e9
            n += int(chosen.sum())
        return intervals.rate(np.concatenate(bins) if bins else np.empty(0), seconds, n)

    return rate


def _token_rate(
    m: Measured, rate: Callable[[Float64, Bool], Estimate], done: Bool, counts: list[NDArray[np.int64]]
) -> Estimate:
    """Return the rate of tokens; a lower bound without a value where a request did not tell how many it had."""
    unknown = np.zeros(len(m.requests), np.bool_)
    total = np.zeros(len(m.requests))
    for count in counts:
        unknown |= count == ABSENT
        total += np.where(count == ABSENT, 0, count)
    unknown &= done
    figure = rate(total, done)
    if not unknown.any():
        return figure
    if len(counts) > 1:
        return refused("token counts unknown", figure.n)
    total += np.where(unknown, m.tokens.events, 0)
    least = rate(total, done).value
    return Estimate(None, least, None, None, figure.n, ("token counts unknown", COUNTED_EVENTS))
