"""Whether small writes come late, from pairs of records whose times are known."""

from __future__ import annotations

import random

import msgspec
import numpy as np
import pytest

from analysis.probes.small_writes import LEAST_PAIRS, find_delay
from loadgen.record import Kind, Outcome, Record

MS = 1_000_000


def answered(*tokens_ms: float, reads: tuple[int, ...] | None = None) -> Record:
    """Return a record of an answer that was sent at 5 ms and began with a role, its tokens so long after sending."""
    return Record(
        0,
        0,
        "one",
        0,
        Outcome.OK,
        sent_ns=5 * MS,
        event_ns=np.array([5 * MS, *(round((5 + at) * MS) for at in tokens_ms)], np.int64),
        event_kind=np.array([Kind.ROLE, *[Kind.CONTENT] * len(tokens_ms)], np.uint8),
        event_read=np.array([0, *(reads or range(1, 1 + len(tokens_ms)))], np.int32),
    )


def test_medians_and_interval_by_hand() -> None:
    # The differences are 36, 37, 39, 40, 43: five pairs, so the interval is the least and the most of them.
    added = (39, 36, 43, 37, 40)
    found = find_delay([(answered(4 + more), answered(4)) for more in added])
    assert found.verdict == "delays"
    assert found.ttft is not None
    assert msgspec.to_builtins(found.ttft) == {
        "delayed_acks": 43,
        "immediate_acks": 4,
        "added_low": 36,
        "added_high": 43,
        "pairs": 5,
    }
    assert found.second_token is None
    assert found.sentence == (
        "server delays small writes: median TTFT 43.0 ms with delayed ACKs, 4.0 ms with immediate ones "
        "(5 + 5 requests); set TCP_NODELAY in the server or in the proxy before it"
    )


@pytest.mark.parametrize(("added_ms", "verdict"), [(0, "prompt"), (9.9, "prompt"), (10.1, "delays"), (39, "delays")])
@pytest.mark.parametrize("token", [0, 1], ids=["first", "second"])
def test_ten_ms_on_either_token_decide(added_ms: float, verdict: str, token: int) -> None:
    late = (30 + added_ms * (token == 0), 90 + added_ms)
    assert find_delay([(answered(*late), answered(30, 90))] * 10).verdict == verdict


def test_fewer_than_five_pairs_say_nothing() -> None:
    pairs = [(answered(43, 46), answered(4, 7))] * (LEAST_PAIRS - 1)
    found = find_delay(pairs)
    assert (found.verdict, found.ttft, found.second_token) == ("inconclusive", None, None)
    assert found.sentence == (
        "small writes: not known; 4 pairs of requests were answered in time, at least 5 are needed"
    )


def test_failure_leaves_no_verdict_whatever_the_pairs_say() -> None:
    found = find_delay([(answered(43, 46), answered(4, 7))] * 9, "a request ended as reset")
    assert found.verdict == "inconclusive"
    assert found.sentence == "small writes: not known; a request ended as reset"


def test_one_slow_answer_among_ten_neither_makes_nor_hides_a_delay() -> None:
    prompt = [(answered(4, 8), answered(4, 8))] * 9
    assert find_delay([(answered(900, 904), answered(4, 8)), *prompt]).verdict == "prompt"
    delayed = [(answered(43, 43), answered(4, 8))] * 9
    assert find_delay([(answered(43, 43), answered(900, 904)), *delayed]).verdict == "delays"


@pytest.mark.parametrize(("added_ms", "wrong"), [(0, "delays"), (39, "prompt")])
def test_answers_that_vary_more_than_a_delay_are_rarely_judged_wrong(added_ms: float, wrong: str) -> None:
    # With an SD of 50 ms two medians of ten differ by more than 10 ms every third time though nothing is delayed.
    draw = random.Random(3)
    verdicts = []
    for _ in range(400):
        pairs = [(answered(draw.gauss(300 + added_ms, 50)), answered(draw.gauss(300, 50))) for _ in range(10)]
        verdicts.append(find_delay(pairs).verdict)
    assert verdicts.count(wrong) <= 0.05 * len(verdicts)
    assert "inconclusive" in verdicts


def test_two_tokens_in_one_read_are_a_sign_only_where_acks_are_immediate() -> None:
    together, apart = answered(20, 20, reads=(1, 1)), answered(20, 24)
    assert find_delay([(together, together)] * 10).verdict == "together"
    assert find_delay([(together, apart)] * 10).verdict == "prompt"
    assert find_delay([(together, together)] * 9 + [(together, apart)]).verdict == "prompt"
    assert find_delay([(answered(60, 60, reads=(1, 1)), together)] * 10).verdict == "delays"
