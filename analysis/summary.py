"""A directory of records in, `summary.json` out: the schema `loadgen.summary/2` and nothing that depends on the day.

The same records give the same bytes, in whatever order and number of files they lie, for `loadgen verify` computes
this again and compares. What older schemas say otherwise stands in CHANGED, and nowhere else.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

import msgspec
from msgspec import UNSET, Struct, UnsetType

from analysis.agents.section import AgentsSection, agents_section
from analysis.catalogue import RunVerdict
from analysis.estimate import Figure, Note, NoteCode, note, sentences, significant
from analysis.figures import order
from analysis.figures.arrivals import Arrivals, LittlesLaw, arrivals, littles_law, off_schedule, out_of_balance
from analysis.figures.counts import (
    ErrorCount,
    Requests,
    TokensPerEvent,
    errors_of,
    requests_of,
    tokens_from,
    tokens_per_event,
)
from analysis.figures.endpoints import EndpointSection, endpoints_of
from analysis.figures.instrument import Instrument, beyond_calibration, instrument_of, judge
from analysis.figures.metrics import Context, Metrics, itl_refusal, metrics_of
from analysis.figures.objectives import Decided, Terms, decide, good, terms_of
from analysis.figures.per_run import RunRow, per_run
from analysis.figures.runs import OverRuns, side_by_side
from analysis.records import arms, settling
from analysis.records.frame import Frame
from analysis.records.measured import Measured
from analysis.records.reading import Reading, reading_of
from analysis.records.requests import Bool
from analysis.records.settings import Stopping, stopping
from analysis.stats import intervals
from analysis.telemetry.consumption import EnergySection, energy_of, energy_of_arms
from analysis.telemetry.section import TelemetrySection, telemetry_of
from loadgen.manifest import LoadFacts, TargetFacts, WorkloadFacts

__all__ = [
    "CHANGED",
    "SCHEMA",
    "Changed",
    "Goodput",
    "LeftOut",
    "Source",
    "Summary",
    "Target",
    "follows",
    "json_text",
    "measured_of",
    "not_compared",
    "opened",
    "schema_of",
    "summarise",
]

SCHEMA = "loadgen.summary/2"

Source = str | Path | Frame | Reading | Measured


class LeftOut(Struct, frozen=True, kw_only=True):
    """A run that is listed and in no estimate over runs."""

    run: int
    why: arms.CutShort | None


class Goodput(Struct, frozen=True, kw_only=True):
    """What goodput asked of each request, and the share of requests, failed ones included, that gave it."""

    terms: dict[str, float]  # metric: limit, ms
    attainment: Figure


class Target(Struct, frozen=True, kw_only=True):
    """A server, as a report's headline has it."""

    name: str | UnsetType = UNSET
    url: str | UnsetType = UNSET
    api: str | UnsetType = UNSET
    model: str | UnsetType = UNSET
    version: str | UnsetType = UNSET


class Summary(Struct, frozen=True, kw_only=True):
    """The summary of one directory's records. `note_codes` are `notes` as data; reasons likewise."""

    schema: str = SCHEMA
    verdict: RunVerdict
    verdict_reasons: tuple[str, ...]
    verdict_reason_codes: tuple[Note, ...] = ()
    interrupted: bool
    runs: int
    left_out: tuple[LeftOut, ...]
    missing_runs: tuple[arms.MissingRun, ...]
    halted: str | None  # why the campaign ended early
    stopping: Stopping | None
    requests: Requests
    window_s: float | None  # of all runs together
    metrics: Metrics
    objectives: tuple[Decided, ...]
    goodput: Goodput | None
    instrument: Instrument
    tokens_per_event: TokensPerEvent
    tokens_from: dict[str, int]
    stale_connections: int
    errors: tuple[ErrorCount, ...]
    per_run: tuple[RunRow, ...]
    over_runs: dict[str, OverRuns]  # by the metric's key
    early_late: order.EarlyLate | None
    control: order.Control | None
    arrivals: tuple[Arrivals, ...] | None
    littles_law: tuple[LittlesLaw, ...]
    notes: tuple[str, ...]
    note_codes: tuple[Note, ...] = ()
    targets: tuple[Target, ...]
    load: LoadFacts | None
    workload: WorkloadFacts | UnsetType = UNSET
    endpoints: dict[str, EndpointSection] | UnsetType = UNSET  # this and what follows: only of some campaigns
    agents: AgentsSection | UnsetType = UNSET
    telemetry: TelemetrySection | UnsetType = UNSET
    energy: EnergySection | UnsetType = UNSET

    def to_json(self) -> str:
        """The text of summary.json."""
        return json_text(self)

    @classmethod
    def from_json(cls, text: str | bytes) -> Summary:
        """The summary that `text` holds, of this schema or an older one.

        Raises ValueError (json.JSONDecodeError, msgspec.ValidationError) for a text that holds none.
        """
        return msgspec.convert(json.loads(text), cls)


