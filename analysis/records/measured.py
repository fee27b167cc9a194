"""The data that estimates and plots are made of: both passes over the records, put together. reading.py reads it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from analysis.estimate import Note
from analysis.records.requests import ABSENT, Bool, Requests
from analysis.records.samples import EMPTY, Samples
from analysis.records.settings import confidence_of
from analysis.records.tokens import Gaps, Series, Tokens
from analysis.records.windows import Window, counted
from loadgen.manifest import Manifest
from loadgen.record import Int64

__all__ = ["Measured"]


@dataclass(frozen=True, slots=True)
class Measured:
    """A campaign's records, read. Arrays have one element per request, ordered by run and place in the schedule."""

    manifest: Manifest
    notes: tuple[Note, ...]
    partial: bool
    windows: tuple[Window, ...]
    requests: Requests
    tokens: Tokens
    inside: Bool  # due in the measured window of its run
    gaps: Gaps  # of answered requests inside the window; put together over the runs that estimates are over
    series: Series
    samples: Samples = EMPTY  # taken beside these runs

    @property
    def answered(self) -> Bool:
        """Whether latencies are about each request, shape (n,): due in the window, and answered in full."""
        return self.inside & self.requests.ok

    @property
    def runs(self) -> tuple[int, ...]:
        return tuple(window.run for window in self.windows)

    @property
    def counted(self) -> Measured:
        """The data of the runs that estimates are over: those that came to their end, or all if none did."""
        return self._of(counted(self.windows))

    @property
    def left_out(self) -> Measured:
        """The data of the other runs, except the gaps, which are of all runs."""
        whole = counted(self.windows)
        return self._of(tuple(window for window in self.windows if window not in whole))

    def _of(self, windows: tuple[Window, ...]) -> Measured:
        in_runs = np.isin(self.requests.run, [window.run for window in windows])
        return replace(self, windows=windows, inside=self.inside & in_runs)

    @property
    def confidence(self) -> float:
        """The confidence of the intervals, in (0, 1)."""
        return confidence_of(self.manifest)

    @property
    def interrupted(self) -> bool:
        return self.partial or any(window.interrupted for window in self.windows)

    def count_tokens(self) -> Int64:
        """The output tokens of each request as far as they were counted; ABSENT where only events were counted."""
        reported = self.requests.counted_tokens()
        counted = self.tokens.counted
        return np.where(reported, self.requests.output_tokens, counted)

    def first_tokens(self) -> Int64:
        """The tokens in the first event of each request; 1 where the server does not report them."""
        return np.where(self.tokens.first_tokens == ABSENT, 1, self.tokens.first_tokens)
