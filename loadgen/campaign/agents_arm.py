"""Agents as arms of a campaign: each of them alone, and all of them at once.

An agent is an endpoint of its own: the server assigned to it, with its options. Its calls have the same numbers and the
same work in every arm, so that a solo run and the concurrent one differ only in the other agents at work.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
from pydantic import JsonValue

from loadgen.campaign.arm import Arm, Occasion, limits_of
from loadgen.clock import NS_PER_MS, NS_PER_S
from loadgen.engine.client import Client
from loadgen.engine.health import Health
from loadgen.engine.plan import Call, Plan, Script
from loadgen.engine.share import Job, Share, ShareRun
from loadgen.engine.tally import Tally
from loadgen.manifest import AgentFacts, Manifest, RunFacts
from loadgen.profile import Agents, Member, Profile
from loadgen.profile.secrets import without_secrets
from loadgen.record import WARM_UP_RUN
from loadgen.servers.endpoint import Endpoint
from loadgen.servers.opening import open_transport
from loadgen.transport import Limits
from loadgen.wire.dialects import dialect
from loadgen.workload.scripts import AgentsWork
from loadgen.workload.synthetic import Synthetic

__all__ = ["CONCURRENT", "SOLO", "AgentsJob", "agents_arms", "agents_work", "with_agents"]

CONCURRENT = "concurrent"
SOLO = "solo:"
TAKES_NO_SEED = frozenset({"lmstudio", "transformers"})


@dataclass(frozen=True, slots=True)
class AgentsJob:
    """One run of some agents, in one process."""

    share: Share
    workload: AgentsWork
    answers: Path | None  # the folder for the text of every answer
    files: tuple[tuple[int, str], ...] = ()  # (seq, name of its file there)

    def start(self) -> ShareRun:
        return _AgentsRun(self)

    def sockets(self) -> int:
        return len(self.share.plan.scripts)


class _AgentsRun(ShareRun):
    """A share whose answers its later calls use, written to disk if `answers` is set: at the end, as it takes time."""

    def __init__(self, job: AgentsJob) -> None:
        super().__init__(job.share, job.workload, Tally(), job.workload.hear)
        self._job = job

    async def run(self) -> Health:
        try:
            return await super().run()
        finally:
            self._write_answers()

    def _write_answers(self) -> None:
        folder, heard = self._job.answers, self._job.workload.heard
        if folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        for seq, name in self._job.files:
            if seq in heard:
                (folder / name).write_text(heard[seq], encoding="utf-8")
            else:  # that of an earlier attempt, which a campaign that is resumed has dropped
                (folder / name).unlink(missing_ok=True)


def agents_work(profile: Profile, seed: int, lengths: Synthetic | None = None) -> AgentsWork:
    """The workload of the agents of `profile`. Raises UsageError if the folder they list cannot be read."""
    agents, work = _agents(profile), profile.work
    assert work.output_tokens is not None
    assert work.output_tokens.fixed is not None
    return AgentsWork(
        agents.workload,
        [member.role or "" for member in agents.crew],
        output_tokens=work.output_tokens.fixed,
        seed=seed,
        rounds=agents.rounds,
        data=agents.data,
        lengths=lengths,
    )


def agents_arms(profile: Profile, seed: int, servers: Sequence[Endpoint], work: AgentsWork, tier: str) -> list[Arm]:
    """The arms: one for each agent alone, unless the profile leaves those out, and one for all."""
    agents = _agents(profile)
    crew = agents.crew
    cast = _Cast(profile, work, _endpoints(profile, crew, servers, seed), tier)
    everyone = tuple(range(len(crew)))
    arms = []
    if agents.solo and len(crew) > 1:
        arms = [_arm(f"{SOLO}{crew[i].name}", (i,), cast, keep=False) for i in everyone]
    return [*arms, _arm(CONCURRENT, everyone, cast, keep=agents.artifacts)]


def with_agents(
    manifest: Manifest, profile: Profile, seed: int, servers: Sequence[Endpoint], work: AgentsWork
) -> Manifest:
    """`manifest` with the facts about the agents of `profile`."""
    agents = _agents(profile)
    endpoints = _endpoints(profile, agents.crew, servers, seed)
    return manifest.with_(
        scenario=agents.scenario,
        permits=agents.permits or len(endpoints),
        agents=tuple(
            AgentFacts(
                name=endpoint.agent,
                endpoint=endpoint.name,
                role=member.role,
                options=without_secrets({k: v for k, v in endpoint.target.options.items() if v is not None}),
                asked_options=without_secrets(member.options),
                workload=agents.workload,
                calls=tuple(work.stage(call) for call in range(work.calls_each)),
                think_ms=agents.think_ms,
                model=endpoint.target.model,
                files=tuple(_files(endpoint.agent, work)) if agents.artifacts else None,
            )
            for member, endpoint in zip(agents.crew, endpoints, strict=True)
        ),
        agents_warmup_requests=agents.warmup_requests,
    )


def _agents(profile: Profile) -> Agents:
    assert profile.agents is not None
    return profile.agents


def _endpoints(
    profile: Profile, crew: Sequence[Member], servers: Sequence[Endpoint], seed: int
) -> tuple[Endpoint, ...]:
    """One endpoint per agent."""
    names = [server.name for server in servers]
    endpoints = []
    for index, member in enumerate(crew):
        wanted = index % len(servers) if member.target is None else member.target
        server = servers[names.index(wanted) if isinstance(wanted, str) else wanted]
        # The server's own default holds unless the profile sets a temperature; only the work is made the same.
        options: dict[str, JsonValue] = {"temperature": None}
        if not {server.target.api, server.target.kind} & TAKES_NO_SEED:
            options["seed"] = seed % 2**31
        if _agents(profile).workload == "single":
            options["stream"] = False
        target = replace(server.target, options={**options, **server.target.options, **member.options})
        endpoints.append(replace(server, target=target, agent=member.name))
    return tuple(endpoints)


@dataclass(frozen=True, slots=True)
class _Cast:
    """The facts that the arms of a campaign share. endpoints: of every agent, in the order of the crew."""

    profile: Profile
    work: AgentsWork
    endpoints: tuple[Endpoint, ...]
    tier: str

    @property
    def permits(self) -> int:
        return _agents(self.profile).permits or len(self.endpoints)

    @property
    def limits(self) -> Limits:
        limits = limits_of(self.profile)
        if _agents(self.profile).workload == "single":
            # The whole answer is one piece, and the first token comes with the last.
            return replace(limits, first_token_s=limits.total_s)
        return limits


def _arm(name: str, chosen: tuple[int, ...], cast: _Cast, *, keep: bool) -> Arm:
    """The arm in which the agents at the places `chosen` work. keep: leave the text of their answers on disk."""
    work, warmup_requests = cast.work, _agents(cast.profile).warmup_requests
    endpoints = tuple(cast.endpoints[i] for i in chosen)

    def jobs(occasion: Occasion) -> list[Job]:
        share = Share(
            plan=_plan(occasion, chosen, cast, keep=keep),
            endpoints=endpoints,
            deal=(0,),
            limits=cast.limits,
            tier=cast.tier,
            journal=occasion.journal,
            writer=occasion.writer,
            read_bytes=cast.profile.read_bytes,
        )
        answers = occasion.artifacts if keep else None
        files = _files_by_seq(chosen, cast.endpoints, work) if keep else ()
        return [AgentsJob(share, work.for_run(occasion.run, max(occasion.block, 0)), answers, files)]

    async def warm_up() -> None:
        await asyncio.gather(*(_warm_up(cast.endpoints[i], work, i, warmup_requests, cast.limits) for i in chosen))

    def facts(begun: RunFacts, healths: Sequence[Health]) -> RunFacts:
        return _facts(begun, healths, concurrency_asked=min(cast.permits, len(chosen)))

    names = tuple(endpoint.agent for endpoint in endpoints)
    return Arm(name, jobs, facts, endpoints, names, warm_up if warmup_requests else None)


def _plan(occasion: Occasion, chosen: Sequence[int], cast: _Cast, *, keep: bool) -> Plan:
    """A script for each agent of `chosen`; an agent's calls have the same numbers in every arm."""
    profile, work = cast.profile, cast.work
    each, think_ns = work.calls_each, round(_agents(profile).think_ms * NS_PER_MS)
    scripts = [
        Script(at, tuple(Call(agent * each + call, work.follows(call)) for call in range(each)), think_ns)
        for at, agent in enumerate(chosen)
    ]
    return Plan(
        run=occasion.run,
        zero_ns=occasion.zero_ns,
        seqs=[call.seq for script in scripts for call in script.calls],
        scripts=scripts,
        permits=cast.permits,
        keep_text=keep,
        drain_ns=round(profile.limits.drain_s * NS_PER_S),
        no_progress_ns=round(profile.limits.no_progress_s * NS_PER_S),
    )


