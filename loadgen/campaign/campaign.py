"""A campaign: a profile whose targets answered, its plan, and its end."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from loadgen.campaign.arm import Arm
from loadgen.campaign.policy import Policy
from loadgen.campaign.rundir import write_manifest
from loadgen.engine.tally import Tally
from loadgen.manifest import CONTROL, DesignFacts, Manifest, Planned
from loadgen.profile import Profile
from loadgen.servers.endpoint import Endpoint
from loadgen.telemetry import Look
from loadgen.telemetry.sampler import Sampler
from loadgen.workload import Workload

if TYPE_CHECKING:
    from analysis.summary import Summary

__all__ = ["Campaign", "Finished"]


@dataclass(slots=True)
class Campaign:
    """A profile whose targets answered and whose workload is ready; nothing has been measured yet.

    The manifest is a value: each change replaces it, and `write` puts it on disk.
    """

    profile: Profile
    seed: int
    endpoints: tuple[Endpoint, ...]
    workload: Workload
    tier: str
    tier_reason: str | None  # the reason for a lower tier than the kernel's
    directory: Path
    guesses_ratio: bool  # the number of tokens per word of a prompt is not known yet
    policy: Policy
    manifest: Manifest = field(default_factory=Manifest)
    arms: tuple[Arm, ...] = ()
    say: Callable[[str], None] = lambda line: None  # gets lines for the user between runs
    on_look: Callable[[str, Look], None] = lambda source, look: None  # gets each sample, in the sampler's thread
    past: Tally = field(default_factory=Tally)  # the sum over the runs that are over
    followers: list[Callable[[], None]] = field(default_factory=list)
    sampler: Sampler | None = None  # while it is measured, if the profile wants any
    # Held during a run; yields whether another campaign has made a run before it.
    turn: Callable[[], contextlib.AbstractAsyncContextManager[bool | None]] = contextlib.nullcontext

    @property
    def design(self) -> DesignFacts:
        return self.manifest.planned_design

    def arm(self, planned: Planned) -> Arm:
        """The arm of a planned run, which may be a repetition as a control."""
        return next(arm for arm in self.arms if arm.name == planned[1].removeprefix(CONTROL))

    def call_after_runs(self, follower: Callable[[], None]) -> None:
        """Call `follower` now, and after each run once the manifest holds it."""
        follower()
        self.followers.append(follower)

    def write(self) -> None:
        """Put the manifest on disk. Raises OSError."""
        write_manifest(self.directory, self.manifest)


@dataclass(frozen=True, slots=True)
class Finished:
    """The end of a campaign, as it is on disk.

    error: the reason, in one line, why it ended early by a fault of loadgen or its host. halted: the same for a server.
    unreachable: a server no longer answers. planned: runs in all. missing: those not made.
    """

    summary: Summary | None
    interrupted: bool
    error: str | None = None
    halted: str | None = None
    unreachable: bool = False
    planned: int = 1
    missing: int = 0
