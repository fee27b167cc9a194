"""Measuring a campaign: run after run in the order planned, then summary, report and checksums.

The manifest is written before the first request and again after each run, so that it describes a killed campaign too.
The result of a campaign is the run directory of docs/campaigns.md#a-runs-directory.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import UNSET

from loadgen.campaign.arm import Arm, Occasion, limits_of
from loadgen.campaign.campaign import Campaign, Finished
from loadgen.campaign.design import missing, with_blocks
from loadgen.campaign.reports import write_reports
from loadgen.campaign.rundir import close_directory, first_writer
from loadgen.clock import now_ns, wall_iso
from loadgen.engine.health import Health, lag_quantiles_ms
from loadgen.engine.share import Job, Running
from loadgen.engine.tally import Tally
from loadgen.errors import NotCleared, Unreachable, WorkerDied
from loadgen.fleet.local import run_workers
from loadgen.manifest import ARTIFACTS, JOURNAL, SAMPLES, InstrumentFacts, Planned, RunFacts
from loadgen.probes import sizing
from loadgen.servers.discover import ask_again
from loadgen.servers.isolation import clear
from loadgen.store.journal import warm_up
from loadgen.store.lock import held
from loadgen.telemetry.sampler import start_sampler

__all__ = ["measure"]

LEAD_NS = 50_000_000  # from the decision to start to the run's zero, so that everything is ready
WORKER_LEAD_NS = 1_500_000_000  # worker processes import first
PROBE_PATIENCE_S = 60.0  # a cold load of a model may fall into it

Tell = Callable[[Tally], None]


@dataclass(frozen=True, slots=True)
class _End:
    """The reason for making no more runs; all None or False if there are enough, or after an interruption.

    The fields are those of `Finished`."""

    error: str | None = None
    halted: str | None = None
    unreachable: bool = False


async def measure(campaign: Campaign, tell: Tell, stop: asyncio.Event) -> Finished:
    """The end of a campaign: all runs made, the directory closed and summarised.

    tell: gets live tallies. stop: set it to interrupt.

    Raises UsageError if another process is at work in the directory.
    """
    with held(campaign.directory):
        try:
            end = await _make_runs(campaign, tell, stop)
        except (Unreachable, NotCleared, WorkerDied, OSError) as reason:
            end = _end_by(campaign, reason)
        finally:
            broken = await _stop_sampling(campaign)
        finished = _close(campaign, end, interrupted=stop.is_set())
        if broken is not None:  # raised only now that the records are safe
            raise broken
        return finished


async def _make_runs(campaign: Campaign, tell: Tell, stop: asyncio.Event) -> _End:
    """Make the missing runs until there are enough, a server halts the campaign, or `stop` is set."""
    await _start_sampling(campaign)
    campaign.write()
    if campaign.guesses_ratio:
        await _learn_ratio(campaign, stop)
    before, healths = campaign.manifest.measured_by, list[Health]()
    first = True
    while (following := _following(campaign)) is not None:
        run, planned = following
        async with campaign.turn() as preceded, _sampled(campaign):
            if (preceded or not first) and not await _ready_again(campaign, planned, stop):
                break
            await _isolate(campaign, planned)
            first = False
            facts, latest = await _run_once(campaign, run, planned, tell, stop)
        healths += latest
        manifest = campaign.manifest
        campaign.manifest = manifest.with_(runs=(*manifest.runs, facts), instrument=_with_health(before, healths))
        campaign.write()
        for follower in campaign.followers:
            follower()
        if facts.no_progress:
            limit_s = campaign.profile.limits.no_progress_s
            return _End(halted=f"nothing arrived on any connection for {limit_s:g} s (limits.no_progress_s)")
        if stop.is_set():
            break
    return _End()


def _end_by(campaign: Campaign, reason: Exception) -> _End:
    """The end of a campaign by the exception `reason`."""
    match reason:
        case Unreachable():
            return _End(halted=str(reason), unreachable=True)
        case NotCleared():
            return _End(halted=str(reason))
        case OSError():
            return _End(error=_of_disk(campaign, reason))
        case _:
            return _End(error=f"{reason}; the system may have been out of memory")


def _of_disk(campaign: Campaign, error: OSError) -> str:
    """The line that reports a disk that cannot be written."""
    return f"{campaign.directory}: {os.strerror(error.errno) if error.errno else error}"


def _close(campaign: Campaign, end: _End, *, interrupted: bool) -> Finished:
    """The end of a campaign, its directory closed and the reports written."""
    reason = end.error or end.halted or ("interrupted" if interrupted else None)
    campaign.manifest = campaign.manifest.with_(finished=reason is None, halted=reason, wall_end=wall_iso())
    planned, lacking = len(campaign.design.planned), len(missing(campaign.manifest))
    try:
        close_directory(campaign.directory)
        summary = write_reports(campaign.directory, campaign.manifest)
    except OSError as error:
        with contextlib.suppress(OSError):  # the one on disk is older, but whole
            campaign.write()
        failure = end.error or _of_disk(campaign, error)
        return Finished(None, interrupted, failure, planned=planned, missing=lacking)
    return Finished(summary, interrupted, end.error, end.halted, end.unreachable, planned, lacking)


# --- which run is next -----------------------------------------------------------------------------------------------


def _following(campaign: Campaign) -> tuple[int, Planned] | None:
    """(number, planned run) of the next run, None if there is none; the policy may plan more than there are."""
    while True:
        lacking = missing(campaign.manifest)
        before_end = [(run, planned) for run, planned in lacking if planned[0] < campaign.design.blocks]
        if before_end or not _plan_more(campaign):  # all but the control at the end
            return next(iter(before_end or lacking), None)


def _plan_more(campaign: Campaign) -> bool:
    """Whether the policy wants more blocks, which are then planned. It is called once per number of blocks."""
    manifest, design = campaign.manifest, campaign.design
    looks = () if manifest.looks is UNSET else manifest.looks
    if looks and looks[-1].runs == design.blocks:
        return False
    decision = campaign.policy.decide(campaign.directory, design.blocks)
    if decision is None:
        return False
    campaign.say(decision.words)
    if decision.blocks is not None:
        design = with_blocks(design, decision.blocks)
    campaign.manifest = manifest.with_(looks=(*looks, decision.look), design=design)
    campaign.write()
    return decision.blocks is not None


# --- before a run ----------------------------------------------------------------------------------------------------


async def _learn_ratio(campaign: Campaign, stop: asyncio.Event) -> None:
    """Learn the tokens per word from the first server; `stop` interrupts, and so does a server that stays silent."""
    profile = campaign.profile
    probing = asyncio.create_task(sizing.learn(campaign.endpoints[0], limits_of(profile), campaign.seed), name="probes")
    # These requests are in no live line, so they must not wait as long as a measured one may.
    patience_s = min(profile.limits.no_progress_s, PROBE_PATIENCE_S)
    if not await _done_before(probing, stop, patience_s):
        return
    learnt = probing.result()
    if learnt.tokens_per_word is not None:
        campaign.workload.learn(learnt.tokens_per_word)
    facts = campaign.manifest.workload
    assert facts is not None
    ratio = campaign.workload.describe().tokens_per_word
    workload = msgspec.structs.replace(facts, tokens_per_word=ratio, ratio_from=learnt.how)
    campaign.manifest = campaign.manifest.with_(workload=workload)
    campaign.guesses_ratio = False


async def _ready_again(campaign: Campaign, planned: Planned, stop: asyncio.Event) -> bool:
    """Whether the next run may begin, after the cool-down and a check that the servers still answer.

    False: interrupted. Raises Unreachable."""
    if campaign.design.cooldown_s:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), campaign.design.cooldown_s)
    servers = {endpoint.route(): endpoint for endpoint in campaign.arm(planned).endpoints}
    for endpoint in servers.values() if not stop.is_set() else ():
        await ask_again(endpoint)
    return not stop.is_set()


async def _isolate(campaign: Campaign, planned: Planned) -> None:
    """Make the servers forget, where they can. Raises Unreachable or NotCleared."""
    if campaign.design.isolation != "unload":
        return
    endpoints = campaign.arm(planned).endpoints
    loaded = {(endpoint.route(), endpoint.target.model): endpoint for endpoint in endpoints}
    for endpoint in loaded.values():
        cleared = {} if campaign.manifest.cleared is UNSET else campaign.manifest.cleared
        done = await clear(endpoint)
        if done is None and endpoint.name not in cleared:
            campaign.say(f"{endpoint.name}: {endpoint.label} offers no way to unload a model or to empty its cache")
        campaign.manifest = campaign.manifest.with_(cleared={**cleared, endpoint.name: done or "offers no way"})


async def _done_before(work: asyncio.Future[Any], stop: asyncio.Event, timeout_s: float | None = None) -> bool:
    """Whether `work` ended by itself; once `stop` is set or `timeout_s` is over it is cancelled."""
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait({work, stopped}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if work.done():
        return True
    work.cancel()
    await asyncio.wait({work})
    return False


# --- one run ---------------------------------------------------------------------------------------------------------


async def _run_once(
    campaign: Campaign, run: int, planned: Planned, tell: Tell, stop: asyncio.Event
) -> tuple[RunFacts, list[Health]]:
    """The facts of one run and the healths of its processes. Raises OSError or WorkerDied."""
    arm, past = campaign.arm(planned), campaign.past

    def tell_total(tally: Tally) -> None:
        total = past.plus(tally)
        campaign.past = total.at_rest()
        tell(total)

    if arm.warm_up is not None:
        warming = asyncio.ensure_future(arm.warm_up())
        if await _done_before(warming, stop):
            warming.result()
    warm_up()
    gc.collect()
    gc.freeze()  # the engine collects again when it starts; with nothing left to scan that is over before zero_ns
    fresh = campaign.design.isolation == "process"
    lead_ns = WORKER_LEAD_NS if fresh or campaign.profile.workers > 1 else LEAD_NS
    begun = RunFacts(run=run, block=planned[0], arm=planned[1], wall_start=wall_iso(), start_ns=now_ns() + lead_ns)
    jobs = _jobs(campaign, arm, begun, planned)
    if fresh or len(jobs) > 1:
        healths = await run_workers(jobs, campaign.profile.loop, tell_total, stop)
    else:
        healths = [await _run_here(jobs[0].start(), tell_total, stop)]
    facts = msgspec.structs.replace(
        arm.facts(begun, healths),
        interrupted=any(health.interrupted for health in healths),
        no_progress=any(health.no_progress for health in healths),
    )
    return facts, healths


def _jobs(campaign: Campaign, arm: Arm, begun: RunFacts, planned: Planned) -> Sequence[Job]:
    """The jobs of a run, whose zero is given to the sampler as well."""
    assert begun.start_ns is not None
    if campaign.sampler is not None:
        campaign.sampler.begin(begun.run, begun.start_ns)
    block, directory = planned[0], campaign.directory
    is_control = not 0 <= block < campaign.design.blocks
    artifacts = None if is_control else directory / ARTIFACTS / f"run_{block + 1}"
    writer = first_writer(begun.run)
    return arm.jobs(Occasion(begun.run, block, begun.start_ns, directory / JOURNAL, writer, artifacts))


async def _run_here(running: Running, tell: Tell, stop: asyncio.Event) -> Health:
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


def _with_health(before: InstrumentFacts, healths: Sequence[Health]) -> InstrumentFacts:
    """The instrument's facts after runs with these healths; for a resumed campaign, the worst of its parts."""
    lags = lag_quantiles_ms([lag for health in healths for lag in health.loop_lag_ns])
    earlier = before.loop_lag_ms or {}
    jump_us = max((health.clock_jump_ns for health in healths), default=0) / 1e3
    shares = [before.cpu_share, *(health.cpu_share for health in healths)]
    return msgspec.structs.replace(
        before,
        loop_lag_ms={name: float(max(lag, earlier.get(name, lag))) for name, lag in lags.items()},
        cpu_share=max((share for share in shares if share is not None), default=None),
        clock_jump_us=max(jump_us, before.clock_jump_us or 0.0),
        unstamped_reads=before.unstamped_reads + sum(health.unstamped_reads for health in healths),
    )


