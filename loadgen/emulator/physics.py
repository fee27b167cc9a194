"""The timing law of the emulated server: pure, seeded, no clock, no socket.

Strategy. `Physics` is an event-driven simulation advanced by instants that the caller names, so a socket server and a
virtual-time test drive the very same code. Every deadline is an absolute integer of nanoseconds, computed from other
deadlines and never from the time of a call: a caller that comes late emits late, but shifts nothing.

The law, for one request that arrives at `a`:

    start     = a, or later: model loaded, slot free (FIFO), room in the KV cache (FIFO, reserved in full at the start)
    event 0   = start + ttft + uncached prompt tokens / prefill rate
    event i+1 = event i + gap + slope * (running - 1), times the GPU share factor

`running` counts requests holding a slot of the instance at that instant, prefill included; requests that finish at the
same instant no longer count. The GPU factor is 1 + gpu_share * (busy instances - 1): 0 is a GPU each, 1 is pure time
slicing. Jitter multiplies the prefill and each step by a lognormal of mean 1. An event carries `tokens_per_event`
tokens (one decode step yields them all, as with speculative decoding), the last event the rest. In M/M/1 mode one
slot serves for Exp(mu) in all, whatever the length, and the events divide that time evenly. A request larger than the
whole KV cache runs alone.
"""

from __future__ import annotations

import math
import random
from collections import deque
from dataclasses import dataclass
from heapq import heappop, heappush

__all__ = ["NEVER", "NS_PER_S", "Job", "Law", "Physics", "Prefixes"]

NS_PER_S = 1_000_000_000
NEVER = 1 << 62