def summarise(source: Source) -> Summary:
    """The summary of a run's directory, or of its reading. Raises NoRecordsError.

    The sections over other arms (control, agents) are not in the summary of a Measured, which is of one arm.
    """
    reading = None if isinstance(source, Measured) else reading_of(source)
    m = measured_of(source if reading is None else reading)
    instrument = instrument_of(m)
    judged = judge(m, instrument)
    context = Context(instrument, judged.verdict)
    terms = terms_of(m.manifest.objectives)
    met = good(m, terms)
    metrics = metrics_of(m.counted, context, met)
    side = side_by_side(m, met)
    due, balances = arrivals(m), littles_law(m)
    checked = order.early_late(m.manifest, m.runs, side, m.counted.runs)
    notes = _notes(m, instrument, due, balances, checked)
    summary = Summary(
        verdict=judged.verdict,
        verdict_reasons=sentences(judged.reasons),
        verdict_reason_codes=judged.reasons,
        interrupted=m.interrupted,
        runs=len(m.windows),
        left_out=tuple(LeftOut(run=window.run, why=window.cut_short) for window in m.left_out.windows),
        missing_runs=arms.missing_runs(m.manifest),
        halted=None if m.manifest.halted is UNSET else m.manifest.halted,
        stopping=stopping(m.manifest),
        requests=requests_of(m),
        window_s=significant(sum(window.seconds for window in m.windows)),
        metrics=metrics,
        objectives=decide(m, metrics, judged.verdict),
        goodput=_goodput(m.counted, terms, met),
        instrument=instrument,
        tokens_per_event=tokens_per_event(m),
        tokens_from=tokens_from(m),
        stale_connections=int(m.requests.stale_connections.clip(0).sum()),
        errors=errors_of(m),
        per_run=per_run(m, judged.verdict, side),
        over_runs=side,
        early_late=checked,
        control=None if reading is None else order.control(reading),
        arrivals=due,
        littles_law=balances,
        notes=sentences(notes),
        note_codes=notes,
        targets=tuple(map(_target, m.manifest.targets)),
        load=m.manifest.load,
        workload=m.manifest.workload or UNSET,
        endpoints=endpoints_of(m.counted, context) if len(m.requests.endpoints) > 1 else UNSET,
    )
    return _with_sections(summary, m, reading)


def _notes(
    m: Measured,
    instrument: Instrument,
    due: tuple[Arrivals, ...] | None,
    balances: tuple[LittlesLaw, ...],
    checked: order.EarlyLate | None,
) -> tuple[Note, ...]:
    refusal = itl_refusal(m.counted, instrument)
    return (
        *m.notes,
        *beyond_calibration(m),
        *(note(NoteCode.OUT_OF_ESTIMATES, why=window.cut_short).of_run(window.run) for window in m.left_out.windows),
        *off_schedule(due),
        *out_of_balance(balances),
        *settling.shifted(m),
        *(order.late_differ(checked) if checked else ()),
        *([refusal] if refusal else ()),
    )


def _with_sections(summary: Summary, m: Measured, reading: Reading | None) -> Summary:
    """`summary` with the sections of what stood beside, which only some campaigns have."""
    agents: AgentsSection | UnsetType = UNSET
    if reading is not None and m.manifest.crew:
        agents = agents_section(reading, summary.verdict.value if summary.verdict.forbids_percentiles else None)
    energy = energy_of(m) if reading is None else energy_of_arms(reading, m)
    telemetry = telemetry_of(m)
    return msgspec.structs.replace(
        summary,
        agents=agents,
        telemetry=UNSET if telemetry is None else telemetry,
        energy=UNSET if energy is None else energy,
    )


