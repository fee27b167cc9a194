"""What a comparison of the client's runtimes shows: a line per variant, and which of them differ.

Made from `runtimes.json` and what the variants' own directories say, killed ones too. There are two efficiencies, each
under its name: that against measured solo runs, and the multi-agent guide's from overlap alone. Peak, minimum, median
and SD are of runs; means are geometric, and their unit is the block: its value is the geometric mean over
configurations, so that configurations which differ do not pass for noise. The control is in no test, because it differs
by design.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, stdev

from msgspec import Struct

from analysis.agents.blocks import AgentRun
from analysis.agents.section import AgentsSection
from analysis.estimate import Estimate, Figure, NoteCode, note, refused, significant
from analysis.stats import intervals
from analysis.suites.differences import FigureCompared, FigureName, Values, compared
from analysis.suites.suite import LABEL, agents_in, campaign_in, labelled_runs, missing_in
from loadgen.manifest import MANIFEST, InstrumentFacts, read_manifest
from loadgen.suite_manifest import RUNTIMES, CellFacts, RuntimesManifest, TestFacts, VariantFacts

__all__ = [
    "RUNTIMES_SUMMARY",
    "CellLine",
    "Contended",
    "Control",
    "ControlFigure",
    "LoopLag",
    "RuntimesSummary",
    "Spread",
    "VariantLine",
    "summarise_runtimes",
]

RUNTIMES_SUMMARY = "loadgen.runtimes-summary/2"
EFFICIENCIES = (FigureName.EFFICIENCY, FigureName.OVERLAP_EFFICIENCY)
CONTROL_TOLERANCE = 0.005  # of an efficiency: the control's is 50.0 %
MARGIN = 0.05


class Spread(Struct, frozen=True, kw_only=True):
    """One figure of a variant over its runs; the mean is geometric, over blocks."""

    runs: int
    peak: float | None
    mean: Figure
    median: float | None
    sd_of_runs: float | None
    sd_of_configuration_means: float | None
    minimum: float | None


class Contended(Struct, frozen=True, kw_only=True):
    """The concurrent runs that a rule of the guide calls contended."""

    rule: str
    runs: int
    of: int


class LoopLag(Struct, frozen=True, kw_only=True):
    """The lag of the client's event loop, ms; of several configurations the worst, because samples are not kept."""

    p50: float | None
    p99: float | None
    max: float | None


class VariantLine(Struct, frozen=True, kw_only=True):
    """One runtime: its settings, its figures, and what it cost the client."""

    name: str
    tier: str
    loop: str
    read_bytes: int | None
    permits: int | None
    efficiency: Spread
    overlap_efficiency: Spread
    makespan_s: Spread
    contended: Contended
    loop_lag_ms: LoopLag
    cpu_share: float | None  # of one core
    verdicts: dict[str, int]

    def spread(self, figure: FigureName) -> Spread:
        """The figure called so."""
        return {
            FigureName.EFFICIENCY: self.efficiency,
            FigureName.OVERLAP_EFFICIENCY: self.overlap_efficiency,
            FigureName.MAKESPAN: self.makespan_s,
        }[figure]


class ControlFigure(Struct, frozen=True, kw_only=True):
    """An efficiency of the control, and whether it is what it must be."""

    estimate: Figure
    holds: bool


class Control(Struct, frozen=True, kw_only=True):
    """The variant whose efficiency is known beforehand: one permit for N agents gives 1/N."""

    variant: str
    expected: float | None
    figures: dict[str, ControlFigure]


class CellLine(Struct, frozen=True, kw_only=True):
    """A variant with a configuration: one campaign."""

    variant: str
    configuration: str | None
    directory: str
    scenario: str | None
    verdict: str | None
    contention: str | None
    missing_runs: int | None
    error: str | None


class RuntimesSummary(Struct, frozen=True, kw_only=True):
    """The summary of a comparison of runtimes."""

    schema: str = RUNTIMES_SUMMARY
    seed: int
    order: str
    blocks: int
    configurations: int
    contended_rule: str
    margin: float
    variants: tuple[VariantLine, ...]
    left_out: dict[str, str]
    missing: tuple[str, ...]  # directories of those that lack a run
    same: tuple[tuple[str, ...], ...]  # names of variants whose settings are the same
    control: Control | None
    comparisons: tuple[FigureCompared, ...]
    cells: tuple[CellLine, ...]


