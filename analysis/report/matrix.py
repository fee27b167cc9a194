"""A matrix as a document: a row per configuration, then what goes across them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from analysis.report import numbers
from analysis.report.document import Align, Bullets, Column, Content, Document, Doubts, Place, Row, Section, Table
from analysis.suites.matrix import (
    ConfigurationFigures,
    ConfigurationLine,
    MatrixSummary,
    Rates,
    ScalingFit,
    ScenarioLine,
)

__all__ = ["matrix_document"]

WIDTH = 100
FIGURES = ("speedup", "efficiency", "stretch", "overlap eff.")
RATES = ("tok/s an agent", "with think time", "tok/s of all", "overlap eff.")


def matrix_document(summary: MatrixSummary) -> Document:
    """The document about a matrix; it has no title, because it may be a part of another one."""
    lines = summary.configurations
    # Without solo runs there is no speedup to show; rates are what such a matrix is about.
    has_solo = any(line.agents is not None and line.agents.speedup.value is not None for line in lines)
    texts = [Column(label, align=Align.LEFT) for label in ("id", "phase", "agents")]
    figures = [Column(label) for label in (FIGURES if has_solo else RATES)]
    table = Table(
        (*texts, *figures, Column("contention")),
        [_row(line, has_solo=has_solo) for line in lines],
        Doubts(Place.BESIDE, Place.BESIDE),
    )
    sections = [Section("Sweep", (table,), text_title=""), Section("", (Bullets(_facts(summary)),))]
    return Document("", sections, width=WIDTH)


def _row(line: ConfigurationLine, *, has_solo: bool) -> Row:
    texts = (str(line.id), str(line.phase), f"{line.agents_count} {line.scenario}")
    if line.agents is None or line.rates is None:
        return Row((*texts, *[numbers.REFUSED] * len(FIGURES), "not measured"))
    contents = _figures(line.agents) if has_solo else _rates(line.rates, line.agents)
    return Row((*texts, *contents, line.contention or ""))


def _figures(figures: ConfigurationFigures) -> Iterable[Content]:
    return figures.speedup, figures.efficiency, figures.stretch, figures.overlap_efficiency


def _rates(rates: Rates, figures: ConfigurationFigures) -> Iterable[Content]:
    per_s = (
        rates.agent_output_tokens_per_s,
        rates.agent_sustained_output_tokens_per_s,
        rates.all_output_tokens_per_s,
    )
    return (*(numbers.REFUSED if rate is None else f"{rate:.4g}" for rate in per_s), figures.overlap_efficiency)


def _facts(summary: MatrixSummary) -> Sequence[str]:
    lines = summary.configurations
    facts = ["overlap eff.: the guide's figure, blind to agents slowing each other down alike"]
    lacking = [_lacks(line) for line in lines if line.id in summary.missing]
    if lacking:
        facts.append(f"incomplete or missing: {', '.join(lacking)}")
    facts += [f"{line.id}: {line.error}" for line in lines if line.error]
    facts += [_scenario(name, line) for name, line in summary.scenarios.items()]
    if summary.late_over_early is not None:
        makespan = numbers.value_and_interval(summary.late_over_early.makespan)
        facts.append(f"late over early runs, makespan: {makespan}")
    return facts + [_scaling(fit) for fit in summary.scaling]


def _lacks(line: ConfigurationLine) -> str:
    runs = line.missing_runs
    return f"{line.id} (not begun)" if runs is None else f"{line.id} ({runs} run{'s' if runs != 1 else ''})"


def _scenario(name: str | None, line: ScenarioLine) -> str:
    def percent(share: float | None) -> str:
        return numbers.REFUSED if share is None else f"{100 * share:.2f} %"

    return (
        f"{name}: overlap eff. {percent(line.overlap_efficiency_mean)} ({line.grade or 'no grade'}), SD of runs "
        f"{percent(line.overlap_efficiency_sd_of_runs)}, of configurations "
        f"{percent(line.overlap_efficiency_sd_of_configuration_means)}; {line.labelled_runs} of {line.runs} runs "
        f"labelled by speedup<1.5"
    )


def _scaling(fit: ScalingFit) -> str:
    eta = ", ".join(f"{n}: {100 * value:.1f} %" for n, value in fit.eta.items() if value is not None)
    fairness = [value for value in fit.fairness.values() if value is not None]
    least = f"; least fairness {min(fairness):.3g} (Jain)" if fairness else ""
    half = f"below a half from {fit.halved_at} agents on" if fit.halved_at else "never below a half"
    share, alpha = numbers.value_and_interval(fit.amdahl_parallel_share), numbers.value_and_interval(fit.power_alpha)
    return (
        f"think time {fit.think_ms:g} ms, an agent's rate among N over its rate alone: {eta}; {half}; "
        f"1/(s+(1-s)N): s {share}; N^-a: a {alpha}{least}"
    )
