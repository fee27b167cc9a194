"""The arm that offers the load of a profile: a plan per worker, requests assigned to the targets by weight."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace

import msgspec

from loadgen.campaign.arm import Arm, Occasion, limits_of
from loadgen.clock import NS_PER_S
from loadgen.engine import schedule
from loadgen.engine.health import Health
from loadgen.engine.plan import Plan
from loadgen.engine.share import Job, Share, ShareJob
from loadgen.manifest import RunFacts
from loadgen.profile import Load, Profile
from loadgen.profile.loads import Burst
from loadgen.servers.endpoint import Endpoint
from loadgen.workload import Workload

__all__ = ["MAIN", "load_arm", "most_connections"]

MAIN = "main"


def load_arm(
    profile: Profile, seed: int, endpoints: tuple[Endpoint, ...], workload: Workload, tier: str, name: str = MAIN
) -> Arm:
    """The arm that offers `profile.load` to the endpoints, in proportion to the weights of their targets."""
    weights = {spec.name: spec.weight for spec in profile.targets}
    deal = _deal([weights[endpoint.name] for endpoint in endpoints])

    def jobs(occasion: Occasion) -> list[Job]:
        work = workload.for_run(occasion.run)
        return [
            ShareJob(
                Share(
                    plan=plan,
                    endpoints=endpoints,
                    deal=_rotated(deal, index) if profile.workers > 1 else deal,
                    limits=limits_of(profile),
                    tier=tier,
                    journal=occasion.journal,
                    writer=occasion.writer + index,
                    read_bytes=profile.read_bytes,
                ),
                work,
            )
            for index, plan in enumerate(_plans(profile, seed, occasion.run, occasion.zero_ns))
        ]

    return Arm(name, jobs, lambda begun, healths: _facts(profile.load, begun, healths), endpoints)


def most_connections(load: Load) -> int:
    """The most connections that `load` can have open; 0 where that depends on the servers."""
    return load.most_in_flight or (load.requests if isinstance(load, Burst) else 0)


def _plans(profile: Profile, seed: int, run: int, zero_ns: int) -> list[Plan]:
    """The plans, one per worker of P: every P-th request of an open loop, a P-th of a closed loop's concurrency."""
    load, workers = profile.load, profile.workers
    common = Plan(
        run=run,
        zero_ns=zero_ns,
        seqs=(),
        warmup_requests=load.warmup_requests,
        drain_ns=round(profile.limits.drain_s * NS_PER_S),
        no_progress_ns=round(profile.limits.no_progress_s * NS_PER_S),
    )
    if load.is_open:
        offsets = schedule.offsets(load, seed, run)
        cap = load.most_in_flight
        return [
            replace(
                common,
                seqs=range(worker, len(offsets), workers),
                offsets_ns=offsets[worker::workers],
                duration_ns=_duration_ns(load),
                max_in_flight=None if cap is None else _part(cap, worker, workers),
            )
            for worker in range(workers)
        ]
    steps = schedule.concurrency_steps(load)
    requests = None if load.most_requests is None else load.warmup_requests + load.most_requests
    return [
        replace(
            common,
            seqs=range(worker, requests if requests is not None else sys.maxsize, workers),
            steps=[(at_ns, _part(concurrency, worker, workers)) for at_ns, concurrency in steps],
            duration_ns=_duration_ns(load),
        )
        for worker in range(workers)
    ]


def _part(whole: int, worker: int, workers: int) -> int:
    return whole // workers + (worker < whole % workers)


def _duration_ns(load: Load) -> int | None:
    return None if load.length_s is None else round((load.warmup_s + load.length_s) * NS_PER_S)


def _deal(weights: Sequence[float]) -> tuple[int, ...]:
    """The indices of targets to use in turn, each in proportion to its weight and spread as evenly as possible."""
    slots = min(1000, max(len(weights), round(sum(weights) / min(weights))))
    dealt = [0] * len(weights)
    deal = []
    for _ in range(slots):
        index = min(range(len(weights)), key=lambda i: ((dealt[i] + 1) / weights[i], i))
        dealt[index] += 1
        deal.append(index)
    return tuple(deal)


def _rotated(deal: tuple[int, ...], by: int) -> tuple[int, ...]:
    """`deal` begun `by` places later: else the first requests of all workers would go to the first target."""
    by %= len(deal)
    return deal[by:] + deal[:by]


def _facts(load: Load, begun: RunFacts, healths: Sequence[Health]) -> RunFacts:
    warmup_ns = round(load.warmup_s * NS_PER_S)
    first = min((h.first_intended_ns for h in healths if h.first_intended_ns is not None), default=0)
    last = max((h.last_sent_ns for h in healths if h.last_sent_ns is not None), default=first)
    duration = _duration_ns(load)
    interrupted = any(h.interrupted for h in healths)
    return msgspec.structs.replace(
        begun,
        measured_from_ns=max(first, warmup_ns) if load.warmup_requests or not load.is_open else warmup_ns,
        measured_to_ns=last if duration is None or interrupted else duration,
        offered=sum(h.offered for h in healths) if load.is_open or load.most_requests is not None else None,
        open_loop=load.is_open,
        concurrency_asked=None if load.is_open else most_connections(load),
        concurrency_reached=None if load.is_open else sum(h.peak_in_flight for h in healths),
    )
