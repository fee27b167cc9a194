"""When a campaign has enough runs: after a fixed number of blocks, or once its intervals are narrow enough.

A policy plans the first blocks. When these are made it decides, from the directory, whether more follow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import analysis
from analysis.stats.planning import LOOKS, Look, look
from loadgen.manifest import LookFacts
from loadgen.profile import Profile

__all__ = ["Decision", "Fixed", "Policy", "UntilNarrow", "policy_of"]

PER_RUN = {"ttft_ms": "ttft_mean_ms", "output_tokens_per_s": "output_tokens_per_s"}  # the keys of a summary's runs


@dataclass(frozen=True, slots=True)
class Decision:
    """The decision of a policy after some runs. blocks: to plan from now on; None if no more are made."""

    look: LookFacts  # for the manifest
    blocks: int | None
    words: str  # for the user


class Policy(Protocol):
    @property
    def blocks(self) -> int:
        """The number of blocks planned at first."""

    def decide(self, directory: Path, blocks: int) -> Decision | None:
        """The decision after `blocks` blocks, whose records are in `directory`; None if there is nothing to decide."""


@dataclass(frozen=True, slots=True)
class Fixed:
    """The number of blocks that the profile states."""

    blocks: int

    def decide(self, directory: Path, blocks: int) -> None:
        return None


@dataclass(frozen=True, slots=True)
class UntilNarrow:
    """Blocks until the interval of each metric is narrow, checked after `LOOKS` blocks and at no other time.

    within: relative half-width. metrics: keys of `PER_RUN`.
    """

    within: float
    metrics: tuple[str, ...]

    @property
    def blocks(self) -> int:
        return LOOKS[0]

    def decide(self, directory: Path, blocks: int) -> Decision:
        per_run = analysis.summarise(directory).per_run
        return self.judge(
            {metric: [getattr(run, PER_RUN[metric]) for run in per_run] for metric in self.metrics}, blocks
        )

    def judge(self, values: Mapping[str, Sequence[float | None]], blocks: int) -> Decision:
        """The decision after `blocks` blocks. values: by metric, one per run; None where a run has no such figure."""
        looks = {}
        for metric in self.metrics:
            measured = [value for value in values[metric] if value is not None]
            if len(measured) == len(values[metric]) and any(measured):
                looks[metric] = look(measured, self.within)
        widths = {metric: _width(looks.get(metric)) for metric in self.metrics}
        unknown = [metric for metric in self.metrics if metric not in looks]
        if unknown:
            words = f"no more, for a run has no {unknown[0]} and its width cannot be known"
            return Decision(LookFacts(runs=blocks, half_width=widths, reached=False), None, f"{blocks} runs: {words}")
        reached = all(check.reached for check in looks.values())
        later = min((check.next_look for check in looks.values() if check.next_look), default=None)
        words = self._words(looks, reached, later)
        return Decision(LookFacts(runs=blocks, half_width=widths, reached=reached), later, f"{blocks} runs: {words}")

    def _words(self, looks: Mapping[str, Look], reached: bool, later: int | None) -> str:
        widths = ", ".join(f"{name} ±{100 * (check.half_width or 0.0):.2g} %" for name, check in looks.items())
        end = "narrow enough" if reached else "no look is left"
        going = f"going on to {later} runs" if later is not None else end
        return f"{widths} (97 %, wanted {100 * self.within:g} %); {going}"


def _width(check: Look | None) -> float | None:
    return None if check is None or check.half_width is None else float(check.half_width)


def policy_of(profile: Profile) -> Policy:
    """The policy that a profile states."""
    wanted = profile.campaign
    if wanted.until is None:
        return Fixed(profile.runs)
    every = tuple(PER_RUN)
    return UntilNarrow(wanted.until, every if wanted.until_metric == "both" else (wanted.until_metric,))
