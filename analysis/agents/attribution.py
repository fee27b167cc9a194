"""What slowed a flagged call down, as far as its record and those beside it tell. METHODOLOGY 11.5.

Each finding gets one cause, the most specific one whose share of the excess is at least half: what the server says
itself first (load, queue, prompt evaluation), then what was sampled beside it (cache pressure, clocks), then what the
client knows of itself and of the socket, then what the other agents were doing at that time. `unknown` is an answer
too. A share is not known of a cache that is full or of segments sent again: that they were is all there is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.agents.conditions import Signs
from analysis.agents.contention import Baseline
from analysis.agents.overlap import Busy, Gaps, inside_and_touching
from analysis.estimate import significant
from analysis.records.calls import Calls
from analysis.records.requests import ABSENT
from loadgen.record import Int64

__all__ = [
    "CAUSES",
    "COLD_LOAD_NS",
    "SHORT",
    "Finding",
    "Why",
    "cold_loads",
    "short_answers",
    "why_decode",
    "why_ttft",
    "why_unequal",
]

Float64 = NDArray[np.float64]

CAUSES = (
    *("queue", "prefill_interference", "slower_decode", "cold_load", "short_answer", "kv_pressure", "clocks"),
    *("client", "network", "permit", "unequal_agents", "unknown"),
)
COLD_LOAD_NS = 500_000_000  # servers report some tens of ms for a model that is there
SHORT = 0.5  # of the tokens that this agent usually writes at this place
MOST = 0.5  # of an excess: what explains that much is its cause
LIKE_ALONE = 0.35  # of what the call takes alone: within this it began when another one ended


@dataclass(frozen=True, slots=True)
class Why:
    """A cause, and if samples decided on it, the longest time between two of them in that run."""

    cause: str
    sampling_gap_s: float | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that took longer than it does alone, or an imbalance that a rule labelled."""

    run: int
    agent: str
    turn: int | None
    what: str  # ttft | tpot | balance
    from_ns: int
    to_ns: int
    stretch: float
    cause: str
    sampling_gap_s: float | None = None  # where samples decided on the cause

    def to_json(self) -> dict[str, Any]:
        return {
            **{name: getattr(self, name) for name in ("run", "agent", "turn", "what")},
            "from_s": significant(self.from_ns / 1e9),
            "to_s": significant(self.to_ns / 1e9),
            "stretch": significant(self.stretch),
            "cause": self.cause,
            "sampling_gap_s": significant(self.sampling_gap_s),
        }


def why_ttft(
    calls: Calls,
    place: int,
    yardstick_ns: float,
    busy: Busy,
    lag_ns: float | None,
    prefill: Baseline | None,
    signs: Signs,
) -> Why:
    """Return why the first token of a call came late.

    yardstick_ns: what it takes alone. lag_ns: how late the client may have been with a stamp; None where stamps are the
    kernel's. prefill: the solo calls' prompt evaluation, as told by the server; None if it tells none. signs: sampled
    from when the call was sent to its first token.
    """
    sent, first = int(calls.sent_ns[place]), int(calls.first_ns[place])
    excess = (first - sent) - yardstick_ns
    load, queue = _known(calls.server_load_ns, place), _known(calls.server_queue_ns, place)
    evaluated = _known(calls.server_prompt_eval_ns, place)
    if load is not None and load >= max(COLD_LOAD_NS, MOST * excess):
        return Why("cold_load")
    if queue is not None and queue >= MOST * excess:
        return Why("queue")
    if queue is None and signs.queue(place, MOST * excess):
        return Why("queue", float(signs.server_gap_s[place]))
    if evaluated is not None and prefill is not None:
        prompt = np.array([calls.input_tokens[place]], np.float64)
        if evaluated - float(prefill.expected_ns(prompt)[0]) >= MOST * excess:
            return Why("prefill_interference")
    beside = _by_pressure(signs, place, excess / yardstick_ns)
    if beside is not None:
        return beside
    if lag_ns is not None and lag_ns >= MOST * excess:
        return Why("client")
    accepted = _known(calls.sent_last_ns, place)
    if accepted is not None and accepted - sent >= MOST * excess:
        return Why("network")
    may_queue = not signs.no_queue(place, MOST * excess)
    if evaluated is not None and prefill is not None and queue is None and may_queue:
        elsewhere = (first - sent) - evaluated - (load or 0)
        if elsewhere >= MOST * excess:
            return Why("queue")
    return _by_neighbours(calls, place, yardstick_ns, busy, signs, may_queue=may_queue)


