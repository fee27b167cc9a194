"""Sentences of the run report that all its forms share: what was asked for, how the campaign went as a whole."""

from __future__ import annotations

from collections.abc import Iterable

from analysis.estimate import Figure
from analysis.report.agents import agents_in_words
from analysis.report.labels import COMPARED
from analysis.report.numbers import REFUSED, five
from analysis.summary import Summary
from loadgen.manifest import LoadFacts

__all__ = ["asked_in_words", "campaign_in_words", "counted_runs", "targets_in_words"]


def targets_in_words(summary: Summary, *, versions: bool) -> list[str]:
    """A line per server: its URL, API, model and, with `versions`, version."""
    targets = [(target.url, target.api, target.model, versions and target.version) for target in summary.targets]
    return [" · ".join(str(part) for part in parts if part) for parts in targets]


def counted_runs(runs: int) -> str:
    return f"{runs} run{'s' if runs != 1 else ''}"


def asked_in_words(summary: Summary) -> str:
    """What was asked for, a load or agents, in one phrase; empty if that is not known."""
    return agents_in_words(summary.agents) if summary.agents else _load_in_words(summary.load)


def _load_in_words(load: LoadFacts | None) -> str:
    if not load:
        return ""
    arrivals = load.arrivals or ("poisson" if load.rate_per_s else "closed")
    if load.stages:
        return f"{'closed loop' if arrivals == 'closed' else f'open loop, {arrivals}'}, {len(load.stages)} stages"
    if arrivals == "closed":
        return f"closed loop, {load.concurrency or '?'} in flight"
    if arrivals == "burst":
        return f"burst of {load.requests or '?'}"
    return f"open loop, {arrivals}, {load.rate_per_s or 0:g} requests/s"


def campaign_in_words(summary: Summary) -> list[str]:
    """Sentences on the runs as a whole: how the campaign stopped, whether order mattered, which runs are missing."""
    lines = []
    stopping = summary.stopping
    if stopping and stopping.runs:
        widths = ", ".join(f"{COMPARED[name]} {_width(width)}" for name, width in stopping.half_width.items())
        how = "stopped" if stopping.reached else "not narrow enough"
        lines.append(f"{how} after {stopping.runs} runs: {widths} (97 %, wanted ±{100 * stopping.within:.2g} %)")
    if summary.early_late:
        ratios = ", ".join(f"{COMPARED[name]} {_ratio(ratio)}" for name, ratio in summary.early_late.ratio.items())
        lines.append(f"late runs over early ones: {ratios}")
    if summary.control:
        ratios = ", ".join(f"{COMPARED[name]} {five(ratio)}" for name, ratio in summary.control.ratio.items())
        lines.append(f"control {summary.control.arm}, end over start: {ratios}")
    if summary.missing_runs:
        lines.append(_missing_in_words(summary))
    return lines


def _missing_in_words(summary: Summary) -> str:
    """The planned runs that did not finish, and why: `3 runs missing: a in block 2; b in blocks 1-2 (refused)`."""
    blocks: dict[str, list[int]] = {}
    for run in summary.missing_runs:
        blocks.setdefault(run.arm, []).append(run.block)
    of_arms = [f"{arm} in block{'s' if len(of_arm) > 1 else ''} {_ranges(of_arm)}" for arm, of_arm in blocks.items()]
    why = f" ({summary.halted})" if summary.halted else ""
    return f"{counted_runs(len(summary.missing_runs))} missing: {'; '.join(of_arms)}{why}"


def _ranges(numbers: Iterable[int]) -> str:
    """`1, 3-9` of 1, 3, 4 and so on, in any order."""
    ends: list[list[int]] = []
    for number in sorted(set(numbers)):
        if ends and number == ends[-1][1] + 1:
            ends[-1][1] = number
        else:
            ends.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in ends)


def _width(width: float | None) -> str:
    return REFUSED if width is None else f"±{100 * width:.2g} %"


def _ratio(ratio: Figure) -> str:
    if ratio.value is None:
        return REFUSED
    if ratio.low is None or ratio.high is None:
        return f"{ratio.value:#.3g}"
    return f"{ratio.value:#.3g} ({ratio.low:#.3g}..{ratio.high:#.3g})"