# --- sampling --------------------------------------------------------------------------------------------------------


async def _start_sampling(campaign: Campaign) -> None:
    """Begin to sample, and report the requested sources that do not exist."""
    profile = campaign.profile
    folder = campaign.directory / SAMPLES
    sampler = await start_sampler(profile.telemetry, campaign.endpoints, folder, profile.proxy, campaign.on_look)
    if sampler is None:
        return
    campaign.sampler = sampler
    campaign.manifest = campaign.manifest.with_(telemetry=sampler.describe())
    for reason in sampler.surprises:
        campaign.say(f"not sampled: {reason}")


async def _stop_sampling(campaign: Campaign) -> Exception | None:
    """The error in the sampler's thread, None if there was none. The sampler is stopped."""
    if campaign.sampler is None:
        return None
    try:
        telemetry = await campaign.sampler.stop()
    except Exception as error:
        return error
    campaign.manifest = campaign.manifest.with_(telemetry=telemetry)
    return None


@contextlib.asynccontextmanager
async def _sampled(campaign: Campaign) -> AsyncIterator[None]:
    """Sample during one run, and stay paused after it where another campaign may have its turn next."""
    if campaign.sampler is not None:
        campaign.sampler.pause(False)
    yield
    if campaign.sampler is not None and campaign.turn is not contextlib.nullcontext:
        campaign.sampler.pause(True)
