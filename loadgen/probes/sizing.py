"""Learning how many tokens a word of a prompt is, from a server that lends no tokenizer but reports usage.

Two requests of known word counts and one-token answers go out before the first run and are not measured. What the
server puts around a prompt (template, system text) is in both, so (p2 - p1) / (w2 - w1) is free of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from loadgen.clock import now_ns
from loadgen.engine.client import Client
from loadgen.record import SIZING_RUN, Outcome, Record
from loadgen.servers.endpoint import Endpoint
from loadgen.servers.opening import open_transport
from loadgen.transport import Limits
from loadgen.wire import Ask
from loadgen.wire.dialects import dialect
from loadgen.workload.text import WORDS

__all__ = ["Learnt", "learn", "ratio"]

SHORT, LONG = 16, 528  # words; the longer one still fits a context of 2,048 tokens
PLAUSIBLE = 0.5, 12.0  # tokens a word: an English word, its space included, is not more bytes than that


@dataclass(frozen=True, slots=True)
class Learnt:
    """tokens_per_word: None if it could not be learnt. how: one sentence, for the manifest."""

    tokens_per_word: float | None
    how: str


async def learn(endpoint: Endpoint, limits: Limits, seed: int) -> Learnt:
    """Send the probes, one after the other. A probe that fails is an answer, not an exception.

    seed: chooses the words. Another seed begins with other words, so that no cache of an earlier run answers, which
    some servers leave out of their count.
    """
    # Stamps are of no use here, so neither are kernel stamps.
    tier = "callback" if endpoint.access.proxy is None else "aiohttp"
    transport = open_transport(endpoint, tier, limits, None)
    target = endpoint.target
    client = Client(endpoint.name, target, dialect(target.api, target.path), transport)
    order = np.random.default_rng(seed).permutation(len(WORDS))[: SHORT + LONG]
    records = []
    try:
        for seq, chosen in enumerate((order[:SHORT], order[SHORT:])):
            ask = Ask(prompt=" ".join([WORDS[i] for i in chosen]), output_tokens=1)
            zero_ns = now_ns()
            answer, body = await client.send(ask, f"{SIZING_RUN}-{seq}")
            records.append(client.record(ask, body, answer, run=SIZING_RUN, seq=seq, intended_ns=0, zero_ns=zero_ns))
    finally:
        await transport.close()
    return ratio(records, (SHORT, LONG))


def ratio(records: Sequence[Record], words: tuple[int, int]) -> Learnt:
    """The tokens per word that two records show. words: of their prompts, in the same order."""
    tokens = []
    for record in records:
        if record.outcome not in (Outcome.OK, Outcome.EMPTY):  # an empty answer counts the prompt's tokens as well
            why = f": {record.error}" if record.error else ""
            return Learnt(None, f"default: a probe ended as {record.outcome.value}{why}")
        if record.input_tokens is None:
            return Learnt(None, "default: the server tells no prompt tokens")
        tokens.append(record.input_tokens)
    counts = f"{tokens[0]} and {tokens[1]} prompt tokens for {words[0]} and {words[1]} words"
    per_word = (tokens[1] - tokens[0]) / (words[1] - words[0])
    least, most = PLAUSIBLE
    if not least <= per_word <= most:
        return Learnt(None, f"default: the server told {counts}, which cannot be")
    return Learnt(per_word, f"learnt from usage: {counts}, two requests before the first run")
