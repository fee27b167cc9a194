"""The number of requests that a server works on at once, from the token stamps of bursts of equal requests.

With s slots and k > s requests sent at one instant, s answers begin and the others wait until one of them has ended. So
the count of requests whose first token arrived before the first answer's last token is min(k, s), whatever the order in
which the queue is served and however much a larger batch slows each answer down.

A burst is usable only if an answer lasted longer than the next one needed to begin. The next first token is due one
*step* after the last one of the wave; a step is the longest of a lone request's TTFT (a server may read the prompts one
after the other), the gaps within the wave and the spread of the client's sends. A burst whose first answer ended within
`CLEAR_STEPS` steps of that is *undecided* and not used: it would show a limit where there may be none. Answers that
come in one piece are undecided as well.

The counts of the usable bursts go into a likelihood over s = 1..K, where K is the largest burst and stands for "K or
more". A burst shows min(k, s), except for an error of probability e, which makes any other of the k counts equally
likely; e is integrated out under Beta(1, 4), by which a burst is seldom wrong. All s are equally likely at first. The
interval holds the most probable s until they make up 95 %.
"""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from msgspec import Struct, field

from analysis.estimate import Estimate, Figure, Note, NoteCode, note, refused, significant
from analysis.probes.prefix_cache import PrefixCache
from loadgen import latency
from loadgen.manifest import TargetFacts
from loadgen.record import Outcome, Record

__all__ = [
    "SCHEMA",
    "Burst",
    "Reported",
    "Slots",
    "SlotsResult",
    "advice",
    "burst",
    "by_size",
    "compare_told",
    "find",
    "ladder",
    "plan",
    "read",
    "scouted",
]

SCHEMA = "loadgen.slots/1"


CONFIDENCE = 0.95
CLEAR_STEPS = 2.0  # prompts take longer while the server decodes than when alone
SELDOM_WRONG = 1.0, 4.0  # Beta prior of the share of wrong bursts: mean 0.2
LEAST_AGREEMENT = 0.5  # below it the bursts do not show one number
STEPS_TO_ASK_FOR = 1.5 * CLEAR_STEPS
ENDED_EARLY = 0.8  # answers of less than this share of the wanted tokens were not cut by the limit

REFUSALS = (Outcome.HTTP_ERROR, Outcome.SERVER_ERROR, Outcome.REFUSED)


@dataclass(frozen=True, slots=True)
class Burst:
    """k equal requests sent at one instant. Arrays have shape (answered,), ns, in order of the first token."""

    k: int
    first_ns: tuple[int, ...]  # first token, since the first request of the burst was sent
    end_ns: tuple[int, ...]  # last token of the same answers
    spread_ns: int  # between the first send and the last
    tokens: int  # of all answers
    refused: int = 0  # turned away: an error instead of an answer
    failed: int = 0  # without a token for any other reason, such as a timeout
    errors: tuple[str, ...] = ()

    @property
    def answered(self) -> int:
        return len(self.first_ns)


@dataclass(frozen=True, slots=True)
class Reading:
    """The evidence of one burst. count: requests whose first token came before the first answer ended."""

    k: int
    count: int
    state: Literal["limited", "all", "undecided", "failed"]
    need: float = 1.0  # factor of answer length that would decide an undecided burst; infinite for one-piece answers


class SizeRow(Struct, frozen=True, kw_only=True):
    """The bursts of one size. ttft_first_ms, ttft_last_ms, output_tokens_per_s (of the whole burst): medians."""

    k: int
    bursts: int
    at_once: tuple[int, ...]  # requests that began before the first answer ended, per burst that shows it
    undecided: int
    refused: int
    failed: int
    ttft_first_ms: float | None
    ttft_last_ms: float | None
    output_tokens_per_s: float | None


