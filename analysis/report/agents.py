"""Agents and contention: what running together gained and cost, each agent alone and among the others, the charts."""

from __future__ import annotations

from collections.abc import Iterator

from analysis.agents.attribution import Cause
from analysis.agents.contention import ContentionVerdict
from analysis.agents.contention_section import Contention, Flagged
from analysis.agents.one_agent import Agent, Arm
from analysis.agents.section import AgentsSection
from analysis.estimate import Figure
from analysis.report import numbers
from analysis.report.agents_charts import charts_of_agents, level
from analysis.report.document import (
    EVERYWHERE,
    MARKDOWN,
    PAGE,
    TEXT,
    Align,
    Block,
    Bullets,
    Column,
    Doubts,
    Facts,
    Paragraph,
    Place,
    Row,
    Section,
    Strong,
    Table,
)
from analysis.report.numbers import value_and_interval
from analysis.report.words import detectable_in_words
from analysis.stats.planning import Seen

__all__ = ["agents_in_words", "agents_sections"]

LABEL = 20
FIGURE = 20
INTERVAL = FIGURE - 8  # room for the interval beside a figure
COLUMN = 15
VERDICTS = {
    ContentionVerdict.CONTENTION: "CONTENTION",
    ContentionVerdict.NONE: "none",
    ContentionVerdict.INCONCLUSIVE: "INCONCLUSIVE",
    ContentionVerdict.UNKNOWN: "unknown",
}
CAUSES = {
    Cause.QUEUE: "waiting for another agent's call to end",
    Cause.PREFILL_INTERFERENCE: "another agent's prompt being evaluated",
    Cause.SLOWER_DECODE: "decoding beside another agent",
    Cause.COLD_LOAD: "model load",
    Cause.SHORT_ANSWER: "a short answer",
    Cause.KV_PRESSURE: "a full KV cache",
    Cause.CLOCKS: "lowered GPU clocks",
    Cause.CLIENT: "this client",
    Cause.NETWORK: "network",
    Cause.PERMIT: "waiting for a permit",
    Cause.UNEQUAL_AGENTS: "agents of unequal length",
    Cause.UNKNOWN: "unknown",
}
DIFFERENCES = {  # by the beginning of a key of `deltas`: what differs, and its unit
    "ttft_ms_": ("TTFT", "ms"),
    "ttft_service_ms_": ("TTFT service", "ms"),
    "output_tokens_per_s_": ("output", "tokens/s"),
}
ALONE, TOGETHER = "alone", "together"
RUNS_SHOWN = 5  # of those that something happened in


def agents_sections(agents: AgentsSection) -> list[Section]:
    """What was gained and its parts, each agent's figures, contention, and on the page the charts."""
    bullets = [*_more(agents), *agents.notes, *_notes_of_figures(agents)]
    verdict = VERDICTS[agents.contention.verdict]
    contention: list[Block] = [
        Facts([("contention", verdict)], LABEL, only=TEXT),
        Paragraph(Strong(verdict), only=MARKDOWN | PAGE),
        Bullets(list(_contention(agents)), indent=2),
    ]
    return [
        Section("Agents", [Paragraph(_what_ran(agents)), _parts_table(agents)]),
        Section(
            "",
            [
                _agents_table(agents),
                # The table has no room for it in a text of 80 columns.
                Bullets(list(_service_ttft(agents)), indent=2, only=TEXT),
                Bullets(bullets, indent=2),
            ],
        ),
        Section("Contention", contention, text_title="", level=3),
        Section("", charts_of_agents(agents), only=PAGE),
    ]


def agents_in_words(agents: AgentsSection) -> str:
    """What was asked for, in one phrase: the number of agents, their workload, permits, the time to think."""
    each, permits = list(agents.per_agent.values()), agents.permits
    parts = [f"{len(agents.names)} agents", *dict.fromkeys(agent.workload for agent in each if agent.workload)]
    parts += [f"{permits} permit{'s' if permits != 1 else ''}"] if permits is not None else []
    parts += [f"{ms:g} ms to think" for ms in dict.fromkeys(agent.think_ms for agent in each) if ms]
    return ", ".join(parts)


def _what_ran(agents: AgentsSection) -> str:
    runs = agents.runs
    parts = [", ".join(agents.names), *([agents.scenario] if agents.scenario else [])]
    parts.append(f"{agents.blocks} blocks; {runs.concurrent} concurrent and {runs.solo} solo runs")
    return " · ".join(parts)


# --- tables ----------------------------------------------------------------------------------------------------------


