"""The runs of a campaign of agents, matched into blocks: wall times per agent, what was left out and why.

A block holds the solo run of every agent and the concurrent run. A run in which a call failed is no repetition of the
others: it is left out, and that is noted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from msgspec import Struct

from analysis.agents.speedup import Walls
from analysis.estimate import Float64, Note, NoteCode, note, significant
from analysis.records.calls import Calls
from analysis.records.requests import ABSENT
from analysis.stats.intervals import LEAST_RUNS
from loadgen.record import Int64

__all__ = ["AgentRun", "Lane", "Lanes", "Run", "lanes_of", "run_listed", "runs_of", "walls_of"]

LANE_CALLS = 400

Alone = dict[int, "Run"]  # {agent: its solo run}


@dataclass(frozen=True, slots=True)
class Run:
    """One finished run. Arrays of shape (agents,), NaN for an agent that was not in it."""

    run: int
    block: int
    concurrent: bool
    wall_s: Float64  # last done - first sent
    permit_wait_s: Float64  # first sent - barrier
    first_sent_s: Float64
    calls: Float64
    tokens: Float64
    makespan_s: float
    problem: str | None  # why it is no repetition of the others

    @property
    def whole(self) -> bool:
        """Whether the run is a repetition of the others."""
        return self.problem is None

    @property
    def overlap(self) -> float:
        """The sum of the agents' own wall times over the makespan."""
        return float(np.nansum(self.wall_s)) / self.makespan_s

    @property
    def skew_ms(self) -> float:
        """The time between the first agent's start and the last one's."""
        return float(np.nanmax(self.first_sent_s) - np.nanmin(self.first_sent_s)) * 1e3

    @property
    def balance_min_max(self) -> float:
        """The shortest wall time of an agent over the longest."""
        return float(np.nanmin(self.wall_s) / np.nanmax(self.wall_s))


class AgentRun(Struct, frozen=True, kw_only=True):
    """One run as the summary lists it. Mappings are by agent, of those that took part; times in s."""

    run: int
    block: int | None
    concurrent: bool
    left_out: str | None  # why
    makespan_s: float | None
    wall_s: dict[str, float | None]
    start_s: dict[str, float | None]
    output_tokens: dict[str, float | None]
    overlap: float | None  # of a concurrent run


class Lane(Struct, frozen=True, kw_only=True):
    """One call in the picture of calls, s since the start of its run."""

    agent: str
    arm: str  # together or alone
    intended_s: float | None
    sent_s: float | None
    first_s: float | None
    done_s: float | None


class Lanes(Struct, frozen=True, kw_only=True):
    """The calls of the concurrent run of middle length, and of the solo runs of its block; for a picture."""

    run: int
    block: int | None
    calls: tuple[Lane, ...]


# --- runs ------------------------------------------------------------------------------------------------------------


def runs_of(calls: Calls) -> list[Run]:
    """The runs that have calls, ascending."""
    return [_run(calls, number) for number in np.unique(calls.run).tolist()]


def _run(calls: Calls, number: int) -> Run:
    here = calls.run == number
    columns = {name: np.full(len(calls.agents), np.nan) for name in ("wall", "wait", "first", "calls", "tokens")}
    sent = here & (calls.sent_ns != ABSENT) & (calls.done_ns != ABSENT)
    for agent in np.unique(calls.agent[sent]).tolist():
        of_agent = sent & (calls.agent == agent)
        first = int(calls.sent_ns[of_agent].min())
        columns["first"][agent] = first / 1e9
        columns["wall"][agent] = (int(calls.done_ns[of_agent].max()) - first) / 1e9
        columns["wait"][agent] = (first - int(calls.intended_ns[of_agent].min())) / 1e9
        columns["calls"][agent] = int(of_agent.sum())
        counted = (calls.output_tokens[of_agent] != ABSENT).all()
        columns["tokens"][agent] = calls.output_tokens[of_agent].sum() if counted else np.nan
    concurrent = bool(calls.concurrent[here].any())
    span = int(calls.done_ns[sent].max()) - int(calls.sent_ns[sent].min()) if sent.any() else 0
    return Run(
        run=number,
        block=int(calls.block[here][0]),
        concurrent=concurrent,
        wall_s=columns["wall"],
        permit_wait_s=columns["wait"],
        first_sent_s=columns["first"],
        calls=columns["calls"],
        tokens=columns["tokens"],
        makespan_s=span / 1e9,
        problem=_problem(calls, number, columns["wall"], concurrent=concurrent),
    )


def _problem(calls: Calls, number: int, walls: Float64, *, concurrent: bool) -> str | None:
    if number in calls.failures:
        return f"a call ended in {calls.failures[number]}"
    if concurrent and np.isnan(walls).any():
        absent = [calls.agents[agent] for agent in np.flatnonzero(np.isnan(walls))]
        return f"no call of {', '.join(absent)}"
    return None


