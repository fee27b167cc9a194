from __future__ import annotations

import math

import numpy as np
import pytest

from analysis.stats.variance import Components, advice, components


def test_components_worked_by_hand():
    # Means 2, 4, 9 of three requests each: MSB = 3 (9 + 1 + 16) / 2 = 39, MSW = 6 / 6 = 1, s2_run = 38 / 3.
    parts = components([np.array([1.0, 2, 3]), np.array([3.0, 4, 5]), np.array([8.0, 9, 10])])
    assert parts == Components(pytest.approx(math.sqrt(38 / 3)), pytest.approx(1.0), 3, pytest.approx(3.0))
    assert parts.run_share == pytest.approx(38 / 39)


def test_unequal_runs_count_for_what_they_are_worth():
    # N = 6, sum m^2 = 20: worth (6 - 20 / 6) / 1. Means 1 and 7, grand mean 5: MSB = 2 x 16 + 4 x 4, MSW = 6 / 4.
    parts = components([np.array([0.0, 2]), np.array([6.0, 8, 8, 6]), np.empty(0)])
    assert parts.requests == pytest.approx(8 / 3)
    assert parts.request == pytest.approx(math.sqrt(6 / 4))
    assert parts.run == pytest.approx(math.sqrt((48 - 1.5) / (8 / 3)))


def test_components_recover_what_made_the_data():
    rng = np.random.default_rng(3)
    runs = [level + rng.normal(0, 0.6, 200) for level in rng.normal(0, 0.1, 400)]
    parts = components(runs)
    assert parts.run == pytest.approx(0.1, rel=0.1)
    assert parts.request == pytest.approx(0.6, rel=0.02)


def test_runs_that_differ_by_chance_alone_have_no_component():
    parts = components([np.array([1.0, 5.0]), np.array([5.0, 1.0])])
    assert parts.run == 0
    assert parts.run_share == 0


def test_one_run_or_one_request_each_says_nothing():
    assert components([np.arange(9.0)]) is None
    assert components([np.array([1.0]), np.array([2.0])]) is None
    assert components([]) is None


def test_the_larger_part_of_the_doubt_says_what_to_add():
    runs, requests = Components(0.1, 0.6, 5, 200), Components(0.01, 0.6, 5, 200)
    assert advice(runs) == ("Add runs: 85% of the doubt comes from differences between runs, which longer runs keep.")
    assert advice(requests) == "Add requests to each run: 95% of the doubt comes from requests within runs."
    assert advice(Components(0, 0, 5, 200)).startswith("Nothing varies")
