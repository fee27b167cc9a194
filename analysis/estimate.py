"""A figure and its doubt: value, interval, the confidence the interval achieves, and what a reader must know beside it.

A refused figure is an Estimate whose value is None and whose notes say why; it may still carry a one-sided bound, which
is then everything the data can say. An Estimate is computed with; a Figure is what a summary holds and a report prints:
the same, rounded, with each note as a sentence and as a code with its data. Nothing here computes: stats does.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

__all__ = [
    "Bool",
    "Datum",
    "Estimate",
    "Figure",
    "Float64",
    "Note",
    "NoteCode",
    "note",
    "refused",
    "sentences",
    "significant",
]

Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]
Datum = bool | int | float | str | None

# More digits than any stamp supports, fewer than the ones in which two machines' floating-point units may differ:
# `verify` compares a summary computed elsewhere byte by byte.
DIGITS = 10


class NoteCode(StrEnum):
    """A note that can stand beside a figure, a run or a campaign: its code, and its sentence with places for data."""

    sentence: str

    def __new__(cls, code: str, sentence: str) -> NoteCode:
        member = str.__new__(cls, code)
        member._value_ = code
        member.sentence = sentence
        return member

    # --- any figure
    NO_DATA = "no-data", "no data"
    NO_INTERVAL = "no-interval", "no interval from {runs} run{s}: ask for --runs {enough}"
    FEW_RUNS = "few-runs", "few runs"
    WITHIN_RUN = "within-run", "within-run"
    INSTRUMENT_LIMITED = "instrument-limited", "instrument-limited"
    UNSETTLED = "unsettled", "no interval: the data do not settle it"
    UNBOUNDED = "unbounded", "unbounded: {why}"
    # --- percentiles
    FEW_TAIL_SAMPLES = "few-tail-samples", "few tail samples"
    BEYOND_DATA = "beyond-data", "{percentile} of {n}: fewer than one is expected beyond it"
    NO_UPPER_LIMIT = "no-upper-limit", "no upper limit below {least} samples"
    # --- fits of throughput over levels (stats)
    NOT_POSITIVE = "not-positive", "levels and throughputs must be above zero"
    FEW_LEVELS = "few-levels", "{levels} levels; a fit needs {least}"
    NARROW_LEVELS = "narrow-levels", "levels from {low:g} to {high:g}; a fit needs a factor of {least}"
    NO_FIT = "no-fit", "the universal scalability law does not fit"
    FEW_RUNS_AT_LEVEL = "few-runs-at-level", "no interval: fewer than {least} runs at some level"
    PLATEAU = "plateau", "no retrograde up to {largest:g}: plateau, most measured {best:.4g}"
    ONE_LEVEL_ABOVE_ONE = "one-level-above-one", "a fit needs two levels above one agent"
    # --- latencies and rates (figures)
    NO_PERCENTILE = "no-percentile", "no percentile: {verdict}"
    NOT_MEASURED = "not-measured", "not measured"
    UNCOUNTED_LEFT_OUT = "uncounted-left-out", "requests without token counts left out"
    SURVIVORS_ONLY = "survivors-only", "survivors only"
    FIRST_EVENT_ONE_TOKEN = "first-event-one-token", "first event taken as one token"
    USUAL_TPOT = "usual-tpot", "with k_1 = 1, as usual elsewhere: {ms:.4g}"
    WITH_FAILURES = "with-failures", "with failures as +∞: {ms:.4g}"
    WITH_FAILURES_INFINITE = "with-failures-infinite", "with failures as +∞: +∞"
    FIRST_TOKENS_SHARE_READ = "first-tokens-share-read", "first tokens share a read: between {low:.4g} and {high:.4g}"
    ORDER_IN_READ = "order-in-read", "by when in a read they came: between {low:.4g} and {high:.4g}"
    HISTOGRAM = "histogram", "percentiles from a histogram, within 0.1 %"
    EVENTS_SHARE_READ = "events-share-read", "{share:.1%} of events share a read with a later one"
    ITL_UNKNOWN = "itl-unknown", "no itl: tokens per event are not known"
    ITL_FEW_SINGLE = (
        "itl-few-single",
        "no itl: perhaps only {share:.1%} of events carry one token, {needed:.0%} needed",
    )
    ITL_CENSORED = (
        "itl-censored",
        "no itl: {share:.1%} of events share a read with a later one, {allowed:.0%} allowed",
    )
    EMPTY_WINDOW = "empty-window", "the measured window is empty"
    WHOLE_RUN = "whole-run", "window shorter than a request: whole run, ramp and drain included"
    COUNTED_EVENTS = "counted-events", "at least this: tokens counted as events for some requests"
    COUNTS_UNKNOWN = "counts-unknown", "token counts unknown"
    NO_REQUEST_OBJECTIVE = "no-request-objective", "no objective that a single request can meet was stated"
    # --- objectives (figures)
    REQUESTS_CANNOT_DECIDE = (
        "requests-cannot-decide",
        "{n} requests cannot decide it: ask for more, or for --runs {enough}",
    )
    LIMIT_IN_DOUBT = "limit-in-doubt", "the limit lies within the doubt: ask for more runs"
    SEE_VERDICT = "see-verdict", "{verdict}, see the verdict"
    # --- the verdict on a campaign (figures)
    NOTHING_COMPLETED = "nothing-completed", "no request completed"
    NOTHING_IN_WINDOW = "nothing-in-window", "no request that was due in the measured window completed"
    PILED_UP = "piled-up", "the server did not keep up: of the arrivals, {growth:.0%} piled up"
    SENT_LATE = "sent-late", "requests were sent late: p99 of the slip {slip_ms:.3g} ms, allowed {allowed_ms:.3g} ms"
    NOT_SENT = "not-sent", "{unsent} of {offered} scheduled requests were not sent"
    CONCURRENCY_NOT_REACHED = "concurrency-not-reached", "concurrency reached {reached} of {asked} asked for"
    READS_SHARED = "reads-shared", ("{share:.1%} of token events share a read with a later one, allowed {allowed:.0%}")
    CLOCK_STEPPED = (
        "clock-stepped",
        "the wall clock was stepped by {step_us:.0f} µs, allowed {allowed_us:.0f} µs: stamps are void",
    )
    LOOP_LAG = (
        "loop-lag",
        "event loop lag p99 {lag_ms:.3g} ms, over a quarter of the median event gap {gap_ms:.3g} ms",
    )
    CPU_BUSY = "cpu-busy", "the client used {share:.0%} of a core, allowed {allowed:.0%}"
    DRIFTING = (
        "drifting",
        "drifting: {figure} {moves} by {share:.0%} from the start of the window to its end (p {p:.1g})",
    )
    # --- records and windows (records)
    NO_MANIFEST = "no-manifest", "no manifest.json: windows and load are guessed from the records"
    MANIFEST_NOT_JSON = (
        "manifest-not-json",
        "manifest.json is not JSON: windows and load are guessed from the records",
    )
    MANIFEST_NOT_OBJECT = (
        "manifest-not-object",
        "manifest.json is not an object: windows and load are guessed from the records",
    )
    MANIFEST_FAULTY = (
        "manifest-faulty",
        "manifest.json is faulty ({fault}): windows and load are guessed from the records",
    )
    JOURNAL_NOT_READ = "journal-not-read", "journal/ beside a complete records.parquet: not read"
    RECORDS_UNREADABLE = "records-unreadable", "records.parquet cannot be read"
    NOT_CLOSED = "not-closed", "the run did not close: read from {segments} journal segments"
    SEGMENT_UNREADABLE = "segment-unreadable", "journal segment {name} cannot be read: left out"
    START_GUESSED = "start-guessed", "window start guessed: after the warm-up the profile asked for"
    END_GUESSED = "end-guessed", "window end guessed: the last request sent"
    NO_STEADY_STATE = "no-steady-state", "no steady state: it may still have been warming up"
    CUT_AS_WARM_UP = (
        "cut-as-warm-up",
        "measured from {from_s:.4g} s on instead of {asked_s:.4g} s: the first {cut} answers cut as warm-up (MSER-5)",
    )
    SPARED = "spared", "MSER-5 would cut the first {spared} answers; not cut: no more than chance"
    SHIFTED = "shifted", "{figure} shifts from {before_ms:.3g} to {after_ms:.3g} ms at {at_s:.3g} s"
    # --- order, arrivals, the campaign as a whole (figures)
    OUT_OF_ESTIMATES = "out-of-estimates", "{why}: listed, and left out of every estimate over runs"
    BEYOND_CALIBRATION = (
        "beyond-calibration",
        (
            "stamp errors were calibrated with concurrency {streams:,} and {tokens_per_s:,.0f} token "
            "events/s, here were up to {most:,} and {fastest_per_s:,.0f}: they may be larger; calibrate at "
            "this load with --concurrency and --gap-ms"
        ),
    )
    OFF_SCHEDULE = (
        "off-schedule",
        (
            "the schedule drawn has {rate_per_s:.4g} requests/s, over three standard deviations from the "
            "{asked_per_s:g} asked for: choose another seed"
        ),
    )
    OUT_OF_BALANCE = (
        "out-of-balance",
        (
            "requests in flight and throughput times residence are {apart:.1%} apart (Little's law): the "
            "load was not in balance over the window"
        ),
    )
    RUN_WITHOUT_VALUE = "run-without-value", "a run has no value"
    NO_INTERVAL_BELOW = "no-interval-below", "no interval from fewer than {least} runs"
    LATE_DIFFER = (
        "late-differ",
        (
            "late runs differ from early ones: {figure} is {ratio:.3g} times as large "
            "({low:.3g}..{high:.3g}); something changes from run to run"
        ),
    )
    # --- agents
    NO_SOLO_RUNS = "no-solo-runs", "no solo runs: overlap is all that can be told, and overlap is no speedup"
    NO_CONCURRENT_RUN = "no-concurrent-run", "no concurrent run finished with all its calls answered"
    NO_COMPLETE_BLOCK = "no-complete-block", "no complete block"
    NO_COMPLETE_RUN = "no-complete-run", "no complete run"
    NO_PAIR_OF_RUNS = "no-pair-of-runs", "no pair of runs"
    ZERO_VALUE = "zero-value", "a value of zero has no ratio"
    NOT_BLOCKED = "not-blocked", "solo and concurrent runs are not of the same blocks: Welch's t on logs"
    TOKENS_UNKNOWN = "tokens-unknown", "output tokens unknown"
    UNEQUAL_WORK = "unequal-work", "unequal work ({agents}): token rates are compared instead of times"
    UNEQUAL_TIMES = "unequal-times", "unequal work ({agents}): the times are of different work"
    WORK_UNCHECKED = (
        "work-unchecked",
        "output tokens of {agents} are not known in all runs: equal work cannot be checked",
    )
    ABOVE_IDEAL = "above-ideal", "above the ideal speedup: {agents} ran faster than alone"
    ABOVE_IDEAL_BY_NOISE = (
        "above-ideal-by-noise",
        "above the ideal speedup: {agents} ran faster than alone; within the noise",
    )
    GUIDE_FORMULA = (
        "guide-formula",
        "the guide's formula, (d1 + d2) / wall / N with d while both run: overlap, blind to both slowing down",
    )
    VOID = "void", "void: {verdict}"
    RUN_LEFT_OUT = "run-left-out", "run {run} left out: {why}"
    NO_SOLO_RUNS_OF = "no-solo-runs-of", "no solo runs of {agents}: no speedup"
    RUNS_WITHOUT_SOLO = (
        "runs-without-solo",
        "runs {runs} have no complete set of solo runs in their block: not in the speedup",
    )
    FEW_GAPS = "few-gaps", "no call has {least} gaps inside and outside of an overlap"
    # contention: why a stretch is refused, and what the stretches say
    NEVER_ALONE = "never-alone", "no solo runs"
    NEVER_TOGETHER = "never-together", "no concurrent runs"
    NOT_STAMPED_ALONE = "not-stamped-alone", "cannot be told from the solo runs"
    NOT_STAMPED_TOGETHER = "not-stamped-together", "cannot be told from the concurrent runs"
    NO_OVERLAP = "no-overlap", "no call overlapped one of another agent"
    METHOD = "method", "{method}"
    STRETCH_REFUSED = "stretch-refused", "{what}: {why}"
    STRETCH_WITHOUT_BOUNDS = "stretch-without-bounds", "{what} took {stretch:.3g} × solo; {why}"
    STRETCH_ABOVE = "stretch-above", "{what} took {stretch:.3g} × solo, at least {lower:.3g} ×"
    STRETCH_UNDECIDED = (
        "stretch-undecided",
        "{what} took between {lower:.3g} and {upper:.3g} × solo: {threshold:g} lies inside",
    )
    STRETCH_BELOW = "stretch-below", "{what} took at most {upper:#.3g} × solo"
    NOT_COMPARED = "not-compared", "{what}: {agents} not compared, for want of solo runs"
    NO_FLAGS = "no-flags", "{agent}: no flags, {calls} solo calls are too few or all alike"
    SMALL_BASELINE = (
        "small-baseline",
        "{agent}: baseline of {calls} solo calls in {runs} runs, {calls_wanted} in {runs_wanted} wanted",
    )
    # --- comparisons
    FEW_TAIL_REQUESTS = "few-tail-requests", "few tail samples: {least} requests in the smallest run"
    SURVIVORS_ONLY_ON = "survivors-only-on", "survivors only on {side}: {failed:.1%} of the requests failed"
    WITHIN_STAMP_ERROR = (
        "within-stamp-error",
        "instrument-limited: the difference is less than two half-widths of the stamp error",
    )
    UNEQUAL_LENGTHS = "unequal-lengths", "answers differ in length: only figures per token are compared"
    NO_VALUE = "no-value", "no value on {sides}"
    NO_RATIO_OF_ZERO = "no-ratio-of-zero", "a run value of zero or infinity has no ratio"
    TOO_FEW_RUNS = "too-few-runs", "no interval from {runs} run{s} a side: at least {least} are needed"
    PAIRED_BLOCKS = "paired-blocks", "paired: two arms of one interleaved campaign, {blocks} blocks"
    PAIRED_AS_ASKED = "paired-as-asked", "paired as asked: run by run, {pairs} pairs"
    SEPARATE_CAMPAIGNS = "separate-campaigns", "unpaired: separate campaigns"
    FEW_COMMON_BLOCKS = (
        "few-common-blocks",
        "unpaired: of {least} blocks that pairs need, {blocks} have a run of both arms",
    )
    NO_PAIRS = "no-pairs", "unpaired, though pairs were asked for: {a} and {b} runs do not make pairs"
    RUNS_LEFT_OUT = "runs-left-out", "{side}: left out: {runs}"
    RUNS_MISSING = "runs-missing", "{side}: missing of the runs that were planned: {runs}"
    RUNS_STAND_OUT = "runs-stand-out", "{side}: stands out among its runs, and was kept: run {runs}"
    SIDE_VERDICT = "side-verdict", "{side}: verdict {verdict}"
    LENGTHS_DIFFER = (
        "lengths-differ",
        "mean output tokens differ by {share:.1%} ({a:.4g} and {b:.4g}): only figures per token are compared",
    )
    LENGTHS_UNKNOWN = (
        "lengths-unknown",
        "output tokens are not known on both sides: equal work cannot be checked",
    )
    EVENTS_FOR_TOKENS = (
        "events-for-tokens",
        "a server did not count all tokens: events were counted in place of them",
    )
    NOT_INTERLEAVED = (
        "not-interleaved",
        "not interleaved: one side was measured wholly before the other, so drift counts as a difference",
    )
    # --- telemetry and energy
    SHORT_ENERGY_WINDOW = "short-energy-window", "a window of {window_s:.3g} s: energy needs {least_s:g} s or more"
    SAMPLES_MISSING = "samples-missing", "samples are missing in the window"
    NOTHING_COUNTED = "nothing-counted", "no {what} were counted"
    WINDOW_BELOW_USUAL = "window-below-usual", "window of less than {usual_s:g} s"
    WHOLE_BOARDS = "whole-boards", "whole boards: whatever else ran on them is in it"
    IDLE_UNKNOWN = "idle-unknown", "idle power was not measured for {least_s:g} s"
    # --- probes
    FEW_TRIOS = "few-trios", "{answered} of {sent} trios of requests were answered: at least {least} are needed"
    ALL_FAILED = "all-failed", "every request failed"
    NO_BURST_ANSWERED = "no-burst-answered", "no burst of two or more requests was answered"
    ANSWERS_TOO_SHORT = "answers-too-short", "{why}"
    BURSTS_DIFFER = (
        "bursts-differ",
        "the bursts do not show one number: {least} to {most} requests began at once; {agree} of {bursts} bursts agree",
    )
    BURSTS_AGREE = "bursts-agree", "{agree} of {bursts} bursts agree"
    NO_LIMIT = "no-limit", "no limit found up to {most} at once"
    FEW_BURSTS = "few-bursts", ("too few bursts to be sure: {agree} of {bursts} bursts agree; more --rounds would tell")
    # --- suites
    NO_BLOCK_WITH_SOLO = "no-block-with-solo", "no complete block of solo and concurrent runs"
    NOT_TESTED_FEW_RUNS = (
        "not-tested-few-runs",
        "not tested: the most is {runs} of one variant, and {least} of each are needed: ask for --runs 5",
    )
    NOT_TESTED_ALONE = "not-tested-alone", "not tested: only one variant can be compared"
    PAIRS_SEPARATE = "pairs-separate", "{apart} of {pairs} pairs separate ({test}): {names}"
    NOT_ALL_ALIKE = (
        "not-all-alike",
        "the {variants} working runtimes are not all alike ({test}), but no pair separates",
    )
    NONE_SEPARATES = (
        "none-separates",
        "none of the {variants} working runtimes separates from the others ({test}); "
        "{alike} of {pairs} pairs are equivalent within {margin:g} %{rest}",
    )
    TEXT = "text", "{text}"  # until every note has a code


class Note(Struct, frozen=True, omit_defaults=True):
    """One note: which, and the data of its sentence."""

    code: NoteCode
    data: dict[str, Datum] = {}
    run: int | None = None  # the run that it is about, where it is about one of many

    @property
    def sentence(self) -> str:
        """The note in words, as reports print it."""
        words = self.code.sentence.format_map(self.data)
        return words if self.run is None else f"run {self.run}: {words}"

    def of_run(self, run: int | None) -> Note:
        """The same note about one run; None: about all."""
        return Note(self.code, self.data, run)


def note(code: NoteCode, **data: Datum) -> Note:
    """The note `code` with the data that its sentence has places for. Finite numbers are rounded as figures are."""
    return Note(code, {name: significant(datum) if isinstance(datum, float) else datum for name, datum in data.items()})


def sentences(notes: Iterable[Note]) -> tuple[str, ...]:
    """The notes in words."""
    return tuple(note.sentence for note in notes)


class Figure(Struct, frozen=True):
    """E of the summary's schema. Numbers are rounded to ten digits; `note_codes` says what `notes` says, as data."""

    value: float | None
    low: float | None
    high: float | None
    confidence: float | None
    n: int
    notes: tuple[str, ...] = ()
    note_codes: tuple[Note, ...] = ()

    def has(self, *codes: NoteCode) -> bool:
        """Whether one of `codes` stands beside the figure."""
        return any(note.code in codes for note in self.note_codes)

    def note(self, code: NoteCode) -> Note | None:
        """The note `code` beside the figure; None where there is none."""
        return next((note for note in self.note_codes if note.code is code), None)


