"""The findings of a campaign of agents: which calls and runs were slow or unequal, each with its cause.

contention.py flags calls, attribution.py has the causes; here each flagged call is asked for its cause, and each run
that the guide's rule labels too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.agents import attribution, contention
from analysis.agents.attribution import Cause, Finding, Slowed, Why
from analysis.agents.blocks import Run
from analysis.agents.conditions import Signs, signs_of
from analysis.agents.overlap import Busy, Gaps
from analysis.estimate import Float64, significant
from analysis.records.calls import Calls
from analysis.records.requests import ABSENT
from analysis.records.samples import Samples
from loadgen.manifest import InstrumentFacts

__all__ = ["Evidence", "gaps_alone", "labelled_runs", "late_calls", "slow_calls", "stamp_lag_ns"]

Caused = tuple[Finding, Why]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What bears on the cause of a slow call."""

    calls: Calls
    busy: Busy
    gaps: Gaps
    samples: Samples
    servers_are_here: bool
    lag_ns: float | None  # how late the client may have been with a stamp; None where stamps are the kernel's


def stamp_lag_ns(instrument: InstrumentFacts) -> float | None:
    """How late the client may have been with a stamp, ns; None where stamps are the kernel's or it is not known."""
    lag_ms = (instrument.loop_lag_ms or {}).get("p99")
    return None if instrument.tier == "kernel" or lag_ms is None else lag_ms * 1e6


def gaps_alone(calls: Calls) -> Float64:
    """The mean gap between events of each agent when alone, ns, shape (agents,); NaN where not known."""
    expected = np.full(len(calls.agents), np.nan)
    for agent in range(len(calls.agents)):
        alone = ~calls.concurrent & calls.ok & (calls.agent == agent) & (calls.events > 1)
        if alone.any():
            expected[agent] = (calls.last_ns - calls.first_ns)[alone].sum() / (calls.events[alone] - 1).sum()
    return expected


def late_calls(evidence: Evidence, late: contention.Flags) -> list[Caused]:
    """The calls flagged for their service TTFT."""
    calls = evidence.calls
    signs = _signs(evidence, Slowed.TTFT)
    ttft_service = calls.ttft_service()
    prompts = calls.input_tokens.astype(np.float64)
    caused = []
    for agent in range(len(calls.agents)):
        evaluated = np.where(calls.server_prompt_eval_ns == ABSENT, np.nan, calls.server_prompt_eval_ns)
        alone = ~calls.concurrent & calls.ok & (calls.agent == agent)
        prefill = contention.baseline_of(evaluated[alone], prompts[alone])
        for place in np.flatnonzero(late.flagged & (calls.agent == agent)).tolist():
            yardstick = float(ttft_service[place] / late.stretch[place])
            why = attribution.why_ttft(calls, place, yardstick, evidence.busy, evidence.lag_ns, prefill, signs)
            caused.append(_of_call(calls, place, Slowed.TTFT, late, why))
    return caused


def slow_calls(evidence: Evidence, slow: contention.Flags) -> list[Caused]:
    """The calls flagged for their TPOT."""
    calls = evidence.calls
    signs = _signs(evidence, Slowed.TPOT)
    expected = gaps_alone(calls)
    caused = []
    for place in np.flatnonzero(slow.flagged).tolist():
        alone, excess = float(expected[calls.agent[place]]), float(slow.stretch[place]) - 1
        why = attribution.why_decode(calls, place, alone, excess, evidence.gaps, evidence.lag_ns, signs)
        caused.append(_of_call(calls, place, Slowed.TPOT, slow, why))
    return caused


def _signs(evidence: Evidence, what: Slowed) -> Signs:
    """The signs sampled while the calls waited for their first token, or wrote."""
    calls = evidence.calls
    begin, end = (calls.sent_ns, calls.first_ns) if what is Slowed.TTFT else (calls.first_ns, calls.last_ns)
    return signs_of(evidence.samples, calls, begin, end, servers_are_here=evidence.servers_are_here)


def _of_call(calls: Calls, place: int, what: Slowed, flags: contention.Flags, why: Why) -> Caused:
    begin, end = (calls.sent_ns, calls.first_ns) if what is Slowed.TTFT else (calls.first_ns, calls.last_ns)
    finding = Finding(
        run=int(calls.run[place]),
        agent=calls.agents[calls.agent[place]],
        turn=int(calls.turn[place]),
        what=what,
        from_s=significant(int(begin[place]) / 1e9),
        to_s=significant(int(end[place]) / 1e9),
        stretch=significant(float(flags.stretch[place])),
        cause=why.cause,
        sampling_gap_s=significant(why.sampling_gap_s),
    )
    return finding, why


def labelled_runs(calls: Calls, together: Sequence[Run], permits: int) -> list[Caused]:
    """The runs that the guide's rule, speedup < 1.5, would call contended: the rule sees balance alone."""
    limit = contention.Rules().speedup_below[0]
    short, cold = attribution.short_answers(calls), attribution.cold_loads(calls)
    walls = [_solo_wall_ns(calls, agent) for agent in range(len(calls.agents))]
    alone = float(np.min(walls) / np.max(walls)) if walls and not np.isnan(walls).any() else None
    caused = []
    for run in together:
        if run.overlap >= limit or len(calls.agents) < 2:
            continue
        shorter = int(np.nanargmin(run.wall_s))
        idle = (len(calls.agents) * run.makespan_s - float(np.nansum(run.wall_s))) * 1e9
        wait = float(np.nansum(run.permit_wait_s)) * 1e9 if permits < len(calls.agents) else 0.0
        cause = attribution.why_unequal(calls, run.run, shorter, short, cold, wait, idle, alone)
        caused.append((_of_run(run, calls.agents[shorter], cause), Why(cause)))
    return caused


def _of_run(run: Run, shorter: str, cause: Cause) -> Finding:
    least, most = float(np.nanmin(run.wall_s)), float(np.nanmax(run.wall_s))
    begin = int(np.nanmin(run.first_sent_s) * 1e9)
    return Finding(
        run=run.run,
        agent=shorter,
        turn=None,
        what=Slowed.BALANCE,
        from_s=significant(begin / 1e9),
        to_s=significant((begin + int(run.makespan_s * 1e9)) / 1e9),
        stretch=significant(most / least if least > 0 else math.inf),
        cause=cause,
    )


def _solo_wall_ns(calls: Calls, agent: int) -> float:
    """The mean wall time of an agent's solo runs, ns; NaN where it has none."""
    alone = ~calls.concurrent & (calls.agent == agent)
    walls = [
        float(calls.done_ns[alone & (calls.run == run)].max() - calls.sent_ns[alone & (calls.run == run)].min())
        for run in np.unique(calls.run[alone])
    ]
    return float(np.mean(walls)) if walls else math.nan
