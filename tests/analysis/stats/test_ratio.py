import numpy as np
import pytest

from analysis.stats import ratio

SOLO = [20.1, 19.6, 20.4, 19.9, 20.3]
MAKESPAN = [11.2, 10.9, 11.5, 11.0, 11.3]
A = [100, 103, 98, 101, 99]
B = [107, 104, 109, 106, 110]


def told(one):
    return one.value, one.low, one.high


def test_paired_t_on_logs():  # K14
    speedup = ratio.log_paired(SOLO, MAKESPAN)
    assert told(speedup) == pytest.approx((1.794418, 1.778574, 1.810403), abs=1e-6)
    assert [x / 2 for x in told(speedup)] == pytest.approx((0.897209, 0.889287, 0.905201), abs=1e-6)
    assert speedup.df == 4


def test_fieller():  # K15
    paired = ratio.fieller_paired(SOLO, MAKESPAN)
    assert told(paired) == pytest.approx((1.794275, 1.778538, 1.810711), abs=1e-6)
    unpaired = ratio.fieller_unpaired(SOLO, MAKESPAN)
    assert told(unpaired)[1:] == pytest.approx((1.745752, 1.844540), abs=1e-6)
    assert (unpaired.df, unpaired.p) == (8, None)


def test_welch_on_logs():  # K16
    speedup = ratio.log_welch(SOLO, MAKESPAN)
    assert told(speedup)[1:] == pytest.approx((1.745043, 1.845190), abs=1e-6)
    assert speedup.df == pytest.approx(7.429215, abs=1e-6)


def test_welch():  # K17
    difference = ratio.welch(A, B)
    assert (difference.t, difference.df, difference.p) == pytest.approx((-5.105275, 7.653530, 0.00105896), rel=1e-5)
    assert (difference.low, difference.high) == pytest.approx((-10.186922, -3.813078), abs=1e-6)


def test_fieller_without_a_bound_says_so():
    wide = ratio.fieller_paired([1.0, 2.0, 3.0], [0.1, 5.0, 0.2])
    assert (wide.low, wide.high, wide.notes) == (None, None, (ratio.UNBOUNDED,))


def test_fieller_agrees_with_its_definition():
    """At each end of the interval, top - r * bottom is exactly t standard errors from zero."""
    rng = np.random.default_rng(3)
    top, bottom = 10 + rng.normal(size=7), 5 + rng.normal(size=7) / 3
    one = ratio.fieller_paired(top, bottom)
    for end in (one.low, one.high):
        left = top - end * bottom
        t = left.mean() / (left.std(ddof=1) / 7**0.5)
        assert abs(t) == pytest.approx(2.446912, abs=1e-6)


def test_values_that_do_not_vary():
    same = ratio.log_welch([3.0, 3.0, 3.0], [3.0, 3.0])
    assert (*told(same), same.p) == (1, 1, 1, 1)
    other = ratio.log_paired([3.0, 6.0], [1.0, 2.0])
    assert told(other) == pytest.approx((3, 3, 3))
    assert other.p == 0


def test_the_interval_at_another_confidence():
    assert ratio.log_paired(SOLO, MAKESPAN).at(0.95) == pytest.approx((1.778574, 1.810403), abs=1e-6)
    wide = ratio.log_paired(SOLO, MAKESPAN, 0.99)
    assert ratio.log_paired(SOLO, MAKESPAN).at(0.99) == pytest.approx((wide.low, wide.high))


@pytest.mark.parametrize(
    ("method", "top", "bottom", "reason"),
    [
        (ratio.log_paired, [1, 2, 3], [1, 2], "pairs are needed, got 3 and 2"),
        (ratio.fieller_paired, [1, 2, 3], [1, 2], "pairs are needed"),
        (ratio.log_welch, [1], [1, 2], "at least two run values"),
        (ratio.log_welch, [1, 2], [0, 1], "denominator: a ratio of geometric means needs run values > 0, got 0"),
        (ratio.log_welch, [1, float("nan")], [2, 1], "must be finite"),
    ],
)
def test_what_has_no_ratio_is_refused(method, top, bottom, reason):
    with pytest.raises(ValueError, match=reason):
        method(top, bottom)
