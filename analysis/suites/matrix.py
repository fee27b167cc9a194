"""What a matrix of configurations of agents shows: a line per configuration, and what goes across them.

Made from `matrix.json` (or an older `sweep.json`) and the summaries of the configurations' own directories, killed ones
too, and from nothing else. The figures of a configuration are those of its summary; across configurations each counts
once, whatever its runs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import TypeVar

import numpy as np
from msgspec import Struct

from analysis.agents.blocks import AgentRun
from analysis.agents.grades import Grades
from analysis.agents.section import AgentsSection
from analysis.agents.speedup import ratio_of
from analysis.estimate import Figure, significant
from analysis.formats.guide_grades import grade
from analysis.stats import scaling
from analysis.suites.suite import agents_in, campaign_in, labelled_runs, missing_in
from loadgen.suite_manifest import ConfigurationFacts, MatrixManifest, TestFacts, matrix_path

__all__ = [
    "MATRIX_SUMMARY",
    "ConfigurationFigures",
    "ConfigurationLine",
    "LateOverEarly",
    "MatrixSummary",
    "Rates",
    "ScalingFit",
    "ScenarioLine",
    "summarise_matrix",
]

MATRIX_SUMMARY = "loadgen.matrix-summary/1"
LEAST_LEVELS = 3  # numbers of agents, one of them 1, for a law to be fitted

_K = TypeVar("_K", bound=Hashable)


class ConfigurationFigures(Struct, frozen=True, kw_only=True):
    """The figures of a configuration's summary that are set beside those of others."""

    speedup: Figure
    efficiency: Figure
    stretch: Figure
    balance: Figure
    overlap_efficiency: Figure
    combined_over_solo: Figure
    fairness: Figure
    grades: Grades


class Rates(Struct, frozen=True, kw_only=True):
    """Tokens per second: of an agent without and with its think time, of all, and by the server's own durations."""

    agent_output_tokens_per_s: float | None
    agent_sustained_output_tokens_per_s: float | None
    all_output_tokens_per_s: float | None
    agent_output_tokens_per_server_eval_s: float | None


class ConfigurationLine(Struct, frozen=True, kw_only=True):
    """One configuration. What its summary would say is null where it was not measured."""

    id: int | str
    phase: int | None
    directory: str
    scenario: str | None
    permits: int | None
    think_ms: float
    agents_count: int
    options: object  # {agent: its options}, as the profile states them
    success: bool
    error: str | None
    missing_runs: int | None
    verdict: str | None
    agents: ConfigurationFigures | None
    contention: str | None
    labelled_runs: int | None  # by the guide's rule
    concurrent_runs: int
    rates: Rates | None


class ScenarioLine(Struct, frozen=True, kw_only=True):
    """The guide's figure over runs and over configurations: two SDs that are often taken for each other."""

    configurations: int
    runs: int
    overlap_efficiency_mean: float | None
    overlap_efficiency_sd_of_runs: float | None
    overlap_efficiency_sd_of_configuration_means: float | None
    grade: str | None
    labelled_runs: int
    contended_grade: str | None


class LateOverEarly(Struct, frozen=True, kw_only=True):
    """The makespans of each configuration's later blocks over those of its earlier ones, over configurations."""

    configurations: int
    makespan: Figure


class ScalingFit(Struct, frozen=True, kw_only=True):
    """What is left of an agent's rate among N, at one think time. Mappings are by the number of agents."""

    think_ms: float
    eta: dict[str, float | None]
    halved_at: int | None  # agents
    fairness: dict[str, float | None]
    amdahl_parallel_share: Figure
    amdahl_r_squared: float | None
    power_alpha: Figure
    power_r_squared: float | None


