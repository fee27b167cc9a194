"""How many requests a server really works on at once, and whether it remembers prompts: the experiment.

Bursts of 1 to `most` requests go out at one instant each, in random order; `analysis.probes.slots` reads the slots from
how their first tokens are spread. Repeated prompts beside fresh ones show a prefix cache.
"""

from __future__ import annotations

import itertools
import random
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from analysis.probes.prefix_cache import PrefixCache, find_cache, trio
from analysis.probes.slots import (
    Burst,
    Reported,
    SlotsResult,
    advice,
    burst,
    by_size,
    compare_told,
    find,
    plan,
    scouted,
)
from loadgen import __version__
from loadgen.clock import wall_iso
from loadgen.errors import Unreachable
from loadgen.probes.probe import Send, open_sender, prompt
from loadgen.profile import TargetSpec
from loadgen.servers.discover import slots_of
from loadgen.servers.resolve import describe_endpoint, resolve
from loadgen.transport.tier import choose_tier
from loadgen.wire import Ask

__all__ = ["Wanted", "probe_slots"]

SHORT_PROMPT, LONG_PROMPT = 24, 512  # words: quickly read beside the answer; worth caching in a context of 2,048 tokens
FEW_TOKENS = 4  # of an answer whose first token alone is of interest
TRIOS_A_ROUND = 2
LEAST_TOP = 4  # bursts of up to this many, even where a limit shows at two: more sizes than one should speak

AskFor = Callable[[int, int], Ask]  # words of the prompt, tokens of the answer


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to find out. most: the largest burst. agents: that should find a slot each. cache: look for one too."""

    most: int
    rounds: int
    output_tokens: int
    agents: int | None = None
    cache: bool = False


async def probe_slots(
    spec: TargetSpec,
    wanted: Wanted,
    say: Callable[[str], None],
    *,
    tier: str = "auto",
    seed: int | None = None,
    proxy: str | None = None,
) -> SlotsResult:
    """The result of the experiment: the bursts and the trios are sent, and what they show.

    say: is called with a line per step. seed: of the prompts and the order of the bursts; None draws one.
    Raises Unreachable, UsageError, ClockJumped, and OSError if the system does not allow that many connections.
    """
    endpoint = await resolve(spec, proxy)
    tier, _ = choose_tier(tier, proxy)
    seed = seed if seed is not None else secrets.randbits(32)
    ask = _asks(seed)
    async with open_sender(endpoint, tier, most=wanted.most) as send:
        # Loads the model where it is not loaded; not measured.
        [first] = await send([ask(SHORT_PROMPT, wanted.output_tokens)])
        if first.first_token_ns() is None:
            why = f": {first.error}" if first.error else ""
            raise Unreachable(f"{spec.url}: the first request ended as {first.outcome.value}{why}")
        reported = await slots_of(endpoint)  # only now, because a model that is not loaded has no slots
        bursts = await _bursts(send, ask, wanted, say, seed)
        cache = await _cache(send, ask, wanted, say, seed) if wanted.cache else None
    slots = find(bursts, wanted.output_tokens)
    return SlotsResult(
        loadgen=__version__,
        wall=wall_iso(),
        target=describe_endpoint(endpoint),
        tier=tier,
        seed=seed,
        most=wanted.most,
        rounds=wanted.rounds,
        output_tokens=wanted.output_tokens,
        answered=sum(sent.answered for sent in bursts),
        slots=slots.estimate.figure(),
        verdict=slots.verdict,
        reason=slots.reason,
        turned_away=slots.turned_away,
        reported=None if reported is None else Reported(*reported, compare_told(slots, reported[0])),
        agents=wanted.agents,
        advice=tuple(advice(slots, endpoint.target.kind, wanted.agents)),
        sizes=tuple(by_size(bursts, slots)),
        cache=cache,
    )


def _asks(seed: int) -> AskFor:
    """A function that makes requests, each of a prompt of its own."""
    numbers = itertools.count()

    def ask(words: int, tokens: int) -> Ask:
        return Ask(prompt=prompt(words, seed, next(numbers)), output_tokens=tokens)

    return ask


async def _bursts(send: Send, ask: AskFor, wanted: Wanted, say: Callable[[str], None], seed: int) -> list[Burst]:
    """Look by doubling where a limit may be, then send the rounds that are judged, no larger than that calls for."""

    async def together(k: int) -> Burst:
        return burst(await send([ask(SHORT_PROMPT, wanted.output_tokens) for _ in range(k)]))

    scouts = []
    near = None
    for k in [
        *itertools.takewhile(lambda k: k < wanted.most, (1 << power for power in itertools.count())),
        wanted.most,
    ]:
        say(f"looking for a limit: {k} at once")
        scouts.append(await together(k))
        near = scouted(scouts)
        if near is not None:
            break
    top = wanted.most if near is None else min(wanted.most, max(scouts[-1].k, LEAST_TOP))
    bursts: list[Burst] = []
    while True:
        at = 0
        for number, k in plan(top, near, wanted.rounds, seed):
            if number == at:
                say(f"round {number + 1} of {wanted.rounds}: bursts of 1 to {top}, in random order")
                at += 1
            bursts.append(await together(k))
        if top == wanted.most or find(bursts, wanted.output_tokens).verdict != "at-least":
            return bursts
        top, near = wanted.most, None  # what looked like a limit was chance


async def _cache(send: Send, ask: AskFor, wanted: Wanted, say: Callable[[str], None], seed: int) -> PrefixCache:
    """Whether a repeated prompt is answered sooner: trios of the same prompt twice and another one, in random order."""
    trios, sent = [], wanted.rounds * TRIOS_A_ROUND
    draw = random.Random(f"cache {seed}")
    say(f"repeating prompts: {sent} trios of {LONG_PROMPT} words")
    for _ in range(sent):
        same, different = ask(LONG_PROMPT, FEW_TOKENS), ask(LONG_PROMPT, FEW_TOKENS)
        other_first = draw.random() < 0.5
        order = (different, same, same) if other_first else (same, same, different)
        records = [(await send([request]))[0] for request in order]
        other, fresh, repeat = records if other_first else (records[2], records[0], records[1])
        measured = trio(fresh, repeat, other)
        if measured is not None:
            trios.append(measured)
    return find_cache(trios, sent)