def _facts(begun: RunFacts, healths: Sequence[Health], concurrency_asked: int) -> RunFacts:
    return msgspec.structs.replace(
        begun,
        measured_from_ns=0,
        # From the barrier to the last answer: the work is the whole run, without ramp and drain.
        measured_to_ns=max((h.last_done_ns for h in healths if h.last_done_ns is not None), default=0),
        offered=sum(h.offered for h in healths),
        open_loop=False,
        concurrency_asked=concurrency_asked,
        concurrency_reached=sum(h.peak_in_flight for h in healths),
        left_out=sum(h.left_out for h in healths),
    )


def _files_by_seq(
    chosen: Sequence[int], everyones: Sequence[Endpoint], work: AgentsWork
) -> tuple[tuple[int, str], ...]:
    return tuple(
        (agent * work.calls_each + call, name)
        for agent in chosen
        for call, name in enumerate(_files(everyones[agent].agent, work))
    )


def _files(agent: str, work: AgentsWork) -> list[str]:
    """The names of the files that keep an agent's answers, call by call."""
    names = []
    for call in range(work.calls_each):
        around = call // work.calls_a_round
        names.append(f"{agent}_{work.stage(call)}{f'_{around + 1}' if around else ''}.md")
    return names


async def _warm_up(endpoint: Endpoint, work: AgentsWork, agent: int, requests: int, limits: Limits) -> None:
    """Make an agent's server load its model with that agent's options: answers of one token, in no record.

    A failure here is ignored: the measured calls will show it.
    """
    transport = open_transport(endpoint, "callback" if endpoint.access.proxy is None else "aiohttp", limits, None)
    target, seq = endpoint.target, agent * work.calls_each
    client = Client(endpoint.name, target, dialect(target.api, target.path), transport, endpoint.agent)
    ask = replace(work.for_run(WARM_UP_RUN).ask(seq), output_tokens=1)
    try:
        for _ in range(requests):
            await client.send(ask, f"{WARM_UP_RUN}-{seq}")
    finally:
        await transport.close()