class MatrixSummary(Struct, frozen=True, kw_only=True):
    """The summary of a matrix."""

    schema: str = MATRIX_SUMMARY
    seed: int
    order: str
    blocks: int
    configurations: tuple[ConfigurationLine, ...]
    missing: tuple[int | str, ...]  # ids of those that lack a run
    scenarios: dict[str | None, ScenarioLine]
    late_over_early: LateOverEarly | None  # None with fewer than two blocks
    scaling: tuple[ScalingFit, ...]


@dataclass(frozen=True, slots=True)
class _Measured:
    """A configuration that was measured: its line, and the concurrent runs behind it."""

    line: ConfigurationLine
    rates: Rates
    fairness: Figure
    runs: tuple[AgentRun, ...]

    @property
    def overlap_efficiencies(self) -> list[float]:
        """The guide's figure, of each run."""
        return [run.overlap / self.line.agents_count for run in self.runs if run.overlap]


def summarise_matrix(directory: Path) -> MatrixSummary:
    """The summary of the matrix in `directory`. Raises OSError, or ValueError for files that are not ours."""
    path = matrix_path(directory)
    manifest = MatrixManifest.from_json(json.loads(path.read_text(encoding="utf-8")))
    if not manifest.configurations:
        raise ValueError(f"{path.name}: it names no configurations")
    ended = {str(test.id): test for test in manifest.tests or ()}
    lines, measured = [], []
    for configuration in manifest.configurations:
        line, whole = _line(directory, configuration, ended.get(str(configuration.id)))
        lines.append(line)
        measured += [whole] if whole is not None else []
    return MatrixSummary(
        seed=manifest.seed,
        order=manifest.order,
        blocks=manifest.blocks,
        configurations=tuple(lines),
        missing=tuple(line.id for line in lines if line.agents is None or line.missing_runs),
        scenarios={name: _scenario(same) for name, same in _by(measured, lambda each: each.line.scenario).items()},
        late_over_early=_late_over_early(measured),
        scaling=tuple(_scaling(measured)),
    )


def _line(
    directory: Path, configuration: ConfigurationFacts, ended: TestFacts | None
) -> tuple[ConfigurationLine, _Measured | None]:
    campaign = campaign_in(directory / configuration.directory)
    section = agents_in(campaign)
    runs = tuple(run for run in section.per_run if run.concurrent and run.left_out is None) if section else ()
    n = len(configuration.agents)
    rates = _rates(runs, n, configuration.think_ms, section) if section else None
    line = ConfigurationLine(
        id=configuration.id,
        phase=configuration.phase,
        directory=configuration.directory,
        scenario=configuration.scenario,
        permits=configuration.permits,
        think_ms=configuration.think_ms,
        agents_count=n,
        options={agent.name: agent.options for agent in configuration.agents},
        success=ended is not None and ended.success,
        error=None if ended is None else ended.error,
        missing_runs=missing_in(campaign, ended),
        verdict=None if campaign is None else campaign.verdict,
        agents=_figures(section) if section else None,
        contention=section.contention.verdict if section else None,
        # One agent alone has a speedup of 1 by its nature.
        labelled_runs=(labelled_runs(section) if n > 1 else 0) if section else None,
        concurrent_runs=len(runs),
        rates=rates,
    )
    whole = _Measured(line, rates, section.fairness, runs) if section and rates else None
    return line, whole


def _figures(section: AgentsSection) -> ConfigurationFigures:
    return ConfigurationFigures(
        speedup=section.speedup,
        efficiency=section.efficiency,
        stretch=section.stretch,
        balance=section.balance,
        overlap_efficiency=section.overlap_efficiency,
        combined_over_solo=section.combined_over_solo,
        fairness=section.fairness,
        grades=section.grades,
    )


