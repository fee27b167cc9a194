"""The numbers of requests, by how they ended, and of tokens, by how they were counted."""

from __future__ import annotations

from collections import Counter

from msgspec import Struct

from analysis.estimate import significant
from analysis.figures.metrics import one_token_share
from analysis.records.measured import Measured
from loadgen.record import Outcome

__all__ = ["ErrorCount", "Requests", "TokensPerEvent", "errors_of", "requests_of", "tokens_from", "tokens_per_event"]

ERRORS_LISTED = 20


class Requests(Struct, frozen=True, kw_only=True):
    """The numbers of requests. measured: due in a measured window, in whatever way they ended."""

    offered: int
    completed: int
    failed: dict[str, int]  # outcome: number
    measured: int
    measured_completed: int


class ErrorCount(Struct, frozen=True, kw_only=True):
    """A way in which requests failed. The text is the server's and not to be trusted."""

    outcome: str
    status: int | None
    error: str
    n: int


class TokensPerEvent(Struct, frozen=True, kw_only=True):
    """The tokens per event; None where it is not known."""

    mean: float | None
    one_token_share: float | None  # the least share of events with exactly one
    deduced: bool  # from totals, where the server gives no counts per event


def requests_of(m: Measured) -> Requests:
    """The counts over all runs of `m`."""
    outcomes = Counter(m.requests.outcomes[code] for code in m.requests.outcome.tolist())
    completed = outcomes.pop(Outcome.OK, 0)
    return Requests(
        offered=sum(window.offered for window in m.windows),
        completed=completed,
        failed=dict(sorted(outcomes.items())),
        measured=int(m.inside.sum()),
        measured_completed=int(m.answered.sum()),
    )


def errors_of(m: Measured) -> tuple[ErrorCount, ...]:
    """The commonest failures, most frequent first."""
    ranked = sorted(
        m.requests.failures.items(), key=lambda item: (-item[1], item[0].outcome, str(item[0].status), item[0].error)
    )
    return tuple(
        ErrorCount(outcome=failure.outcome, status=failure.status, error=failure.error, n=n)
        for failure, n in ranked[:ERRORS_LISTED]
    )


def tokens_per_event(m: Measured) -> TokensPerEvent:
    """The tokens per event, over the measured requests whose tokens were counted."""
    counted = m.answered & (m.tokens.events > 0) & m.requests.counted_tokens()
    events = int(m.tokens.events[counted].sum())
    share, deduced = one_token_share(m)
    return TokensPerEvent(
        mean=significant(float(m.requests.output_tokens[counted].sum()) / events) if events else None,
        one_token_share=significant(share),
        deduced=deduced,
    )


def tokens_from(m: Measured) -> dict[str, int]:
    """{way of counting tokens: number of answered requests}."""
    codes = m.requests.tokens_from[m.requests.ok].tolist()
    counts = Counter(m.requests.tokens_froms[code] or "unknown" for code in codes)
    return dict(sorted(counts.items()))
