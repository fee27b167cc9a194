"""One line on stderr that says how the run is doing, rewritten in place on a terminal."""

from __future__ import annotations

import shutil
import sys

from loadgen.clock import NS_PER_S, now_ns
from loadgen.engine.tally import Tally
from loadgen.record import Outcome

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
        line = self._line(tally, present)
        if self._terminal:
            width = shutil.get_terminal_size().columns - 1
            sys.stderr.write("\r\x1b[K" + line[:width])
        else:
            sys.stderr.write(line + "\n")
        sys.stderr.flush()

    def say(self, line: str) -> None:
        """Print a line of its own."""
        self.close()
        print(line, file=sys.stderr)

    def close(self) -> None:
        """Leave the line clean for what follows."""
        if self._shown and self._terminal:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def _line(self, tally: Tally, present: float) -> str:
        total = tally.total()
        if present - self._rated > 1.0:
            self._rate = (total.output_tokens - self._tokens) / (present - self._rated)
            self._rated, self._tokens = present, total.output_tokens
        p50, p99 = total.ttft.quantile_ms(0.5), total.ttft.quantile_ms(0.99)
        ttft = "TTFT –" if p50 is None or p99 is None else f"TTFT p50 {p50:.3g} p99 {p99:.3g} ms"
        finished = sum(total.outcomes.values())
        return (
            f"{present - self._began:.0f} s  {finished} done  {sum(tally.in_flight.values())} in flight"
            f"  {self._rate:,.0f} tok/s  {ttft}  {finished - total.outcomes[Outcome.OK]} errors"
            f"  own lag {tally.loop_lag_ns / 1e6:.1f} ms"
        )
