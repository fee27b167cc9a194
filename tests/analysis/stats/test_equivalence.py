import math

import numpy as np
import pytest

from analysis.stats import equivalence, ratio
from analysis.stats.equivalence import ComparisonVerdict, Margin

A = [100, 101, 99, 100.5, 99.5]
B = [101, 102, 100.5, 101.5, 100]
FIVE = Margin.of_ratio(0.05)


def judged(b_over_a, margin=FIVE):
    test = equivalence.tost(b_over_a.log, margin)
    return equivalence.decide(b_over_a.p, test)


def test_two_one_sided_tests():  # K22
    b_over_a = ratio.log_welch(B, A)
    test = equivalence.tost(b_over_a.log, FIVE)
    assert test.p == pytest.approx(2.6053e-5, rel=1e-4)
    assert (math.exp(test.low), math.exp(test.high)) == pytest.approx((1.000699, 1.019389), abs=1e-6)
    assert judged(b_over_a) is ComparisonVerdict.EQUIVALENT


def test_holm_and_benjamini_hochberg():  # K23
    p = [0.01, 0.04, 0.03, 0.005]
    assert equivalence.holm(p) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert equivalence.benjamini_hochberg(p) == pytest.approx([0.02, 0.04, 0.04, 0.02])
    assert equivalence.holm([]) == []
    assert equivalence.holm([0.9, 0.8]) == [1, 1]


def test_benjamini_hochberg_agrees_with_scipy():
    from scipy import stats

    p = np.random.default_rng(1).uniform(size=50)
    assert equivalence.benjamini_hochberg(p) == pytest.approx(stats.false_discovery_control(p).tolist())


@pytest.mark.parametrize(
    ("b", "verdict"),
    [
        ([110, 111, 109, 110.5, 109.5], ComparisonVerdict.DIFFERENT),
        ([102, 103, 101, 102.5, 101.5], ComparisonVerdict.NEGLIGIBLE),
        ([100.2, 101, 99.1, 100.4, 99.6], ComparisonVerdict.EQUIVALENT),
        ([90, 115, 99, 108, 97], ComparisonVerdict.INCONCLUSIVE),
    ],
)
def test_the_four_verdicts(b, verdict):
    assert judged(ratio.log_welch(b, A)) is verdict


def test_the_margin_is_the_same_both_ways_round():
    forth, back = ratio.log_welch(B, A), ratio.log_welch(A, B)
    assert equivalence.tost(forth.log, FIVE).p == pytest.approx(equivalence.tost(back.log, FIVE).p)
    assert (math.exp(FIVE.low), math.exp(FIVE.high)) == pytest.approx((1 / 1.05, 1.05))


def test_values_that_do_not_vary_are_decided_by_where_they_are():
    same = ratio.log_welch([1.0, 1.0, 1.0], [1.0, 1.0, 1.0])
    assert judged(same) is ComparisonVerdict.EQUIVALENT
    assert judged(ratio.log_welch([1.02, 1.02], [1.0, 1.0])) is ComparisonVerdict.NEGLIGIBLE
    assert judged(ratio.log_welch([1.2, 1.2], [1.0, 1.0])) is ComparisonVerdict.DIFFERENT


def test_at_the_margin_equivalent_is_called_in_error_at_most_one_time_in_twenty():
    """docs/methodology.md#equivalence: the true ratio is 1.05 exactly, so each `equivalent` is an error."""
    rng = np.random.default_rng(5)
    errors = 0
    for _ in range(2000):
        a, b = rng.lognormal(0, 0.02, 5), rng.lognormal(math.log(1.05), 0.02, 5)
        errors += equivalence.tost(ratio.log_welch(b, a).log, FIVE).passes
    assert errors / 2000 < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 2000)


@pytest.mark.parametrize("m", [0, -0.1, float("inf"), float("nan")])
def test_a_margin_of_nothing_is_refused(m):
    with pytest.raises(ValueError, match="a margin must be > 0"):
        Margin.of_ratio(m)