def run_listed(run: Run, names: Sequence[str]) -> AgentRun:
    """The run as the summary lists it."""

    def by_agent(values: Float64) -> dict[str, float | None]:
        return {
            name: significant(value)
            for name, value in zip(names, values.tolist(), strict=True)
            if not math.isnan(value)
        }

    return AgentRun(
        run=run.run,
        block=None if run.block == ABSENT else run.block,
        concurrent=run.concurrent,
        left_out=run.problem,
        makespan_s=significant(run.makespan_s),
        wall_s=by_agent(run.wall_s),
        start_s=by_agent(run.first_sent_s),
        output_tokens=by_agent(run.tokens),
        overlap=significant(run.overlap) if run.concurrent and run.makespan_s > 0 else None,
    )


# --- blocks ----------------------------------------------------------------------------------------------------------


def walls_of(runs: Sequence[Run], names: tuple[str, ...], confidence: float) -> tuple[Walls, list[Note]]:
    """The wall times of solo and concurrent runs matched into blocks, and what was left out."""
    notes = [note(NoteCode.RUN_LEFT_OUT, run=run.run, why=run.problem) for run in runs if not run.whole]
    together = [run for run in runs if run.whole and run.concurrent]
    solo = _solo_by_block(runs)
    missing = [name for agent, name in enumerate(names) if not any(agent in alone for alone in solo.values())]
    if missing and solo:
        notes.append(note(NoteCode.NO_SOLO_RUNS_OF, agents=", ".join(missing)))
    complete = {block: alone for block, alone in solo.items() if len(alone) == len(names)}
    blocked = [run for run in together if run.block in complete]
    alone_runs = [complete[run.block] for run in blocked]
    # Pairs are worth more, unless there are too few of them and enough runs that are no pairs.
    is_blocked = not complete or (bool(blocked) and not len(blocked) < LEAST_RUNS <= min(len(complete), len(together)))
    if not is_blocked:
        blocked, alone_runs = together, list(complete.values())
    elif complete and len(blocked) < len(together):
        apart = ", ".join(str(run.run) for run in together if run not in blocked)
        notes.append(note(NoteCode.RUNS_WITHOUT_SOLO, runs=apart))
    if not alone_runs:
        blocked = together
    walls = Walls(
        concurrent=_rows([run.wall_s for run in blocked], len(names)),
        makespan=np.array([run.makespan_s for run in blocked]),
        solo=_rows([_own(alone, "wall_s") for alone in alone_runs], len(names)) if alone_runs else None,
        concurrent_tokens=_rows([run.tokens for run in blocked], len(names)),
        solo_tokens=_rows([_own(alone, "tokens") for alone in alone_runs], len(names)) if alone_runs else None,
        blocked=is_blocked,
        agents=names,
        confidence=confidence,
    )
    return walls, notes


def _solo_by_block(runs: Sequence[Run]) -> dict[int, Alone]:
    solo: dict[int, Alone] = {}
    for run in runs:
        if run.whole and not run.concurrent:
            solo.setdefault(run.block, {})[int(np.flatnonzero(~np.isnan(run.wall_s))[0])] = run
    return solo


def _rows(rows: Sequence[Float64], width: int) -> Float64:
    return np.array(rows, np.float64).reshape(-1, width)


def _own(alone: Mapping[int, Run], name: str) -> Float64:
    """The value of each agent in its own solo run, shape (agents,)."""
    return np.array([getattr(alone[agent], name)[agent] for agent in sorted(alone)])


# --- a picture -------------------------------------------------------------------------------------------------------


def lanes_of(calls: Calls, runs: Sequence[Run]) -> Lanes | None:
    """The calls to draw; None where no concurrent run is whole."""
    together = sorted((run for run in runs if run.concurrent and run.whole), key=lambda run: run.makespan_s)
    if not together:
        return None
    chosen = together[(len(together) - 1) // 2]
    solo = [run.run for run in runs if not run.concurrent and run.whole and run.block == chosen.block]
    drawn = np.flatnonzero(np.isin(calls.run, [chosen.run, *solo]) & (calls.sent_ns != ABSENT))[:LANE_CALLS]
    places = sorted(drawn.tolist(), key=lambda place: (calls.agent[place], calls.concurrent[place], place))
    block = None if chosen.block == ABSENT else chosen.block
    return Lanes(run=chosen.run, block=block, calls=tuple(_lane(calls, place) for place in places))


def _lane(calls: Calls, place: int) -> Lane:
    def seconds(column: Int64) -> float | None:
        return None if column[place] == ABSENT else round(int(column[place]) / 1e9, 6)

    return Lane(
        agent=calls.agents[calls.agent[place]],
        arm="together" if calls.concurrent[place] else "alone",
        intended_s=seconds(calls.intended_ns),
        sent_s=seconds(calls.sent_ns),
        first_s=seconds(calls.first_ns),
        done_s=seconds(calls.done_ns),
    )
