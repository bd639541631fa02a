"""Intervals: by the books' tables, by scipy, and by hand."""

import math

import numpy as np
import pytest
from scipy import stats

from alexnet.claims.statistics import bootstrap_interval, mean_interval, t_quantile


@pytest.mark.parametrize(
    ("probability", "degrees", "printed"),
    [  # as the tables in textbooks print them
        (0.975, 1, 12.706),
        (0.975, 2, 4.303),
        (0.975, 4, 2.776),
        (0.95, 10, 1.812),
        (0.995, 9, 3.250),
        (0.975, 30, 2.042),
        (0.975, 120, 1.980),
        (0.5, 3, 0.0),
    ],
)
def test_quantiles_are_those_of_the_tables(probability, degrees, printed):
    assert round(t_quantile(probability, degrees), 3) == printed


@pytest.mark.parametrize("probability", [0.6, 0.9, 0.975, 0.9999])
def test_quantiles_are_scipys(probability):
    for degrees in (*range(1, 40), 99, 1000):
        expected = stats.t.ppf(probability, degrees)
        assert t_quantile(probability, degrees) == pytest.approx(expected, rel=1e-11)


def test_the_interval_of_a_mean():
    values = [9.0, 11.0, 10.0]  # standard deviation 1
    assert mean_interval(values) == (10.0, pytest.approx(4.302653 / math.sqrt(3), rel=1e-6))
    assert mean_interval([1.5]) == (1.5, math.inf)
    assert mean_interval([2.0] * 5) == (2.0, 0.0)


def test_a_bootstrapped_interval():
    ones = np.random.default_rng(7).random(400) < 0.3
    low, high = bootstrap_interval(ones.astype(float))
    half = 1.96 * math.sqrt(0.3 * 0.7 / 400)
    assert (low, high) == pytest.approx((ones.mean() - half, ones.mean() + half), abs=0.01)
    assert bootstrap_interval(np.ones(10)) == (1.0, 1.0)
    few = bootstrap_interval(ones.astype(float), draws=50, seed=1)
    assert few == bootstrap_interval(ones.astype(float), draws=50, seed=1) != (low, high)
