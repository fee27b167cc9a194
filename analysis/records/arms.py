"""Which run belongs to which arm of a campaign, which did not come to its end, and which of those planned are missing.

An arm is a condition (solo, concurrent, with another option), a block a repetition in which every arm occurs once. The
manifest's `design` names them; a directory without one has a single arm. Figures are those of one arm, the primary
one unless another is asked for: runs of different conditions are no repetitions of each other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from enum import StrEnum

from msgspec import Struct

from loadgen.manifest import Manifest, RunFacts

__all__ = ["CutShort", "MissingRun", "arm_of", "arms", "block_of", "cut_short", "missing_runs", "primary", "runs_of"]


class CutShort(StrEnum):
    """Why a run did not come to its end."""

    NOT_FINISHED = "not finished"
    INTERRUPTED = "interrupted"
    NO_PROGRESS = "no progress"


class MissingRun(Struct, frozen=True, kw_only=True):
    """A run that was planned and did not come to its end."""

    block: int
    arm: str


def arms(manifest: Manifest) -> tuple[str, ...]:
    """The names of the arms in the order of the design; empty where there is no design."""
    return tuple(arm.name for arm in manifest.planned_design.arms)


def primary(manifest: Manifest) -> str | None:
    """The arm that the figures of a summary are about; None where there is no design."""
    return manifest.planned_design.primary or next(iter(arms(manifest)), None)


def arm_of(manifest: Manifest, run: int) -> str | None:
    """The arm of `run`; for a run that did not finish, the one planned next. None where it is not known."""
    entry = manifest.run(run)
    if entry is not None:
        return primary(manifest) if entry.arm is None else entry.arm
    planned = manifest.planned_design.planned
    if 0 <= run < len(planned):
        return planned[run][1]
    only = arms(manifest)
    return only[0] if len(only) == 1 else None


def block_of(manifest: Manifest, run: int) -> int | None:
    """The block in which a finished `run` was made; None if it has none."""
    entry = manifest.run(run)
    return None if entry is None else entry.block


def runs_of(manifest: Manifest, runs: Iterable[int], arm: str | None = None) -> tuple[int, ...]:
    """Those of `runs` that belong to `arm` (the primary one), ascending; all where there is no design."""
    wanted = primary(manifest) if arm is None else arm
    everything = sorted({*runs, *(entry.run for entry in manifest.runs)})
    if wanted is None:
        return tuple(everything)
    return tuple(run for run in everything if arm_of(manifest, run) == wanted)


def cut_short(entry: RunFacts | None) -> CutShort | None:
    """Why a run did not come to its end, None if it did. entry: its entry in the manifest, if any.

    Its full course is not known, so it is no repetition of the others.
    """
    if entry is None:
        return CutShort.NOT_FINISHED
    if entry.interrupted:
        return CutShort.INTERRUPTED
    return CutShort.NO_PROGRESS if entry.no_progress else None


def missing_runs(manifest: Manifest) -> tuple[MissingRun, ...]:
    """The planned runs that did not come to their end, in the order of the plan."""
    finished = Counter((entry.block, entry.arm) for entry in manifest.runs if entry.whole)
    missing = []
    for block, arm in manifest.planned_design.planned:
        if finished[block, arm]:
            finished[block, arm] -= 1
        else:
            missing.append(MissingRun(block=block, arm=arm))
    return tuple(missing)