def _parts(agents: AgentsSection) -> list[tuple[str, Figure, str]]:
    """(label, figure, what it is) of the speedup and its parts."""
    word = agents.grades.overlap_efficiency
    return [
        ("speedup", agents.speedup, "time one after the other / time together"),
        ("ideal speedup", agents.ideal_speedup, "if nothing slowed down: all / longest"),
        ("efficiency", agents.efficiency, f"speedup / {len(agents.names)} = balance / stretch"),
        ("  of the ideal", agents.heterogeneous_efficiency, "speedup / ideal speedup"),
        ("  balance", agents.balance, "how much of the time agents are busy"),
        ("  stretch", agents.stretch, "time of each together / alone"),
        ("overlap", agents.overlap, "how many are busy at once; no speedup"),
        ("together / alone", agents.combined_over_solo, "tokens/s of all / of one at a time"),
        ("overlap efficiency", agents.overlap_efficiency, f"the guide's figure{f': {word}' if word else ''}"),
    ]


def _notes_of_figures(agents: AgentsSection) -> list[str]:
    """The notes beside the speedup and its parts, each once."""
    return list(dict.fromkeys(note for _, figure, _ in _parts(agents) for note in figure.notes))


def _parts_table(agents: AgentsSection) -> Table:
    interval = f"{level(agents)} interval"
    columns = (
        Column("figure", LABEL, Align.LEFT),
        Column(f"value, {level(agents)}", FIGURE, Align.LEFT, doubt_width=INTERVAL, only=TEXT | PAGE),
        Column("value", only=MARKDOWN),
        Column(interval, only=MARKDOWN),
        Column("", 2 * COLUMN + 10, Align.LEFT),
    )
    rows = [
        Row((label, figure, numbers.value(figure), numbers.interval(figure), meaning))
        for label, figure, meaning in _parts(agents)
    ]
    return Table(columns, rows, headed=MARKDOWN | PAGE)


def _agents_table(agents: AgentsSection) -> Table:
    """Each agent's figures in either arm. Text names an agent once, and only where it ran alone."""
    columns = (
        Column("agent", LABEL - 9, Align.LEFT, cut=True, only=TEXT),
        Column("agent", only=MARKDOWN | PAGE, align=Align.LEFT),
        Column("", 9, Align.LEFT),
        Column("wall s", COLUMN),
        Column("TTFT ms", COLUMN),
        Column("TTFT service ms", only=MARKDOWN | PAGE),
        Column("TPOT ms", COLUMN),
        Column("tokens/s", COLUMN),
    )
    rows = []
    for name, agent in agents.per_agent.items():
        for label, word, arm in ((name, ALONE, agent.solo), ("", TOGETHER, agent.concurrent)):
            figures = (arm.wall_s, arm.ttft_ms, arm.ttft_service_ms, arm.tpot_ms, arm.output_tokens_per_s)
            rows.append(Row((label, name, word, *figures), only=EVERYWHERE if arm.runs else MARKDOWN))
    return Table(columns, rows, Doubts(Place.BELOW, Place.BESIDE))


# --- lists -----------------------------------------------------------------------------------------------------------


def _arms(agent: Agent) -> tuple[tuple[str, Arm], ...]:
    return (ALONE, agent.solo), (TOGETHER, agent.concurrent)


def _service_ttft(agents: AgentsSection) -> Iterator[str]:
    parts = []
    for name, agent in agents.per_agent.items():
        figures = [(word, arm.ttft_service_ms) for word, arm in _arms(agent) if arm.ttft_service_ms.value is not None]
        if figures:
            parts.append(f"{name} {', '.join(f'{value_and_interval(figure)} {word}' for word, figure in figures)}")
    if parts:
        yield f"TTFT service, ms: {'; '.join(parts)}"


def _more(agents: AgentsSection) -> Iterator[str]:
    each = agents.per_agent
    stretches = [f"{name} {value_and_interval(agent.stretch)}" for name, agent in each.items() if agent.stretch.value]
    if stretches:
        yield f"stretch: {', '.join(stretches)}"
    skew, fairness = value_and_interval(agents.start_skew_ms), value_and_interval(agents.fairness)
    yield f"start skew {skew} ms; fairness {fairness} (Jain, of tokens/s)"
    if agents.permits is not None and agents.permits < len(agents.names):
        waits = [f"{name} {value_and_interval(agent.permit_wait_ms)} ms" for name, agent in each.items()]
        yield f"waited for a permit: {', '.join(waits)}"
    for key, delta in agents.deltas.items():
        if isinstance(delta, Figure) and delta.value is not None:
            yield _difference(key, delta)
    yield from _odd_calls(agents)
    for name, agent in each.items():
        yield from _outliers(name, agent)


