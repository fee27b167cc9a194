"""An arm: one condition of a campaign, as the jobs that a run of it needs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from loadgen.engine.health import Health
from loadgen.engine.share import Job
from loadgen.manifest import RunFacts
from loadgen.profile import Profile
from loadgen.servers.endpoint import Endpoint
from loadgen.transport import Limits

__all__ = ["Arm", "Occasion", "limits_of"]


@dataclass(frozen=True, slots=True)
class Occasion:
    """One run of an arm."""

    run: int  # unique in the directory, the same when the run is made again; records carry it
    block: int  # -1 and the number of blocks for the repeated control
    zero_ns: int  # the run's start on the monotonic clock
    journal: Path
    writer: int  # of the first job's journal; that of the i-th is writer + i
    artifacts: Path | None  # the folder for files beside the records; None for a repeated control


@dataclass(frozen=True, slots=True)
class Arm:
    """A condition. `jobs` and `facts` are called once for each run of it.

    jobs: the work of each process; one job runs in this process unless the campaign wants fresh ones. All jobs of a run
    count from the occasion's zero_ns. A job is a value that can be pickled (`engine.share.Job`): its `start()` opens
    transports in the running loop and returns an `engine.share.Running`.
    facts: from the run's facts as known when it begins, and the jobs' healths in their order, to the same facts with
    those that only the arm knows: measured_from_ns, measured_to_ns, offered, open_loop, concurrency_asked and
    concurrency_reached.
    endpoints: the servers it uses; before a run they are unloaded, and checked to answer.
    warm_up: sends requests before a run begins, in no record; awaited each time, and cancelled by an interruption.
    """

    name: str
    jobs: Callable[[Occasion], Sequence[Job]]
    facts: Callable[[RunFacts, Sequence[Health]], RunFacts]
    endpoints: tuple[Endpoint, ...]
    agents: tuple[str, ...] = ()
    warm_up: Callable[[], Awaitable[None]] | None = None


def limits_of(profile: Profile) -> Limits:
    """The limits of one request."""
    limits = profile.limits
    return Limits(limits.connect_s, limits.first_token_s, limits.between_tokens_s, limits.total_s)
