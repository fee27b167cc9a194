"""The effect of a prefix cache: is a prompt answered sooner if it was sent before? Needed where no flush is possible.

Prompts come in trios, one request at a time: a fresh one, at once exactly the same again, and another fresh one, which
comes before or after the two by lot. The repeat is compared with both fresh ones, so that a drift of the server cancels
out: d = ln(repeat) - (ln(fresh) + ln(other)) / 2, log-t over the trios. The two fresh ones compared with each other are
the control, whose ratio must be near 1.

Above 1 - `NEGLIGIBLE` the effect is too small to matter. If a server reports cached prompt tokens, there is a cache,
whatever the times are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from msgspec import Struct, field

from analysis.estimate import Estimate, Figure, NoteCode, note, refused, significant
from analysis.stats.intervals import CONFIDENCE, log_t_half_width
from loadgen import latency
from loadgen.record import Outcome, Record

__all__ = ["NEGLIGIBLE", "PrefixCache", "Trio", "find_cache", "trio"]

NEGLIGIBLE = 0.05  # of the TTFT
LEAST_TRIOS = 3


@dataclass(frozen=True, slots=True)
class Trio:
    """TTFT of three requests, s, all > 0; cached prompt tokens as the server reported them, if it did."""

    fresh_s: float
    repeat_s: float
    other_s: float
    cached_fresh: int | None = None
    cached_repeat: int | None = None
    input_tokens: int | None = None  # of the repeat


class PrefixCache(Struct, frozen=True):
    """The effect found. ratio: TTFT of a repeat over that of a fresh prompt; control: one fresh prompt over another."""

    verdict: Literal["polluted", "negligible", "clean", "inconclusive"]
    ratio: Figure
    control: Figure
    fresh_ttft_ms: float | None
    repeat_ttft_ms: float | None
    reported: str | None = field(name="told")  # the server's own count of cached tokens, in words
    sentence: str = ""


def trio(fresh: Record, repeat: Record, other: Record) -> Trio | None:
    """The TTFTs of three records; None unless all three were answered."""
    seconds = []
    for record in (fresh, repeat, other):
        first = record.first_token_ns()
        if record.outcome is not Outcome.OK or first is None or record.sent_ns is None or first <= record.sent_ns:
            return None
        seconds.append(latency.ttft_service(record.sent_ns, first) / 1e9)
    fresh_s, repeat_s, other_s = seconds
    return Trio(fresh_s, repeat_s, other_s, fresh.cached_tokens, repeat.cached_tokens, repeat.input_tokens)


def find_cache(trios: Sequence[Trio], sent: int) -> PrefixCache:
    """The effect of repeating a prompt, from the trios that were answered out of `sent`."""
    reported, reports_hit = _reported(trios)
    if len(trios) < LEAST_TRIOS:
        reason = note(NoteCode.FEW_TRIOS, answered=len(trios), sent=sent, least=LEAST_TRIOS)
        nothing = refused(reason, len(trios)).figure()
        return PrefixCache("inconclusive", nothing, nothing, None, None, reported, reason.sentence)
    times = np.array([(trio.fresh_s, trio.repeat_s, trio.other_s) for trio in trios])
    fresh, repeat, other = np.log(times).T
    ratio = _ratio(repeat - (fresh + other) / 2)
    control = _ratio(fresh - other)
    fresh_ms, repeat_ms = 1e3 * math.exp(float(np.mean((fresh + other) / 2))), 1e3 * math.exp(float(repeat.mean()))
    verdict = _verdict(ratio, reports_hit)
    return PrefixCache(
        verdict,
        ratio.figure(),
        control.figure(),
        significant(fresh_ms, 6),
        significant(repeat_ms, 6),
        reported,
        _sentence(verdict, ratio, reports_hit),
    )


def _ratio(logs: np.ndarray) -> Estimate:
    value, half = math.exp(float(logs.mean())), log_t_half_width(np.exp(logs))
    assert half is not None
    return Estimate(value, value / math.exp(half), value * math.exp(half), CONFIDENCE, len(logs))


def _verdict(ratio: Estimate, reports_hit: bool) -> Literal["polluted", "negligible", "clean", "inconclusive"]:
    assert ratio.low is not None
    assert ratio.high is not None
    edge = 1 - NEGLIGIBLE
    if ratio.high < edge:
        return "polluted"
    if ratio.low >= edge:
        return "negligible" if ratio.high < 1 or reports_hit else "clean"
    return "inconclusive"


def _sentence(verdict: str, ratio: Estimate, reports_hit: bool) -> str:
    assert ratio.value is not None
    assert ratio.low is not None
    assert ratio.high is not None
    saved = f"{1 - ratio.value:.1%} ({1 - ratio.high:.1%} to {1 - ratio.low:.1%})"
    if verdict == "polluted":
        return f"a prefix cache is at work: a repeated prompt has its first token {saved} sooner; use each prompt once"
    if verdict == "negligible":
        return f"a repeated prompt gains {saved}, which is negligible at this length; longer prompts may gain more"
    if verdict == "clean":
        return f"no effect of repeating a prompt beyond {NEGLIGIBLE:.0%} of the TTFT at this length"
    if reports_hit:
        return "the server tells of cached tokens; how much sooner a repeat is answered these trios can't say"
    return f"these trios can't say: a repeat may gain {1 - ratio.high:.1%} to {1 - ratio.low:.1%}; more --rounds would"


def _reported(trios: Sequence[Trio]) -> tuple[str | None, bool]:
    """(the server's own count of cached tokens in words, whether it reports that repeats were cached)."""
    repeats = [trio.cached_repeat for trio in trios if trio.cached_repeat is not None]
    if not repeats:
        return None, False
    fresh = [trio.cached_fresh or 0 for trio in trios]
    of = [trio.input_tokens for trio in trios if trio.input_tokens is not None]
    length = f" of {np.median(of):.0f}" if of else ""
    hit, miss = float(np.median(repeats)), float(np.median(fresh))
    return f"{hit:.0f}{length} prompt tokens of a repeat cached, {miss:.0f} of a fresh prompt", hit > miss
