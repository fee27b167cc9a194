"""The two sides of a comparison: what each run says of each metric, and which runs are set against which.

A side is a run's directory, or one arm of one. The unit is the run: each metric has one value in each run, the very
value that summary.json lists, and never a request (docs/methodology.md#ratios: testing pooled requests finds everything
significant). Runs that did not come to their end are left out, for what they would have become is not known.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from analysis.catalogue import OF_RUNS, RunVerdict
from analysis.compare.comparison import SideFacts
from analysis.compare.fairness import Work, work_of
from analysis.estimate import Note, NoteCode, note
from analysis.records import arms
from analysis.records.frame import load
from analysis.records.reading import measure
from analysis.stats.intervals import LEAST_RUNS
from analysis.summary import Summary, summarise
from loadgen.manifest import Manifest

__all__ = ["NotComparableError", "Plan", "Side", "Values", "aligned", "has", "pairing", "read_side", "side_notes"]

VOID = (RunVerdict.LIMITED, RunVerdict.UNSTABLE, RunVerdict.FAILED)


class NotComparableError(Exception):
    """A side that says nothing about its server: one line with the reason."""


@dataclass(frozen=True, slots=True)
class Side:
    """One side: what `summarise` says of its runs, and what they were."""

    name: str
    arm: str | None
    facts: Manifest  # with the entries of its own runs only
    summary: Summary
    work: Work

    @property
    def places(self) -> list[int]:
        """The places in per_run that count: the runs that came to their end."""
        return [place for place, run in enumerate(self.summary.per_run) if run.cut_short is None]

    @property
    def blocks(self) -> dict[int, int]:
        """{block: place of the run in it}."""
        per_run = self.summary.per_run
        return {block: place for place in self.places if (block := per_run[place].block) is not None}

    @property
    def least_succeeded(self) -> int:
        """The succeeded requests of the run that has the fewest."""
        return min(self.summary.per_run[place].succeeded for place in self.places)

    @property
    def successes(self) -> tuple[int, int]:
        """(requests that succeeded, requests that were due)."""
        runs = [self.summary.per_run[place] for place in self.places]
        return sum(run.succeeded for run in runs), sum(run.due for run in runs)

    def halfwidth_us(self, *, gaps: bool) -> float | None:
        """Half of the width in which the stamps' error lies, of gaps or of latencies; None: not calibrated."""
        instrument = self.summary.instrument
        return (instrument.gap_error_us if gaps else instrument.stamp_error_us).halfwidth

    def value(self, name: str, place: int) -> float | None:
        """The value of a metric in the run at `place`."""
        value: float | None
        over_runs = OF_RUNS[name].over_runs
        if over_runs is None:
            value = getattr(self.summary.per_run[place], name)
        else:
            figure = self.summary.over_runs.get(over_runs)
            value = None if figure is None else figure.values[place]
        return value

    def check(self) -> None:
        """Raises NotComparableError where the side says nothing about its server."""
        named = self.name if self.arm is None else f"{self.name}, arm {self.arm}"
        verdict = self.summary.verdict
        if verdict in VOID:
            reasons = "; ".join(self.summary.verdict_reasons)
            raise NotComparableError(f"{named}: {verdict}, so it says nothing about the server: {reasons}")
        if not self.places:
            raise NotComparableError(f"{named}: no run of it was finished")

    def described(self) -> SideFacts:
        """What a comparison lists of the side."""
        return SideFacts(
            directory=self.name,
            arm=self.arm,
            runs=len(self.places),
            requests=self.successes[0],
            verdict=self.summary.verdict,
            targets=self.summary.targets,
            load=self.summary.load,
        )


def read_side(directory: str | Path, arm: str | None = None) -> Side:
    """The side in a run's directory, or one arm of it (default: the primary one).

    Raises NoRecordsError, and ValueError for an arm that is not there.
    """
    frame = load(directory)
    names = arms.arms(frame.manifest)
    if arm is not None and arm not in names:
        raise ValueError(f"{directory}: no arm named {arm!r}; there is {', '.join(names) or 'only one'}")
    m = measure(frame, runs=arms.runs_of(frame.manifest, frame.run_numbers(), arm))
    facts = frame.manifest
    own = tuple(run for run in facts.runs if run.run in m.runs)
    named = arm or (arms.primary(frame.manifest) if len(names) > 1 else None)
    return Side(str(directory), named, facts.with_(runs=own), summarise(m), work_of(m.counted, frame))


