"""One line on stderr that says how the run is doing, rewritten in place on a terminal."""

from __future__ import annotations

import shutil
import sys

from loadgen.clock import NS_PER_S, now_ns
from loadgen.record import Outcome
from loadgen.tally import Tally

__all__ = ["Progress"]

ON_TERMINAL_S = 0.2
ELSEWHERE_S = 10.0  # a log wants few lines


class Progress:
    """Draws tallies; `shown` False draws nothing."""

    def __init__(self, *, shown: bool) -> None:
        self._shown = shown
        self._terminal = sys.stderr.isatty()
        self._began = self._drawn = self._rated = now_ns() / NS_PER_S
        self._tokens = 0
        self._rate = 0.0

    def __call__(self, tally: Tally) -> None:
        present = now_ns() / NS_PER_S
        if not self._shown or present - self._drawn < (ON_TERMINAL_S if self._terminal else ELSEWHERE_S):
            return
        self._drawn = present
        if present - self._rated > 1.0:
            self._rate = (tally.output_tokens - self._tokens) / (present - self._rated)
            self._rated, self._tokens = present, tally.output_tokens
        line = self._line(tally, present - self._began)
        if self._terminal:
            width = shutil.get_terminal_size().columns - 1
            sys.stderr.write("\r\x1b[K" + line[:width])
        else:
            sys.stderr.write(line + "\n")
        sys.stderr.flush()

    def close(self) -> None:
        """Leave the line clean for what follows."""
        if self._shown and self._terminal:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def _line(self, tally: Tally, elapsed_s: float) -> str:
        p50, p99 = tally.ttft.quantile_ms(0.5), tally.ttft.quantile_ms(0.99)
        ttft = "TTFT –" if p50 is None or p99 is None else f"TTFT p50 {p50:.3g} p99 {p99:.3g} ms"
        errors = sum(n for outcome, n in tally.outcomes.items() if outcome != Outcome.OK)
        lag_ms = tally.loop_lag_ns / 1e6
        return (
            f"{elapsed_s:.0f} s  {tally.finished} done  {tally.in_flight} in flight  {self._rate:,.0f} tok/s  {ttft}"
            f"  {errors} errors  own lag {lag_ms:.1f} ms"
        )
