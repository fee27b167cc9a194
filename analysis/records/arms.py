"""Which run belongs to which arm of a campaign, which did not come to its end, and which of those planned are missing.

An arm is a condition (solo, concurrent, with another option), a block a repetition in which every arm occurs once. The
manifest's `design` names them; a directory without one has a single arm. Figures are those of one arm, the primary
one unless another is asked for: runs of different conditions are no repetitions of each other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["arm_of", "arms", "block_of", "cut_short", "missing_runs", "primary", "runs_of"]

Manifest = Mapping[str, Any]


def arms(manifest: Manifest) -> tuple[str, ...]:
    """Return the names of the arms in the order of the design; empty where there is no design."""
    return tuple(arm["name"] for arm in _design(manifest).get("arms") or [])


def primary(manifest: Manifest) -> str | None:
    """Return the arm that the figures of a summary are about; None where there is no design."""
    design = _design(manifest)
    named: str | None = design.get("primary") or next(iter(arms(manifest)), None)
    return named


def arm_of(manifest: Manifest, run: int) -> str | None:
    """Return the arm of `run`; that of a run which did not finish is the one planned next. None if nobody can tell."""
    entry = _entries(manifest).get(run)
    if entry is not None:
        told: str | None = entry.get("arm", primary(manifest))
        return told
    planned = _design(manifest).get("planned") or []
    if 0 <= run < len(planned):
        return str(planned[run][1])
    only = arms(manifest)
    return only[0] if len(only) == 1 else None


def block_of(manifest: Manifest, run: int) -> int | None:
    """Return the block in which a finished `run` was made; None if it has none."""
    block: int | None = _entries(manifest).get(run, {}).get("block")
    return block


def runs_of(manifest: Manifest, runs: Iterable[int], arm: str | None = None) -> tuple[int, ...]:
    """Return those of `runs` that belong to `arm` (the primary one), ascending; all where there is no design."""
    wanted = primary(manifest) if arm is None else arm
    everything = sorted({*runs, *_entries(manifest)})
    if wanted is None:
        return tuple(everything)
    return tuple(run for run in everything if arm_of(manifest, run) == wanted)


def cut_short(entry: Manifest) -> str | None:
    """Return why a run did not come to its end, None if it did. entry: the manifest's of it, empty where it has none.

    Nobody knows what such a run would have become, so it is no repetition of the others.
    """
    if not entry:
        return "not finished"
    if entry.get("interrupted"):
        return "interrupted"
    return "no progress" if entry.get("no_progress") else None


def missing_runs(manifest: Manifest) -> list[dict[str, Any]]:
    """Return {"block", "arm"} of each planned run that did not finish, in the order of the plan."""
    entries = _entries(manifest).values()
    whole = [entry for entry in entries if cut_short(entry) is None]
    finished = Counter((entry.get("block"), entry.get("arm")) for entry in whole)
    missing = []
    for block, arm in _design(manifest).get("planned") or []:
        if finished[block, arm]:
            finished[block, arm] -= 1
        else:
            missing.append({"block": block, "arm": arm})
    return missing


def _design(manifest: Manifest) -> Mapping[str, Any]:
    design = manifest.get("design")
    return design if isinstance(design, Mapping) else {}


def _entries(manifest: Manifest) -> dict[int, Mapping[str, Any]]:
    return {entry["run"]: entry for entry in manifest.get("runs") or [] if "run" in entry}
