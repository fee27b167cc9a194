"""Runs of runs: resolve the targets, prepare the workload, run, keep, summarise.

The manifest is written before the first request and again after each run, so that a campaign that was killed says what
it was. What a campaign leaves behind is the run directory of DESIGN section 6.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import platform
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

import analysis
from analysis.formats.multi_agent_guide import write_artifacts
from analysis.stats.planning import LOOKS, look
from loadgen import __version__
from loadgen.campaign.agents_arm import CONCURRENT, agents_arms, agents_work
from loadgen.campaign.arm import MAIN, Arm, Occasion, limits_of, load_arm, most_connections
from loadgen.campaign.design import CONTROL, Design, Planned
from loadgen.campaign.rundir import (
    JOURNAL,
    REPORT,
    SAMPLES,
    SUMMARY,
    close_directory,
    reopen_directory,
    seal,
    whole_runs,
    write_manifest,
)
from loadgen.clock import clock_source, now_ns, wall_iso
from loadgen.engine.health import Health, lag_quantiles_ms
from loadgen.engine.share import Running
from loadgen.engine.tally import Tally
from loadgen.errors import NotCleared, Unreachable, UsageError, WorkerDied
from loadgen.fleet.local import run_workers
from loadgen.probes import calibrate, sizing
from loadgen.profile.profile import Profile
from loadgen.servers.control import NoAnswer
from loadgen.servers.discover import ask_again
from loadgen.servers.endpoint import Endpoint
from loadgen.servers.isolation import clear
from loadgen.servers.resolve import describe_endpoint, resolve
from loadgen.servers.tokenizer import LENDS_TOKENIZER, token_counter
from loadgen.store.journal import warm_up
from loadgen.store.lock import held
from loadgen.store.whole import write_text
from loadgen.telemetry import Look
from loadgen.telemetry.sampler import Sampler, start_sampler
from loadgen.transport.room import make_room_for_sockets
from loadgen.transport.tier import choose_tier
from loadgen.workload import Synthetic, Workload, open_workload, tokenizer_count

__all__ = ["Campaign", "Finished", "measure", "prepare", "resume", "write_reports"]

SEED_BITS = 62
LEAD_NS = 50_000_000  # from the decision to start to the run's zero, for everything to stand ready
WORKER_LEAD_NS = 1_500_000_000  # worker processes import first
WRITERS = 1000  # numbers of journals that a run may use
PER_RUN = {"ttft_ms": "ttft_mean_ms", "output_tokens_per_s": "output_tokens_per_s"}  # the keys of a summary's runs
WRITTEN_LAST = ("finished", "halted", "wall_end", "sha256", "manifest_sha256")
PROBE_PATIENCE_S = 60.0  # a cold load of a model may fall into it


@dataclass(slots=True)
class Campaign:
    """A profile whose targets answered and whose workload is ready; nothing has been measured yet."""

    profile: Profile
    seed: int
    endpoints: tuple[Endpoint, ...]
    workload: Workload
    tier: str
    tier_reason: str | None  # why a lower tier than the kernel's was taken
    directory: Path
    guesses_ratio: bool  # nobody has told yet how many tokens a word of a prompt is
    arms: tuple[Arm, ...] = ()
    design: Design = field(default_factory=lambda: Design((), "", 0))
    say: Callable[[str], None] = lambda line: None  # what a user should know between runs
    seen: Callable[[str, Look], None] = lambda source, look: None  # each look at a source of telemetry, in its thread
    past: Tally = field(default_factory=Tally)  # the sum over the runs that are over
    followers: list[Callable[[], None]] = field(default_factory=list)
    sampler: Sampler | None = None  # while it is measured, if the profile wants any
    # Held while a run is made; tells whether another campaign has made one before.
    turn: Callable[[], contextlib.AbstractAsyncContextManager[bool | None]] = contextlib.nullcontext
    manifest: dict[str, Any] = field(default_factory=dict)

    def call_after_runs(self, follower: Callable[[], None]) -> None:
        """Call it now and after each run, once the manifest tells of it."""
        follower()
        self.followers.append(follower)


@dataclass(frozen=True, slots=True)
class Finished:
    """What is on disk at the end.

    error: why it ended early, in one line, if something of ours failed. halted: the same, if a server was to blame.
    unreachable: it was because a server no longer answers. planned: runs in all. missing: those not made.
    """

    summary: dict[str, Any] | None
    interrupted: bool
    error: str | None = None
    halted: str | None = None
    unreachable: bool = False
    planned: int = 1
    missing: int = 0


def profile_arms(campaign: Campaign) -> Sequence[Arm]:
    """Return the arms that the profile makes: its load, or its agents alone and together."""
    if campaign.profile.agents is not None:
        return agents_arms(campaign)
    return (load_arm(campaign.profile, campaign.seed, campaign.endpoints, campaign.workload, campaign.tier),)


async def prepare(
    profile: Profile, directory: Path, arms_of: Callable[[Campaign], Sequence[Arm]] = profile_arms, primary: str = ""
) -> Campaign:
    """Ask the targets who they are and make the workload, the arms and the directory.

    arms_of: gets the campaign, all but arms and design ready, and returns the arms; it may add to its manifest.
    primary: the arm that the summary's figures are about; "" takes the one of all agents, or the only one.
    Raises UsageError, or discover.Unreachable if a target does not answer.
    """
    _check_free(directory)
    seed = profile.seed if profile.seed is not None else secrets.randbits(SEED_BITS)
    campaign = await _resolved(profile, directory, seed)
    campaign.manifest = _manifest(campaign)
    campaign.arms = tuple(arms_of(campaign))
    campaign.design = _design(campaign, primary or (MAIN if profile.agents is None else CONCURRENT))
    campaign.manifest["design"] = campaign.design.to_json()
    _make(directory)
    return campaign


async def resume(
    profile: Profile,
    directory: Path,
    before: dict[str, Any],
    arms_of: Callable[[Campaign], Sequence[Arm]] = profile_arms,
) -> Campaign:
    """Return the campaign of `directory` such that `measure` makes the runs that are missing in it.

    profile: as it was, its secrets filled in. before: the manifest. What runs left that did not finish is dropped.
    Raises UsageError where the same could not be measured any more, Unreachable, or OSError.
    """
    campaign = await _resolved(profile, directory, before["seed"])
    ratio = before["workload"].get("tokens_per_word")
    if campaign.guesses_ratio and before["workload"].get("ratio_from", "default") != "default":
        campaign.workload.learn(ratio)
        campaign.guesses_ratio = False
    again = _manifest(campaign)
    again["workload"] |= {key: before["workload"][key] for key in ("ratio_from",) if key in before["workload"]}
    _check_same(before, again)
    runs = whole_runs(before)
    campaign.manifest = {key: value for key, value in before.items() if key not in WRITTEN_LAST}
    campaign.manifest |= {"runs": runs, "resumed": [*before.get("resumed", []), wall_iso()]}
    campaign.arms = tuple(arms_of(campaign))
    campaign.design = Design.from_json(before["design"])
    if [arm.name for arm in campaign.arms] != [name for name, _ in campaign.design.arms]:
        raise UsageError(f"{directory}: its profile no longer makes the same arms; start a new campaign")
    finished = {entry["run"] for entry in runs}
    with held(directory):
        reopen_directory(directory, finished, lambda writer: writer // WRITERS)
        _write_manifest(campaign)
    return campaign


def _check_same(before: dict[str, Any], again: dict[str, Any]) -> None:
    """Refuse to put runs of something else beside those that are there."""
    for key, what in (("loadgen", "loadgen"), ("targets", "the server"), ("workload", "the workload")):
        if before[key] != again[key]:
            was, now = before[key], again[key]
            if key == "targets":
                was, now = (", ".join(f"{one['version']} with {one['model']}" for one in side) for side in (was, now))
            detail = "" if key == "workload" else f": it was {was}, it is {now}"
            raise UsageError(f"{what} has changed since{detail}; start a new campaign")
    was, now = (manifest["instrument"]["tier"] for manifest in (before, again))
    if was != now:
        raise UsageError(f"stamps were made by the {was} tier, here is only {now}; start a new campaign")


async def _resolved(profile: Profile, directory: Path, seed: int) -> Campaign:
    tier, reason = choose_tier(profile.tier, profile.proxy)
    endpoints = tuple(await asyncio.gather(*(resolve(spec, profile.proxy) for spec in profile.targets)))
    workload, counted = await _workload(profile, endpoints, seed)
    try:
        make_room_for_sockets(most_connections(profile.load))
    except OSError as error:
        raise UsageError(str(error)) from None
    guesses = not counted and profile.work.dataset is None
    return Campaign(profile, seed, endpoints, workload, tier, reason, directory, guesses)


def _design(campaign: Campaign, primary: str) -> Design:
    wanted = campaign.profile.campaign
    names = [arm.name for arm in campaign.arms]
    if wanted.control is not None and (len(names) < 2 or wanted.control not in names):
        cure = f"name one of {', '.join(names)}" if len(names) > 1 else "there is but one arm, remove it"
        raise UsageError(f"campaign.control must name an arm, got {wanted.control!r}: {cure}")
    return Design(
        arms=tuple((arm.name, arm.agents) for arm in campaign.arms),
        primary=primary,
        blocks=LOOKS[0] if wanted.until is not None else campaign.profile.runs,
        order=wanted.order,
        order_seed=campaign.seed,
        isolation=wanted.isolation,
        cooldown_s=wanted.cooldown_s,
        control=wanted.control,
        until=wanted.until,
    )


def _check_free(directory: Path) -> None:
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise UsageError(f"--out {directory}: exists already; name a new directory, or remove it")


def _make(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out {directory}: {error.strerror}; name a directory that can be made") from None


async def measure(campaign: Campaign, tell: Callable[[Tally], None], stop: asyncio.Event) -> Finished:
    """Run all runs, close the directory, summarise. `tell` gets live tallies; `stop` interrupts.

    Raises UsageError if another process is at work in the directory.
    """
    with held(campaign.directory):
        return await _measure(campaign, tell, stop)


async def _measure(campaign: Campaign, tell: Callable[[Tally], None], stop: asyncio.Event) -> Finished:
    error = halted = None
    unreachable = False
    health: list[Health] = []
    broken: Exception | None = None
    before = dict(campaign.manifest["instrument"])
    try:
        await _start_sampling(campaign)
        _write_manifest(campaign)
        if campaign.guesses_ratio:
            await _learn_ratio(campaign, stop)
        first = True
        while (following := _following(campaign)) is not None:
            run, planned = following
            async with campaign.turn() as preceded, _sampled(campaign):
                if (preceded or not first) and not await _ready_again(campaign, planned, stop):
                    break
                await _isolate(campaign, planned)
                first = False
                healths = await _run_once(campaign, run, planned, tell, stop)
            health += healths
            campaign.manifest["instrument"] = _with_health(before, health)
            _write_manifest(campaign)
            for follower in campaign.followers:
                follower()
            if any(one.no_progress for one in healths):
                limit_s = campaign.profile.limits.no_progress_s
                halted = f"nothing arrived on any connection for {limit_s:g} s (limits.no_progress_s)"
            if stop.is_set() or halted is not None:
                break
    except Unreachable as gone:
        halted, unreachable = str(gone), True
    except NotCleared as failed:
        halted = str(failed)
    except OSError as failed:
        error = _told(campaign, failed)
    except WorkerDied as died:
        error = f"{died}; the system may have been out of memory"
    finally:
        if campaign.sampler is not None:
            try:
                campaign.manifest["telemetry"] = await campaign.sampler.stop()
            except Exception as error_of_ours:
                broken = error_of_ours  # raised once the records are safe
    campaign.manifest["instrument"] = _with_health(before, health)
    campaign.manifest["finished"] = error is None and halted is None and not stop.is_set()
    campaign.manifest["halted"] = error or halted or ("interrupted" if stop.is_set() else None)
    campaign.manifest["wall_end"] = wall_iso()
    runs = len(campaign.design.planned)
    missing = runs - len(_made(campaign))
    try:
        close_directory(campaign.directory)
        summary = write_reports(campaign.directory, campaign.manifest)
    except OSError as failed:
        with contextlib.suppress(OSError):  # the one on disk is older, but whole
            _write_manifest(campaign)
        return Finished(None, stop.is_set(), error or _told(campaign, failed), planned=runs, missing=missing)
    if broken is not None:
        raise broken
    return Finished(summary, stop.is_set(), error, halted, unreachable, runs, missing)


def _made(campaign: Campaign) -> set[Planned]:
    """Return what was planned and made to the end."""
    return {(one["block"], one["arm"]) for one in whole_runs(campaign.manifest)}


def _following(campaign: Campaign) -> tuple[int, Planned] | None:
    """Return the next run to make and its number, after a look at those made where the campaign decides by looks."""
    while True:
        made, design = _made(campaign), campaign.design
        missing = [(run, planned) for run, planned in enumerate(design.planned) if planned not in made]
        before_end = [one for one in missing if one[1][0] < design.blocks]  # all but the control at the end
        if before_end or design.until is None or not _grow(campaign, design.until):
            return next(iter(before_end or missing), None)


def _grow(campaign: Campaign, within: float) -> bool:
    """Look at the runs made; plan those until the next look, or return False: settled, or no look is left."""
    manifest, blocks = campaign.manifest, campaign.design.blocks
    looks: list[dict[str, Any]] = manifest.setdefault("looks", [])
    if looks and looks[-1]["runs"] == blocks:
        return False
    asked = campaign.profile.campaign.until_metric
    metrics = ("ttft_ms", "output_tokens_per_s") if asked == "both" else (asked,)
    per_run = analysis.summarise(campaign.directory)["per_run"]
    values = {metric: [run[PER_RUN[metric]] for run in per_run] for metric in metrics}
    unknown = [metric for metric in metrics if None in values[metric] or not any(values[metric])]
    told = {metric: look(values[metric], within) for metric in metrics if metric not in unknown}
    widths = {metric: told[metric].half_width if metric in told else None for metric in metrics}
    reached = not unknown and all(one.reached for one in told.values())
    later = None if unknown else min((one.next_look for one in told.values() if one.next_look), default=None)
    looks.append({"runs": blocks, "half_width": widths, "reached": reached})
    if unknown:
        campaign.say(f"{blocks} runs: no more, for a run has no {unknown[0]} and its width cannot be known")
    else:
        shown = ", ".join(f"{name} ±{100 * (width or 0.0):.2g} %" for name, width in widths.items())
        going = f"going on to {later} runs" if later is not None else "narrow enough" if reached else "no look is left"
        campaign.say(f"{blocks} runs: {shown} (97 %, wanted {100 * within:g} %); {going}")
    if later is not None:
        campaign.design = campaign.design.with_blocks(later)
        manifest["design"] = campaign.design.to_json()
    _write_manifest(campaign)
    return later is not None


async def _ready_again(campaign: Campaign, planned: Planned, stop: asyncio.Event) -> bool:
    """Cool down and ask the servers whether they still answer. False: interrupted. Raises Unreachable."""
    if campaign.design.cooldown_s:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), campaign.design.cooldown_s)
    servers = {endpoint.route(): endpoint for endpoint in _arm(campaign, planned).endpoints}
    for endpoint in servers.values() if not stop.is_set() else ():
        await ask_again(endpoint)
    return not stop.is_set()


async def _isolate(campaign: Campaign, planned: Planned) -> None:
    """Make the servers forget, where they can. Raises Unreachable or NotCleared."""
    if campaign.design.isolation != "unload":
        return
    cleared: dict[str, str] = campaign.manifest.setdefault("cleared", {})
    loaded = {(endpoint.route(), endpoint.target.model): endpoint for endpoint in _arm(campaign, planned).endpoints}
    for endpoint in loaded.values():
        done = await clear(endpoint)
        if done is None and endpoint.name not in cleared:
            campaign.say(f"{endpoint.name}: {endpoint.label} offers no way to unload a model or to empty its cache")
        cleared[endpoint.name] = done or "offers no way"


def _arm(campaign: Campaign, planned: Planned) -> Arm:
    return next(arm for arm in campaign.arms if arm.name == planned[1].removeprefix(CONTROL))


@contextlib.asynccontextmanager
async def _sampled(campaign: Campaign) -> AsyncIterator[None]:
    """Pause sampling where another campaign may have its turn next; else what is between runs is sampled too."""
    if campaign.sampler is not None:
        campaign.sampler.pause(False)
    yield
    if campaign.sampler is not None and campaign.turn is not contextlib.nullcontext:
        campaign.sampler.pause(True)


async def _start_sampling(campaign: Campaign) -> None:
    """Begin to sample, and say what was asked for and cannot be."""
    profile = campaign.profile
    folder = campaign.directory / SAMPLES
    campaign.sampler = await start_sampler(profile.telemetry, campaign.endpoints, folder, profile.proxy, campaign.seen)
    if campaign.sampler is None:
        return
    campaign.manifest["telemetry"] = campaign.sampler.describe()
    for reason in campaign.sampler.surprises:
        campaign.say(f"not sampled: {reason}")


def _told(campaign: Campaign, error: OSError) -> str:
    """One line for a disk that takes no more."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    return f"{campaign.directory}: {reason}"