@dataclass(frozen=True, slots=True)
class Estimate:
    """One figure. `low` or `high` alone is a one-sided bound; both None: no interval, the notes say why."""

    value: float | None
    low: float | None = None
    high: float | None = None
    confidence: float | None = None  # the level achieved, not the one asked for
    n: int = 0  # samples behind it
    notes: tuple[Note, ...] = ()

    def noted(self, *notes: Note) -> Estimate:
        """The same figure with `notes` added, each once."""
        return replace(self, notes=(*self.notes, *(note for note in notes if note not in self.notes)))

    def has(self, *codes: NoteCode) -> bool:
        """Whether one of `codes` stands beside the figure."""
        return any(note.code in codes for note in self.notes)

    @property
    def sentences(self) -> tuple[str, ...]:
        """The notes in words."""
        return sentences(self.notes)

    def without_value(self, reason: Note) -> Estimate:
        """The figure refused altogether. Its other notes go too: some of them report a value."""
        return Estimate(None, n=self.n, notes=(reason,))

    def figure(self) -> Figure:
        """The figure as a summary holds it."""
        return Figure(
            value=significant(self.value),
            low=significant(self.low),
            high=significant(self.high),
            confidence=None if self.confidence is None else round(self.confidence, 4),
            n=self.n,
            notes=self.sentences,
            note_codes=self.notes,
        )


def refused(reason: Note, n: int = 0, notes: Iterable[Note] = ()) -> Estimate:
    """A figure without a value, and why."""
    return Estimate(None, n=n, notes=(reason, *notes))


def significant(value: float | None, digits: int = DIGITS) -> float | None:
    """`value` to `digits` significant digits; None for None and for what JSON cannot hold (NaN, infinity)."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{float(value):.{digits}g}")