def _rates(runs: Sequence[AgentRun], n: int, think_ms: float, section: AgentsSection) -> Rates:
    arms = [agent.concurrent for agent in section.per_agent.values()]
    calls = [arm.calls / max(arm.runs, 1) for arm in arms]
    thought_s = [max(count - 1, 0) * think_ms / 1e3 for count in calls]
    effective, sustained, total = [], [], []
    for run in runs:
        tokens = [count for count in run.output_tokens.values() if count is not None]
        walls = [wall for wall in run.wall_s.values() if wall is not None]
        if len(tokens) < n or len(walls) < n or not run.makespan_s:
            continue
        effective.append(mean(t / (w - s) for t, w, s in zip(tokens, walls, thought_s, strict=True) if w > s))
        sustained.append(mean(t / w for t, w in zip(tokens, walls, strict=True) if w > 0))
        total.append(sum(tokens) / run.makespan_s)
    by_server = [arm.server.output_tokens_per_eval_s for arm in arms]
    known = [rate for rate in by_server if rate is not None]
    return Rates(
        agent_output_tokens_per_s=significant(mean(effective)) if effective else None,
        agent_sustained_output_tokens_per_s=significant(mean(sustained)) if sustained else None,
        all_output_tokens_per_s=significant(mean(total)) if total else None,
        agent_output_tokens_per_server_eval_s=significant(mean(known)) if known and None not in by_server else None,
    )


# --- across configurations -------------------------------------------------------------------------------------------


def _by(measured: Sequence[_Measured], key: Callable[[_Measured], _K]) -> dict[_K, list[_Measured]]:
    groups: dict[_K, list[_Measured]] = {}
    for each in measured:
        groups.setdefault(key(each), []).append(each)
    return groups


def _scenario(measured: Sequence[_Measured]) -> ScenarioLine:
    runs = [value for each in measured for value in each.overlap_efficiencies]
    means = [mean(values) for each in measured if (values := each.overlap_efficiencies)]
    labelled = sum(each.line.labelled_runs or 0 for each in measured)
    value = mean(runs) if runs else None
    return ScenarioLine(
        configurations=len(measured),
        runs=len(runs),
        overlap_efficiency_mean=significant(value),
        overlap_efficiency_sd_of_runs=significant(stdev(runs)) if len(runs) > 1 else None,
        overlap_efficiency_sd_of_configuration_means=significant(stdev(means)) if len(means) > 1 else None,
        grade=grade("overlap_efficiency", value),
        labelled_runs=labelled,
        contended_grade=grade("contended_share", labelled / len(runs)) if runs else None,
    )


def _late_over_early(measured: Sequence[_Measured]) -> LateOverEarly | None:
    """A change of the server over the matrix, as far as it shows in makespans."""
    early, late = [], []
    for each in measured:
        walls = [run.makespan_s for run in sorted(each.runs, key=lambda run: run.run) if run.makespan_s is not None]
        half = len(walls) // 2
        if half:
            early.append(mean(walls[:half]))
            late.append(mean(walls[-half:]))
    if not early:
        return None
    return LateOverEarly(configurations=len(early), makespan=ratio_of(np.array(late), np.array(early)).figure())


def _scaling(measured: Sequence[_Measured]) -> list[ScalingFit]:
    """The fits of each think time with enough numbers of agents."""
    fits = []
    for think_ms, same in sorted(_by(measured, lambda each: each.line.think_ms).items()):
        rates = {
            each.line.agents_count: rate for each in same if (rate := each.rates.agent_output_tokens_per_s) is not None
        }
        if 1 not in rates or len(rates) < LEAST_LEVELS or len(rates) < len(same):
            continue
        eta = scaling.efficiency(rates)
        amdahl, power = scaling.fit_eta_amdahl(eta), scaling.fit_eta_power(eta)
        fits.append(
            ScalingFit(
                think_ms=think_ms,
                eta={str(n): significant(value) for n, value in eta.items()},
                halved_at=scaling.halving_level(eta),
                fairness={str(each.line.agents_count): each.fairness.value for each in same},
                amdahl_parallel_share=amdahl.parameter.figure(),
                amdahl_r_squared=significant(amdahl.r_squared),
                power_alpha=power.parameter.figure(),
                power_r_squared=significant(power.r_squared),
            )
        )
    return fits
