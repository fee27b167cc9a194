"""The cause of a flagged call's slowness, as far as its record and those beside it show it.

See docs/methodology.md#causes.

Each finding gets one cause, the most specific one whose share of the excess is at least half: first the
server's own durations (load, queue, prompt evaluation), then samples taken beside it (cache pressure, clocks), then the
client's own delays and the socket's, then the other agents' requests at that time. `unknown` is an answer too. For a
full cache or segments sent again no share is known, only that they occurred.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from msgspec import Struct

from analysis.agents.conditions import Signs
from analysis.agents.contention import Baseline
from analysis.agents.overlap import Busy, Gaps, inside_and_touching
from analysis.estimate import significant
from analysis.records.calls import Calls
from analysis.records.requests import ABSENT
from loadgen.record import Int64

__all__ = [
    "COLD_LOAD_NS",
    "SHORT",
    "Cause",
    "ColdLoad",
    "Finding",
    "ShortAnswer",
    "Slowed",
    "Why",
    "cold_loads",
    "short_answers",
    "why_decode",
    "why_ttft",
    "why_unequal",
]

COLD_LOAD_NS = 500_000_000  # servers report some tens of ms for a model that is there
SHORT = 0.5  # of the tokens that this agent usually writes at this place
MOST = 0.5  # of an excess: what explains that much is its cause
LIKE_ALONE = 0.35  # of what the call takes alone: within this it began when another one ended


class Cause(StrEnum):
    """Why something took longer than it does alone."""

    QUEUE = "queue"
    PREFILL_INTERFERENCE = "prefill_interference"
    SLOWER_DECODE = "slower_decode"
    COLD_LOAD = "cold_load"
    SHORT_ANSWER = "short_answer"
    KV_PRESSURE = "kv_pressure"
    CLOCKS = "clocks"
    CLIENT = "client"
    NETWORK = "network"
    PERMIT = "permit"
    UNEQUAL_AGENTS = "unequal_agents"
    UNKNOWN = "unknown"


class Slowed(StrEnum):
    """What took longer: service TTFT, TPOT, or the busier of two agents."""

    TTFT = "ttft"
    TPOT = "tpot"
    BALANCE = "balance"


@dataclass(frozen=True, slots=True)
class Why:
    """A cause, and if samples decided on it, the longest time between two of them in that run."""

    cause: Cause
    sampling_gap_s: float | None = None


class Finding(Struct, frozen=True, kw_only=True):
    """Something that took longer than it does alone, or an imbalance that a rule labelled."""

    run: int
    agent: str
    turn: int | None
    what: Slowed
    from_s: float | None
    to_s: float | None
    stretch: float | None
    cause: Cause
    sampling_gap_s: float | None = None  # where samples decided on the cause; None too where there are too few


class ShortAnswer(Struct, frozen=True, kw_only=True):
    """A call with less than half the tokens that its agent usually writes at that place."""

    run: int
    agent: str
    turn: int
    tokens: int
    usual_tokens: float


class ColdLoad(Struct, frozen=True, kw_only=True):
    """A call for which the server says that it loaded the model."""

    run: int
    agent: str
    turn: int
    load_s: float


def why_ttft(
    calls: Calls,
    place: int,
    yardstick_ns: float,
    busy: Busy,
    lag_ns: float | None,
    prefill: Baseline | None,
    signs: Signs,
) -> Why:
    """Why the first token of a call came late.

    yardstick_ns: what it takes alone. lag_ns: how late the client may have been with a stamp; None where stamps are the
    kernel's. prefill: the solo calls' prompt evaluation, as the server reports it; None if it reports none. signs:
    sampled from when the call was sent to its first token.
    """
    sent, first = int(calls.sent_ns[place]), int(calls.first_ns[place])
    excess = (first - sent) - yardstick_ns
    load, queue = _known(calls.server_load_ns, place), _known(calls.server_queue_ns, place)
    evaluated = _known(calls.server_prompt_eval_ns, place)
    if load is not None and load >= max(COLD_LOAD_NS, MOST * excess):
        return Why(Cause.COLD_LOAD)
    if queue is not None and queue >= MOST * excess:
        return Why(Cause.QUEUE)
    if queue is None and signs.queue(place, MOST * excess):
        return Why(Cause.QUEUE, float(signs.server_gap_s[place]))
    if evaluated is not None and prefill is not None:
        prompt = np.array([calls.input_tokens[place]], np.float64)
        if evaluated - float(prefill.expected_ns(prompt)[0]) >= MOST * excess:
            return Why(Cause.PREFILL_INTERFERENCE)
    beside = _by_pressure(signs, place, excess / yardstick_ns)
    if beside is not None:
        return beside
    if lag_ns is not None and lag_ns >= MOST * excess:
        return Why(Cause.CLIENT)
    accepted = _known(calls.sent_last_ns, place)
    if accepted is not None and accepted - sent >= MOST * excess:
        return Why(Cause.NETWORK)
    may_queue = not signs.no_queue(place, MOST * excess)
    if evaluated is not None and prefill is not None and queue is None and may_queue:
        elsewhere = (first - sent) - evaluated - (load or 0)
        if elsewhere >= MOST * excess:
            return Why(Cause.QUEUE)
    return _by_neighbours(calls, place, yardstick_ns, busy, signs, may_queue=may_queue)


def _by_pressure(signs: Signs, place: int, excess: float) -> Why | None:
    """Judge by the samples of cache and clocks. excess: of what it takes alone, 0.1: a tenth more."""
    if signs.cache[place]:
        return Why(Cause.KV_PRESSURE, float(signs.server_gap_s[place]))
    if signs.clocks(place, MOST * excess):
        return Why(Cause.CLOCKS, float(signs.board_gap_s[place]))
    return None


def _by_neighbours(calls: Calls, place: int, yardstick_ns: float, busy: Busy, signs: Signs, *, may_queue: bool) -> Why:
    """Judge by what the others did meanwhile: this works with every server, and is a guess."""
    sent, first = int(calls.sent_ns[place]), int(calls.first_ns[place])
    key = int(calls.run[place]), int(calls.agent[place])
    others = calls.concurrent & (calls.run == key[0]) & (calls.agent != key[1]) & (calls.done_ns != ABSENT)
    ended = calls.done_ns[others & (calls.sent_ns < first) & (calls.endpoint == calls.endpoint[place])]
    ended = ended[(ended > sent) & (ended <= first)]
    # The server began with this call when it had ended another: what followed took as long as it does alone.
    if may_queue and len(ended) and bool((np.abs(first - ended - yardstick_ns) <= LIKE_ALONE * yardstick_ns).any()):
        return Why(Cause.QUEUE)
    if signs.resent[place]:
        return Why(Cause.NETWORK, float(signs.host_gap_s[place]))
    begin, end = np.array([sent]), np.array([first])
    if inside_and_touching(begin, end, busy.prefills[key])[1][0]:
        return Why(Cause.PREFILL_INTERFERENCE)
    beside = inside_and_touching(begin, end, busy.requests[key])[1][0]
    return Why(Cause.SLOWER_DECODE if beside else Cause.UNKNOWN)


def why_decode(
    calls: Calls, place: int, yardstick_ns: float, excess: float, gaps: Gaps, lag_ns: float | None, signs: Signs
) -> Why:
    """Why the tokens of a call came slower.

    yardstick_ns: its mean gap when alone. excess: how much slower, as a share of that. signs: sampled from its first
    token to its last.
    """
    inside, prefill = int(gaps.inside[place]), int(gaps.prefill[place])
    total = int(gaps.inside_ns[place]) - yardstick_ns * inside
    if total > 0 and int(gaps.prefill_ns[place]) - yardstick_ns * prefill >= MOST * total:
        return Why(Cause.PREFILL_INTERFERENCE)
    beside = _by_pressure(signs, place, excess)
    if beside is not None:
        return beside
    if lag_ns is not None and lag_ns >= MOST * yardstick_ns:
        return Why(Cause.CLIENT)
    if signs.resent[place]:
        return Why(Cause.NETWORK, float(signs.host_gap_s[place]))
    return Why(Cause.SLOWER_DECODE if total > 0 else Cause.UNKNOWN)


def why_unequal(
    calls: Calls,
    run: int,
    shorter: int,
    short: Sequence[ShortAnswer],
    cold: Sequence[ColdLoad],
    permit_wait_ns: float,
    idle_ns: float,
    alone: float | None,
) -> Cause:
    """Why the agents of a run were busy for unequal times.

    shorter: the agent that was busy for less time; idle_ns: how long agents had nothing out, summed over agents, of
    which permit_wait_ns was the coordinator's doing. alone: shorter / longer wall time of the same agents alone, None
    where not measured.
    """
    name = calls.agents[shorter]
    if any(answer.run == run and answer.agent == name for answer in short):
        return Cause.SHORT_ANSWER
    if sum(load.load_s * 1e9 for load in cold if load.run == run and load.agent != name) >= MOST * idle_ns:
        return Cause.COLD_LOAD
    if permit_wait_ns >= MOST * idle_ns:
        return Cause.PERMIT
    if alone is not None and alone < SHORT:
        return Cause.UNEQUAL_AGENTS
    return Cause.UNKNOWN


def short_answers(calls: Calls) -> tuple[ShortAnswer, ...]:
    """The calls with less than half the tokens that their agent usually writes at that place."""
    short = []
    counted = calls.ok & (calls.output_tokens != ABSENT)
    for agent, name in enumerate(calls.agents):
        for turn in np.unique(calls.turn[counted & (calls.agent == agent)]).tolist():
            alike = np.flatnonzero(counted & (calls.agent == agent) & (calls.turn == turn))
            usual = float(np.median(calls.output_tokens[alike]))
            short += [
                ShortAnswer(
                    run=int(calls.run[place]),
                    agent=name,
                    turn=turn,
                    tokens=int(calls.output_tokens[place]),
                    usual_tokens=usual,
                )
                for place in alike[calls.output_tokens[alike] < SHORT * usual].tolist()
            ]
    return tuple(sorted(short, key=_place))


def cold_loads(calls: Calls) -> tuple[ColdLoad, ...]:
    """The calls for which the server says that it loaded the model."""
    cold = np.flatnonzero((calls.server_load_ns != ABSENT) & (calls.server_load_ns >= COLD_LOAD_NS))
    loads = [
        ColdLoad(
            run=int(calls.run[place]),
            agent=calls.agents[calls.agent[place]],
            turn=int(calls.turn[place]),
            load_s=significant(calls.server_load_ns[place] / 1e9) or 0.0,
        )
        for place in cold.tolist()
    ]
    return tuple(sorted(loads, key=_place))


def _place(call: ShortAnswer | ColdLoad) -> tuple[int, str, int]:
    return call.run, call.agent, call.turn


def _known(column: Int64, place: int) -> int | None:
    value = int(column[place])
    return None if value == ABSENT else value
