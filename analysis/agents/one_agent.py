"""One agent of a campaign, alone and among the others: wall time, latencies, rates, and what its server says.

Two TTFTs: `ttft_ms` from when a call was due, which is what the agent waits, a wait for a permit included;
`ttft_service_ms` from when it was sent, which is the server's doing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from msgspec import Struct

from analysis.agents.blocks import Run
from analysis.agents.differences import COMPARED, Spread, SpreadFigure, cohens_d, mean_difference, spread_figure
from analysis.agents.speedup import ratio_of
from analysis.estimate import Bool, Figure, significant
from analysis.records.calls import Calls
from analysis.records.requests import ABSENT
from loadgen.manifest import AgentFacts
from loadgen.record import Int64

__all__ = ["Agent", "Arm", "ServerTimes", "agent_of"]

ByRun = dict[int, float]  # {run: value}; a run without a value has no place


class ServerTimes(Struct, frozen=True, kw_only=True):
    """Means of what the server says about its calls; None where it says nothing."""

    load_ms: float | None
    prompt_eval_ms: float | None
    eval_ms: float | None
    queue_ms: float | None
    # What some tools call TTFT: it leaves out queueing, and is never to be compared with the client's.
    load_plus_prompt_eval_ms: float | None
    output_tokens_per_eval_s: float | None


class Arm(Struct, frozen=True, kw_only=True):
    """One agent in one arm: alone (solo) or together (concurrent). Figures are over runs."""

    runs: int
    calls: int
    output_tokens_a_run: float | None
    wall_s: SpreadFigure
    ttft_ms: SpreadFigure
    ttft_service_ms: SpreadFigure
    tpot_ms: SpreadFigure
    output_tokens_per_s: SpreadFigure
    server: ServerTimes

    @property
    def spreads(self) -> dict[str, Spread]:
        """The spreads of the figures in COMPARED."""
        return {
            "ttft_ms": self.ttft_ms.spread,
            "ttft_service_ms": self.ttft_service_ms.spread,
            "output_tokens_per_s": self.output_tokens_per_s.spread,
        }


class Agent(Struct, frozen=True, kw_only=True):
    """One agent: what it was, its two arms, and what lies between them. d: Cohen's, concurrent minus solo."""

    endpoint: str | None
    workload: str | None
    options: dict[str, Any]  # as sent to its server
    think_ms: float
    solo: Arm
    concurrent: Arm
    stretch: Figure
    permit_wait_ms: Figure
    ttft_ms_concurrent_minus_solo: Figure
    ttft_ms_cohens_d_concurrent_minus_solo: float | None
    ttft_service_ms_concurrent_minus_solo: Figure
    ttft_service_ms_cohens_d_concurrent_minus_solo: float | None
    output_tokens_per_s_concurrent_minus_solo: Figure
    output_tokens_per_s_cohens_d_concurrent_minus_solo: float | None


def agent_of(calls: Calls, runs: Sequence[Run], index: int, facts: AgentFacts, confidence: float) -> Agent:
    """What the section says about the agent `index` of `calls`; `facts` are the manifest's about it."""
    whole = [run for run in runs if run.whole and not np.isnan(run.wall_s[index])]
    together, alone = [run for run in whole if run.concurrent], [run for run in whole if not run.concurrent]
    values = {"solo": _values(calls, alone, index), "concurrent": _values(calls, together, index)}
    solo_of = {run.block: run for run in alone}
    pairs = [(run, solo_of[run.block]) for run in together if run.block in solo_of and run.block != ABSENT]
    walls = np.array([[run.wall_s[index], solo.wall_s[index]] for run, solo in pairs]).reshape(-1, 2)
    minus, d = {}, {}
    for name in COMPARED:
        a, b = values["concurrent"][name], values["solo"][name]
        paired = [a[run.run] - b[solo.run] for run, solo in pairs if run.run in a and solo.run in b]
        minus[name] = mean_difference(paired, confidence).figure()
        d[name] = cohens_d(list(a.values()), list(b.values()))
    return Agent(
        endpoint=facts.endpoint,
        workload=facts.workload,
        options=facts.options,
        think_ms=facts.think_ms,
        solo=_arm(calls, alone, index, values["solo"], confidence),
        concurrent=_arm(calls, together, index, values["concurrent"], confidence),
        stretch=ratio_of(walls[:, 0], walls[:, 1], confidence).figure(),
        permit_wait_ms=mean_difference(
            [float(run.permit_wait_s[index]) * 1e3 for run in together], confidence
        ).figure(),
        ttft_ms_concurrent_minus_solo=minus["ttft_ms"],
        ttft_ms_cohens_d_concurrent_minus_solo=d["ttft_ms"],
        ttft_service_ms_concurrent_minus_solo=minus["ttft_service_ms"],
        ttft_service_ms_cohens_d_concurrent_minus_solo=d["ttft_service_ms"],
        output_tokens_per_s_concurrent_minus_solo=minus["output_tokens_per_s"],
        output_tokens_per_s_cohens_d_concurrent_minus_solo=d["output_tokens_per_s"],
    )


