"""The number of slots from bursts whose truth is known: a server of s slots simulated by hand, in milliseconds."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from analysis.probes import slots
from analysis.probes.slots import Burst, Reported, Slots, SlotsResult, advice, compare_told, find, ladder, plan
from analysis.report.slots import slots_markdown, slots_text
from loadgen.manifest import TargetFacts
from loadgen.record import Kind, Outcome, Record

MS = 1_000_000
UNLIMITED = 1000


def served(
    k: int,
    limit: int,
    *,
    prefill: float = 20.0,
    decode: float = 300.0,
    slope: float = 0.0,
    serial_prefill: bool = False,
    admitted: int | None = None,
    patience: float | None = None,
    jitter: Callable[[], float] = lambda: 1.0,
) -> Burst:
    """Return a burst of k at a first-in-first-out server of `limit` slots. Times in ms.

    slope: what each request beside one adds to its decoding. serial_prefill: prompts are read one after the other.
    admitted: the number above which requests are refused. patience: who waits longer is failed by the server.
    """
    free = [0.0] * min(limit, k)
    reader = 0.0  # when the one reader of prompts is free
    answers, failed = [], 0
    taken = k if admitted is None else min(k, admitted)
    for _ in range(taken):
        free.sort()
        begins = free[0]
        if patience is not None and begins > patience:
            failed += 1
            continue
        read_from = max(begins, reader) if serial_prefill else begins
        first = read_from + prefill * jitter()
        reader = first
        free[0] = first + (decode + slope * (min(k, limit) - 1)) * jitter()
        answers.append((first, free[0]))
    answers.sort()
    return Burst(
        k,
        tuple(round(first * MS) for first, _ in answers),
        tuple(round(end * MS) for _, end in answers),
        spread_ns=MS // 10,
        tokens=32 * len(answers),
        refused=k - taken,
        failed=failed,
        errors=("http_error: 503 busy",) * (k - taken) + ("http_error: 504 waited too long",) * failed,
    )


def probed(
    limit: int, *, most: int = 16, rounds: int = 5, near: int | None = None, **how: float | bool | None
) -> Slots:
    return find([served(k, limit, **how) for _, k in plan(most, near, rounds, seed=1)], 32)  # type: ignore[arg-type]


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5, 7, 8, 11, 15])
def test_slots_below_the_largest_burst_are_found(limit: int) -> None:
    found = probed(limit)
    assert (found.verdict, found.estimate.value) == ("found", limit)
    assert (found.estimate.low, found.estimate.high) == (limit, limit)
    assert found.estimate.confidence is not None
    assert found.estimate.confidence > 0.95


@pytest.mark.parametrize("limit", [1, 2, 4, 8])
@pytest.mark.parametrize(
    "how", [{"slope": 150.0}, {"serial_prefill": True}, {"slope": 80.0, "serial_prefill": True}], ids=str
)
def test_server_that_slows_down_or_reads_prompts_in_turn_has_the_slots_it_has(limit: int, how: dict[str, Any]) -> None:
    found = probed(limit, decode=600.0, **how)
    assert (found.verdict, found.estimate.value) == ("found", limit)


@pytest.mark.parametrize("limit", [1, 2, 4, 8])
def test_jitter_of_every_duration_leaves_the_number(limit: int) -> None:
    draw = random.Random(limit)
    bursts = [served(k, limit, jitter=lambda: draw.lognormvariate(0, 0.3)) for _, k in plan(16, limit, 5, 3)]
    found = find(bursts, 32)
    assert (found.verdict, found.estimate.value) == ("found", limit)


@pytest.mark.parametrize("limit", [16, UNLIMITED])
def test_without_a_limit_in_reach_the_answer_is_a_lower_bound(limit: int) -> None:
    found = probed(limit)
    assert found.verdict == "at-least"
    assert (found.estimate.value, found.estimate.low, found.estimate.high) == (None, 16, None)
    assert "no limit found up to 16 at once" in found.estimate.sentences
    assert found.least == 16


def test_prompts_read_in_turn_and_short_answers_look_like_slots_and_are_refused() -> None:
    # 100 ms a prompt and 150 ms of decoding: the first answer has ended before the third prompt is read.
    found = probed(UNLIMITED, prefill=100.0, decode=150.0, serial_prefill=True)
    assert found.verdict == "inconclusive"
    assert found.estimate.value is None
    assert found.reason is not None
    assert found.reason.startswith(
        "the answers were too short to tell: the first one ended before the others could have started; "
        "try --output-tokens "
    )
    # What it asks for is enough for the size at which it failed, and for more in turn.
    longer = probed(UNLIMITED, prefill=100.0, decode=1700.0, serial_prefill=True)
    assert (longer.verdict, longer.least) == ("at-least", 16)


def test_short_answers_of_one_slot_are_no_proof_of_one_slot() -> None:
    found = probed(1, prefill=100.0, decode=150.0)
    assert found.verdict == "inconclusive"
    assert found.reason is not None
    assert "--output-tokens 64" in found.reason
    assert probed(1, prefill=100.0, decode=300.0).estimate.value == 1


def test_answers_that_ended_by_themselves_are_not_to_be_asked_to_be_longer() -> None:
    whole = [served(k, 1, prefill=100.0, decode=150.0) for _, k in plan(8, None, 3, 1)]
    found = find([replace(one, tokens=12 * one.k) for one in whole], 32)
    assert found.verdict == "inconclusive"
    assert found.reason is not None
    assert found.reason.endswith("; they ended by themselves, after 12 of 32 tokens on average")


def test_answers_in_one_piece_are_refused_and_the_proxy_is_suspected() -> None:
    bursts = [Burst(k, (500 * MS,) * k, (500 * MS,) * k, 0, 32 * k) for _, k in plan(8, None, 3, 1)]
    found = find(bursts, 32)
    assert found.verdict == "inconclusive"
    assert found.reason is not None
    assert "in one piece" in found.reason


def test_server_that_refuses_beyond_its_slots_has_as_many_as_it_takes() -> None:
    found = probed(4, admitted=4)
    assert (found.verdict, found.estimate.value) == ("found", 4)
    assert found.turned_away is not None
    assert found.turned_away.startswith("no more than 4 requests at once are admitted, queue included: ")
    assert found.turned_away.endswith("refused (http_error: 503 busy)")


def test_queue_of_limited_length_is_not_taken_for_slots() -> None:
    found = probed(2, admitted=6)
    assert (found.verdict, found.estimate.value) == ("found", 2)
    assert found.turned_away is not None
    assert found.turned_away.startswith("no more than 6 requests at once are admitted")


def test_requests_that_time_out_in_the_queue_were_not_worked_on() -> None:
    found = probed(2, patience=100.0)
    assert (found.verdict, found.estimate.value) == ("found", 2)
    assert found.turned_away is not None
    assert "failed without a token (http_error: 504 waited too long)" in found.turned_away


def test_failures_by_chance_do_not_hide_the_number() -> None:
    draw = random.Random(5)
    bursts = []
    for _, k in plan(16, 4, 5, 5):
        lost = sum(draw.random() < 0.1 for _ in range(k))
        kept = served(k - lost, 4) if lost < k else Burst(0, (), (), 0, 0)
        bursts.append(Burst(k, kept.first_ns, kept.end_ns, 0, kept.tokens, failed=lost, errors=("reset: gone",) * lost))
    found = find(bursts, 32)
    assert (found.verdict, found.estimate.value) == ("found", 4)
    assert found.turned_away is not None
    assert "not by size alone" in found.turned_away


def test_nothing_answered_is_refused() -> None:
    found = find([Burst(k, (), (), 0, 0, refused=k, errors=("http_error: 500 no",) * k) for k in (1, 2, 4)], 32)
    assert (found.verdict, found.reason) == ("inconclusive", "every request failed")
    assert found.turned_away == "7 refused (http_error: 500 no)"


def test_five_bursts_of_two_that_show_one_slot_are_worth_98_percent() -> None:
    # B(1, 9) against B(6, 4) / 1^5: 1/9 against 5! 3! / 9! = 0.001984, so 0.98246.
    found = find([served(1, 1), *[served(2, 1) for _ in range(5)]], 32)
    assert (found.verdict, found.estimate.value, found.estimate.n) == ("found", 1, 5)
    assert found.estimate.confidence == pytest.approx(0.98246, abs=1e-5)


def test_one_burst_is_too_few_to_be_sure() -> None:
    # B(1, 5) against B(2, 4): 0.2 against 0.05.
    found = find([served(1, 1), served(2, 1)], 32)
    assert found.verdict == "inconclusive"
    assert found.reason == "too few bursts to be sure: 1 of 1 bursts agree; more --rounds would tell"
    assert found.estimate.value == 1
    assert found.estimate.high is None  # two or more is plausible


def test_server_whose_counts_grow_with_the_burst_shows_no_one_number() -> None:
    # Two servers behind one address, one of which begins only when the other is done: half of any burst.
    bursts = [served(k, max(k // 2, 1)) for _, k in plan(16, None, 4, 2)]
    found = find(bursts, 32)
    assert found.verdict == "inconclusive"
    assert found.reason is not None
    assert found.reason.startswith("the bursts do not show one number: ")


def test_interval_covers_the_truth_when_one_burst_in_seven_is_wrong() -> None:
    covered = wrong = 0
    for seed in range(200):
        draw = random.Random(seed)
        limit = draw.choice([1, 2, 3, 4, 6, 8])
        bursts = []
        for _, k in plan(16, limit, 2, seed):
            shown = draw.randint(1, k) if draw.random() < 1 / 7 else limit
            bursts.append(served(k, shown))
        found = find(bursts, 32)
        low, high = found.estimate.low, found.estimate.high
        covered += low is not None and low <= limit and (high is None or limit <= high)
        wrong += found.verdict == "found" and found.estimate.value != limit
    assert covered >= 190
    assert wrong <= 10


def test_bursts_are_ladders_in_random_order_with_a_round_each() -> None:
    assert ladder(16) == [1, 2, 3, 4, 6, 8, 12, 16]
    assert ladder(10) == [1, 2, 3, 4, 6, 8, 10]
    assert ladder(2) == [1, 2]
    order = plan(8, 4, 3, seed=7)
    for number in range(3):
        assert sorted(k for at, k in order if at == number) == [1, 2, 3, 4, 5, 6, 8]
    assert [at for at, _ in order] == sorted(at for at, _ in order)
    assert order == plan(8, 4, 3, seed=7)
    assert order != plan(8, 4, 3, seed=8)


def record(outcome: Outcome, sent: int | None, tokens: tuple[int, ...], done: int, **more: object) -> Record:
    stamps = np.array([sent or 0, *tokens], np.int64)
    kinds = np.array([Kind.ROLE] + [Kind.CONTENT] * len(tokens), np.uint8)
    made = Record(0, 0, "one", 0, outcome, sent_ns=sent, done_ns=done, event_ns=stamps, event_kind=kinds)
    made.event_read = np.arange(len(stamps), dtype=np.int32)
    for name, value in more.items():
        setattr(made, name, value)
    return made


def test_burst_of_records_counts_tokens_only_and_a_cut_stream_until_it_was_cut() -> None:
    made = slots.burst(
        [
            record(Outcome.OK, 100, (600, 900), 950, output_tokens=2),
            record(Outcome.TRUNCATED, 110, (400, 500), 700),
            record(Outcome.HTTP_ERROR, 120, (), 200, status=503, error="busy"),
            record(Outcome.FIRST_TOKEN_TIMEOUT, 130, (), 800),
        ]
    )
    assert (made.k, made.answered, made.refused, made.failed) == (4, 2, 1, 1)
    assert made.first_ns == (300, 500)
    assert made.end_ns == (600, 800)
    assert made.spread_ns == 30
    assert made.tokens == 4
    assert made.errors == ("truncated", "http_error: 503 busy", "first_token_timeout")


def test_advice_names_the_servers_own_setting() -> None:
    assert advice(probed(4), "ollama") == [
        "4 slots: run at most 4 requests at once, or set OLLAMA_NUM_PARALLEL=8 "
        "(memory permitting: it holds one context a slot)"
    ]
    assert advice(probed(1), "llamacpp")[0].startswith(
        "1 slot: run at most 1 request at once, or start llama-server with --parallel 2 "
    )
    short = advice(probed(2), "ollama", agents=3)
    assert "OLLAMA_NUM_PARALLEL=3" in short[0]
    assert short[1] == "3 agents on 2 slots: 1 waits whenever all are busy"
    assert advice(probed(4), "ollama", agents=4)[1] == "4 agents: none waits for a slot"
    assert (
        advice(probed(UNLIMITED), "vllm", agents=40)[1] == "40 agents are more than was tried: run again with --most 40"
    )
    assert advice(find([served(1, 1), served(2, 1)], 32), "ollama") == []


def test_what_the_server_says_is_held_against_what_was_measured() -> None:
    four, many = probed(4), probed(UNLIMITED)
    assert [compare_told(four, told) for told in (None, 4, 1)] == [None, "agrees", "disagrees"]
    assert [compare_told(many, told) for told in (16, 64, 1)] == ["agrees", "agrees", "disagrees"]
    assert compare_told(find([served(1, 1), served(2, 1)], 32), 1) == "unknown"


def result_of(limit: int, turned_away: str | None = None) -> SlotsResult:
    bursts = [served(k, limit) for _, k in plan(16, None, 3, 1)]
    found = find(bursts, 32)
    return SlotsResult(
        target=TargetFacts(name="a", url="http://127.0.0.1:11434", version="Ollama 0.33.0", model="tiny"),
        slots=found.estimate.figure(),
        verdict=found.verdict,
        reason=found.reason,
        turned_away=turned_away or found.turned_away,
        reported=Reported(1, "/props total_slots", compare_told(found, 1)),
        advice=tuple(advice(found, "ollama")),
        sizes=tuple(slots.by_size(bursts, found)),
    )


def test_report_says_number_doubt_and_disagreement_in_80_columns() -> None:
    text = slots_text(result_of(4))
    assert "4 (over 99.9 % sure of 4; 12 of 12 bursts agree)" in text
    assert "1 (/props total_slots), which DISAGREES with what was measured" in text
    assert "set OLLAMA_NUM_PARALLEL=8" in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 80
    # One request of 20 ms and 300 ms: 32 tokens in 0.32 s.
    row = next(line for line in text.splitlines() if line.split()[:1] == ["1"])
    assert row.split() == ["1", "1", "0/3", "20", "20", "100"]
    assert "at least 16" in slots_text(result_of(UNLIMITED))


def test_markdown_shows_a_servers_words_as_words() -> None:
    text = slots_markdown(result_of(4, turned_away="2 refused (<b>|no|</b>)"))
    assert text.startswith("## Slots\n")
    assert "\\<b\\>\\|no\\|" in text
    assert "| 8 | 4 | 0/3 | 20 | 340 | 400 |" in text