def _goodput(m: Measured, terms: Terms, met: Bool | None) -> Goodput | None:
    if met is None:
        return None
    inside = [m.inside & (m.requests.run == run) for run in m.runs]
    shares = [float(met[of_run].mean()) for of_run in inside if of_run.any()]
    attainment = intervals.proportion(int((met & m.inside).sum()), int(m.inside.sum()), shares, m.confidence)
    return Goodput(terms=terms, attainment=attainment.figure())


def _target(facts: TargetFacts) -> Target:
    return Target(
        name=facts.name,
        url=facts.url,
        api=facts.api or UNSET,
        model=facts.model or UNSET,
        version=facts.version or UNSET,
    )


def opened(source: Source) -> Reading | Measured:
    """The reading or the data of a source, for further calls. Raises NoRecordsError."""
    return source if isinstance(source, Measured) else reading_of(source)


def measured_of(source: Source) -> Measured:
    """The data of the primary arm of a directory or of its reading."""
    read = opened(source)
    return read if isinstance(read, Measured) else read.measured


# --- as text, and against a text of before ---------------------------------------------------------------------------


def json_text(section: Struct) -> str:
    """The text of a JSON file that holds `section`."""
    return json.dumps(msgspec.to_builtins(section), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


class _Schema(Struct, frozen=True):
    schema: str | None = None


class Changed(NamedTuple):
    """A key that meant something else in an older schema, or was not the same."""

    schema: str  # the older one
    key: str  # dotted, from the top; * stands for anything
    why: str


_SENT = "from when a call was due; it was from its sending, which is ttft_service_ms today"
_NAMED = "the TTFT that it is about is called service TTFT today"
CHANGED = (
    Changed("loadgen.summary/1", "schema", "the number itself"),
    Changed("loadgen.summary/1", "agents.deltas.ttft_ms_*", _SENT),
    Changed("loadgen.summary/1", "agents.per_agent.*.ttft_ms*", _SENT),
    Changed("loadgen.summary/1", "agents.contention.reasons.*", _NAMED),
    Changed("loadgen.summary/1", "agents.contention.flags.what", _NAMED),
    Changed("loadgen.sweep-summary/1", "schema", "the number itself"),
    Changed("loadgen.runtimes-summary/1", "schema", "the number itself"),
)


def schema_of(text: str | bytes) -> str | None:
    """The schema of the summary in `text`; None for a text that holds none."""
    try:
        return msgspec.json.decode(text, type=_Schema).schema
    except msgspec.DecodeError:
        return None


def not_compared(stored: str) -> tuple[Changed, ...]:
    """What of the summary in the text `stored` cannot be compared with one made today; empty for today's schema."""
    schema = schema_of(stored)
    older = [changed for changed in CHANGED if changed.schema == schema]
    keys = set(_keys(json.loads(stored), "")) if older else set()
    return tuple(changed for changed in older if any(fnmatchcase(key, changed.key) for key in keys))


def _keys(plain: object, at: str) -> Iterator[str]:
    """Every dotted key of `plain`."""
    parts: Iterable[tuple[object, object]] = ()
    if isinstance(plain, dict):
        parts = plain.items()
    elif isinstance(plain, list):
        parts = enumerate(plain)
    for key, value in parts:
        place = f"{at}.{key}" if at else str(key)
        yield place
        yield from _keys(value, place)


def follows(stored: str, again: str) -> bool:
    """Whether a summary's text is what its records give today, `again`.

    One of today's schema is the same byte by byte. Of an older one each key that still means the same has the same
    value; keys that are new today are no difference, keys that are gone are one.
    """
    if stored == again:
        return True
    changed = not_compared(stored)
    if not changed:
        return False
    excepted = tuple(change.key for change in changed)
    return next(_differences(json.loads(stored), json.loads(again), "", excepted), None) is None


def _differences(before: object, now: object, at: str, excepted: tuple[str, ...]) -> Iterator[str]:
    """The dotted keys of `before` that are missing in `now` or have another value."""
    if at and any(fnmatchcase(at, pattern) for pattern in excepted):
        return
    if isinstance(before, dict) and isinstance(now, dict):
        for key, value in before.items():
            place = f"{at}.{key}" if at else str(key)
            if key in now:
                yield from _differences(value, now[key], place, excepted)
            elif not any(fnmatchcase(place, pattern) for pattern in excepted):
                yield place
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for index, (value, other) in enumerate(zip(before, now, strict=True)):
            yield from _differences(value, other, f"{at}.{index}", excepted)
    elif type(before) is not type(now) or before != now:
        yield at
