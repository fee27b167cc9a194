"""Does it matter when a run was made? Late runs against early ones, and the control condition's end against its start.

A server that warms up, throttles or fills its cache changes from run to run; a comparison of arms that were not
interleaved would take that for an effect. The check is on the runs of the arm that the summary is about, in order of
execution: the later half against the earlier one (a middle run belongs to neither), Welch's t on logarithms. Drift is
called as METHODOLOGY 5.2 does: significant at 5 %, and a change of 5 % or more.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from analysis.estimate import Estimate, refused, significant
from analysis.figures.metrics import latency_means
from analysis.figures.throughput import of_runs
from analysis.records.arms import runs_of
from analysis.records.frame import Frame
from analysis.records.measured import Measured, measure
from analysis.stats.intervals import centre
from analysis.stats.ratio import log_welch

__all__ = ["CONTROL", "control", "drifts", "early_late", "in_words"]

CONTROL = "control:"  # before the name of the arm that was repeated, as the design has it
LEAST_IN_HALF = 3
DRIFT = 0.05  # a change that is worth a word
SIZE = 0.05

Values = Sequence[float | None]


def early_late(
    manifest: Mapping[str, Any],
    runs: Sequence[int],
    side: Mapping[str, Mapping[str, Any]],
    counted: Collection[int] | None = None,
) -> dict[str, Any] | None:
    """Return {"early", "late", "ratio", "drifts"}; None for fewer than two runs.

    side: the values of `runs`, in their order, as `runs.side_by_side` returns them. counted: the runs that estimates
    are over; None: all. early, late: numbers of runs.
    ratio: late over early of each figure, with its interval from three runs in each half on. drifts: which figures.
    """
    places = [at for at, run in enumerate(runs) if counted is None or run in counted]
    half = len(places) // 2
    if not half:
        return None
    # A campaign that was resumed made some runs after others of a higher number.
    listed = [entry.get("run") for entry in manifest.get("runs") or []]
    made = sorted(places, key=lambda at: (listed.index(runs[at]) if runs[at] in listed else len(listed), at))
    early, late = made[:half], made[-half:]
    ratios = {}
    for name in ("ttft_ms", "output_tokens_per_s"):
        values: Values = side[name]["values"]
        ratios[name] = _ratio([values[at] for at in late], [values[at] for at in early])
    return {
        "early": [runs[at] for at in early],
        "late": [runs[at] for at in late],
        "ratio": {name: dict(ratio.to_json()) for name, ratio in ratios.items()},
        "drifts": [name for name, ratio in ratios.items() if drifts(ratio)],
    }


def drifts(ratio: Estimate) -> bool:
    """Return whether late runs differ: the interval excludes 1, and the change is large enough to matter."""
    if ratio.value is None or ratio.low is None or ratio.high is None:
        return False
    return not ratio.low <= 1 <= ratio.high and abs(ratio.value - 1) >= DRIFT


def _ratio(late: Values, early: Values) -> Estimate:
    above, below = ([value for value in values if value is not None and value > 0] for values in (late, early))
    n = len(above) + len(below)
    if n < len(late) + len(early):
        return refused("a run has no value", n)
    if len(late) < LEAST_IN_HALF:
        return Estimate(
            centre(above) / centre(below), n=n, notes=(f"no interval from fewer than {2 * LEAST_IN_HALF} runs",)
        )
    ratio = log_welch(above, below, 1 - SIZE)
    return Estimate(ratio.value, ratio.low, ratio.high, ratio.confidence, n)


def control(frame: Frame) -> dict[str, Any] | None:
    """Return the repeated control: {"arm", "start", "end", "ratio"}; None if there was none or an end is missing.

    start, end: mean TTFT (ms) and output tokens a second of the first and the last run; ratio: end over start.
    """
    named = (frame.manifest.get("design") or {}).get("control")
    if named is None:
        return None
    runs = runs_of(frame.manifest, (), CONTROL + named)
    if len(runs) != 2:
        return None
    m = measure(frame, runs=runs)
    if m.left_out.runs:
        return None
    figures = {"ttft_ms": latency_means(m, "ttft_ms"), "output_tokens_per_s": _rates(m)}
    ends = [{name: significant(values[at]) for name, values in figures.items()} for at in (0, 1)]
    ratios = {name: end / start if start and end is not None else None for name, start, end in _pairs(*ends)}
    return {"arm": named, "start": ends[0], "end": ends[1], "ratio": {k: significant(v) for k, v in ratios.items()}}


def _rates(m: Measured) -> Values:
    return of_runs(m)["output_tokens_per_s"]


def _pairs(
    start: Mapping[str, float | None], end: Mapping[str, float | None]
) -> list[tuple[str, float | None, float | None]]:
    return [(name, start[name], end[name]) for name in start]


def in_words(checked: Mapping[str, Any]) -> list[str]:
    """Return a note for each figure that drifts."""
    names = {"ttft_ms": "mean TTFT", "output_tokens_per_s": "output tokens/s"}
    notes = []
    for name in checked["drifts"]:
        ratio = checked["ratio"][name]
        notes.append(
            f"late runs differ from early ones: {names[name]} is {ratio['value']:.3g} times as large "
            f"({ratio['low']:.3g}..{ratio['high']:.3g}); something changes from run to run"
        )
    return notes
