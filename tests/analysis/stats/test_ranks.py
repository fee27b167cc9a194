import math

import numpy as np
import pytest

from analysis.stats import ranks

A = [100, 103, 98, 101, 99]
B = [107, 104, 109, 106, 110]


def test_known_answers():  # K18
    assert ranks.rank_sum_p(B, A) == pytest.approx(0.00793651, abs=1e-8)
    assert ranks.permutation_p(B, A) == pytest.approx(0.00793651, abs=1e-8)
    assert ranks.cliffs_delta(B, A) == 1
    shift = ranks.shift(B, A)
    assert (shift.value, shift.low, shift.high) == (7, 3, 11)
    assert shift.confidence == pytest.approx(0.968, abs=5e-4)


def test_cliffs_delta_counts_ties_as_nothing():  # K19
    assert ranks.cliffs_delta([2, 3, 4, 5], [1, 2, 3, 4]) == 0.4375


def test_least_p():  # K19
    assert [ranks.least_p_rank_sum(n, n) for n in (3, 4, 5)] == pytest.approx([0.1, 0.0285714, 0.00793651], abs=1e-7)
    assert [ranks.least_p_sign_flip(n) for n in (5, 6)] == [0.0625, 0.03125]


@pytest.mark.parametrize("n", [3, 4, 5])
def test_no_test_goes_below_the_least_p(n):
    apart = list(range(n)), list(range(100, 100 + n))
    assert ranks.rank_sum_p(*apart) == pytest.approx(ranks.least_p_rank_sum(n, n))
    assert ranks.permutation_p(*apart) == pytest.approx(ranks.least_p_rank_sum(n, n))
    assert ranks.sign_flip_p(*apart) == pytest.approx(ranks.least_p_sign_flip(n))


def test_exact_tests_agree_with_scipy():
    from scipy import stats

    rng = np.random.default_rng(4)
    for n, m in ((3, 5), (6, 6), (7, 4)):
        a, b = rng.normal(0.7, 1, n), rng.normal(0, 1, m)
        assert ranks.rank_sum_p(a, b) == pytest.approx(stats.mannwhitneyu(a, b, method="exact").pvalue)
        expected = stats.permutation_test((a, b), lambda x, y: np.mean(x) - np.mean(y), n_resamples=np.inf)
        assert ranks.permutation_p(a, b) == pytest.approx(expected.pvalue)
        pairs = stats.permutation_test((a[:3] - b[:3],), np.mean, permutation_type="samples", n_resamples=np.inf)
        assert ranks.sign_flip_p(a[:3], b[:3]) == pytest.approx(pairs.pvalue)


def test_ties_are_counted_as_they_are():
    """All values the same, every deal is as extreme; and with ties the p is that of the midranks, dealt in all ways."""
    assert ranks.rank_sum_p([1, 1, 1], [1, 1, 1]) == 1
    # Midranks 1.5 1.5 3.5 3.5 5 6; of 20 deals, {5, 6, 3.5} comes up twice and nothing is higher.
    assert ranks.rank_sum_p([2, 3, 4], [1, 1, 2]) == pytest.approx(2 * 2 / 20)


def test_shift_of_pairs_inverts_the_signed_rank():
    values = np.array([1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30])
    baseline = np.array([0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29])
    shift = ranks.shift_of_pairs(values, baseline)
    # Hollander and Wolfe's depression scores: estimate 0.46; W is symmetric with P(W <= 5) = 10/512.
    assert shift.value == pytest.approx(0.46, abs=0.001)
    assert shift.confidence == pytest.approx(1 - 20 / 512)
    differences = values - baseline
    walsh = sorted((x + y) / 2 for i, x in enumerate(differences) for y in differences[i:])
    assert (shift.low, shift.high) == pytest.approx((walsh[5], walsh[-6]))


def test_too_few_runs_have_a_shift_without_an_interval():
    assert ranks.shift([5, 6, 7], [1, 2, 3]) == ranks.Shift(4, None, None, None)
    assert ranks.shift_of_pairs([5, 6, 8], [1, 2, 3]).low is None


def test_intervals_of_the_shift_cover_as_often_as_they_say():
    rng = np.random.default_rng(8)
    for of, confidence in ((ranks.shift, 0.968), (ranks.shift_of_pairs, 0.96875)):
        n = 5 if of is ranks.shift else 6
        held = 0
        for _ in range(1000):
            found = of(rng.exponential(1, n) + 2, rng.exponential(1, n))
            held += found.low <= 2 <= found.high
        assert abs(held / 1000 - confidence) < 4 * math.sqrt(confidence * (1 - confidence) / 1000)


def test_what_cannot_be_counted_is_refused():
    many = list(range(101))
    with pytest.raises(ValueError, match="no exact rank test of 202 runs"):
        ranks.rank_sum_p(many, many)
    assert ranks.permutation_p(many, many) is None
    assert ranks.sign_flip_p(many, many) is None
    with pytest.raises(ValueError, match="pairs are needed, got 2 and 1"):
        ranks.sign_flip_p([1, 2], [1])
    with pytest.raises(ValueError, match="at least one run value"):
        ranks.cliffs_delta([], [1])
