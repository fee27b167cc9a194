"""Live counters against the same requests counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from loadgen.engine.tally import BOUNDS_NS, Buckets, Tally
from loadgen.record import Kind, Outcome, Record

MS = 1_000_000


def record(seq: int, *, outcome: Outcome = Outcome.OK, agent: str = "", tokens: int = 4, gap_ms: int = 20) -> Record:
    stamps = np.array([50 * MS + i * gap_ms * MS for i in range(tokens)], np.int64)
    made = Record(1, seq, "here", 10 * MS, outcome, agent=agent, sent_ns=12 * MS, input_tokens=7, output_tokens=tokens)
    made.event_ns, made.event_kind = stamps, np.full(tokens, Kind.CONTENT, np.uint8)
    made.event_read = np.arange(tokens, dtype=np.int32)
    return made


def test_a_request_is_counted_under_its_endpoint_and_agent() -> None:
    tally = Tally()
    tally.add(record(0, agent="a"))
    tally.add(record(1, agent="b"))
    tally.add(record(2, agent="b", outcome=Outcome.STALLED))
    assert set(tally.series) == {("here", "a"), ("here", "b")}
    both = tally.series["here", "b"]
    assert both.outcomes == {Outcome.OK: 1, Outcome.STALLED: 1}
    assert (both.output_tokens, both.input_tokens, both.ttft.n, both.queue.n) == (4, 7, 1, 2)
    assert tally.total().outcomes == {Outcome.OK: 2, Outcome.STALLED: 1}


def test_durations_are_those_of_the_report() -> None:
    tally = Tally()
    tally.add(record(0))
    total = tally.total()
    assert total.ttft.counted().sum_ns == 40 * MS  # from the intended start
    assert total.queue.sum_ns == 2 * MS
    assert (total.event_gap.n, total.event_gap.sum_ns) == (3, 60 * MS)
    assert (total.tpot.n, total.tpot.sum_ns) == (1, 20 * MS)
    assert total.e2e.sum_ns == 100 * MS


def test_tokens_that_share_a_read_are_counted_as_censored_and_role_chunks_are_no_tokens() -> None:
    made = record(0, tokens=5)
    made.event_kind[0] = Kind.ROLE
    made.event_read = np.array([0, 1, 1, 1, 2], np.int32)
    tally = Tally()
    tally.add(made)
    total = tally.total()
    assert (total.token_events, total.censored_events, total.event_gap.n) == (4, 2, 3)
    assert total.ttft.counted().sum_ns == 60 * MS


def test_a_duration_lies_in_the_bucket_whose_bound_it_does_not_exceed() -> None:
    one, many = Buckets(), Buckets()
    durations = [0, 1, BOUNDS_NS[0], BOUNDS_NS[0] + 1, BOUNDS_NS[-1], BOUNDS_NS[-1] + 1]
    for duration in durations:
        one.add(duration, (0, duration))
    many.add_many(np.array(durations, np.int64))
    assert one.counted().exemplars[0] == ((0, BOUNDS_NS[0]), BOUNDS_NS[0])
    assert one.round[0] == 3
    assert one.round[1] == 1
    assert one.round[-2:].tolist() == [1, 1]
    assert many.round.tolist() == one.round.tolist()
    assert many.fine.tolist() == one.fine.tolist()
    assert many.sum_ns == one.sum_ns == sum(durations)


@pytest.mark.parametrize("q", [0.5, 0.99])
def test_a_live_quantile_is_within_its_bucket(q: float) -> None:
    durations = np.random.default_rng(4).lognormal(17, 1, 10_000).astype(np.int64)
    buckets = Buckets()
    assert buckets.quantile_ms(q) is None
    buckets.add_many(durations)
    assert buckets.quantile_ms(q) == pytest.approx(np.quantile(durations, q) / 1e6, rel=0.03)


def test_sums_hold_everything_once_and_leave_the_parts_alone() -> None:
    first, second = Tally(due=3, begun=2, cpu_ns=5), Tally(due=1, begun=1, cpu_ns=7)
    first.add(record(0, agent="a"))
    second.add(record(1, agent="a"))
    second.add(record(2, agent="b"))
    second.in_flight = {("here", "b"): 1}
    both = first.plus(second)
    assert (both.due, both.begun, both.cpu_ns, both.in_flight) == (4, 3, 12, {("here", "b"): 1})
    assert both.series["here", "a"].ttft.n == 2
    assert first.series["here", "a"].ttft.n == 1
    assert both.at_rest().in_flight == {("here", "b"): 0}
