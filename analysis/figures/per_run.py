"""The values of each run, to be listed beside the figures over all."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from analysis.catalogue import RunVerdict
from analysis.estimate import significant
from analysis.figures.metrics import NS_PER_MS, forgiven
from analysis.figures.runs import OverRuns
from analysis.records import arms, latency
from analysis.records.measured import Measured
from analysis.records.windows import Window
from analysis.stats.quantiles import SortedArray, type7

__all__ = ["RunRow", "Settled", "per_run"]


class Settled(Struct, frozen=True, kw_only=True):
    """The wanted window and the measured one, s from the run's start, and whether MSER-5 found a steady state."""

    steady: bool | None
    asked_s: tuple[float | None, float | None]
    measured_s: tuple[float | None, float | None]
    cut: int  # answered requests in between
    spared: int  # answered requests that MSER-5 would cut as well, by chance


class RunRow(Struct, frozen=True, kw_only=True):
    """One run. A verdict that forbids percentiles forbids those of single runs too: they are None."""

    run: int
    block: int | None
    arm: str | None
    offered: int
    completed: int
    window_s: float | None
    settled: Settled | None  # None: not judged
    interrupted: bool
    cut_short: arms.CutShort | None
    due: int  # requests in the window, except those that the interruption cut off
    succeeded: int
    success_rate: float | None
    ttft_mean_ms: float | None
    ttft_p50_ms: float | None
    ttft_p99_ms: float | None
    tpot_mean_ms: float | None
    requests_per_s: float | None
    output_tokens_per_s: float | None
    outlier_in: tuple[str, ...]  # metrics in which it stands out from the other runs


def per_run(m: Measured, verdict: RunVerdict, side: Mapping[str, OverRuns]) -> tuple[RunRow, ...]:
    """A row for each run of `m`, in the order of its windows. side: all runs, figure by figure."""
    return tuple(_row(m, verdict, index, side) for index in range(len(m.windows)))


def _row(m: Measured, verdict: RunVerdict, index: int, side: Mapping[str, OverRuns]) -> RunRow:
    window = m.windows[index]
    of_run = m.requests.run == window.run
    ttft = SortedArray(latency.ttft(m)[of_run & m.answered])
    quotable = ttft.n > 0 and not verdict.forbids_percentiles
    due, succeeded = int((of_run & m.inside & ~forgiven(m)).sum()), int((of_run & m.answered).sum())
    return RunRow(
        run=window.run,
        block=arms.block_of(m.manifest, window.run),
        arm=arms.arm_of(m.manifest, window.run),
        offered=window.offered,
        completed=int((of_run & m.requests.ok).sum()),
        window_s=significant(window.seconds),
        settled=_settled(window),
        interrupted=window.interrupted,
        cut_short=window.cut_short,
        due=due,
        succeeded=succeeded,
        success_rate=significant(succeeded / due) if due else None,
        ttft_mean_ms=side["ttft_ms"].values[index],
        ttft_p50_ms=significant(type7(ttft, 0.5) / NS_PER_MS) if quotable else None,
        ttft_p99_ms=significant(type7(ttft, 0.99) / NS_PER_MS) if quotable else None,
        tpot_mean_ms=side["tpot_ms"].values[index],
        requests_per_s=side["requests_per_s"].values[index],
        output_tokens_per_s=side["output_tokens_per_s"].values[index],
        outlier_in=tuple(name for name, figure in side.items() if window.run in figure.outliers),
    )


def _settled(window: Window) -> Settled | None:
    if window.asked_from_ns is None:
        return None
    return Settled(
        steady=window.steady,
        asked_s=(significant(window.asked_from_ns / 1e9), significant(window.to_ns / 1e9)),
        measured_s=(significant(window.from_ns / 1e9), significant(window.to_ns / 1e9)),
        cut=window.cut,
        spared=window.spared,
    )
