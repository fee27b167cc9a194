"""A sweep: several configurations of agents, each a campaign in a directory of its own, run by run in turns.

Block by block, every configuration makes its runs of that block before any begins the next: an effect of time then
meets all of them alike. Within a block their order is drawn, and reversed in the next one.
A sweep that did not finish goes on in the same turns, with the runs that its directories lack.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loadgen import __version__
from loadgen.campaign.agents_arm import CONCURRENT
from loadgen.campaign.campaign import Finished, measure, prepare, resume
from loadgen.campaign.design import planned
from loadgen.campaign.resume import missing_runs, read_manifest
from loadgen.campaign.rundir import MANIFEST as MANIFEST_OF_ONE
from loadgen.campaign.rundir import SUMMARY, write_manifest
from loadgen.clock import NS_PER_S, now_ns, wall_iso
from loadgen.engine.tally import Tally
from loadgen.errors import Unreachable, UsageError
from loadgen.profile.profile import Configuration, Profile, without_secrets

__all__ = [
    "MANIFEST",
    "Sweep",
    "Tested",
    "Turns",
    "begin_again",
    "directory_of",
    "measure_in_turns",
    "measure_sweep",
    "outcome",
]

MANIFEST = "sweep.json"
WRITTEN_LAST = ("wall_end", "finished", "tests", "sha256", "manifest_sha256")


class Turns:
    """Who may make the next run."""

    def __init__(self, order: Sequence[int]) -> None:
        """order: of places in a list; one that is not in it any more and wants to go on comes last."""
        self._order = list(order)
        self._changed = asyncio.Condition()
        self._holder: int | None = None
        self._taken = 0

    async def take(self, place: int) -> bool:
        """Wait for the turn, unless it is held already; return whether anybody had one before."""
        async with self._changed:
            if self._holder != place:
                if place not in self._order:
                    self._order.append(place)
                await self._changed.wait_for(lambda: self._holder is None and self._order[:1] == [place])
                self._order.pop(0)
                self._holder = place
                self._taken += 1
            return self._taken > 1

    async def give_back(self, place: int) -> None:
        async with self._changed:
            if self._holder == place:
                self._holder = None
                self._changed.notify_all()

    async def leave(self, place: int) -> None:
        """Give up the turns that are left."""
        async with self._changed:
            self._order = [one for one in self._order if one != place]
        await self.give_back(place)
        async with self._changed:
            self._changed.notify_all()

    @contextlib.asynccontextmanager
    async def held(self, place: int) -> AsyncIterator[bool]:
        """Hold the turn for a while. The last one is kept until `leave`, for closing a directory takes time as well."""
        preceded = await self.take(place)
        try:
            yield preceded
        finally:
            if place in self._order:
                await self.give_back(place)


@dataclass(slots=True)
class Tested:
    """How one configuration ended. finished: None if it was never begun. error: why, in one line."""

    configuration: Configuration
    directory: Path
    finished: Finished | None = None
    error: str | None = None
    lost: bool = False  # a server did not answer any more
    began: str | None = None
    ended: str | None = None

    @property
    def ok(self) -> bool:
        """It was measured to its end, and its servers answered."""
        done = self.finished
        return (
            done is not None
            and done.summary is not None
            and not (done.interrupted or done.error or done.halted)
            and done.summary["verdict"] != "failed"
        )

    @property
    def complete(self) -> bool:
        """Nothing is left to make, and its directory was closed."""
        done = self.finished
        return done is not None and done.summary is not None and not (done.missing or done.interrupted)

    @property
    def interrupted(self) -> bool:
        """Somebody stopped it, or it was never begun."""
        return self.error is None if self.finished is None else self.finished.interrupted

    @property
    def unreachable(self) -> bool:
        """Its servers are to blame."""
        verdict = self.finished and self.finished.summary and self.finished.summary["verdict"]
        return self.lost or verdict == "failed"

    @property
    def reason(self) -> str:
        return f"{self.directory.name}: {self.error or 'every request failed'}"


@dataclass(slots=True)
class Sweep:
    """A sweep as it was planned, and what came of it."""

    seed: int
    tested: list[Tested] = field(default_factory=list)
    manifest: dict[str, Any] = field(default_factory=dict)


def directory_of(one: Configuration) -> str:
    return f"phase_{one.phase}_test_{one.id}"


async def measure_sweep(
    profile: Profile,
    chosen: Sequence[Configuration],
    directory: Path,
    seed: int,
    tell: Callable[[Tally], None],
    say: Callable[[str], None],
    stop: asyncio.Event,
    before: Mapping[str, Any] | None = None,
) -> Sweep:
    """Measure every configuration; return when all are done, or `stop` is set. `directory` must exist.

    before: the manifest of the same sweep, to make only what is missing in `directory`.
    Raises UsageError, after the rest was given up, for what cannot be measured as asked.
    """
    order, began_ns = _order(profile, len(chosen), seed), now_ns()
    sweep = Sweep(seed, [Tested(one, directory / directory_of(one)) for one in chosen])
    sweep.manifest = {
        "schema": "loadgen.sweep/1",
        **opening(profile, seed),
        "planned": [[block, chosen[place].id] for block, place in order],
        "configurations": [
            {"id": one.id, "phase": one.phase, "directory": directory_of(one), **_about(profile, one)} for one in chosen
        ],
    }
    if before is not None:
        sweep.manifest = begin_again(before, directory)
    write_manifest(directory, sweep.manifest, MANIFEST)
    took_s = sweep.manifest.get("duration_s", 0.0)
    try:
        await measure_in_turns([profile] * len(chosen), sweep.tested, order, seed, tell, say, stop)
    finally:
        sweep.manifest |= {
            **closing(sweep.tested, began_ns, took_s),
            "tests": [outcome(tested) for tested in sweep.tested],
        }
        write_manifest(directory, sweep.manifest, MANIFEST)
    return sweep


def opening(profile: Profile, seed: int) -> dict[str, Any]:
    """Return what the manifest of many campaigns begins with."""
    return {
        "loadgen": __version__,
        "wall_start": wall_iso(),
        "profile": profile.resolved(),
        "withheld": profile.withheld(),
        "seed": seed,
        "order": profile.campaign.order,
        "blocks": profile.runs,
    }


def closing(tested: Sequence[Tested], began_ns: int, took_s: float) -> dict[str, Any]:
    """Return what it ends with. took_s: what was spent on it before this began."""
    return {
        "wall_end": wall_iso(),
        "duration_s": round(took_s + (now_ns() - began_ns) / NS_PER_S, 3),
        "finished": all(one.ok for one in tested),
    }


def begin_again(before: Mapping[str, Any], directory: Path) -> dict[str, Any]:
    """Return the manifest to go on with in `directory`, which is finished no more."""
    (directory / SUMMARY).unlink(missing_ok=True)
    kept = {key: value for key, value in before.items() if key not in WRITTEN_LAST}
    return kept | {"resumed": [*before.get("resumed", []), wall_iso()]}


async def measure_in_turns(
    profiles: Sequence[Profile],
    tested: Sequence[Tested],
    order: Sequence[tuple[int, int]],
    seed: int,
    tell: Callable[[Tally], None],
    say: Callable[[str], None],
    stop: asyncio.Event,
) -> None:
    """Measure each configuration of `tested` with the profile at its place. order: (block, place), of every run.

    What their directories hold already is not measured again. Raises UsageError as `measure_sweep`.
    """
    arms = [len(_arms_of(profile, one.configuration)) for profile, one in zip(profiles, tested, strict=True)]
    manifests = [_recall(one) for one in tested]
    made = [one.finished.planned - one.finished.missing if one.finished is not None else 0 for one in tested]
    turns = Turns(_turns_left([place for _, place in order for _ in range(arms[place])], made))
    tasks = [
        asyncio.create_task(_test(profiles[place], one, place, manifest, turns, seed, tell, say, stop))
        for place, (one, manifest) in enumerate(zip(tested, manifests, strict=True))
        if not one.complete
    ]
    if not tasks:
        return
    try:
        await asyncio.wait(tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    for task in tasks:
        task.result()


def _recall(tested: Tested) -> dict[str, Any] | None:
    """Say of a configuration how it stands on disk; return its manifest, None if there is none. Raises UsageError."""
    if not (tested.directory / MANIFEST_OF_ONE).exists():
        return None
    manifest = read_manifest(tested.directory)
    path = tested.directory / SUMMARY
    try:
        # Without checksums it was killed while it was closed, and has to be closed again.
        summary = json.loads(path.read_text(encoding="utf-8")) if "sha256" in manifest and path.exists() else None
    except ValueError:
        raise UsageError(f"{path}: is not JSON; remove it, it will be made again") from None
    tested.began, tested.ended = manifest["wall_start"], manifest.get("wall_end")
    tested.finished = Finished(
        summary,
        interrupted=not manifest.get("finished", False),
        planned=len(manifest["design"]["planned"]),
        missing=missing_runs(manifest),
    )
    return manifest


def _turns_left(turns: Sequence[int], made: Sequence[int]) -> list[int]:
    """Return the turns without the first ones of each place, as many as it has made runs."""
    left, taken = [], [0] * len(made)
    for place in turns:
        taken[place] += 1
        if taken[place] > made[place]:
            left.append(place)
    return left


def _order(profile: Profile, count: int, seed: int) -> list[tuple[int, int]]:
    """Return (block, place of a configuration), in order of execution."""
    names = [str(place) for place in range(count)]
    return [(block, int(name)) for block, name in planned(names, profile.runs, profile.campaign.order, seed)]


def _arms_of(profile: Profile, one: Configuration) -> list[str]:
    """Return the arms of a configuration."""
    assert profile.agents is not None
    agents = profile.agents.configured(one)
    crew = [member.name for member in agents.crew]
    return [*(crew if agents.solo and len(crew) > 1 else []), CONCURRENT]


def _about(profile: Profile, one: Configuration) -> dict[str, Any]:
    assert profile.agents is not None
    agents = profile.agents.configured(one)
    return {
        "scenario": agents.scenario,
        "permits": agents.permits or len(agents.crew),
        "think_ms": agents.think_ms,
        "agents": [{"name": member.name, "options": without_secrets(member.options)} for member in agents.crew],
    }


async def _test(
    profile: Profile,
    tested: Tested,
    place: int,
    before: dict[str, Any] | None,
    turns: Turns,
    seed: int,
    tell: Callable[[Tally], None],
    say: Callable[[str], None],
    stop: asyncio.Event,
) -> None:
    """Measure one configuration in its turns. Nothing of it is on disk before its first.

    before: the manifest of what it has made already.
    """
    assert profile.agents is not None
    try:
        preceded = await turns.take(place)
        if stop.is_set():
            return
        tested.began = tested.began or wall_iso()
        # Another seed for each, so that no cache answers one configuration with what another asked.
        mine = profile.with_agents(profile.agents.configured(tested.configuration), seed=(seed + place) % 2**62)
        campaign = await (prepare(mine, tested.directory) if before is None else resume(mine, tested.directory, before))
        campaign.say = lambda line: say(f"{tested.directory.name}: {line}")
        campaign.turn = lambda: turns.held(place)
        if not preceded and campaign.tier_reason is not None:
            say(f"stamps by the {campaign.tier} tier: {campaign.tier_reason}")
        tested.finished = await measure(campaign, tell, stop)
        tested.error = tested.finished.error or tested.finished.halted
        tested.lost = tested.finished.unreachable
    except Unreachable as error:
        tested.error, tested.lost, tested.finished = str(error), True, None
    except BaseException:
        stop.set()  # nothing of the kind passes by itself: the others would end the same way
        raise
    finally:
        if tested.began is not None:
            tested.ended = wall_iso()
        await turns.leave(place)


def outcome(tested: Tested) -> dict[str, Any]:
    """Return how a configuration ended, for a manifest."""
    return {
        "id": tested.configuration.id,
        "success": tested.ok,
        "error": tested.error,
        "missing_runs": None if tested.finished is None else tested.finished.missing,
        "wall_start": tested.began,
        "wall_end": tested.ended,
    }
