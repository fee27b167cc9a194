"""Many campaigns, run by run in turns, each in a directory of its own below one.

Block by block, every campaign makes its runs of that block before any begins the next: an effect of time then affects
all of them alike. Campaigns that did not finish continue in the same turns, with the runs their directories lack.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from msgspec import UNSET

from analysis.suites.suite import campaign_in
from loadgen import __version__
from loadgen.campaign.agents_arm import CONCURRENT
from loadgen.campaign.campaign import Campaign, Finished
from loadgen.campaign.design import SEED_BITS, missing, planned
from loadgen.campaign.measure import measure
from loadgen.campaign.prepare import prepare, resume
from loadgen.campaign.resume import read_manifest
from loadgen.clock import NS_PER_S, now_ns, wall_iso
from loadgen.engine.tally import Tally
from loadgen.errors import Unreachable, UsageError
from loadgen.manifest import MANIFEST, SUMMARY, Manifest, ProfileFacts
from loadgen.profile import Configuration, Profile
from loadgen.suite_manifest import SuiteManifest, TestFacts

__all__ = [
    "Tested",
    "Turns",
    "begin",
    "begin_again",
    "directory_of",
    "end",
    "measure_in_turns",
    "order_of",
    "outcome",
    "seed_of",
]

_M = TypeVar("_M", bound=SuiteManifest)


class Turns:
    """The right to make the next run, which campaigns hold one after the other."""

    def __init__(self, order: Sequence[int]) -> None:
        """order: places of campaigns in a list; a campaign with no turn left in it that wants another comes last."""
        self._order = list(order)
        self._changed = asyncio.Condition()
        self._holder: int | None = None
        self._taken = 0

    async def take(self, place: int) -> bool:
        """Whether there was a turn before this one, which is now held: waits for it, unless it is held already."""
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
        """Give up the remaining turns of a campaign."""
        async with self._changed:
            self._order = [other for other in self._order if other != place]
        await self.give_back(place)
        async with self._changed:
            self._changed.notify_all()

    @contextlib.asynccontextmanager
    async def held(self, place: int) -> AsyncIterator[bool]:
        """Hold the turn. The last one is kept until `leave`, because closing a directory takes time as well."""
        preceded = await self.take(place)
        try:
            yield preceded
        finally:
            if place in self._order:
                await self.give_back(place)


@dataclass(slots=True)
class Tested:
    """One configuration and its end. finished: None if it was never begun. error: the reason, in one line."""

    configuration: Configuration
    directory: Path
    finished: Finished | None = None
    error: str | None = None
    lost: bool = False  # a server did not answer any more
    began: str | None = None
    ended: str | None = None

    @property
    def ok(self) -> bool:
        """Whether it was measured to its end, and its servers answered."""
        done = self.finished
        return (
            done is not None
            and done.summary is not None
            and not (done.interrupted or done.error or done.halted)
            and done.summary.verdict != "failed"
        )

    @property
    def complete(self) -> bool:
        """Whether no run is missing, and its directory was closed."""
        done = self.finished
        return done is not None and done.summary is not None and not (done.missing or done.interrupted)

    @property
    def interrupted(self) -> bool:
        """Whether it was stopped, or never begun."""
        return self.error is None if self.finished is None else self.finished.interrupted

    @property
    def unreachable(self) -> bool:
        """Whether it ended because a server did not answer."""
        verdict = self.finished and self.finished.summary and self.finished.summary.verdict
        return self.lost or verdict == "failed"

    @property
    def reason(self) -> str:
        return f"{self.directory.name}: {self.error or 'every request failed'}"


def directory_of(configuration: Configuration) -> str:
    """The name of the directory of a configuration's campaign."""
    return f"phase_{configuration.phase}_test_{configuration.id}"


def order_of(profile: Profile, count: int, seed: int) -> list[tuple[int, int]]:
    """(block, place of a campaign) of every turn, in order of execution."""
    names = [str(place) for place in range(count)]
    return [(block, int(name)) for block, name in planned(names, profile.runs, profile.campaign.order, seed)]


# --- the manifest ----------------------------------------------------------------------------------------------------


def seed_of(profile: Profile, before: SuiteManifest | None) -> int:
    """The seed of the suite that is resumed, or else the profile's, or a new one. before: that suite's manifest."""
    if before is not None:
        return before.seed
    return profile.seed if profile.seed is not None else secrets.randbits(SEED_BITS)


def begin(kind: type[_M], profile: Profile, seed: int, **rest: object) -> _M:
    """The manifest of many campaigns before any has begun. rest: the fields of this kind alone."""
    return kind(
        loadgen=__version__,
        wall_start=wall_iso(),
        profile=ProfileFacts.from_json(profile.resolved()),
        withheld=tuple(profile.withheld()),
        seed=seed,
        order=profile.campaign.order,
        blocks=profile.runs,
    ).with_(**rest)


def begin_again(before: _M, directory: Path) -> _M:
    """The manifest of many campaigns, some of which will be finished; the summary in `directory` is removed."""
    (directory / SUMMARY).unlink(missing_ok=True)
    resumed = () if before.resumed is UNSET else before.resumed
    return before.with_(
        resumed=(*resumed, wall_iso()),
        wall_end=UNSET,
        finished=UNSET,
        tests=UNSET,
        sha256=UNSET,
        manifest_sha256=UNSET,
    )


