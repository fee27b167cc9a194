"""The contention part of the agents section: verdict, stretches, the rules of earlier tools, causes, flags, levels.

TTFT is the service one here, from the sending to the first token: a wait for a permit is the coordinator's doing and
no contention. That holds for `ttft_stretch`, for the flags and for the rules named after TTFT.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from msgspec import Struct

from analysis.agents import contention
from analysis.agents.attribution import Cause, Finding, Why
from analysis.agents.blocks import Run
from analysis.agents.contention import ContentionVerdict
from analysis.agents.findings import Evidence, gaps_alone, labelled_runs, late_calls, slow_calls, stamp_lag_ns
from analysis.agents.levels import Burst, Shift, Timeline, levels_of
from analysis.agents.overlap import Gaps, busy_beside, read_gaps
from analysis.estimate import Bool, Estimate, Figure, Float64, Note, NoteCode, note, refused, significant
from analysis.records.calls import Calls
from analysis.records.frame import Frame
from analysis.records.samples import read_samples
from analysis.stats import intervals
from analysis.stats.planning import Seen
from analysis.telemetry.consumption import servers_are_here

__all__ = ["BySamples", "Contention", "Counted", "Flagged", "FlaggedRun", "contention_of"]

FINDINGS_SHOWN = 200
GAPS_LEAST = 5  # on either side, for a call to have a gap stretch
TTFT, TPOT = "TTFT service", "TPOT"  # as they are printed


class BySamples(Struct, frozen=True, kw_only=True):
    """The findings that samples decided on, and the longest time between two samples among them."""

    findings: int
    sampling_gap_s: float | None


class Counted(Struct, frozen=True, kw_only=True):
    """How many calls were judged, and how many of these flagged."""

    looked_at: int
    flagged: int


class FlaggedRun(Struct, frozen=True, kw_only=True):
    """The flags of one concurrent run; contended: beyond what the server's own slow tail accounts for."""

    run: int
    overlapping: int
    flagged: int
    rate: Figure
    contended: bool


class Flagged(Struct, frozen=True, kw_only=True):
    """Single concurrent calls that are slower than solo ones, and whether solo calls have as many of them."""

    what: str
    overlapping: int
    looked_at: int
    flagged: int
    rate: Figure
    runs_contended: Figure
    per_run: tuple[FlaggedRun, ...]
    solo: Counted
    natural_tail_p: float | None
    beyond_natural_tail: bool
    false_discovery_rate: float
    notes: tuple[str, ...]
    note_codes: tuple[Note, ...] = ()


class Contention(Struct, frozen=True, kw_only=True):
    """Whether the agents slowed each other down. ttft_stretch is of service TTFT, concurrent over solo."""

    verdict: ContentionVerdict
    reasons: tuple[str, ...]
    reason_codes: tuple[Note, ...] = ()
    threshold: float
    ttft_stretch: Figure
    ttft_stretch_at_least: float | None
    ttft_stretch_detectable: Seen | None
    tpot_stretch: Figure
    tpot_stretch_at_least: float | None
    tpot_stretch_detectable: Seen | None
    gap_stretch_inside_over_outside: Figure
    rules: dict[str, bool | None]  # None where a rule had nothing to judge
    rules_runs: dict[str, int | None]
    attribution: dict[Cause, int]
    attribution_by_samples: BySamples
    findings: tuple[Finding, ...]
    findings_left_out: int
    flags: Flagged
    flags_tpot: int
    timeline: tuple[Timeline, ...]
    shifts: tuple[Shift, ...]
    bursts: tuple[Burst, ...]


@dataclass(frozen=True, slots=True)
class _Compared:
    """What the concurrent calls show beside the solo ones."""

    ttft: contention.Stretch
    tpot: contention.Stretch
    waited_beside: Bool  # shape (n,): another agent's request was out while the call waited for its first token
    late: contention.Flags  # of service TTFT
    late_alone: contention.Flags
    slow: contention.Flags  # of TPOT


def contention_of(frame: Frame, calls: Calls, together: Sequence[Run], confidence: float) -> Contention:
    """The contention among `calls`; together: the concurrent runs that came to their end with all calls answered."""
    busy, facts = busy_beside(calls), frame.manifest
    evidence = Evidence(
        calls=calls,
        busy=busy,
        gaps=read_gaps(frame, calls, busy, gaps_alone(calls)),
        samples=read_samples(frame.samples, np.unique(calls.run).tolist()),
        servers_are_here=servers_are_here(facts),
        lag_ns=stamp_lag_ns(facts.measured_by),
    )
    compared = _compared(evidence, confidence)
    verdict, reasons = contention.verdict_of({TTFT: compared.ttft, TPOT: compared.tpot})
    rules_runs = _rules_runs(calls, together)
    caused = [
        *late_calls(evidence, compared.late),
        *slow_calls(evidence, compared.slow),
        *labelled_runs(calls, together, facts.permits or len(calls.agents)),
    ]
    findings = tuple(finding for finding, _ in caused)
    causes = Counter(finding.cause for finding in findings)
    levels = levels_of(evidence.gaps)
    return Contention(
        verdict=verdict,
        reasons=tuple(reason.sentence for reason in reasons),
        reason_codes=reasons,
        threshold=contention.THRESHOLD,
        ttft_stretch=compared.ttft.estimate.figure(),
        ttft_stretch_at_least=significant(compared.ttft.lower),
        ttft_stretch_detectable=_detectable(compared.ttft),
        tpot_stretch=compared.tpot.estimate.figure(),
        tpot_stretch_at_least=significant(compared.tpot.lower),
        tpot_stretch_detectable=_detectable(compared.tpot),
        gap_stretch_inside_over_outside=_gap_stretch(calls, evidence.gaps, confidence).figure(),
        rules={name: None if n is None else n > 0 for name, n in rules_runs.items()},
        rules_runs=rules_runs,
        attribution={cause: causes[cause] for cause in Cause},
        attribution_by_samples=_by_samples([why for _, why in caused]),
        findings=findings[:FINDINGS_SHOWN],
        findings_left_out=max(0, len(findings) - FINDINGS_SHOWN),
        flags=_flagged(calls, compared),
        flags_tpot=int(compared.slow.flagged.sum()),
        timeline=levels.timeline,
        shifts=levels.shifts,
        bursts=levels.bursts,
    )