def _difference(key: str, delta: Figure) -> str:
    """A delta in words: `ttft_ms_b_minus_a` as `TTFT, b minus a: 8 ± 25 ms`."""
    prefix = next(prefix for prefix in DIFFERENCES if key.startswith(prefix))
    label, unit = DIFFERENCES[prefix]
    between = key.removeprefix(prefix).replace("_minus_", " minus ")
    return f"{label}, {between}: {value_and_interval(delta)} {unit}"


def _odd_calls(agents: AgentsSection) -> Iterator[str]:
    """The first short answers and cold loads, and the number of the others."""
    for answer in agents.short_answers[:RUNS_SHOWN]:
        usual = f"{answer.tokens} tokens, usually {answer.usual_tokens:g}"
        yield f"short answer: run {answer.run}, {answer.agent}, call {answer.turn + 1}: {usual}"
    for load in agents.cold_loads[:RUNS_SHOWN]:
        yield f"cold load: run {load.run}, {load.agent}, call {load.turn + 1}: {load.load_s:.3g} s"
    for n, kind in ((len(agents.short_answers), "short answers"), (len(agents.cold_loads), "cold loads")):
        if n > RUNS_SHOWN:
            yield f"… and {n - RUNS_SHOWN} more {kind}"


def _outliers(name: str, agent: Agent) -> Iterator[str]:
    for word, arm in _arms(agent):
        spread = arm.wall_s.spread
        marked = sorted({*spread.outliers.iqr, *spread.outliers.z})
        if marked:
            runs = f"run{'s' if len(marked) > 1 else ''} {', '.join(map(str, marked))}"
            without = spread.mean_without_outliers
            rest = "" if without is None else f"; mean without {without:.4g} s"
            yield f"wall time stands out, and is kept: {name} {word}, {runs}{rest}"


# --- contention ------------------------------------------------------------------------------------------------------


def _contention(agents: AgentsSection) -> Iterator[str]:
    contention = agents.contention
    yield from contention.reasons
    yield from _undecided("TTFT service", contention.ttft_stretch_detectable, contention.threshold)
    yield from _undecided("TPOT", contention.tpot_stretch_detectable, contention.threshold)
    gaps = contention.gap_stretch_inside_over_outside
    if gaps.value is not None:
        yield f"gaps while another was busy {value_and_interval(gaps)} × those while none was"
    yield from _flags(contention.flags)
    yield from contention.flags.notes
    yield from _causes(contention)
    for shift in contention.shifts[:RUNS_SHOWN]:
        change = f"from {shift.before:.3g} to {shift.after:.3g} × solo"
        yield f"run {shift.run}: gaps went {change} at {shift.at_s:g} s"
    for burst in contention.bursts[:RUNS_SHOWN]:
        span = f"{burst.from_s:g} to {burst.to_s:g} s"
        yield f"run {burst.run}: gaps {burst.stretch:.3g} × solo for a moment, {span}"
    yield f"runs labelled by the rules of earlier tools, whose speedup is the overlap: {_rules(agents)}"


def _undecided(label: str, seen: Seen | None, limit: float) -> Iterator[str]:
    """What an undecided stretch could have shown, and what more runs would."""
    if seen is not None:
        wanted = f"{limit**2:.3g} ×, or to rule {limit:g} × out where there is none"
        yield f"{label}: {detectable_in_words(seen, f'{seen.least:.3g} × solo', wanted)}"


def _flags(flags: Flagged) -> Iterator[str]:
    if not flags.looked_at:
        return
    slow = f"{flags.what} of {flags.flagged} of {flags.looked_at} overlapping calls is slow (FDR 5 %)"
    if not flags.solo.looked_at:
        yield f"{slow}; too few solo calls to say how many of those would be"
        return
    beyond = "a larger share than" if flags.beyond_natural_tail else "no larger share than"
    solo = f"{flags.solo.flagged} of {flags.solo.looked_at}"
    yield f"{slow}, {beyond} of solo calls ({solo}); share of runs contended {value_and_interval(flags.runs_contended)}"


def _causes(contention: Contention) -> Iterator[str]:
    causes = [f"{CAUSES[cause]} {n}" for cause, n in contention.attribution.items() if n]
    if causes:
        sampled = contention.attribution_by_samples
        gap = "" if sampled.sampling_gap_s is None else f" up to {sampled.sampling_gap_s:.2g} s apart"
        beside = f"; {sampled.findings} of these by samples{gap}" if sampled.findings else ""
        yield f"put down to: {', '.join(causes)}{beside}"


def _rules(agents: AgentsSection) -> str:
    n, labelled = agents.runs.concurrent, agents.contention.rules_runs
    return ", ".join(f"{name} {'–' if runs is None else f'{runs} of {n}'}" for name, runs in labelled.items())