def summarise_runtimes(directory: Path, *, margin: float = MARGIN, against: str | None = None) -> RuntimesSummary:
    """The summary of `directory`. margin: the difference that does not matter.

    against: a variant to compare the others with; None takes the one that was named when they were measured.
    Raises OSError, or ValueError for files that are not ours.
    """
    manifest = RuntimesManifest.from_json(json.loads((directory / RUNTIMES).read_text(encoding="utf-8")))
    if not manifest.cells:
        raise ValueError(f"{RUNTIMES}: it names no cells")
    ended = {test.id: test for test in manifest.tests or ()}
    cells = [_cell(directory, cell, ended.get(cell.directory)) for cell in manifest.cells]
    values: dict[str, dict[FigureName, Values]] = {}
    lines = []
    for variant in manifest.variants:
        own = [cell for cell in cells if cell.line.variant == variant.name]
        values[variant.name] = {figure: _of_blocks([cell.values[figure] for cell in own]) for figure in FigureName}
        lines.append(_line(variant, own, values[variant.name]))
    working = [variant.name for variant in manifest.variants if variant.name != manifest.control]
    named = against if against is not None else manifest.against
    return RuntimesSummary(
        seed=manifest.seed,
        order=manifest.order,
        blocks=manifest.blocks,
        configurations=len({cell.line.configuration for cell in cells}),
        contended_rule=LABEL,
        margin=margin,
        variants=tuple(lines),
        left_out=manifest.left_out,
        missing=tuple(cell.line.directory for cell in cells if cell.line.missing_runs != 0),
        same=_same(manifest.variants),
        control=_control(manifest.control, cells, values),
        comparisons=tuple(
            compared(figure, {name: values[name][figure] for name in working}, margin, named)
            for figure in FigureName
            if any(values[name][figure] for name in working)
        ),
        cells=tuple(cell.line for cell in cells),
    )


# --- a variant with a configuration ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Cell:
    """A campaign: its line, and what the figures of its variant are made of."""

    line: CellLine
    agents: int
    values: Mapping[FigureName, Values]
    concurrent_runs: int
    contended_runs: int
    instrument: InstrumentFacts


def _cell(directory: Path, cell: CellFacts, ended: TestFacts | None) -> _Cell:
    folder = directory / cell.directory
    campaign = campaign_in(folder)
    section = agents_in(campaign)
    path = folder / MANIFEST
    return _Cell(
        CellLine(
            variant=cell.variant,
            configuration=cell.configuration,
            directory=cell.directory,
            scenario=cell.scenario,
            verdict=None if campaign is None else campaign.verdict,
            contention=section.contention.verdict if section else None,
            missing_runs=missing_in(campaign, ended),
            error=None if ended is None else ended.error,
        ),
        agents=len(section.names) if section else 0,
        values=_values(section) if section else {figure: {} for figure in FigureName},
        concurrent_runs=section.runs.concurrent if section else 0,
        contended_runs=labelled_runs(section) if section else 0,
        instrument=read_manifest(path).measured_by if path.is_file() else InstrumentFacts(),
    )


def _values(section: AgentsSection) -> dict[FigureName, Values]:
    """Each figure by block, of the concurrent runs that every agent was in."""
    n = len(section.names)
    runs = [run for run in section.per_run if run.left_out is None]
    together = {run.block: run for run in runs if run.concurrent and run.block is not None and len(run.wall_s) == n}
    return {
        FigureName.EFFICIENCY: _efficiencies(section, runs, together),
        FigureName.OVERLAP_EFFICIENCY: {block: run.overlap / n for block, run in together.items() if run.overlap},
        FigureName.MAKESPAN: {block: run.makespan_s for block, run in together.items() if run.makespan_s},
    }


def _efficiencies(section: AgentsSection, runs: Sequence[AgentRun], together: Mapping[int, AgentRun]) -> Values:
    """The parallel efficiency of each block that has a solo run of every agent.

    Of times; of token rates where the agents' work was not the same alone and together, as the section has it.
    """
    names = section.names
    by_tokens = section.efficiency.has(NoteCode.UNEQUAL_WORK)
    alone: dict[int | None, dict[str, AgentRun]] = {}
    for run in runs:
        if not run.concurrent:
            (name,) = run.wall_s
            alone.setdefault(run.block, {})[name] = run
    values: Values = {}
    for block, run in together.items():
        solo = alone.get(block, {})
        walls = [wall for name in solo if (wall := solo[name].wall_s[name]) is not None]
        if len(walls) < len(names) or not run.makespan_s:
            continue
        speedup = sum(walls) / run.makespan_s
        if by_tokens:
            more = _tokens_together_over_alone(names, run, solo)
            if more is None:
                continue
            speedup *= more
        values[block] = speedup / len(names)
    return values


