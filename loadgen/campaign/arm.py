"""An arm: a condition of a campaign, as the jobs that one run of it needs. And the arm that a profile's load makes."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from loadgen.clock import NS_PER_S
from loadgen.engine import schedule
from loadgen.engine.health import Health
from loadgen.engine.plan import Plan
from loadgen.engine.share import Job, Share, ShareJob
from loadgen.profile.profile import Load, Profile
from loadgen.servers.endpoint import Endpoint
from loadgen.transport import Limits
from loadgen.workload import Workload

__all__ = ["MAIN", "Arm", "Occasion", "limits_of", "load_arm", "most_connections"]

MAIN = "main"


@dataclass(frozen=True, slots=True)
class Occasion:
    """One run of an arm."""

    run: int  # unique in the directory, the same when the run is made again; records carry it
    block: int  # -1 and the number of blocks for the repeated control
    zero_ns: int  # the run's start on the monotonic clock
    journal: Path
    writer: int  # of the first job's journal; that of the i-th is writer + i


@dataclass(frozen=True, slots=True)
class Arm:
    """A condition. `jobs` and `facts` are called once for each run of it.

    jobs: what each process does; one job runs in this process unless the campaign wants fresh ones. All jobs of a run
    count from the occasion's zero_ns. A job is a value that can be pickled (`fleet.share.Job`): its `start()` opens
    transports in the running loop and returns something with `run`, `look` and `interrupt`.
    facts: from the jobs' healths, in their order, what the manifest says of the run: measured_from_ns, measured_to_ns,
    offered, open_loop, concurrency_asked, concurrency_reached. The campaign adds the rest.
    endpoints: which servers it uses; they are unloaded, and asked whether they still answer, before a run.
    warm_up: what to send before a run begins, in no record; awaited each time, and cancelled by an interruption.
    """

    name: str
    jobs: Callable[[Occasion], Sequence[Job]]
    facts: Callable[[Sequence[Health]], dict[str, Any]]
    endpoints: tuple[Endpoint, ...]
    agents: tuple[str, ...] = ()
    warm_up: Callable[[], Awaitable[None]] | None = None


def load_arm(
    profile: Profile, seed: int, endpoints: tuple[Endpoint, ...], workload: Workload, tier: str, name: str = MAIN
) -> Arm:
    """Return the arm that offers `profile.load` to the endpoints, dealt out by the weights of their targets."""
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

    return Arm(name, jobs, lambda healths: _facts(profile.load, healths), endpoints)


def limits_of(profile: Profile) -> Limits:
    limits = profile.limits
    return Limits(limits.connect_s, limits.first_token_s, limits.between_tokens_s, limits.total_s)


def most_connections(load: Load) -> int:
    """Return how many connections `load` can have open; 0 where only the servers can tell."""
    if not load.is_open:
        return max(concurrency for _, concurrency in schedule.concurrency_steps(load))
    return load.max_in_flight or (load.requests or 0 if load.arrivals == "burst" else 0)


def _plans(profile: Profile, seed: int, run: int, zero_ns: int) -> list[Plan]:
    """Return one plan a worker: every P-th request of an open loop, a P-th of the concurrency of a closed one."""
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
        cap = load.max_in_flight
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
    requests = None if load.requests is None else load.warmup_requests + load.requests
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
    if load.stages:
        duration_s = sum(stage.duration_s or 0.0 for stage in load.stages)
        if any(stage.duration_s is None for stage in load.stages):
            return None
    elif load.duration_s is not None:
        duration_s = load.duration_s
    else:
        return None
    return round((load.warmup_s + duration_s) * NS_PER_S)


def _deal(weights: Sequence[float]) -> tuple[int, ...]:
    """Return target indices to deal out in turn, each as often as its weight says and as evenly as it can be."""
    slots = min(1000, max(len(weights), round(sum(weights) / min(weights))))
    dealt = [0] * len(weights)
    deal = []
    for _ in range(slots):
        index = min(range(len(weights)), key=lambda i: ((dealt[i] + 1) / weights[i], i))
        dealt[index] += 1
        deal.append(index)
    return tuple(deal)


def _rotated(deal: tuple[int, ...], by: int) -> tuple[int, ...]:
    """Return `deal` begun at another place, or the first requests of all workers would go to the first target."""
    by %= len(deal)
    return deal[by:] + deal[:by]


def _facts(load: Load, healths: Sequence[Health]) -> dict[str, Any]:
    warmup_ns = round(load.warmup_s * NS_PER_S)
    first = min((h.first_intended_ns for h in healths if h.first_intended_ns is not None), default=0)
    last = max((h.last_sent_ns for h in healths if h.last_sent_ns is not None), default=first)
    duration = _duration_ns(load)
    interrupted = any(h.interrupted for h in healths)
    return {
        "measured_from_ns": max(first, warmup_ns) if load.warmup_requests or not load.is_open else warmup_ns,
        "measured_to_ns": last if duration is None or interrupted else duration,
        "offered": sum(h.offered for h in healths) if load.is_open or load.requests is not None else None,
        "open_loop": load.is_open,
        "concurrency_asked": None if load.is_open else most_connections(load),
        "concurrency_reached": None if load.is_open else sum(h.peak_in_flight for h in healths),
    }