def end(manifest: _M, tested: Sequence[Tested], tests: Sequence[TestFacts], began_ns: int) -> _M:
    """The manifest of many campaigns after the last run. began_ns: the start of this attempt, monotonic."""
    earlier_s = 0.0 if manifest.duration_s is UNSET else manifest.duration_s
    return manifest.with_(
        wall_end=wall_iso(),
        duration_s=round(earlier_s + (now_ns() - began_ns) / NS_PER_S, 3),
        finished=all(test.ok for test in tested),
        tests=tuple(tests),
    )


def outcome(tested: Tested) -> TestFacts:
    """The end of a configuration, as the manifest states it."""
    return TestFacts(
        id=tested.configuration.id,
        success=tested.ok,
        error=tested.error,
        missing_runs=None if tested.finished is None else tested.finished.missing,
        wall_start=tested.began,
        wall_end=tested.ended,
    )


# --- measuring -------------------------------------------------------------------------------------------------------


async def measure_in_turns(
    profiles: Sequence[Profile],
    tested: Sequence[Tested],
    order: Sequence[tuple[int, int]],
    seed: int,
    tell: Callable[[Tally], None],
    say: Callable[[str], None],
    stop: asyncio.Event,
) -> None:
    """Measure each configuration of `tested` with the profile at its place. order: (block, place) of every run.

    Runs that their directories hold already are not made again. Raises UsageError, after the rest was given up, for a
    campaign that cannot be measured as stated.
    """
    arms = [len(_arms_of(profile, test.configuration)) for profile, test in zip(profiles, tested, strict=True)]
    manifests = [_recall(test) for test in tested]
    made = [0 if test.finished is None else test.finished.planned - test.finished.missing for test in tested]
    turns = Turns(_turns_left([place for _, place in order for _ in range(arms[place])], made))
    course = _Course(turns, seed, tell, say, stop)
    tasks = [
        asyncio.create_task(course.measure(profiles[place], test, place, manifest))
        for place, (test, manifest) in enumerate(zip(tested, manifests, strict=True))
        if not test.complete
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


def _recall(tested: Tested) -> Manifest | None:
    """The manifest of a configuration that was begun, else None. Its state is noted in `tested`.

    Raises UsageError.
    """
    if not (tested.directory / MANIFEST).exists():
        return None
    manifest = read_manifest(tested.directory)
    path = tested.directory / SUMMARY
    try:
        # Without checksums it was killed while it was closed, and has to be closed again.
        sealed = manifest.sha256 is not UNSET and path.exists()
        summary = campaign_in(tested.directory) if sealed else None
    except ValueError:
        raise UsageError(f"{path}: is not JSON; remove it, it will be made again") from None
    tested.began = manifest.wall_start
    tested.ended = None if manifest.wall_end is UNSET else manifest.wall_end
    tested.finished = Finished(
        summary,
        interrupted=manifest.finished is not True,
        planned=len(manifest.planned_design.planned),
        missing=len(missing(manifest)),
    )
    return manifest


def _turns_left(turns: Sequence[int], made: Sequence[int]) -> list[int]:
    """The turns without the first n of each place, where n is the number of runs it has made."""
    left, taken = [], [0] * len(made)
    for place in turns:
        taken[place] += 1
        if taken[place] > made[place]:
            left.append(place)
    return left


def _arms_of(profile: Profile, configuration: Configuration) -> list[str]:
    """The arms of a configuration."""
    assert profile.agents is not None
    agents = profile.agents.configured(configuration)
    crew = [member.name for member in agents.crew]
    return [*(crew if agents.solo and len(crew) > 1 else []), CONCURRENT]


@dataclass(frozen=True, slots=True)
class _Course:
    """The state that campaigns share while they take turns."""

    turns: Turns
    seed: int
    tell: Callable[[Tally], None]
    say: Callable[[str], None]
    stop: asyncio.Event

    async def measure(self, profile: Profile, tested: Tested, place: int, before: Manifest | None) -> None:
        """Measure one configuration in its turns. Its directory is made in the first.

        before: the manifest of the runs it has made already.
        """
        try:
            preceded = await self.turns.take(place)
            if self.stop.is_set():
                return
            tested.began = tested.began or wall_iso()
            campaign = await self._campaign(profile, tested, place, before)
            if not preceded and campaign.tier_reason is not None:
                self.say(f"stamps by the {campaign.tier} tier: {campaign.tier_reason}")
            tested.finished = await measure(campaign, self.tell, self.stop)
            tested.error = tested.finished.error or tested.finished.halted
            tested.lost = tested.finished.unreachable
        except Unreachable as error:
            tested.error, tested.lost, tested.finished = str(error), True, None
        except BaseException:
            self.stop.set()  # such a fault does not pass by itself: the others would end the same way
            raise
        finally:
            if tested.began is not None:
                tested.ended = wall_iso()
            await self.turns.leave(place)

    async def _campaign(self, profile: Profile, tested: Tested, place: int, before: Manifest | None) -> Campaign:
        """The campaign of one configuration, which holds the turn while it makes a run."""
        assert profile.agents is not None
        # Another seed for each, so that no cache answers one configuration with the prompts of another.
        seed = (self.seed + place) % 2**SEED_BITS
        configured = profile.with_agents(profile.agents.configured(tested.configuration), seed=seed)
        if before is None:
            campaign = await prepare(configured, tested.directory)
        else:
            campaign = await resume(configured, tested.directory, before)
        campaign.say = lambda line: self.say(f"{tested.directory.name}: {line}")
        campaign.turn = lambda: self.turns.held(place)
        return campaign