def _compared(evidence: Evidence, confidence: float) -> _Compared:
    calls, busy = evidence.calls, evidence.busy
    ttft_service, tpot = calls.ttft_service(), calls.tpot()
    while_waiting = contention.overlapping(calls, busy, calls.sent_ns, calls.first_ns)
    while_writing = contention.overlapping(calls, busy, calls.first_ns, calls.last_ns)
    late, late_alone = contention.flag_calls(calls, ttft_service, while_waiting, by_prompt=True)
    slow, _ = contention.flag_calls(calls, tpot, while_writing, by_prompt=False)
    return _Compared(
        ttft=contention.stretch_over_runs(calls, ttft_service, while_waiting, confidence),
        tpot=contention.stretch_over_runs(calls, tpot, while_writing, confidence),
        waited_beside=while_waiting,
        late=late,
        late_alone=late_alone,
        slow=slow,
    )


def _detectable(stretch: contention.Stretch) -> Seen | None:
    found = contention.detectable(stretch)
    return None if found is None else found.seen(lambda beyond: contention.THRESHOLD * math.exp(beyond))


def _rules_runs(calls: Calls, together: Sequence[Run]) -> dict[str, int | None]:
    """How many runs each rule labels; None where it had nothing to judge: answers in one piece have no TTFT."""
    ttft_s = _ttft_of_runs_s(calls, together)
    labelled = contention.legacy_rules(np.array([run.overlap for run in together]), ttft_s)
    blind = {name for name in labelled if not together or ("ttft" in name and np.isnan(ttft_s).all())}
    return {name: None if name in blind else int(runs.sum()) for name, runs in labelled.items()}


def _ttft_of_runs_s(calls: Calls, together: Sequence[Run]) -> Float64:
    """The mean service TTFT, s, shape (runs, agents)."""
    ttft = calls.ttft_service() / 1e9
    table = np.full((len(together), len(calls.agents)), np.nan)
    for row, run in enumerate(together):
        for agent in range(len(calls.agents)):
            known = ttft[(calls.run == run.run) & (calls.agent == agent) & ~np.isnan(ttft)]
            if len(known):
                table[row, agent] = known.mean()
    return table


def _by_samples(whys: Sequence[Why]) -> BySamples:
    sampled = [why.sampling_gap_s for why in whys if why.sampling_gap_s is not None]
    widest = max((gap for gap in sampled if not math.isnan(gap)), default=None)
    return BySamples(findings=len(sampled), sampling_gap_s=significant(widest))


def _gap_stretch(calls: Calls, gaps: Gaps, confidence: float) -> Estimate:
    """How much longer gaps are inside the intervals of overlap than outside: per call, then per run."""
    both = (gaps.inside >= GAPS_LEAST) & (gaps.outside >= GAPS_LEAST) & (gaps.inside_ns > 0) & (gaps.outside_ns > 0)
    if not both.any():
        return refused(note(NoteCode.FEW_GAPS, least=GAPS_LEAST))
    inside, outside = gaps.inside_ns[both] / gaps.inside[both], gaps.outside_ns[both] / gaps.outside[both]
    logs, runs = np.log(inside / outside), calls.run[both]
    values = [float(np.exp(logs[runs == run].mean())) for run in np.unique(runs)]
    return intervals.over_runs(values, int(both.sum()), confidence)


def _flagged(calls: Calls, compared: _Compared) -> Flagged:
    late, alone = compared.late, compared.late_alone
    per_run = tuple(_flagged_run(calls, compared, run) for run in np.unique(calls.run[late.looked_at]).tolist())
    contended = intervals.proportion(sum(run.contended for run in per_run), len(per_run))
    shares = [run.flagged / run.overlapping for run in per_run]
    p = contention.natural_tail_p(late, alone)
    return Flagged(
        what=TTFT,
        overlapping=int(compared.waited_beside.sum()),
        looked_at=int(late.looked_at.sum()),
        flagged=int(late.flagged.sum()),
        rate=intervals.proportion(int(late.flagged.sum()), int(late.looked_at.sum()), shares).figure(),
        # Its unit is the run already, so it is not within one.
        runs_contended=replace(contended, notes=()).figure(),
        per_run=per_run,
        solo=Counted(looked_at=int(alone.looked_at.sum()), flagged=int(alone.flagged.sum())),
        natural_tail_p=significant(p),
        beyond_natural_tail=p < contention.TAIL_P,
        false_discovery_rate=contention.FALSE_DISCOVERIES,
        notes=tuple(mark.sentence for mark in late.notes),
        note_codes=late.notes,
    )


def _flagged_run(calls: Calls, compared: _Compared, run: int) -> FlaggedRun:
    here = compared.late.looked_at & (calls.run == run)
    flagged, judged = int(compared.late.flagged[here].sum()), int(here.sum())
    return FlaggedRun(
        run=run,
        overlapping=judged,
        flagged=flagged,
        rate=intervals.proportion(flagged, judged).figure(),
        contended=contention.natural_tail_p(compared.late, compared.late_alone, here) < contention.TAIL_P,
    )