def _values(calls: Calls, runs: Sequence[Run], agent: int) -> dict[str, ByRun]:
    """{figure: {run: value}} of an agent."""
    per_call = {
        "ttft_ms": calls.ttft() / 1e6,
        "ttft_service_ms": calls.ttft_service() / 1e6,
        "tpot_ms": calls.tpot() / 1e6,
    }
    values: dict[str, ByRun] = {name: {} for name in ("wall_s", *per_call, "output_tokens_per_s")}
    for run in runs:
        here = (calls.run == run.run) & (calls.agent == agent)
        values["wall_s"][run.run] = float(run.wall_s[agent])
        if run.wall_s[agent] > 0:
            values["output_tokens_per_s"][run.run] = float(run.tokens[agent] / run.wall_s[agent])
        for name, column in per_call.items():
            known = column[here & ~np.isnan(column)]
            if len(known):
                values[name][run.run] = float(known.mean())
    return {name: {run: x for run, x in by_run.items() if not math.isnan(x)} for name, by_run in values.items()}


def _arm(calls: Calls, runs: Sequence[Run], agent: int, values: Mapping[str, ByRun], confidence: float) -> Arm:
    here = np.isin(calls.run, [run.run for run in runs]) & (calls.agent == agent)
    tokens = [float(run.tokens[agent]) for run in runs]
    return Arm(
        runs=len(runs),
        calls=int(here.sum()),
        output_tokens_a_run=significant(float(np.mean(tokens))) if tokens else None,
        wall_s=spread_figure(values["wall_s"], confidence),
        ttft_ms=spread_figure(values["ttft_ms"], confidence),
        ttft_service_ms=spread_figure(values["ttft_service_ms"], confidence),
        tpot_ms=spread_figure(values["tpot_ms"], confidence),
        output_tokens_per_s=spread_figure(values["output_tokens_per_s"], confidence),
        server=_server_times(calls, here),
    )


def _server_times(calls: Calls, here: Bool) -> ServerTimes:
    """What the server says about the calls `here`, shape (n,)."""
    both = here & (calls.server_prompt_eval_ns != ABSENT)
    load = np.where(calls.server_load_ns == ABSENT, 0, calls.server_load_ns)
    evaluated = here & (calls.server_eval_ns != ABSENT) & (calls.server_eval_ns > 0) & (calls.output_tokens != ABSENT)
    seconds = float(calls.server_eval_ns[evaluated].sum()) / 1e9
    tokens = float(calls.output_tokens[evaluated].sum())
    return ServerTimes(
        load_ms=_mean_ms(calls.server_load_ns[here]),
        prompt_eval_ms=_mean_ms(calls.server_prompt_eval_ns[here]),
        eval_ms=_mean_ms(calls.server_eval_ns[here]),
        queue_ms=_mean_ms(calls.server_queue_ns[here]),
        load_plus_prompt_eval_ms=_mean_ms((load + calls.server_prompt_eval_ns)[both]),
        output_tokens_per_eval_s=significant(tokens / seconds) if seconds else None,
    )


def _mean_ms(column: Int64) -> float | None:
    known = column[column != ABSENT]
    return significant(float(known.mean()) / 1e6) if len(known) else None