@dataclass(frozen=True, slots=True)
class Slots:
    """The number of slots. verdict: found, at-least (no limit up to the largest burst) or inconclusive (see reason)."""

    estimate: Estimate
    verdict: Literal["found", "at-least", "inconclusive"]
    reason: str | None
    readings: tuple[Reading, ...]  # one per burst, in order
    turned_away: str | None = None  # in words, the requests that were refused or timed out

    @property
    def least(self) -> int:
        """The largest number of requests certainly worked on at once; 0 if there is none."""
        certain = self.estimate.value if self.estimate.value is not None else self.estimate.low
        return 0 if certain is None else int(certain)


class Reported(Struct, frozen=True):
    """The number of slots that the server reports. verdict: agrees, disagrees or unknown."""

    slots: int
    source: str = field(name="from")
    verdict: str | None = None


class SlotsResult(Struct, frozen=True, kw_only=True):
    """The JSON of `loadgen slots`: the requests sent and the result."""

    schema: str = SCHEMA
    loadgen: str | None = None  # its version
    wall: str | None = None
    target: TargetFacts
    tier: str | None = None
    seed: int | None = None
    most: int | None = None  # the largest burst that was wanted
    rounds: int | None = None
    output_tokens: int | None = None
    answered: int = 0  # requests
    slots: Figure
    verdict: str
    reason: str | None
    turned_away: str | None
    reported: Reported | None = field(name="told")
    agents: int | None = None  # that should find a slot each
    advice: tuple[str, ...] = ()
    sizes: tuple[SizeRow, ...] = ()
    cache: PrefixCache | None = None


def burst(records: Sequence[Record]) -> Burst:
    """The burst of these records. Their stamps must be relative to one zero."""
    sent = [record.sent_ns for record in records if record.sent_ns is not None]
    zero = min(sent, default=0)
    answered, refused_, failed, errors = [], 0, 0, []
    for record in records:
        tokens = record.event_ns[latency.bears_token(record.event_kind)]
        if len(tokens):
            # A stream that broke frees its place when it broke.
            ended = tokens[-1] if record.outcome is Outcome.OK or record.done_ns is None else record.done_ns
            answered.append((int(tokens[0]) - zero, int(ended) - zero))
        elif record.outcome in REFUSALS:
            refused_ += 1
        else:
            failed += 1
        if record.outcome is not Outcome.OK:
            status = f"{record.status} " if record.status not in (None, 200) else ""
            errors.append(f"{record.outcome.value}: {status}{record.error or ''}".strip(": "))
    answered.sort()
    return Burst(
        k=len(records),
        first_ns=tuple(first for first, _ in answered),
        end_ns=tuple(end for _, end in answered),
        spread_ns=max(sent, default=0) - zero,
        tokens=sum(_tokens(record) for record in records),
        refused=refused_,
        failed=failed,
        errors=tuple(errors),
    )


def _tokens(record: Record) -> int:
    if record.output_tokens is not None:
        return record.output_tokens
    return int(latency.bears_token(record.event_kind).sum())


def ladder(most: int) -> list[int]:
    """The sizes of bursts up to `most`: 1, 2, 3, 4, 6, 8, 12, 16, ... and `most` itself."""
    sizes = {1, most}
    for power in range(most.bit_length()):
        sizes |= {1 << power, 3 << power}
    return sorted(size for size in sizes if 0 < size <= most)


def plan(most: int, near: int | None, rounds: int, seed: int) -> list[tuple[int, int]]:
    """(round, k) in the order of sending: each round holds every size once, in an order of its own.

    near: a suspected limit; bursts of that size and of the next are then added, because there the counts must differ.
    """
    sizes = set(ladder(most))
    if near is not None:
        sizes |= {size for size in (near, near + 1) if size <= most}
    draw = random.Random(f"slots {seed}")
    order = []
    for number in range(rounds):
        shuffled = sorted(sizes)
        draw.shuffle(shuffled)
        order += [(number, k) for k in shuffled]
    return order


