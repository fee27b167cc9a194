"""Whether repeats are answered sooner, from trios whose truth is known."""

from __future__ import annotations

import random

import numpy as np
import pytest

from analysis.probes.prefix_cache import Trio, find_cache, trio
from loadgen.record import Kind, Outcome, Record


def trios(n: int, share: float, sigma: float, seed: int = 1, drift: float = 0.0, **told: int) -> list[Trio]:
    """Return n trios of which a repeat takes `share` of 0.1 s, with lognormal noise and a drift per trio."""
    draw = random.Random(seed)
    made = []
    for at in range(n):
        base = 0.1 * (1 + drift * at)
        fresh, repeat, other = (base * part * draw.lognormvariate(0, sigma) for part in (1, share, 1))
        made.append(Trio(fresh, repeat, other, **told))
    return made


def test_cache_that_saves_most_of_the_prefill_is_found_with_its_size() -> None:
    found = find_cache(trios(10, 0.2, 0.1), 10)
    assert found.verdict == "polluted"
    low, high = found.ratio.low, found.ratio.high
    assert low is not None
    assert high is not None
    assert low < 0.2 < high < 0.3
    assert found.sentence.startswith("a prefix cache is at work: a repeated prompt has its first token ")
    assert found.control.low is not None
    assert found.control.high is not None
    assert found.control.low < 1 < found.control.high


def test_ratio_by_hand() -> None:
    # d = ln 0.4 + (-0.1, 0, 0.1): mean ln 0.4, s = 0.1, t(2, 0.975) = 4.30265; half = 4.30265 * 0.1 / sqrt 3.
    made = [Trio(1.0, 0.4 * float(np.exp(shift)), 1.0) for shift in (-0.1, 0.0, 0.1)]
    ratio = find_cache(made, 3).ratio
    assert ratio.value == pytest.approx(0.4)
    assert ratio.low == pytest.approx(0.4 * np.exp(-0.248414), rel=1e-6)
    assert ratio.high == pytest.approx(0.4 * np.exp(0.248414), rel=1e-6)
    assert ratio.n == 3


def test_server_without_a_cache_is_clean() -> None:
    found = find_cache(trios(20, 1.0, 0.03), 20)
    assert found.verdict == "clean"
    assert found.reported is None


def test_drift_of_the_server_falls_out() -> None:
    found = find_cache(trios(20, 1.0, 0.02, drift=0.2), 20)
    assert found.verdict == "clean"


def test_effect_below_five_percent_is_negligible() -> None:
    assert find_cache(trios(40, 0.98, 0.01), 40).verdict == "negligible"


def test_noise_that_hides_the_answer_is_inconclusive() -> None:
    found = find_cache(trios(5, 1.0, 0.6), 5)
    assert found.verdict == "inconclusive"
    assert found.sentence.startswith("these trios can't say: ")


def test_cache_the_server_tells_of_is_believed_whatever_the_times_say() -> None:
    found = find_cache(trios(5, 1.0, 0.6, cached_fresh=0, cached_repeat=496, input_tokens=512), 5)
    assert found.reported == "496 of 512 prompt tokens of a repeat cached, 0 of a fresh prompt"
    assert found.sentence.startswith("the server tells of cached tokens; ")


def test_no_false_pollution_in_a_hundred_servers_without_a_cache() -> None:
    polluted = sum(find_cache(trios(10, 1.0, 0.2, seed), 10).verdict == "polluted" for seed in range(100))
    assert polluted <= 5


def test_too_few_answers_are_refused_with_the_count() -> None:
    found = find_cache(trios(2, 0.2, 0.1), 10)
    assert (found.verdict, found.ratio.value) == ("inconclusive", None)
    assert found.sentence == "2 of 10 trios of requests were answered: at least 3 are needed"


def answered(ttft_ns: int, outcome: Outcome = Outcome.OK, cached: int | None = None) -> Record:
    made = Record(0, 0, "one", 0, outcome, sent_ns=1000, done_ns=9_000_000, cached_tokens=cached, input_tokens=8)
    made.event_ns = np.array([1000 + ttft_ns], np.int64)
    made.event_kind = np.array([Kind.CONTENT], np.uint8)
    made.event_read = np.array([0], np.int32)
    return made


def test_trio_of_records_starts_at_the_send_and_needs_all_three() -> None:
    made = trio(answered(2_000_000, cached=0), answered(1_000_000, cached=7), answered(3_000_000))
    assert made == Trio(0.002, 0.001, 0.003, 0, 7, 8)
    assert trio(answered(1), answered(1), answered(1, Outcome.RESET)) is None
