"""From a profile to a campaign: targets that answered, a workload that is ready, arms, a plan, the manifest.

The same for a directory whose campaign did not finish: the runs it has must be of the same kind as those to be made.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import psutil
from msgspec import UNSET

from loadgen import __version__
from loadgen.campaign.agents_arm import CONCURRENT, agents_arms, agents_work, with_agents
from loadgen.campaign.arm import Arm
from loadgen.campaign.campaign import Campaign
from loadgen.campaign.design import SEED_BITS, with_plan
from loadgen.campaign.load_arm import MAIN, load_arm, most_connections
from loadgen.campaign.policy import policy_of
from loadgen.campaign.rundir import reopen_directory
from loadgen.clock import clock_source, wall_iso
from loadgen.errors import UsageError
from loadgen.manifest import ArmFacts, DesignFacts, HostFacts, InstrumentFacts, Manifest, ProfileFacts, WorkloadFacts
from loadgen.probes import calibrate
from loadgen.profile import Profile, Work
from loadgen.servers.control import NoAnswer
from loadgen.servers.endpoint import Endpoint
from loadgen.servers.resolve import describe_endpoint
from loadgen.servers.resolve import resolve as resolve_target
from loadgen.servers.tokenizer import LENDS_TOKENIZER, token_counter
from loadgen.store.lock import held
from loadgen.transport.room import make_room_for_sockets
from loadgen.transport.tier import choose_tier
from loadgen.workload import Synthetic, Workload, open_workload, tokenizer_count
from loadgen.workload.scripts import AgentsWork

__all__ = ["prepare", "profile_arms", "resume"]


def profile_arms(campaign: Campaign) -> Sequence[Arm]:
    """The arms that the profile makes: its load, or its agents alone and together."""
    profile, work = campaign.profile, campaign.workload
    if isinstance(work, AgentsWork):
        return agents_arms(profile, campaign.seed, campaign.endpoints, work, campaign.tier)
    return (load_arm(profile, campaign.seed, campaign.endpoints, work, campaign.tier),)


async def prepare(
    profile: Profile, directory: Path, arms_of: Callable[[Campaign], Sequence[Arm]] = profile_arms, primary: str = ""
) -> Campaign:
    """The campaign of `profile` in a new `directory`: its targets have answered; workload, arms and directory are made.

    arms_of: from the campaign, ready except for arms and design, to its arms.
    primary: the arm that the summary's figures are about; "" takes the one of all agents, or the only one.
    Raises UsageError, or Unreachable if a target does not answer.
    """
    _check_free(directory)
    seed = profile.seed if profile.seed is not None else secrets.randbits(SEED_BITS)
    campaign = await _resolved(profile, directory, seed)
    campaign.arms = tuple(arms_of(campaign))
    design = _design(campaign, primary or (MAIN if profile.agents is None else CONCURRENT))
    campaign.manifest = campaign.manifest.with_(design=design)
    _make(directory)
    return campaign


async def resume(
    profile: Profile,
    directory: Path,
    before: Manifest,
    arms_of: Callable[[Campaign], Sequence[Arm]] = profile_arms,
) -> Campaign:
    """The campaign of `directory` such that `measure` makes the runs that are missing in it.

    profile: as it was, its secrets filled in. before: the manifest. Records of runs that did not finish are dropped.
    Raises UsageError where the same could not be measured any more, Unreachable, or OSError.
    """
    assert before.seed is not None
    campaign = await _resolved(profile, directory, before.seed)
    again, campaign.manifest = _with_ratio(campaign, before), _continued(before)
    _check_same(before, again)
    campaign.arms = tuple(arms_of(campaign))
    if [arm.name for arm in campaign.arms] != [arm.name for arm in campaign.design.arms]:
        raise UsageError(f"{directory}: its profile no longer makes the same arms; start a new campaign")
    with held(directory):
        reopen_directory(directory, {run.run for run in campaign.manifest.runs})
        campaign.write()
    return campaign


def _with_ratio(campaign: Campaign, before: Manifest) -> Manifest:
    """The new manifest of the campaign, with the tokens per word that sized the runs made so far."""
    assert before.workload is not None
    ratio, source = before.workload.tokens_per_word, before.workload.ratio_from
    if campaign.guesses_ratio and source is not UNSET and source != "default":
        assert isinstance(ratio, float)
        campaign.workload.learn(ratio)
        campaign.guesses_ratio = False
    return campaign.manifest.with_(workload=msgspec.structs.replace(_workload_facts(campaign), ratio_from=source))


def _continued(before: Manifest) -> Manifest:
    """The manifest `before` as of a campaign that has not finished, without the runs that were cut short."""
    resumed = () if before.resumed is UNSET else before.resumed
    return before.with_(
        runs=tuple(run for run in before.runs if run.whole),
        resumed=(*resumed, wall_iso()),
        finished=UNSET,
        halted=UNSET,
        wall_end=UNSET,
        sha256=UNSET,
        manifest_sha256=UNSET,
    )


def _check_same(before: Manifest, again: Manifest) -> None:
    """Raise UsageError if new runs would measure something else than the runs in the directory."""
    cure = "start a new campaign"
    if before.loadgen != again.loadgen:
        raise UsageError(f"loadgen has changed since: it was {before.loadgen}, it is {again.loadgen}; {cure}")
    if before.targets != again.targets:
        was, now = (
            ", ".join(f"{target.version} with {target.model}" for target in manifest.targets)
            for manifest in (before, again)
        )
        raise UsageError(f"the server has changed since: it was {was}, it is {now}; {cure}")
    if before.workload != again.workload:
        raise UsageError(f"the workload has changed since; {cure}")
    tiers = before.measured_by.tier, again.measured_by.tier
    if tiers[0] != tiers[1]:
        raise UsageError(f"stamps were made by the {tiers[0]} tier, here is only {tiers[1]}; {cure}")


async def _resolved(profile: Profile, directory: Path, seed: int) -> Campaign:
    """The campaign without arms and design: its targets have answered, its workload is open."""
    tier, reason = choose_tier(profile.tier, profile.proxy)
    endpoints = tuple(await asyncio.gather(*(resolve_target(spec, profile.proxy) for spec in profile.targets)))
    workload, counted = await _workload(profile, endpoints, seed)
    try:
        make_room_for_sockets(most_connections(profile.load))
    except OSError as error:
        raise UsageError(str(error)) from None
    guesses = not counted and profile.work.dataset is None
    campaign = Campaign(profile, seed, endpoints, workload, tier, reason, directory, guesses, policy=policy_of(profile))
    campaign.manifest = _manifest(campaign)
    return campaign


def _design(campaign: Campaign, primary: str) -> DesignFacts:
    wanted = campaign.profile.campaign
    names = [arm.name for arm in campaign.arms]
    if wanted.control is not None and (len(names) < 2 or wanted.control not in names):
        cure = f"name one of {', '.join(names)}" if len(names) > 1 else "there is but one arm, remove it"
        raise UsageError(f"campaign.control must name an arm, got {wanted.control!r}: {cure}")
    return with_plan(
        DesignFacts(
            arms=tuple(ArmFacts(arm.name, arm.agents) for arm in campaign.arms),
            primary=primary,
            blocks=campaign.policy.blocks,
            order=wanted.order,
            order_seed=campaign.seed,
            isolation=wanted.isolation,
            cooldown_s=wanted.cooldown_s,
            control=wanted.control,
            until=wanted.until,
        )
    )


def _check_free(directory: Path) -> None:
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise UsageError(f"--out {directory}: exists already; name a new directory, or remove it")


def _make(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out {directory}: {error.strerror}; name a directory that can be made") from None


# --- the workload ----------------------------------------------------------------------------------------------------


async def _workload(profile: Profile, endpoints: Sequence[Endpoint], seed: int) -> tuple[Workload, bool]:
    """(workload, whether its lengths are known without a server's usage counts)."""
    if profile.agents is None:
        return await _sized_workload(profile, profile.work, endpoints, seed)
    if profile.agents.workload != "synthetic":
        return agents_work(profile, seed), True
    # The agents' own prefixes tell requests apart.
    work = profile.work.model_copy(update={"cache": "none"})
    lengths, counted = await _sized_workload(profile, work, endpoints, seed)
    assert isinstance(lengths, Synthetic)
    return agents_work(profile, seed, lengths), counted


async def _sized_workload(
    profile: Profile, work: Work, endpoints: Sequence[Endpoint], seed: int
) -> tuple[Workload, bool]:
    """(workload that `work` describes, whether a tokenizer sized it, the user's or a server's)."""
    tokenizer = next((spec.tokenizer for spec in profile.targets if spec.tokenizer), None)
    if tokenizer is not None:
        return await asyncio.to_thread(open_workload, work, seed, count=tokenizer_count(tokenizer)), True
    lender = next((endpoint for endpoint in endpoints if endpoint.target.kind in LENDS_TOKENIZER), None)
    if lender is not None:
        # The route is optional: some builds and gateways leave it out. The manifest states that a ratio was used.
        with contextlib.suppress(NoAnswer):
            async with token_counter(lender) as count:
                opened = await asyncio.to_thread(open_workload, work, seed, count=count, method="server-tokenize")
                return opened, True
    return await asyncio.to_thread(open_workload, work, seed), False


# --- the manifest ----------------------------------------------------------------------------------------------------


def _manifest(campaign: Campaign) -> Manifest:
    """The manifest before anything is measured, without the design."""
    profile, work = campaign.profile, campaign.workload
    manifest = Manifest(
        loadgen=__version__,
        wall_start=wall_iso(),
        profile=ProfileFacts.from_json(profile.resolved()),
        withheld=tuple(profile.withheld()),
        seed=campaign.seed,
        targets=tuple(map(describe_endpoint, campaign.endpoints)),
        workload=_workload_facts(campaign),
        host=_host(),
        instrument=InstrumentFacts(
            tier=campaign.tier,
            tier_reason=campaign.tier_reason,
            workers=profile.workers,
            clock_source=clock_source(),
            calibration=calibrate.stored(campaign.tier),
        ),
    )
    if isinstance(work, AgentsWork):
        return with_agents(manifest, profile, campaign.seed, campaign.endpoints, work)
    return manifest


def _workload_facts(campaign: Campaign) -> WorkloadFacts:
    """The facts about the requests' contents and, where a ratio sizes them, the source of the ratio."""
    facts = campaign.workload.describe()
    if facts.method != "ratio":
        return facts
    source = "default" if campaign.guesses_ratio or campaign.profile.work.dataset else "measured with the tokenizer"
    return msgspec.structs.replace(facts, ratio_from=source)


def _host() -> HostFacts:
    return HostFacts(
        system=platform.system(),
        kernel=platform.release(),
        machine=platform.machine(),
        cores=os.cpu_count(),
        memory_gib=round(psutil.virtual_memory().total / 2**30, 1),
        python=platform.python_version(),
    )