def _tokens_together_over_alone(names: Sequence[str], run: AgentRun, solo: Mapping[str, AgentRun]) -> float | None:
    """The output tokens of all agents together over those alone; None where a run has no count."""
    together = [run.output_tokens.get(name) for name in names]
    alone = [solo[name].output_tokens.get(name) for name in names]
    counts = [(a or 0.0, b or 0.0) for a, b in zip(together, alone, strict=True)]
    if not all(a and b for a, b in counts):
        return None
    return sum(a for a, _ in counts) / sum(b for _, b in counts)


def _of_blocks(cells: Sequence[Values]) -> Values:
    """The geometric mean over the cells, of the blocks that all of them have."""
    shared = set.intersection(*(set(cell) for cell in cells)) if cells else set()
    return {block: math.exp(sum(math.log(cell[block]) for cell in cells) / len(cells)) for block in sorted(shared)}


# --- a variant -------------------------------------------------------------------------------------------------------


def _line(variant: VariantFacts, cells: Sequence[_Cell], blocks: Mapping[FigureName, Values]) -> VariantLine:
    verdicts = [cell.line.verdict for cell in cells if cell.line.verdict is not None]
    spreads = {figure: _spread([cell.values[figure] for cell in cells], blocks[figure]) for figure in FigureName}
    shares = [cell.instrument.cpu_share for cell in cells if cell.instrument.cpu_share is not None]
    return VariantLine(
        name=variant.name,
        tier=variant.tier,
        loop=variant.loop,
        read_bytes=variant.read_bytes,
        permits=variant.permits,
        efficiency=spreads[FigureName.EFFICIENCY],
        overlap_efficiency=spreads[FigureName.OVERLAP_EFFICIENCY],
        makespan_s=spreads[FigureName.MAKESPAN],
        contended=Contended(
            rule=LABEL,
            runs=sum(cell.contended_runs for cell in cells),
            of=sum(cell.concurrent_runs for cell in cells),
        ),
        loop_lag_ms=_worst_lag([cell.instrument.loop_lag_ms for cell in cells if cell.instrument.loop_lag_ms]),
        cpu_share=significant(max(shares, default=None)),
        verdicts={verdict: verdicts.count(verdict) for verdict in dict.fromkeys(verdicts)},
    )


def _worst_lag(lags: Sequence[Mapping[str, float]]) -> LoopLag:
    worst = {name: significant(max((lag[name] for lag in lags), default=None)) for name in ("p50", "p99", "max")}
    return LoopLag(p50=worst["p50"], p99=worst["p99"], max=worst["max"])


def _spread(cells: Sequence[Values], blocks: Values) -> Spread:
    runs = [value for cell in cells for value in cell.values()]
    means = [sum(cell.values()) / len(cell) for cell in cells if cell]
    no_block = refused(note(NoteCode.NO_BLOCK_WITH_SOLO))
    estimate = intervals.over_runs(list(blocks.values()), len(runs)) if blocks else no_block
    return Spread(
        runs=len(runs),
        peak=significant(max(runs, default=None)),
        mean=estimate.figure(),
        median=significant(median(runs)) if runs else None,
        sd_of_runs=significant(stdev(runs)) if len(runs) > 1 else None,
        sd_of_configuration_means=significant(stdev(means)) if len(means) > 1 else None,
        minimum=significant(min(runs, default=None)),
    )


def _same(variants: Sequence[VariantFacts]) -> tuple[tuple[str, ...], ...]:
    """The names of variants whose settings are the same."""
    by_settings: dict[tuple[str, str, int | None, int | None], list[str]] = {}
    for variant in variants:
        settings = (variant.tier, variant.loop, variant.read_bytes, variant.permits)
        by_settings.setdefault(settings, []).append(variant.name)
    return tuple(tuple(names) for names in by_settings.values() if len(names) > 1)


def _control(
    name: str | None, cells: Sequence[_Cell], values: Mapping[str, Mapping[FigureName, Values]]
) -> Control | None:
    """Whether one permit gives the 1/N that it must, inside its interval or within half a point.

    None where it was not measured, or the configurations differ in N.
    """
    agents = {cell.agents for cell in cells if cell.line.variant == name and cell.agents}
    if name is None or len(agents) != 1:
        return None
    expected = 1 / agents.pop()
    figures = {}
    for figure in EFFICIENCIES:
        blocks = list(values[name][figure].values())
        if blocks:
            estimate = intervals.over_runs(blocks, len(blocks))
            figures[figure.value] = ControlFigure(estimate=estimate.figure(), holds=_is_about(estimate, expected))
    return Control(variant=name, expected=significant(expected), figures=figures) if figures else None


def _is_about(estimate: Estimate, expected: float) -> bool:
    assert estimate.value is not None
    inside = estimate.low is not None and estimate.high is not None and estimate.low <= expected <= estimate.high
    return inside or abs(estimate.value - expected) <= CONTROL_TOLERANCE