@dataclass(frozen=True, slots=True)
class Law:
    """The parameters of the server's timing. None always means "no limit" or "off"."""

    ttft_s: float = 0.050
    gap_s: float = 0.020
    prefill_tokens_per_s: float | None = None
    batch_slope_s: float = 0.0
    slots: int | None = None
    kv_tokens: int | None = None
    load_s: float = 0.0  # 0: the model is there from the start
    keep_alive_s: float | None = None  # idle time after which a model is unloaded
    instances: int = 1
    gpu_share: float = 0.0
    jitter: float = 0.0  # sigma of the lognormal factor
    mm1_rate: float | None = None  # requests/s of the single exponential server
    tokens_per_event: int = 1
    output_tokens: int = 64  # where the request sets no limit
    eos_mean_tokens: float | None = None  # geometric; None: an answer always reaches its limit
    prefix_cache: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("ttft_s", "gap_s", "batch_slope_s", "load_s", "gpu_share", "jitter"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be >= 0, got {value}")
        for name in ("prefill_tokens_per_s", "mm1_rate", "slots", "kv_tokens"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be > 0, got {value}")
        for name in ("instances", "tokens_per_event", "output_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}")
        if self.eos_mean_tokens is not None and self.eos_mean_tokens < 1:
            raise ValueError(f"eos_mean_tokens must be >= 1, got {self.eos_mean_tokens}")


class Job:
    """One request inside the simulation. Read its times freely; only `Physics` writes them."""

    __slots__ = (
        "arrived_ns",
        "cached_tokens",
        "events",
        "first_due_ns",
        "gap_ns",
        "instance",
        "kv",
        "last_due_ns",
        "left",
        "load_ns",
        "output_tokens",
        "owner",
        "prefill_ns",
        "prompt_tokens",
        "queue_ns",
        "rng",
        "seq",
        "service_ns",
        "started",
        "tokens_per_event",
    )

    def __init__(
        self,
        seq: int,
        instance: int,
        arrived_ns: int,
        prompt_tokens: int,
        output_tokens: int,
        *,
        tokens_per_event: int = 1,
        cached_tokens: int = 0,
        owner: object = None,
    ) -> None:
        self.seq = seq
        self.instance = instance
        self.arrived_ns = arrived_ns
        self.prompt_tokens = prompt_tokens
        self.cached_tokens = cached_tokens
        self.output_tokens = output_tokens
        self.tokens_per_event = tokens_per_event
        self.events = -(-output_tokens // tokens_per_event)
        self.left = self.events  # events not yet due; 0 also marks a cancelled job
        self.owner = owner
        self.kv = prompt_tokens + output_tokens
        self.started = False
        self.load_ns = 0
        self.queue_ns = 0
        self.prefill_ns = 0
        self.first_due_ns = 0
        self.last_due_ns = 0
        self.gap_ns = 0
        self.service_ns = 0
        self.rng: random.Random | None = None


class Instance:
    """One model server: its slots, its cache, its queue, and the time from which its model is loaded."""

    __slots__ = (
        "free_ns",
        "idle_ns",
        "keep_ns",
        "kv_before",
        "kv_used",
        "loads",
        "prefixes",
        "queue",
        "ready_ns",
        "released_ns",
        "running",
    )

    def __init__(self, law: Law) -> None:
        slots = 1 if law.mm1_rate is not None else law.slots
        self.free_ns: list[int] | None = None if slots is None else [-NEVER] * slots  # a heap: when each slot freed
        self.queue: deque[Job] = deque()
        self.running = 0
        self.kv_used = 0
        self.kv_before = 0  # tokens in use until `released_ns`
        self.released_ns = -NEVER
        self.ready_ns = -NEVER if law.load_s == 0 else NEVER  # NEVER: not loaded
        self.idle_ns = -NEVER  # when the last request finished, or the load ended
        self.keep_ns = _default_keep_ns(law)
        self.loads = 0
        self.prefixes = Prefixes()


def _default_keep_ns(law: Law) -> int:
    return NEVER if law.keep_alive_s is None else round(law.keep_alive_s * NS_PER_S)


class Prefixes:
    """The prompts of earlier requests, in whole blocks, as in a prefix cache; the oldest blocks are forgotten."""

    BLOCK_TOKENS = 16

    def __init__(self, blocks: int = 65_536) -> None:
        self._seen: dict[int, None] = {}
        self._blocks = blocks

    def lookup(self, tokens: list[int]) -> int:
        """The number of leading tokens in the cache; the prompt is remembered. The last token is never cached."""
        size, cached, chain, hit = self.BLOCK_TOKENS, 0, 0, True
        for at in range(0, len(tokens) - size + 1, size):
            chain = hash((chain, *tokens[at : at + size]))
            hit = hit and chain in self._seen
            if hit and at + size < len(tokens):
                cached = at + size
            self._seen.pop(chain, None)
            self._seen[chain] = None
        while len(self._seen) > self._blocks:
            del self._seen[next(iter(self._seen))]
        return cached


class Physics:
    """The simulation: when the next token of each running request is due."""

    def __init__(self, law: Law) -> None:
        self.law = law
        self.instances = [Instance(law) for _ in range(law.instances)]
        # (due, seq, job). Where all gaps are equal, a job that has had its first event goes round in the ring: popped
        # on the left, it belongs on the right again, so a token costs no sifting. The rest is in the heap.
        self._heap: list[tuple[int, int, Job]] = []
        self._ring: deque[tuple[int, int, Job]] = deque()
        # A word in the seed: arrivals drawn from Random(seed) must not use the same stream.
        self._rng = random.Random(f"emulator {law.seed}")
        self._ttft_ns = round(law.ttft_s * NS_PER_S)
        self._gap_ns = round(law.gap_s * NS_PER_S)
        self._slope_ns = round(law.batch_slope_s * NS_PER_S)
        self._load_ns = round(law.load_s * NS_PER_S)
        self._coupled = self._slope_ns > 0 or law.gpu_share > 0 or law.jitter > 0
        # All events of a request are due with its first: the simulation hands such a job over once, whole.
        self.flood = self._gap_ns == 0 and not self._coupled and law.mm1_rate is None

    def next_due(self) -> int | None:
        """The instant of the next event, or None while nothing runs."""
        if self._ring:
            return min(self._ring[0][0], self._heap[0][0]) if self._heap else self._ring[0][0]
        return self._heap[0][0] if self._heap else None

    def output_length(self, limit: int | None, *, ignore_eos: bool = False) -> tuple[int, bool]:
        """(tokens, ended by itself) of an answer whose request allows at most `limit` tokens."""
        bound = self.law.output_tokens if limit is None else limit
        mean = self.law.eos_mean_tokens
        if mean is None or ignore_eos:
            return bound, limit is None
        drawn = 1 if mean <= 1 else 1 + int(math.log(1.0 - self._rng.random()) / math.log1p(-1.0 / mean))
        return (drawn, True) if drawn <= bound else (bound, False)

    def submit(self, job: Job) -> None:
        """Let a request arrive at `job.arrived_ns`, which may lie before instants already simulated."""
        law = self.law
        if law.mm1_rate is not None:
            job.service_ns = round(self._rng.expovariate(law.mm1_rate) * NS_PER_S)
        if law.jitter > 0:
            job.rng = random.Random(f"jitter {law.seed} {job.seq}")
        instance = self.instances[job.instance]
        self.load(job.instance, job.arrived_ns)
        instance.queue.append(job)
        self._admit(instance)

    def load(self, index: int, at_ns: int) -> int:
        """The instant at which the model is, or was, ready; it is loaded if it was not."""
        instance = self.instances[index]
        if not self.is_loaded(index, at_ns):
            instance.ready_ns = instance.idle_ns = at_ns + self._load_ns
            instance.loads += 1
        return instance.ready_ns

    def is_loaded(self, index: int, at_ns: int) -> bool:
        """Whether the model is loaded, or being loaded, at an instant."""
        instance = self.instances[index]
        if instance.ready_ns == NEVER:
            return False
        busy = instance.running > 0 or bool(instance.queue)
        return busy or at_ns - instance.idle_ns <= instance.keep_ns or at_ns <= instance.ready_ns

    def keep_alive(self, index: int, keep_ns: int | None) -> None:
        """Set the idle time before unloading; 0 unloads as soon as nothing runs, None never."""
        self.instances[index].keep_ns = NEVER if keep_ns is None else keep_ns

    def unload(self, index: int) -> None:
        """Forget the model now, if nothing runs on it; otherwise when the last request finishes.

        A model that is loaded again has an empty prefix cache and the law's time before unloading.
        """
        instance = self.instances[index]
        if instance.running or instance.queue:
            instance.keep_ns = 0
        else:
            instance.ready_ns = NEVER
            instance.keep_ns = _default_keep_ns(self.law)
            instance.prefixes = Prefixes()

    def advance(self, now_ns: int, limit: int = 1 << 30) -> list[Job]:
        """The jobs with an event due by `now_ns`, in order of their deadlines, one entry per event.

        At most about `limit` entries; call again for the rest. A flooding job is returned once for all its events.
        """
        if self._coupled:
            return self._advance_coupled(now_ns, limit)
        heap, ring = self._heap, self._ring
        due: list[Job] = []
        while len(due) < limit:
            bound_ns = heap[0][0] if heap and heap[0][0] < now_ns else now_ns
            if ring and ring[0][0] <= bound_ns:
                self._turn_ring(bound_ns, limit, due)
            elif heap and heap[0][0] <= now_ns:
                self._pop_heap(due)
            else:
                break
        return due

    def _turn_ring(self, bound_ns: int, limit: int, due: list[Job]) -> None:
        """Take the entries of the ring up to an instant, or until a job finishes: another may then have started."""
        ring, gap_ns, append = self._ring, self._gap_ns, due.append
        room = limit - len(due)
        while room and ring and ring[0][0] <= bound_ns:
            at_ns, seq, job = ring.popleft()
            left = job.left - 1
            if left < 0:
                continue  # cancelled while it waited
            room -= 1
            append(job)
            job.left = left
            if not left:
                self._finish(job, at_ns)
                return
            next_ns = at_ns + gap_ns
            if ring and next_ns < ring[-1][0]:
                self._insert((next_ns, seq, job))
            else:
                ring.append((next_ns, seq, job))

    def _pop_heap(self, due: list[Job]) -> None:
        at_ns, seq, job = heappop(self._heap)
        if job.left <= 0:
            return  # cancelled while it waited
        due.append(job)
        job.left -= 1
        if not job.left:
            self._finish(job, at_ns)
        elif job.service_ns:
            heappush(self._heap, (at_ns + job.gap_ns, seq, job))
        else:
            self._insert((at_ns + self._gap_ns, seq, job))

    def _insert(self, entry: tuple[int, int, Job]) -> None:
        """Put an entry in its place in the ring, which is at or near the right end."""
        ring, place = self._ring, len(self._ring)
        while place and ring[place - 1][0] > entry[0]:
            place -= 1
        ring.insert(place, entry)

    def cancel(self, job: Job, at_ns: int) -> None:
        """Take a request out of the simulation: its client has gone."""
        instance = self.instances[job.instance]
        if job.started:
            if job.left > 0:
                job.left = 0
                self._finish(job, at_ns)
        elif job in instance.queue:
            instance.queue.remove(job)
            self._admit(instance)

    def _advance_coupled(self, now_ns: int, limit: int) -> list[Job]:
        # Two passes over each instant: a job that finishes now must not lengthen the next step of the others.
        heap = self._heap
        due: list[Job] = []
        while heap and heap[0][0] <= now_ns and len(due) < limit:
            at_ns = heap[0][0]
            group: list[Job] = []
            while heap and heap[0][0] == at_ns:
                job = heappop(heap)[2]
                if job.left > 0:
                    group.append(job)
            for job in group:
                job.left -= 1
                if job.left == 0:
                    self._finish(job, at_ns)
            for job in group:
                if job.left > 0:
                    heappush(heap, (at_ns + self._step_ns(job), job.seq, job))
            due += group
        return due

    def _step_ns(self, job: Job) -> int:
        if job.service_ns:
            return job.gap_ns
        step = self._gap_ns + self._slope_ns * (self.instances[job.instance].running - 1)
        return self._disturb(job, step)

    def _disturb(self, job: Job, duration_ns: int) -> int:
        """`duration_ns` with the GPU share and the jitter applied."""
        if not self._coupled:
            return duration_ns
        factor = 1.0
        if self.law.gpu_share > 0:
            busy = sum(1 for instance in self.instances if instance.running)
            factor = 1.0 + self.law.gpu_share * max(0, busy - 1)
        if job.rng is not None:
            sigma = self.law.jitter
            factor *= math.exp(sigma * job.rng.gauss(0.0, 1.0) - sigma * sigma / 2)
        return round(duration_ns * factor)

    def _admit(self, instance: Instance) -> None:
        while instance.queue:
            job = instance.queue[0]
            start_ns = self._start_ns(instance, job)
            if start_ns is None:
                return
            instance.queue.popleft()
            if instance.free_ns is not None:
                heappop(instance.free_ns)
            instance.kv_used += job.kv
            instance.running += 1
            self._start(job, instance, start_ns)

    def _start_ns(self, instance: Instance, job: Job) -> int | None:
        """The instant at which the head of the queue can start; None if it must wait for another job to finish."""
        start_ns = max(job.arrived_ns, instance.ready_ns)
        if instance.free_ns is not None:
            if not instance.free_ns:
                return None
            start_ns = max(start_ns, instance.free_ns[0])
        limit = self.law.kv_tokens
        if limit is not None and instance.kv_used:
            if instance.kv_used + job.kv > limit:
                return None
            # Seen late, the arrival may precede the release that made the room.
            if instance.kv_before + job.kv > limit:
                start_ns = max(start_ns, instance.released_ns)
        return start_ns

    def _start(self, job: Job, instance: Instance, start_ns: int) -> None:
        job.started = True
        loaded_ns = max(job.arrived_ns, instance.ready_ns)
        job.load_ns = loaded_ns - job.arrived_ns
        job.queue_ns = start_ns - loaded_ns
        if job.service_ns:
            job.gap_ns = job.service_ns // job.events
            job.prefill_ns = job.service_ns - job.gap_ns * (job.events - 1)
        else:
            rate = self.law.prefill_tokens_per_s
            prefill = 0 if rate is None else round((job.prompt_tokens - job.cached_tokens) * NS_PER_S / rate)
            job.prefill_ns = self._disturb(job, self._ttft_ns + prefill)
            job.gap_ns = self._gap_ns
            if self.flood:
                job.left = 1
        job.first_due_ns = start_ns + job.prefill_ns
        heappush(self._heap, (job.first_due_ns, job.seq, job))

    def _finish(self, job: Job, at_ns: int) -> None:
        instance = self.instances[job.instance]
        job.last_due_ns = at_ns
        instance.running -= 1
        if instance.free_ns is not None:
            heappush(instance.free_ns, at_ns)
        instance.kv_before = instance.kv_used
        instance.kv_used -= job.kv
        instance.released_ns = at_ns
        instance.idle_ns = max(instance.idle_ns, at_ns)
        if instance.queue:
            self._admit(instance)