def lone_ttft_ns(bursts: Iterable[Burst]) -> int:
    """The median TTFT of a request that was alone, 0 if there was none."""
    alone = sorted(burst.first_ns[0] for burst in bursts if burst.k == 1 and burst.answered)
    return alone[len(alone) // 2] if alone else 0


def read(burst: Burst, lone_ns: int) -> Reading:
    """The evidence of one burst. lone_ns: TTFT of a request that is alone."""
    if not burst.answered:
        return Reading(burst.k, 0, "failed")
    first_end = min(burst.end_ns)
    count = sum(first < first_end for first in burst.first_ns)
    if count == burst.k:
        return Reading(burst.k, count, "all")
    if count == 0:  # the whole answer came at once
        return Reading(burst.k, 0, "undecided", math.inf)
    wave = burst.first_ns[:count]
    step = max(lone_ns, burst.spread_ns, *(b - a for a, b in itertools.pairwise(wave)))
    lasted = first_end - wave[-1]
    if count < burst.answered and lasted < CLEAR_STEPS * step:
        return Reading(burst.k, count, "undecided", STEPS_TO_ASK_FOR * step / lasted)
    # If all answered requests ran at once, the limit is that the others were turned away.
    return Reading(burst.k, count, "limited")


def scouted(bursts: Sequence[Burst]) -> int | None:
    """The limit that the last of a few bursts suggests, if any. The first burst must be of one request."""
    reading = read(bursts[-1], lone_ttft_ns(bursts))
    return reading.count if reading.state == "limited" else None


def find(bursts: Sequence[Burst], output_tokens: int) -> Slots:
    """The number of slots, inferred. output_tokens: wanted per answer; used only in the advice of a refusal."""
    lone_ns = lone_ttft_ns(bursts)
    readings = tuple(read(burst, lone_ns) for burst in bursts)
    turned_away = _turned_away(bursts)
    usable = [reading for reading in readings if reading.k > 1 and reading.state in ("limited", "all")]
    undecided = [reading for reading in readings if reading.state == "undecided"]
    limited = [reading for reading in usable if reading.state == "limited"]

    def inconclusive(reason: Note, low: int | None = None) -> Slots:
        estimate = Estimate(None, low, None, None, len(usable), (reason,)) if low else refused(reason, len(usable))
        return Slots(estimate, "inconclusive", reason.sentence, readings, turned_away)

    if not any(burst.answered for burst in bursts):
        return inconclusive(note(NoteCode.ALL_FAILED))
    most_at_once = max((reading.count for reading in usable), default=None)
    # An undecided burst is chance if most bursts of its size are decided; else the size as a whole is undecided.
    decided = Counter(reading.k for reading in usable)
    undecided_of_size = Counter(reading.k for reading in undecided)
    unresolved = [reading for reading in undecided if undecided_of_size[reading.k] > decided[reading.k]]
    if len(unresolved) > len(limited):
        why = _too_short(unresolved, bursts, output_tokens)
        return inconclusive(note(NoteCode.ANSWERS_TOO_SHORT, why=why), most_at_once)
    if not usable:
        return inconclusive(note(NoteCode.NO_BURST_ANSWERED))
    return _judge(usable, readings, turned_away)


def _judge(usable: Sequence[Reading], readings: tuple[Reading, ...], turned_away: str | None) -> Slots:
    top = max(reading.k for reading in usable)
    posterior = _posterior(usable, top)
    value = max(posterior, key=posterior.__getitem__)
    hull, mass = _most_probable(posterior)
    # A burst of s or fewer requests that all began at once is no evidence for s; a limited one is evidence against it.
    telling = [reading for reading in usable if reading.k > value or reading.state == "limited"] or usable
    agree = sum(reading.count == min(reading.k, value) for reading in telling)
    counted = {"agree": agree, "bursts": len(telling)}
    low, high = min(hull), max(hull)
    if agree < LEAST_AGREEMENT * len(telling):
        counts = sorted({reading.count for reading in telling})
        reason = note(NoteCode.BURSTS_DIFFER, least=counts[0], most=counts[-1], **counted)
        estimate = Estimate(None, None, None, None, len(telling), (reason,))
        return Slots(estimate, "inconclusive", reason.sentence, readings, turned_away)
    notes = (note(NoteCode.BURSTS_AGREE, **counted),)
    if value == top:
        estimate = Estimate(None, low, None, mass, len(telling), (*notes, note(NoteCode.NO_LIMIT, most=top)))
        return Slots(estimate, "at-least", None, readings, turned_away)
    estimate = Estimate(value, low, None if high == top else high, mass, len(telling), notes)
    if mass < CONFIDENCE or high == top:
        reason = note(NoteCode.FEW_BURSTS, **counted)
        return Slots(estimate.noted(reason), "inconclusive", reason.sentence, readings, turned_away)
    return Slots(estimate, "found", None, readings, turned_away)


def _posterior(usable: Sequence[Reading], top: int) -> dict[int, float]:
    """The probability of each s in 1..top, where top means top or more."""
    a, b = SELDOM_WRONG
    logs = {}
    for slots in range(1, top + 1):
        wrong = [reading for reading in usable if reading.count != min(reading.k, slots)]
        misses = len(wrong)
        beta = math.lgamma(a + misses) + math.lgamma(b + len(usable) - misses) - math.lgamma(a + b + len(usable))
        logs[slots] = beta - sum(math.log(max(reading.k - 1, 1)) for reading in wrong)
    peak = max(logs.values())
    weights = {slots: math.exp(log - peak) for slots, log in logs.items()}
    whole = sum(weights.values())
    return {slots: weight / whole for slots, weight in weights.items()}


def _most_probable(posterior: dict[int, float]) -> tuple[set[int], float]:
    """The hull of the most probable values that make up `CONFIDENCE`, and the probability of the hull."""
    likely: set[int] = set()
    mass = 0.0
    for slots in sorted(posterior, key=posterior.__getitem__, reverse=True):
        likely.add(slots)
        mass += posterior[slots]
        if mass >= CONFIDENCE:
            break
    hull = set(range(min(likely), max(likely) + 1))
    return hull, min(1.0, math.fsum(posterior[slots] for slots in hull))


def _too_short(undecided: Sequence[Reading], bursts: Sequence[Burst], output_tokens: int) -> str:
    """The reason, in words, why no number can be inferred, with an answer length that would do, if there is one."""
    needs = sorted(reading.need for reading in undecided)
    need = needs[len(needs) // 2]
    cause = "the answers were too short to tell: the first one ended before the others could have started"
    if not math.isfinite(need) or need > 1024:
        return f"{cause}, or they came in one piece (a proxy that holds back the stream?)"
    mean_tokens = sum(burst.tokens for burst in bursts) / sum(burst.answered for burst in bursts)
    if mean_tokens < ENDED_EARLY * output_tokens:
        return f"{cause}; they ended by themselves, after {mean_tokens:.0f} of {output_tokens} tokens on average"
    wanted = 1 << math.ceil(math.log2(output_tokens * max(need, 1.0)))
    return f"{cause}; try --output-tokens {max(wanted, 2 * output_tokens)}"


def _turned_away(bursts: Sequence[Burst]) -> str | None:
    """The burst size from which on requests were turned away, in words, if there is one; else their number."""
    lost = [burst for burst in bursts if burst.refused or burst.failed]
    if not lost:
        return None
    refused_, failed = sum(burst.refused for burst in lost), sum(burst.failed for burst in lost)
    parts = [f"{n} {word}" for n, word in ((refused_, "refused"), (failed, "failed without a token")) if n]
    errors = Counter(error for burst in lost for error in burst.errors)
    what = f"{' and '.join(parts)} ({errors.most_common(1)[0][0]})" if errors else " and ".join(parts)
    if not any(burst.answered for burst in bursts):
        return what
    smallest = min(burst.k for burst in lost)
    admitted = sorted(burst.answered for burst in lost)
    spared = [burst.k for burst in bursts if not (burst.refused or burst.failed)]
    if admitted[0] == admitted[-1] and max(spared, default=0) <= admitted[0] < smallest:
        return f"no more than {admitted[0]} requests at once are admitted, queue included: {what}"
    return f"from bursts of {smallest} on, not by size alone: {what}"


# What sets the number of slots, by the kind of server.
SETTINGS = {
    "ollama": "set OLLAMA_NUM_PARALLEL={n} (memory permitting: it holds one context a slot)",
    "llamacpp": "start llama-server with --parallel {n} and a --ctx-size as many times larger (memory permitting)",
    "lmstudio": "load the model with {n} parallel requests (memory permitting)",
    "vllm": "start it with --max-num-seqs {n} (memory permitting)",
    "sglang": "start it with --max-running-requests {n} (memory permitting)",
    "llamacpp-python": "start {n} servers: llama_cpp.server answers one request at a time",
    "transformers": "start it with --continuous-batching, or start {n} servers",
}


def advice(slots: Slots, kind: str, agents: int | None = None) -> list[str]:
    """Sentences on the setting to change. agents: the number of clients that are to work at once, if given."""
    setting = SETTINGS.get(kind, "set the server's own limit to {n}, if it has one")
    least = slots.least
    if slots.verdict == "inconclusive":
        return []
    number = f"{least} slot{'s' if least != 1 else ''}"
    if slots.verdict == "at-least":
        lines = [f"no limit found: the server worked on {least} requests at once, the most that were sent"]
        if agents is not None and agents > least:
            lines.append(f"{agents} agents are more than was tried: run again with --most {agents}")
        elif agents is not None:
            lines.append(f"{agents} agents: none waits for a slot")
        return lines
    short = agents is not None and agents > least
    more = setting.format(n=agents if short else 2 * least)
    lines = [f"{number}: run at most {least} request{'s' if least != 1 else ''} at once, or {more}"]
    if agents is not None and short:
        waiting = agents - least
        lines.append(f"{agents} agents on {number}: {waiting} wait{'s' if waiting == 1 else ''} whenever all are busy")
    elif agents is not None:
        lines.append(f"{agents} agents: none waits for a slot")
    return lines


def compare_told(measured: Slots, reported: int | None) -> str | None:
    """agrees, disagrees or unknown (nothing was measured); None if the server reports no number."""
    if reported is None:
        return None
    if measured.verdict == "inconclusive":
        return "unknown"
    if measured.verdict == "at-least":
        return "agrees" if reported >= measured.least else "disagrees"
    low, high = measured.estimate.low, measured.estimate.high
    return "agrees" if low is not None and high is not None and low <= reported <= high else "disagrees"


def by_size(bursts: Sequence[Burst], measured: Slots) -> list[SizeRow]:
    """A row per size of burst."""
    rows = []
    for k in sorted({burst.k for burst in bursts}):
        here = [(burst, reading) for burst, reading in zip(bursts, measured.readings, strict=True) if burst.k == k]
        answered = [burst for burst, _ in here if burst.answered]
        row = SizeRow(
            k=k,
            bursts=len(here),
            at_once=tuple(reading.count for _, reading in here if reading.state in ("limited", "all")),
            undecided=sum(reading.state == "undecided" for _, reading in here),
            refused=sum(burst.refused for burst, _ in here),
            failed=sum(burst.failed for burst, _ in here),
            ttft_first_ms=_median([burst.first_ns[0] / 1e6 for burst in answered]),
            ttft_last_ms=_median([burst.first_ns[-1] / 1e6 for burst in answered]),
            output_tokens_per_s=_median([burst.tokens * 1e9 / max(burst.end_ns) for burst in answered]),
        )
        rows.append(row)
    return rows


def _median(values: Sequence[float]) -> float | None:
    return significant(float(np.median(values)), 6) if values else None
