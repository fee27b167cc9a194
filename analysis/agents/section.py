"""What running agents together gained and cost: the `agents` section of a summary, from records and manifest alone.

speedup.py has the formulas, blocks.py matches runs, one_agent.py describes each agent, contention_section.py says
whether they slowed each other down; here the parts are put together. A delta's direction is in its name. There are two
TTFTs, from when a call was due and from when it was sent (one_agent.py). Null is "not measurable".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from msgspec import UNSET, Struct, UnsetType

from analysis.agents import speedup
from analysis.agents.attribution import ColdLoad, ShortAnswer, cold_loads, short_answers
from analysis.agents.blocks import AgentRun, Lanes, Run, lanes_of, run_listed, runs_of, walls_of
from analysis.agents.contention_section import Contention, contention_of
from analysis.agents.differences import Deltas, deltas_of, mean_difference, over_runs
from analysis.agents.grades import Grades, grades_of
from analysis.agents.one_agent import Agent, agent_of
from analysis.agents.speedup import PartsOverBlocks, Walls
from analysis.estimate import Estimate, Figure, Note, NoteCode, note, refused
from analysis.records.frame import Frame
from analysis.records.reading import Reading, reading_of
from analysis.records.settings import confidence_of

__all__ = ["AgentsSection", "RunCounts", "agents_section"]


class RunCounts(Struct, frozen=True, kw_only=True):
    """How many runs the figures are over."""

    concurrent: int
    solo: int


class AgentsSection(Struct, frozen=True, kw_only=True):
    """What running agents together gained and cost. Mappings are by agent."""

    overlap: Figure
    balance: Figure
    ideal_speedup: Figure
    heterogeneous_efficiency: Figure
    stretch: Figure
    combined_over_solo: Figure
    fieller_speedup: Figure | UnsetType = UNSET  # only where there are solo runs
    speedup: Figure
    efficiency: Figure
    overlap_efficiency: Figure
    names: tuple[str, ...]
    scenario: str | None
    permits: int | None
    blocks: int
    runs: RunCounts
    makespan_s: Figure
    start_skew_ms: Figure
    balance_min_max: Figure
    fairness: Figure
    deltas: Deltas
    contention: Contention
    per_agent: dict[str, Agent]
    per_run: tuple[AgentRun, ...]
    lanes: Lanes | None
    cold_loads: tuple[ColdLoad, ...]
    short_answers: tuple[ShortAnswer, ...]
    notes: tuple[str, ...]
    note_codes: tuple[Note, ...] = ()
    grades: Grades


def agents_section(source: Frame | Reading, void: str | None = None) -> AgentsSection:
    """The section; `source` is of all arms, and its manifest names the agents.

    void: the verdict that makes the campaign's figures void, said beside each of them; None where there is none.
    """
    reading = reading_of(source)
    frame, facts = reading.frame, reading.manifest
    names = tuple(agent.name for agent in facts.crew)
    confidence = confidence_of(facts)
    calls = reading.calls
    runs = runs_of(calls)
    together = [run for run in runs if run.concurrent and run.whole]
    walls, notes = walls_of(runs, names, confidence)
    parts = _parts(walls, together, names)
    usable = calls.only(np.isin(calls.run, [run.run for run in runs if run.whole]))
    per_agent = {agent.name: agent_of(usable, runs, i, agent, confidence) for i, agent in enumerate(facts.crew)}
    contention = contention_of(frame, usable, together, confidence)
    overlap_efficiency = _overlap_efficiency(together, len(names), confidence)
    listed = tuple(run_listed(run, names) for run in runs)

    def figure(estimate: Estimate) -> Figure:
        return (estimate if void is None else estimate.noted(note(NoteCode.VOID, verdict=void))).figure()

    rates = [run.tokens / run.wall_s for run in together if run.tokens.sum() > 0]
    return AgentsSection(
        overlap=figure(parts.overlap),
        balance=figure(parts.balance),
        ideal_speedup=figure(parts.ideal_speedup),
        heterogeneous_efficiency=figure(parts.heterogeneous_efficiency),
        stretch=figure(parts.stretch),
        combined_over_solo=figure(parts.combined_over_solo),
        fieller_speedup=UNSET if parts.fieller_speedup is None else figure(parts.fieller_speedup),
        speedup=figure(parts.speedup),
        efficiency=figure(parts.efficiency),
        overlap_efficiency=figure(overlap_efficiency),
        names=names,
        scenario=facts.scenario or None,
        permits=None if facts.permits is UNSET else facts.permits,
        blocks=len(walls.makespan) if walls.solo is not None and walls.blocked else 0,
        runs=RunCounts(concurrent=len(together), solo=sum(not run.concurrent and run.whole for run in runs)),
        makespan_s=figure(over_runs([run.makespan_s for run in together], confidence)),
        start_skew_ms=figure(mean_difference([run.skew_ms for run in together], confidence)),
        balance_min_max=figure(over_runs([run.balance_min_max for run in together], confidence)),
        fairness=figure(over_runs([speedup.jain(rate) for rate in rates], confidence)),
        deltas=deltas_of({name: agent.concurrent.spreads for name, agent in per_agent.items()}, names, confidence),
        contention=contention,
        per_agent=per_agent,
        per_run=listed,
        lanes=lanes_of(calls, runs),
        cold_loads=cold_loads(calls),
        short_answers=short_answers(calls),
        notes=tuple(mark.sentence for mark in notes),
        note_codes=tuple(notes),
        grades=grades_of(overlap_efficiency.figure(), contention, listed, len(together)),
    )


def _parts(walls: Walls, together: Sequence[Run], names: tuple[str, ...]) -> PartsOverBlocks:
    """The speedup and its parts over the blocks."""
    if not together:
        return speedup.parts_refused(refused(note(NoteCode.NO_CONCURRENT_RUN)))
    # Overlap needs no solo runs, so it is over all concurrent runs.
    overlaps = [run.overlap for run in together]
    overlap = over_runs(overlaps, walls.confidence)
    balance = over_runs([overlap / len(names) for overlap in overlaps], walls.confidence)
    return replace(speedup.parts_over_blocks(walls), overlap=overlap, balance=balance)


def _overlap_efficiency(together: Sequence[Run], agents: int, confidence: float) -> Estimate:
    """The guide's parallel efficiency: the mean over runs, as the guide takes it."""
    if not together:
        return refused(note(NoteCode.NO_CONCURRENT_RUN))
    return mean_difference([run.overlap / agents for run in together], confidence).noted(note(NoteCode.GUIDE_FORMULA))
