"""Drift over a campaign: late runs against early ones, and the control condition's end against its start.

A server that warms up, throttles or fills its cache changes from run to run; a comparison of arms that were not
interleaved would take that for an effect. The check is on the runs of the arm that the summary is about, in order of
execution: the later half against the earlier one (a middle run belongs to neither), Welch's t on logarithms. Drift is
called as docs/methodology.md#drift-and-level-shifts does: significant at 5 %, and a change of 5 % or more.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from msgspec import Struct

from analysis.catalogue import COMPARED
from analysis.estimate import Estimate, Figure, Note, NoteCode, note, refused, significant
from analysis.figures.metrics import latency_means
from analysis.figures.runs import OverRuns
from analysis.figures.throughput import of_runs
from analysis.records.arms import runs_of
from analysis.records.reading import Reading
from analysis.stats.intervals import centre
from analysis.stats.ratio import log_welch
from loadgen.manifest import CONTROL, Manifest

__all__ = ["Control", "EarlyLate", "control", "drifts", "early_late", "late_differ"]

LEAST_IN_HALF = 3
DRIFT = 0.05  # a change that is worth a note
SIZE = 0.05

Values = Sequence[float | None]


class EarlyLate(Struct, frozen=True, kw_only=True):
    """Late runs against early ones, figure by figure."""

    early: tuple[int, ...]  # numbers of runs
    late: tuple[int, ...]
    ratio: dict[str, Figure]  # late over early, with an interval with three runs or more in each half
    drifts: tuple[str, ...]  # which figures


class Control(Struct, frozen=True, kw_only=True):
    """The control condition at the start and at the end: mean TTFT (ms) and output tokens per second."""

    arm: str
    start: dict[str, float | None]
    end: dict[str, float | None]
    ratio: dict[str, float | None]  # end over start


def early_late(
    manifest: Manifest,
    runs: Sequence[int],
    side: Mapping[str, OverRuns],
    counted: Collection[int] | None = None,
) -> EarlyLate | None:
    """Late runs against early ones; None for fewer than two runs.

    side: the values of `runs`, in their order, as `runs.side_by_side` returns them. counted: the runs that estimates
    are over; None: all.
    """
    places = [at for at, run in enumerate(runs) if counted is None or run in counted]
    half = len(places) // 2
    if not half:
        return None
    # A campaign that was resumed made some runs after others of a higher number.
    listed = [entry.run for entry in manifest.runs]
    made = sorted(places, key=lambda at: (listed.index(runs[at]) if runs[at] in listed else len(listed), at))
    early, late = made[:half], made[-half:]
    ratios = {}
    for name in COMPARED:
        values = side[name].values
        ratios[name] = _ratio([values[at] for at in late], [values[at] for at in early])
    return EarlyLate(
        early=tuple(runs[at] for at in early),
        late=tuple(runs[at] for at in late),
        ratio={name: ratio.figure() for name, ratio in ratios.items()},
        drifts=tuple(name for name, ratio in ratios.items() if drifts(ratio)),
    )


def drifts(ratio: Estimate) -> bool:
    """Whether late runs differ: the interval excludes 1, and the change is large enough to matter."""
    if ratio.value is None or ratio.low is None or ratio.high is None:
        return False
    return not ratio.low <= 1 <= ratio.high and abs(ratio.value - 1) >= DRIFT


def _ratio(late: Values, early: Values) -> Estimate:
    above, below = ([value for value in values if value is not None and value > 0] for values in (late, early))
    n = len(above) + len(below)
    if n < len(late) + len(early):
        return refused(note(NoteCode.RUN_WITHOUT_VALUE), n)
    if len(late) < LEAST_IN_HALF:
        few = note(NoteCode.NO_INTERVAL_BELOW, least=2 * LEAST_IN_HALF)
        return Estimate(centre(above) / centre(below), n=n, notes=(few,))
    ratio = log_welch(above, below, 1 - SIZE)
    return Estimate(ratio.value, ratio.low, ratio.high, ratio.confidence, n)


def control(reading: Reading) -> Control | None:
    """The repeated control: its first run and its last; None if there was none or an end is missing."""
    named = reading.manifest.planned_design.control
    if named is None:
        return None
    runs = runs_of(reading.manifest, (), CONTROL + named)
    if len(runs) != 2:
        return None
    m = reading.of_runs(runs)
    if m.left_out.runs:
        return None
    figures: dict[str, Values] = {
        "ttft_ms": latency_means(m, "ttft_ms"),
        "output_tokens_per_s": of_runs(m)["output_tokens_per_s"],
    }
    start, end = ({name: significant(values[at]) for name, values in figures.items()} for at in (0, 1))
    return Control(arm=named, start=start, end=end, ratio={name: _over(end[name], start[name]) for name in figures})


def _over(end: float | None, start: float | None) -> float | None:
    return significant(end / start) if start and end is not None else None


def late_differ(checked: EarlyLate) -> list[Note]:
    """A note for each figure that drifts."""
    notes = []
    for name in checked.drifts:
        ratio = checked.ratio[name]
        figure = {"figure": COMPARED[name], "ratio": ratio.value, "low": ratio.low, "high": ratio.high}
        notes.append(note(NoteCode.LATE_DIFFER, **figure))
    return notes