def _by_pressure(signs: Signs, place: int, excess: float) -> Why | None:
    """Judge by the samples of cache and clocks. excess: of what it takes alone, 0.1: a tenth more."""
    if signs.cache[place]:
        return Why("kv_pressure", float(signs.server_gap_s[place]))
    if signs.clocks(place, MOST * excess):
        return Why("clocks", float(signs.board_gap_s[place]))
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
        return Why("queue")
    if signs.resent[place]:
        return Why("network", float(signs.host_gap_s[place]))
    begin, end = np.array([sent]), np.array([first])
    if inside_and_touching(begin, end, busy.prefills[key])[1][0]:
        return Why("prefill_interference")
    return Why("slower_decode" if inside_and_touching(begin, end, busy.requests[key])[1][0] else "unknown")


def why_decode(
    calls: Calls, place: int, yardstick_ns: float, excess: float, gaps: Gaps, lag_ns: float | None, signs: Signs
) -> Why:
    """Return why the tokens of a call came slower.

    yardstick_ns: its mean gap when alone. excess: how much slower, as a share of that. signs: sampled from its first
    token to its last.
    """
    inside, prefill = int(gaps.inside[place]), int(gaps.prefill[place])
    total = int(gaps.inside_ns[place]) - yardstick_ns * inside
    if total > 0 and int(gaps.prefill_ns[place]) - yardstick_ns * prefill >= MOST * total:
        return Why("prefill_interference")
    beside = _by_pressure(signs, place, excess)
    if beside is not None:
        return beside
    if lag_ns is not None and lag_ns >= MOST * yardstick_ns:
        return Why("client")
    if signs.resent[place]:
        return Why("network", float(signs.host_gap_s[place]))
    return Why("slower_decode" if total > 0 else "unknown")


def why_unequal(
    calls: Calls,
    run: int,
    shorter: int,
    short: Sequence[Mapping[str, Any]],
    cold: Sequence[Mapping[str, Any]],
    permit_wait_ns: float,
    idle_ns: float,
    alone: float | None,
) -> str:
    """Return why the agents of a run were busy for unequal times.

    shorter: the agent that was busy for less time; idle_ns: how long agents had nothing out, summed over agents, of
    which permit_wait_ns was the coordinator's doing. alone: shorter / longer wall time of the same agents alone, None
    where not measured.
    """
    name = calls.agents[shorter]
    if any(one["run"] == run and one["agent"] == name for one in short):
        return "short_answer"
    if sum(one["load_s"] * 1e9 for one in cold if one["run"] == run and one["agent"] != name) >= MOST * idle_ns:
        return "cold_load"
    if permit_wait_ns >= MOST * idle_ns:
        return "permit"
    if alone is not None and alone < SHORT:
        return "unequal_agents"
    return "unknown"


def short_answers(calls: Calls) -> list[dict[str, Any]]:
    """Return the calls with less than half the tokens that their agent usually writes at that place."""
    found = []
    counted = calls.ok & (calls.output_tokens != ABSENT)
    for agent, name in enumerate(calls.agents):
        for turn in np.unique(calls.turn[counted & (calls.agent == agent)]).tolist():
            alike = np.flatnonzero(counted & (calls.agent == agent) & (calls.turn == turn))
            usual = float(np.median(calls.output_tokens[alike]))
            found += [
                {
                    "run": int(calls.run[i]),
                    "agent": name,
                    "turn": turn,
                    "tokens": int(calls.output_tokens[i]),
                    "usual_tokens": usual,
                }
                for i in alike[calls.output_tokens[alike] < SHORT * usual].tolist()
            ]
    return sorted(found, key=_place)


def cold_loads(calls: Calls) -> list[dict[str, Any]]:
    """Return the calls for which the server says that it loaded the model."""
    cold = np.flatnonzero((calls.server_load_ns != ABSENT) & (calls.server_load_ns >= COLD_LOAD_NS))
    found = [
        {
            "run": int(calls.run[i]),
            "agent": calls.agents[calls.agent[i]],
            "turn": int(calls.turn[i]),
            "load_s": significant(calls.server_load_ns[i] / 1e9),
        }
        for i in cold.tolist()
    ]
    return sorted(found, key=_place)


def _place(one: Mapping[str, Any]) -> tuple[int, str, int]:
    return one["run"], one["agent"], one["turn"]


def _known(column: Int64, place: int) -> int | None:
    value = int(column[place])
    return None if value == ABSENT else value