# --- which runs are set against which --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Plan:
    """Which runs of the two sides are set against each other, as places in per_run; and why."""

    why: Note
    a: list[int]
    b: list[int]

    @property
    def paired(self) -> bool:
        """Whether the runs at one place belong together."""
        return self.why.code in (NoteCode.PAIRED_BLOCKS, NoteCode.PAIRED_AS_ASKED)


def pairing(a: Side, b: Side, *, asked: bool) -> Plan:
    """The pairs of two arms of one campaign, block by block, or those asked for, run by run; else no pairs."""
    runs_a, runs_b, blocks_a, blocks_b = a.places, b.places, a.blocks, b.blocks
    together = a.arm != b.arm and Path(a.name) == Path(b.name)
    common = sorted(blocks_a.keys() & blocks_b.keys())
    if together and len(common) >= LEAST_RUNS:
        why = note(NoteCode.PAIRED_BLOCKS, blocks=len(common))
        return Plan(why, [blocks_a[block] for block in common], [blocks_b[block] for block in common])
    if asked and len(runs_a) == len(runs_b):
        return Plan(note(NoteCode.PAIRED_AS_ASKED, pairs=len(runs_a)), runs_a, runs_b)
    why = note(NoteCode.SEPARATE_CAMPAIGNS)
    if together:
        why = note(NoteCode.FEW_COMMON_BLOCKS, least=LEAST_RUNS, blocks=len(common))
    if asked:
        why = note(NoteCode.NO_PAIRS, a=len(runs_a), b=len(runs_b))
    return Plan(why, runs_a, runs_b)


@dataclass(frozen=True, slots=True)
class Values:
    """A metric's run values on both sides. Pairs stand at one place."""

    a: list[float]
    b: list[float]
    paired: bool

    @property
    def fewest(self) -> int:
        """The number of values on the side that has fewer."""
        return min(len(self.a), len(self.b))


def has(name: str, side: Side) -> bool:
    """Whether a run of the side has a value of the metric."""
    return any(side.value(name, place) is not None for place in side.places)


def aligned(name: str, a: Side, b: Side, plan: Plan) -> Values:
    """The values of both sides; where one of a pair is missing, both are left out."""
    values_a = [a.value(name, place) for place in plan.a]
    values_b = [b.value(name, place) for place in plan.b]
    if plan.paired:
        both = [(x, y) for x, y in zip(values_a, values_b, strict=True) if x is not None and y is not None]
        return Values([x for x, _ in both], [y for _, y in both], paired=True)
    return Values([x for x in values_a if x is not None], [y for y in values_b if y is not None], paired=False)


# --- what must be known of them --------------------------------------------------------------------------------------


def side_notes(a: Side, b: Side, compared: Collection[str]) -> list[Note]:
    """What a reader must know of the runs on either side. compared: the names of the metrics."""
    figures = {OF_RUNS[name].over_runs for name in compared}
    return [note for name, side in (("A", a), ("B", b)) for note in _of_one(name, side, figures)]


def _of_one(name: str, side: Side, figures: Collection[str | None]) -> list[Note]:
    notes, per_run = [], side.summary.per_run
    out = [f"run {run.run} ({run.cut_short})" for run in per_run if run.cut_short is not None]
    if out:
        notes.append(note(NoteCode.RUNS_LEFT_OUT, side=name, runs=", ".join(out)))
    missing = _missing(side)
    if missing:
        notes.append(note(NoteCode.RUNS_MISSING, side=name, runs=missing))
    unusual = [str(per_run[place].run) for place in side.places if {*figures} & {*per_run[place].outlier_in}]
    if unusual:
        notes.append(note(NoteCode.RUNS_STAND_OUT, side=name, runs=", ".join(unusual)))
    if side.summary.verdict is not RunVerdict.OK:
        notes.append(note(NoteCode.SIDE_VERDICT, side=name, verdict=side.summary.verdict.value))
    return notes


def _missing(side: Side) -> int:
    return sum(side.arm is None or run.arm == side.arm for run in side.summary.missing_runs)
