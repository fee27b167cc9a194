"""How many requests a server works on at once, told from the instants of bursts of equal requests.

With s slots and k > s requests sent at one instant, s answers begin and the others wait until one of them has ended. So
the count of requests whose first token arrived before the first answer's last token is min(k, s), whatever the order in
which the queue is served and however much a larger batch slows each answer down.

A burst can tell only if an answer lasted longer than the next one needed to begin. The next first token is due one
*step* after the last one of the wave; a step is the longest of a lone request's TTFT (a server may read the prompts one
after the other), the gaps within the wave and the spread of our own sends. A burst whose first answer ended within
`CLEAR_STEPS` steps of that is *undecided* and not used: it would show a limit where there may be none. So are answers
that come in one piece.

The counts of the usable bursts go into a likelihood over s = 1..K, where K is the largest burst and stands for "K or
more". A burst shows min(k, s) but for an error of probability e, which makes any other of the k counts equally likely;
e is integrated out under Beta(1, 4), which says that a burst is seldom wrong. All s are equally likely at first. The
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
CLEAR_STEPS = 2.0  # a server that reads prompts while it decodes takes longer over them than over a lone one
SELDOM_WRONG = 1.0, 4.0  # Beta prior of the share of wrong bursts: mean 0.2
LEAST_AGREEMENT = 0.5  # below it the bursts do not show one number
STEPS_TO_ASK_FOR = 1.5 * CLEAR_STEPS
ENDED_EARLY = 0.8  # answers of less than this share of the tokens asked for were not cut by the limit

REFUSALS = (Outcome.HTTP_ERROR, Outcome.SERVER_ERROR, Outcome.REFUSED)


@dataclass(frozen=True, slots=True)
class Burst:
    """k equal requests sent at one instant. Arrays have shape (answered,), ns, in order of the first token."""

    k: int
    first_ns: tuple[int, ...]  # first token, since the first request of the burst was sent
    end_ns: tuple[int, ...]  # last token of the same answers
    spread_ns: int  # between our first send and our last
    tokens: int  # of all answers
    refused: int = 0  # turned away: an error instead of an answer
    failed: int = 0  # without a token for any other reason, such as a timeout
    errors: tuple[str, ...] = ()

    @property
    def answered(self) -> int:
        return len(self.first_ns)


@dataclass(frozen=True, slots=True)
class Reading:
    """What one burst shows. count: requests whose first token came before the first answer ended."""

    k: int
    count: int
    state: Literal["limited", "all", "undecided", "failed"]
    need: float = 1.0  # how much longer answers must be for an undecided burst to tell; infinite for one-piece answers


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
    """The answer. verdict: found, at-least (no limit up to the largest burst) or inconclusive, with the reason."""

    estimate: Estimate
    verdict: Literal["found", "at-least", "inconclusive"]
    reason: str | None
    readings: tuple[Reading, ...]  # one a burst, in order
    turned_away: str | None = None  # what is known of requests that were refused or timed out

    @property
    def least(self) -> int:
        """The largest number known to have been worked on at once; 0 if nothing is known."""
        known = self.estimate.value if self.estimate.value is not None else self.estimate.low
        return 0 if known is None else int(known)


class Reported(Struct, frozen=True):
    """The number of slots that the server reports. verdict: agrees, disagrees or unknown."""

    slots: int
    source: str = field(name="from")
    verdict: str | None = None


class SlotsResult(Struct, frozen=True, kw_only=True):
    """The JSON of `loadgen slots`: what was sent and what it shows."""

    schema: str = SCHEMA
    loadgen: str | None = None  # its version
    wall: str | None = None
    target: TargetFacts
    tier: str | None = None
    seed: int | None = None
    most: int | None = None  # the largest burst that was asked for
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
    """Reduce the records of one burst. Stamps must be relative to one zero."""
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
            told = f"{record.status} " if record.status not in (None, 200) else ""
            errors.append(f"{record.outcome.value}: {told}{record.error or ''}".strip(": "))
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

    near: where a limit is suspected; its size and the next one are then added, for there the counts must part.
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
    alone = sorted(one.first_ns[0] for one in bursts if one.k == 1 and one.answered)
    return alone[len(alone) // 2] if alone else 0


def read(one: Burst, lone_ns: int) -> Reading:
    """Return what a burst shows. lone_ns: TTFT of a request that is alone."""
    if not one.answered:
        return Reading(one.k, 0, "failed")
    first_end = min(one.end_ns)
    count = sum(first < first_end for first in one.first_ns)
    if count == one.k:
        return Reading(one.k, count, "all")
    if count == 0:  # the whole answer came at once
        return Reading(one.k, 0, "undecided", math.inf)
    wave = one.first_ns[:count]
    step = max(lone_ns, one.spread_ns, *(b - a for a, b in itertools.pairwise(wave)))
    lasted = first_end - wave[-1]
    if count < one.answered and lasted < CLEAR_STEPS * step:
        return Reading(one.k, count, "undecided", STEPS_TO_ASK_FOR * step / lasted)
    # Where all that were answered ran at once, what limited them is that the others were turned away.
    return Reading(one.k, count, "limited")


def scouted(bursts: Sequence[Burst]) -> int | None:
    """The limit that the last of a few bursts suggests, None if it does not. The first must have been of one."""
    seen = read(bursts[-1], lone_ttft_ns(bursts))
    return seen.count if seen.state == "limited" else None


def find(bursts: Sequence[Burst], output_tokens: int) -> Slots:
    """Infer the number of slots. output_tokens: asked for per answer, only for the advice of a refusal."""
    lone_ns = lone_ttft_ns(bursts)
    readings = tuple(read(one, lone_ns) for one in bursts)
    turned_away = _turned_away(bursts)
    usable = [one for one in readings if one.k > 1 and one.state in ("limited", "all")]
    undecided = [one for one in readings if one.state == "undecided"]
    limited = [one for one in usable if one.state == "limited"]

    def inconclusive(reason: Note, low: int | None = None) -> Slots:
        estimate = Estimate(None, low, None, None, len(usable), (reason,)) if low else refused(reason, len(usable))
        return Slots(estimate, "inconclusive", reason.sentence, readings, turned_away)

    if not any(one.answered for one in bursts):
        return inconclusive(note(NoteCode.ALL_FAILED))
    seen_at_once = max((one.count for one in usable), default=None)
    # An undecided burst of a size that mostly shows something is chance; a size that mostly does not is a finding.
    shown = Counter(one.k for one in usable)
    hidden = Counter(one.k for one in undecided)
    unresolved = [one for one in undecided if hidden[one.k] > shown[one.k]]
    if len(unresolved) > len(limited):
        why = _too_short(unresolved, bursts, output_tokens)
        return inconclusive(note(NoteCode.ANSWERS_TOO_SHORT, why=why), seen_at_once)
    if not usable:
        return inconclusive(note(NoteCode.NO_BURST_ANSWERED))
    return _judge(usable, readings, turned_away)


def _judge(usable: Sequence[Reading], readings: tuple[Reading, ...], turned_away: str | None) -> Slots:
    top = max(one.k for one in usable)
    posterior = _posterior(usable, top)
    value = max(posterior, key=posterior.__getitem__)
    held, mass = _most_probable(posterior)
    # A burst of no more than s that began whole says nothing for s; one that did not speaks against it.
    telling = [one for one in usable if one.k > value or one.state == "limited"] or usable
    agree = sum(one.count == min(one.k, value) for one in telling)
    counted = {"agree": agree, "bursts": len(telling)}
    low, high = min(held), max(held)
    if agree < LEAST_AGREEMENT * len(telling):
        counts = sorted({one.count for one in telling})
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
    """The probability of each s in 1..top, where top stands for itself and all beyond."""
    a, b = SELDOM_WRONG
    logs = {}
    for slots in range(1, top + 1):
        wrong = [one for one in usable if one.count != min(one.k, slots)]
        misses = len(wrong)
        beta = math.lgamma(a + misses) + math.lgamma(b + len(usable) - misses) - math.lgamma(a + b + len(usable))
        logs[slots] = beta - sum(math.log(max(one.k - 1, 1)) for one in wrong)
    peak = max(logs.values())
    weights = {slots: math.exp(log - peak) for slots, log in logs.items()}
    whole = sum(weights.values())
    return {slots: weight / whole for slots, weight in weights.items()}


def _most_probable(posterior: dict[int, float]) -> tuple[set[int], float]:
    """The hull of the most probable values that make up `CONFIDENCE`, and the probability of the hull."""
    kept: set[int] = set()
    mass = 0.0
    for slots in sorted(posterior, key=posterior.__getitem__, reverse=True):
        kept.add(slots)
        mass += posterior[slots]
        if mass >= CONFIDENCE:
            break
    hull = set(range(min(kept), max(kept) + 1))
    return hull, min(1.0, math.fsum(posterior[slots] for slots in hull))


def _too_short(undecided: Sequence[Reading], bursts: Sequence[Burst], output_tokens: int) -> str:
    """Say why nothing can be told, and the length of answers that would tell where asking for more may help."""
    needs = sorted(one.need for one in undecided)
    need = needs[len(needs) // 2]
    cause = "the answers were too short to tell: the first one ended before the others could have started"
    if not math.isfinite(need) or need > 1024:
        return f"{cause}, or they came in one piece (a proxy that holds back the stream?)"
    mean_tokens = sum(one.tokens for one in bursts) / sum(one.answered for one in bursts)
    if mean_tokens < ENDED_EARLY * output_tokens:
        return f"{cause}; they ended by themselves, after {mean_tokens:.0f} of {output_tokens} tokens on average"
    wanted = 1 << math.ceil(math.log2(output_tokens * max(need, 1.0)))
    return f"{cause}; try --output-tokens {max(wanted, 2 * output_tokens)}"


def _turned_away(bursts: Sequence[Burst]) -> str | None:
    """Say from which size on requests were turned away, if sizes part so; else how many were."""
    lost = [one for one in bursts if one.refused or one.failed]
    if not lost:
        return None
    refused_, failed = sum(one.refused for one in lost), sum(one.failed for one in lost)
    parts = [f"{n} {word}" for n, word in ((refused_, "refused"), (failed, "failed without a token")) if n]
    errors = Counter(error for one in lost for error in one.errors)
    what = f"{' and '.join(parts)} ({errors.most_common(1)[0][0]})" if errors else " and ".join(parts)
    if not any(one.answered for one in bursts):
        return what
    smallest = min(one.k for one in lost)
    admitted = sorted(one.answered for one in lost)
    spared = [one.k for one in bursts if not (one.refused or one.failed)]
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


def advice(found: Slots, kind: str, agents: int | None = None) -> list[str]:
    """Say what to set, in sentences. agents: how many clients are to work at once; None if that was not said."""
    setting = SETTINGS.get(kind, "set the server's own limit to {n}, if it has one")
    least = found.least
    if found.verdict == "inconclusive":
        return []
    slots = f"{least} slot{'s' if least != 1 else ''}"
    if found.verdict == "at-least":
        lines = [f"no limit found: the server worked on {least} requests at once, the most that were sent"]
        if agents is not None and agents > least:
            lines.append(f"{agents} agents are more than was tried: run again with --most {agents}")
        elif agents is not None:
            lines.append(f"{agents} agents: none waits for a slot")
        return lines
    short = agents is not None and agents > least
    more = setting.format(n=agents if short else 2 * least)
    lines = [f"{slots}: run at most {least} request{'s' if least != 1 else ''} at once, or {more}"]
    if agents is not None and short:
        waiting = agents - least
        lines.append(f"{agents} agents on {slots}: {waiting} wait{'s' if waiting == 1 else ''} whenever all are busy")
    elif agents is not None:
        lines.append(f"{agents} agents: none waits for a slot")
    return lines


def compare_told(found: Slots, told: int | None) -> str | None:
    """Return agrees, disagrees or unknown (nothing was measured); None if the server tells no number."""
    if told is None:
        return None
    if found.verdict == "inconclusive":
        return "unknown"
    if found.verdict == "at-least":
        return "agrees" if told >= found.least else "disagrees"
    low, high = found.estimate.low, found.estimate.high
    return "agrees" if low is not None and high is not None and low <= told <= high else "disagrees"


def by_size(bursts: Sequence[Burst], found: Slots) -> list[SizeRow]:
    """A row per size of burst."""
    rows = []
    for k in sorted({burst.k for burst in bursts}):
        here = [(burst, reading) for burst, reading in zip(bursts, found.readings, strict=True) if burst.k == k]
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