async def _learn_ratio(campaign: Campaign, stop: asyncio.Event) -> None:
    """Ask the first server how many tokens a word is; `stop` interrupts, and so does a server that stays silent."""
    profile = campaign.profile
    probing = asyncio.create_task(sizing.learn(campaign.endpoints[0], limits_of(profile), campaign.seed), name="probes")
    stopped = asyncio.create_task(stop.wait())
    # Nobody sees these requests in the live line, so they must not wait as long as a measured one may.
    patience_s = min(profile.limits.no_progress_s, PROBE_PATIENCE_S)
    await asyncio.wait({probing, stopped}, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if not probing.done():
        probing.cancel()
        await asyncio.wait({probing})
        return
    learnt = probing.result()
    if learnt.tokens_per_word is not None:
        campaign.workload.learn(learnt.tokens_per_word)
    campaign.manifest["workload"] = campaign.workload.describe() | {"ratio_from": learnt.how}
    campaign.guesses_ratio = False


def write_reports(directory: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """Summarise what is in `directory`; write summary, report and the manifest with everything's checksum."""
    write_manifest(directory, manifest)
    summary = analysis.summarise(directory)
    write_text(directory / SUMMARY, analysis.to_json(summary))
    write_text(directory / REPORT, analysis.html_report(directory, summary))
    if (manifest["profile"].get("agents") or {}).get("artifacts"):
        write_artifacts(directory)
    seal(directory, manifest)
    return summary


async def _run_once(
    campaign: Campaign, run: int, planned: Planned, tell: Callable[[Tally], None], stop: asyncio.Event
) -> list[Health]:
    """Make one run; append its facts to the manifest."""
    block, name = planned
    past = campaign.past

    def told(tally: Tally) -> None:
        total = past.plus(tally)
        campaign.past = total.at_rest()
        tell(total)

    arm = _arm(campaign, planned)
    if arm.warm_up is not None:
        await _until_stopped(arm.warm_up(), stop)
    fresh = campaign.design.isolation == "process"
    lead = WORKER_LEAD_NS if fresh or campaign.profile.workers > 1 else LEAD_NS
    warm_up()
    gc.collect()
    gc.freeze()  # the engine collects again when it starts; with nothing to look at that is over before zero_ns
    wall_start, zero_ns = wall_iso(), now_ns() + lead
    if campaign.sampler is not None:
        campaign.sampler.begin(run, zero_ns)
    jobs = arm.jobs(Occasion(run, block, zero_ns, campaign.directory / JOURNAL, run * WRITERS))
    if fresh or len(jobs) > 1:
        healths = await run_workers(jobs, campaign.profile.loop, told, stop)
    else:
        healths = [await _run_here(jobs[0].start(), told, stop)]
    campaign.manifest["runs"].append(
        {
            "run": run,
            "block": block,
            "arm": name,
            "start_ns": zero_ns,
            "wall_start": wall_start,
            **arm.facts(healths),
            "interrupted": any(health.interrupted for health in healths),
            "no_progress": any(health.no_progress for health in healths),
        }
    )
    return healths


async def _until_stopped(work: Awaitable[None], stop: asyncio.Event) -> None:
    """Await `work`, or give it up once `stop` is set."""
    working, stopped = asyncio.ensure_future(work), asyncio.create_task(stop.wait())
    await asyncio.wait({working, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if working.done():
        working.result()
        return
    working.cancel()
    await asyncio.wait({working})


async def _run_here(running: Running, tell: Callable[[Tally], None], stop: asyncio.Event) -> Health:
    async def look() -> None:
        while True:
            await asyncio.sleep(0.1)
            tell(running.look())

    async def interrupt() -> None:
        await stop.wait()
        running.interrupt()

    helpers = [asyncio.create_task(look()), asyncio.create_task(interrupt())]
    try:
        return await running.run()
    finally:
        for helper in helpers:
            helper.cancel()
        tell(running.look())


async def _workload(profile: Profile, endpoints: Sequence[Endpoint], seed: int) -> tuple[Workload, bool]:
    """Open the workload; return it and whether its lengths are known without asking a server for its usage."""
    if profile.agents is None:
        return await _sized_workload(profile, endpoints, seed)
    if profile.agents.workload != "synthetic":
        return agents_work(profile, seed), True
    # The agents' own prefixes tell requests apart.
    work = profile.work.model_copy(update={"cache": "none"})
    lengths, counted = await _sized_workload(profile.model_copy(update={"work": work}), endpoints, seed)
    assert isinstance(lengths, Synthetic)
    return agents_work(profile, seed, lengths), counted


async def _sized_workload(profile: Profile, endpoints: Sequence[Endpoint], seed: int) -> tuple[Workload, bool]:
    """Open the workload; return it and whether a tokenizer sized it, the user's or a server's."""
    counting = next((e for e in endpoints if e.target.kind in LENDS_TOKENIZER), None)
    tokenizer = next((spec.tokenizer for spec in profile.targets if spec.tokenizer), None)
    if tokenizer is not None:
        return await asyncio.to_thread(open_workload, profile.work, seed, count=tokenizer_count(tokenizer)), True
    if counting is not None:
        # The route is optional: some builds and gateways leave it out. The manifest says that a ratio was used.
        with contextlib.suppress(NoAnswer):
            async with token_counter(counting) as count:
                work = await asyncio.to_thread(open_workload, profile.work, seed, count=count, method="server-tokenize")
                return work, True
    return await asyncio.to_thread(open_workload, profile.work, seed), False


def _manifest(campaign: Campaign) -> dict[str, Any]:
    profile = campaign.profile
    return {
        "schema": "loadgen.manifest/1",
        "loadgen": __version__,
        "wall_start": wall_iso(),
        "profile": profile.resolved(),
        "withheld": profile.withheld(),
        "seed": campaign.seed,
        "targets": [dict(describe_endpoint(endpoint)) for endpoint in campaign.endpoints],
        "workload": _describe_workload(campaign),
        "host": host_facts(),
        "instrument": {
            "tier": campaign.tier,
            "tier_reason": campaign.tier_reason,
            "workers": profile.workers,
            "clock_source": clock_source(),
            "calibration": calibrate.stored(campaign.tier),
        },
        "runs": [],
    }


def _describe_workload(campaign: Campaign) -> dict[str, Any]:
    """Return what is sent and, where words are turned into tokens by a ratio, where that comes from."""
    described = campaign.workload.describe()
    if described["method"] != "ratio":
        return described
    source = "default" if campaign.guesses_ratio or campaign.profile.work.dataset else "measured with the tokenizer"
    return described | {"ratio_from": source}


def host_facts() -> dict[str, Any]:
    """Return what a reader must know of the client's machine to judge a figure; nothing that names it."""
    return {
        "system": platform.system(),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "python": platform.python_version(),
    }


def _with_health(before: dict[str, Any], healths: Sequence[Health]) -> dict[str, Any]:
    """Return what the manifest says of the instrument; of a campaign that was resumed, the worst of its parts."""
    now = _instrument(healths)
    if not healths or "loop_lag_ms" not in before:
        return before | (now if healths or "loop_lag_ms" not in before else {})
    for key in ("cpu_share", "clock_jump_us"):
        now[key] = max((one for one in (before[key], now[key]) if one is not None), default=None)
    now["unstamped_reads"] += before["unstamped_reads"]
    lags = before["loop_lag_ms"] or {}
    now["loop_lag_ms"] = {name: max(lag, lags.get(name, lag)) for name, lag in now["loop_lag_ms"].items()}
    return before | now


def _instrument(healths: Sequence[Health]) -> dict[str, Any]:
    return {
        "loop_lag_ms": lag_quantiles_ms([lag for health in healths for lag in health.loop_lag_ns]),
        "cpu_share": max((health.cpu_share for health in healths), default=None),
        "clock_jump_us": max((health.clock_jump_ns for health in healths), default=0) / 1e3,
        "unstamped_reads": sum(health.unstamped_reads for health in healths),
    }


def _write_manifest(campaign: Campaign) -> None:
    write_manifest(campaign.directory, campaign.manifest)
