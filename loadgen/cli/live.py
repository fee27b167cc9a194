"""`--live`: the run as a table on the terminal, a row for each endpoint and agent, with sparklines of the last minute.

Drawn twice a second by the thread that measures, a few milliseconds each time: kernel stamps do not wait for it.
"""

from __future__ import annotations

import sys
from collections import deque
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from loadgen.clock import NS_PER_S, now_ns
from loadgen.engine.tally import Series, Tally, Who, quantile_ms
from loadgen.record import Int64, Outcome

__all__ = ["LiveView", "sparkline"]

EVERY_S = 0.5
POINTS = 24  # of a sparkline; each is the mean of what fell into its share of the minute kept
KEPT = 120
BARS = "▁▂▃▄▅▆▇█"


@dataclass(slots=True)
class Row:
    """What is remembered of one endpoint and agent."""

    tokens: int = 0
    ttft: Int64 | None = None  # the fine buckets of the last look
    rates: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT))
    ttfts_ms: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT))  # medians of what came since

    def look(self, series: Series, seconds: float) -> None:
        self.rates.append((series.output_tokens - self.tokens) / seconds)
        ttft = series.ttft.counted().fine
        recent = ttft if self.ttft is None else ttft - self.ttft
        median = quantile_ms(recent, 0.5)
        if median is not None:
            self.ttfts_ms.append(median)
        self.tokens, self.ttft = series.output_tokens, ttft.copy()


class LiveView:
    """Draws tallies on stderr; `count_runs` sets how far the campaign is."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(file=sys.stderr)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._rows: dict[Who, Row] = {}
        self._lags_ms: deque[float] = deque(maxlen=KEPT)
        self._cpu_ns = 0
        self._began_ns = self._drawn_ns = now_ns()
        self._runs = (0, 0)
        self._live.start()

    def __call__(self, tally: Tally) -> None:
        present = now_ns()
        seconds = (present - self._drawn_ns) / NS_PER_S
        if seconds >= EVERY_S:
            self._drawn_ns = present
            self._live.update(self.drawing(tally, seconds), refresh=True)

    def count_runs(self, finished: int, planned: int) -> None:
        self._runs = finished, planned

    def say(self, line: str) -> None:
        """Print a line above the table."""
        self._console.print(line, markup=False, highlight=False)

    def close(self) -> None:
        self._live.stop()

    def drawing(self, tally: Tally, seconds: float) -> Group:
        """Take in what changed in `seconds` and return the whole picture."""
        table = Table(box=box.SIMPLE_HEAD, expand=False, pad_edge=False)
        table.add_column("")
        for title in ("in flight", "done", "errors", "tok/s", "", "TTFT ms", "", "p99"):
            table.add_column(title, justify="left" if title == "" else "right", no_wrap=True)
        for who in sorted({*tally.series, *tally.in_flight}):
            series, row = tally.series.get(who, Series()), self._rows.setdefault(who, Row())
            row.look(series, seconds)
            table.add_row(
                " ".join(part for part in who if part), *self._cells(series, row, tally.in_flight.get(who, 0))
            )
        return Group(table, self._footer(tally, seconds))

    def _cells(self, series: Series, row: Row, in_flight: int) -> list[Text | str]:
        done = series.outcomes[Outcome.OK]
        errors = sum(series.outcomes.values()) - done
        p99 = series.ttft.quantile_ms(0.99)
        return [
            str(in_flight),
            f"{done:,}",
            Text(f"{errors:,}", style="bold red" if errors else ""),
            f"{row.rates[-1]:,.0f}",
            Text(sparkline(row.rates), style="green"),
            f"{row.ttfts_ms[-1]:.3g}" if row.ttfts_ms else "–",
            Text(sparkline(row.ttfts_ms), style="cyan"),
            "–" if p99 is None else f"{p99:.3g}",
        ]

    def _footer(self, tally: Tally, seconds: float) -> Text:
        self._lags_ms.append(tally.loop_lag_ns / 1e6)
        cores = max(tally.cpu_ns - self._cpu_ns, 0) / NS_PER_S / seconds
        self._cpu_ns = tally.cpu_ns
        events = sum(series.token_events for series in tally.series.values())
        censored = sum(series.censored_events for series in tally.series.values())
        finished, planned = self._runs
        run = f"run {min(finished + 1, planned)} of {planned} · " if planned > 1 else ""
        waiting = f" · {tally.due - tally.begun} waiting" if tally.due > tally.begun else ""
        share = f" · {censored / events:.2%} censored" if events else ""
        return Text(
            f"{(now_ns() - self._began_ns) / NS_PER_S:.0f} s · {run}{tally.begun:,} sent{waiting}"
            f" · own lag {self._lags_ms[-1]:.1f} ms {sparkline(self._lags_ms)} · {cores:.2f} cores{share}",
            style="dim",
        )


def sparkline(values: deque[float], points: int = POINTS) -> str:
    """Return `values` as at most `points` bars from zero to their greatest."""
    if not values:
        return ""
    edges = np.linspace(0, len(values), min(points, len(values)) + 1).astype(int).tolist()
    array = np.array(values)
    means = [float(array[a:b].mean()) for a, b in pairwise(edges)]
    top = max(means)
    return "".join(BARS[round(mean / top * (len(BARS) - 1))] if top > 0 else BARS[0] for mean in means)
