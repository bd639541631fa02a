"""Statistics: by printed tables and worked examples of textbooks, by SciPy, and by hand."""

import math

import numpy as np
import pytest
from scipy import stats

from alexnet.claims import statistics
from alexnet.claims.statistics import (
    Estimate,
    binomial,
    bootstrap_interval,
    factor_interval,
    from_interval,
    holm,
    kaplan_meier,
    log_rank,
    mean_interval,
    one_sample,
    paired,
    power,
    seeds_needed,
    smallest_effect,
    t_quantile,
    t_tail,
    welch,
)


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
        (0.975, math.inf, 1.960),
        (0.5, 3, 0.0),
    ],
)
def test_quantiles_are_those_of_the_tables(probability, degrees, printed):
    assert round(t_quantile(probability, degrees), 3) == printed


@pytest.mark.parametrize("probability", [0.6, 0.9, 0.975, 0.9999])
def test_quantiles_and_tails_are_scipys(probability):
    for degrees in (*range(1, 40), 1.3, 2.5, 7.77, 99, 1000):
        expected = stats.t.ppf(probability, degrees)
        assert t_quantile(probability, degrees) == pytest.approx(expected, rel=1e-9)
        assert t_tail(expected, degrees) == pytest.approx(1 - probability, rel=1e-9)
        assert t_tail(-expected, degrees) == pytest.approx(probability, rel=1e-9)
    assert t_tail(30.0, 8) == pytest.approx(stats.t.sf(30.0, 8), rel=1e-9)  # far out


def test_the_interval_of_a_mean():
    values = [9.0, 11.0, 10.0]  # standard deviation 1
    assert mean_interval(values) == (10.0, pytest.approx(4.302653 / math.sqrt(3), rel=1e-6))
    assert mean_interval([1.5]) == (1.5, math.inf)
    assert mean_interval([2.0] * 5) == (2.0, 0.0)


# Student's own example: additional hours of sleep of ten patients under two drugs (Biometrika 6,
# 1908; R's data set "sleep").
FIRST = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
SECOND = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]


def test_students_sleep():
    """As R's documentation of t.test prints both: paired, and by Welch."""
    pairs = paired(FIRST, SECOND)
    assert (pairs.value, pairs.degrees, pairs.arms) == (pytest.approx(-1.58), 9, 1)
    assert pairs.interval == pytest.approx((-2.4598858, -0.7001142), abs=1e-6)
    assert pairs.p() == pytest.approx(0.002833, abs=1e-6)
    apart = welch(FIRST, SECOND)
    assert apart.degrees == pytest.approx(17.776, abs=1e-3) and apart.arms == 2
    assert apart.interval == pytest.approx((-3.3654832, 0.2054832), abs=1e-6)
    assert apart.p() == pytest.approx(0.07939, abs=1e-5)


@pytest.mark.parametrize("counts", [(5, 5), (3, 8), (2, 2)])
def test_welch_is_scipys(counts):
    generator = np.random.default_rng(sum(counts))
    first, second = (generator.normal(i, 1 + i, n).tolist() for i, n in enumerate(counts))
    ours, theirs = welch(first, second), stats.ttest_ind(first, second, equal_var=False)
    assert ours.p() == pytest.approx(theirs.pvalue, rel=1e-9)
    interval = theirs.confidence_interval(0.95)
    assert ours.interval == pytest.approx((interval.low, interval.high), rel=1e-9)
    assert ours.seeds == min(counts)
    ours, theirs = one_sample(first), stats.ttest_1samp(first, 0.3)
    assert ours.p(0.3) == pytest.approx(theirs.pvalue, rel=1e-9)


def test_one_run_says_nothing_and_runs_that_do_not_differ_say_all():
    for single in (one_sample([3.0]), welch([3.0], [1.0, 2.0]), welch([3.0, 4.0], [1.0])):
        assert single.half == math.inf and single.p() == 1 and single.p_within(-1e9, 1e9) == 1
    same = welch([3.0, 3.0], [1.0, 1.0])
    assert same.interval == (2.0, 2.0) and same.p() == 0 and same.p(2.0) == 1
    assert same.p_within(1, 3) == 0 and same.p_within(-1, 1) == 1


def test_equivalence_is_where_the_interval_lies_inside_the_margin():
    for value, error in ((0.1, 0.1), (0.2, 0.2), (0.0, 0.21), (0.45, 0.05), (2.0, 0.01)):
        one = Estimate(value, error, 8.0)
        low, high = one.interval
        assert (one.p_within(-0.5, 0.5) < statistics.LEVEL) == (low > -0.5 and high < 0.5)
    # two one-sided tests by scipy: the larger p, doubled
    values = [0.1, 0.3, -0.2, 0.05, 0.2]
    sides = [
        stats.ttest_1samp(values, -0.5, alternative="greater").pvalue,
        stats.ttest_1samp(values, 0.5, alternative="less").pvalue,
    ]
    assert one_sample(values).p_within(-0.5, 0.5) == pytest.approx(2 * max(sides), rel=1e-9)


def test_holm():
    # Holm (1979), by hand: 0.01 x 3, then 0.02 x 2, then the larger of this and 0.03
    assert holm([0.02, 0.03, 0.01]) == pytest.approx([0.04, 0.04, 0.03])
    # R: p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm")
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0] and holm([]) == [] and holm([0.2]) == [0.2]
    assert holm([0.01, 0.04], family=5) == pytest.approx([0.05, 0.16])  # three are not run


def test_a_bootstrapped_interval():
    ones = np.random.default_rng(7).random(400) < 0.3
    low, high = bootstrap_interval(ones.astype(float))
    half = 1.96 * math.sqrt(0.3 * 0.7 / 400)
    assert (low, high) == pytest.approx((ones.mean() - half, ones.mean() + half), abs=0.01)
    assert bootstrap_interval(np.ones(10)) == (1.0, 1.0)
    few = bootstrap_interval(ones.astype(float), draws=50, seed=1)
    assert few == bootstrap_interval(ones.astype(float), draws=50, seed=1) != (low, high)
    estimate = from_interval(-0.02, -0.03, -0.01)
    assert estimate.interval == pytest.approx((-0.03, -0.01)) and estimate.half > 0
    assert estimate.p() == pytest.approx(stats.norm.sf(0.02 / (0.01 / 1.959964)) * 2, rel=1e-5)


@pytest.mark.parametrize(("hits", "trials"), [(0, 6), (4, 5), (5, 5), (6, 6), (13, 40)])
def test_shares_are_scipys(hits, trials):
    p, interval = binomial(hits, trials)
    theirs = stats.binomtest(hits, trials)
    assert p == pytest.approx(theirs.pvalue, rel=1e-9)
    exact = theirs.proportion_ci(0.95, "exact")
    assert interval == pytest.approx((exact.low, exact.high), abs=1e-9)


# Freireich et al., Blood 21 (1963): weeks of remission of 42 children with leukemia, the example of
# Gehan (Biometrika 52, 1965), of Cox (1972) and of most textbooks; + is censored.
MERCAPTOPURINE = "6 6 6 6+ 7 9+ 10 10+ 11+ 13 16 17+ 19+ 20+ 22 23 25+ 32+ 32+ 34+ 35+"
PLACEBO = "1 1 2 2 3 4 4 5 5 8 8 8 8 11 11 12 12 15 17 22 23"


def times(text):
    return [(float(word.rstrip("+")), not word.endswith("+")) for word in text.split()]


def test_remissions_of_leukemia():
    """As Kleinbaum and Klein, Survival Analysis, chapter 2, print the curve and the test."""
    curve = kaplan_meier(times(MERCAPTOPURINE))
    steps = [6, 7, 10, 13, 16, 22, 23]
    shares = [0.8571, 0.8067, 0.7529, 0.6902, 0.6275, 0.5378, 0.4482]
    assert [step for step, _ in curve] == steps
    assert [share for _, share in curve] == pytest.approx(shares, abs=5e-5)
    z, p = log_rank(times(MERCAPTOPURINE), times(PLACEBO))
    assert z < 0 and z**2 == pytest.approx(16.793, abs=1e-3) and p == pytest.approx(4.17e-5, 1e-2)
    assert log_rank(times(PLACEBO), times(MERCAPTOPURINE)) == pytest.approx((-z, p))


def test_survival_is_scipys():
    generator = np.random.default_rng(3)
    arms = [
        [(float(t), bool(t < 40)) for t in generator.integers(1, 50, 60).clip(max=40)]
        for _ in range(2)
    ]
    censored = [
        stats.CensoredData([t for t, e in arm if e], right=[t for t, e in arm if not e])
        for arm in arms
    ]
    z, p = log_rank(*arms)
    theirs = stats.logrank(*censored)
    assert abs(z) == pytest.approx(abs(theirs.statistic), rel=1e-9)
    assert p == pytest.approx(theirs.pvalue, rel=1e-9)
    survival = stats.ecdf(censored[0]).sf
    by_step = dict(zip(survival.quantiles, survival.probabilities))
    assert all(by_step[t] == pytest.approx(share) for t, share in kaplan_meier(arms[0]))


def test_few_runs_are_judged_by_all_permutations():
    soon, late = (
        [(3.0, True), (4.0, True), (5.0, True)],
        [(9.0, True), (20.0, False), (20.0, False)],
    )
    z, p = log_rank(late, soon)
    assert z < 0 and p == pytest.approx(2 / 20)  # of 20 ways two are as extreme: 3 seeds cannot
    z, p = log_rank([(20.0, False)] * 5, [(float(t), True) for t in range(3, 8)])
    assert z < 0 and p == pytest.approx(2 / 252)
    assert log_rank([(20.0, False)] * 3, [(20.0, False)] * 3) == (0.0, 1.0)  # no event


def test_the_median_of_times():
    assert statistics.median(times(MERCAPTOPURINE)) == 23  # as Kleinbaum and Klein print both
    assert statistics.median(times(PLACEBO)) == 8
    assert statistics.median([(5.0, True), (8.0, False), (9.0, False)]) is None
    assert statistics.median([(5.0, True), (9.0, False)]) == 5


def test_factors_between_times_are_those_that_the_log_rank_test_keeps():
    first, second = times("16 17 18 19 20 20+"), times("9 9 10 10 11 20+")
    low, high = factor_interval(first, second)
    for factor, kept in ((low, False), (high, True)):
        below, above = (
            log_rank([(t / (factor * turn), event) for t, event in first], second)[1]
            for turn in (0.9999, 1.0001)
        )
        assert (below >= 0.05) == kept and (above >= 0.05) != kept
    other = factor_interval(second, first)
    assert other == pytest.approx((1 / high, 1 / low))
    never = factor_interval(times("20+ 20+ 20+ 20+ 20+"), times("9 10 10 10 11"))
    assert never[0] > 1.8 and never[1] == math.inf
    assert factor_interval(times("20+ 20+ 20+"), times("9 9 9")) == (0, math.inf)  # too few


def test_the_share_that_so_many_trials_can_tell_from_a_half():
    share = statistics.smallest_share(6)  # all six must hit
    assert share**6 == pytest.approx(0.8) and share > statistics.smallest_share(12)
    assert statistics.smallest_share(5) == statistics.smallest_share(6, 0.025) == math.inf


def test_curves_of_runs_that_never_leave():
    assert kaplan_meier([(5.0, True), (8.0, False), (9.0, True)]) == [
        (5.0, pytest.approx(2 / 3)),
        (9.0, 0.0),
    ]
    assert kaplan_meier([(9.0, False)] * 2) == []


@pytest.mark.parametrize(
    ("effect", "seeds"),
    [(0.2, 394), (0.5, 64), (0.8, 26)],  # Cohen, A power primer (1992), table 2: 393, 64, 26
)
def test_seeds_are_those_of_cohens_table(effect, seeds):
    assert seeds_needed(effect, 1.0) == seeds
    assert power(effect, 1.0, seeds) >= 0.8 > power(effect, 1.0, seeds - 1)
    assert smallest_effect(1.0, seeds) == pytest.approx(effect, rel=0.02)


def test_power_is_that_of_scipys_noncentral_t():
    for effect, spread, seeds, arms, level in [
        (1.0, 2.0, 5, 2, 0.05),
        (3.0, 1.0, 2, 2, 0.05),
        (2.0, 1.0, 3, 1, 0.01),
        (0.1, 1.0, 50, 2, 0.05 / 8),
        (4.0, 1.0, 2, 1, 0.05),
    ]:
        degrees, shift = arms * (seeds - 1), effect / (spread * math.sqrt(arms / seeds))
        critical = stats.t.ppf(1 - level / 2, degrees)
        theirs = stats.nct.sf(critical, degrees, shift) + stats.nct.cdf(-critical, degrees, shift)
        assert power(effect, spread, seeds, arms, level) == pytest.approx(theirs, abs=1e-5)


def test_the_smallest_effect_grows_with_the_correction_and_shrinks_with_seeds():
    few, many, corrected = (
        smallest_effect(2.0, seeds, level=level)
        for seeds, level in ((3, 0.05), (8, 0.05), (8, 0.05 / 10))
    )
    assert many < corrected < few
    assert power(many, 2.0, 8) == pytest.approx(0.8, abs=1e-5)
    assert seeds_needed(many * 1.0001, 2.0) == 8
    assert smallest_effect(2.0, 1) == math.inf and smallest_effect(0.0, 3) == 0.0
    assert seeds_needed(0.1, 0.0) == 2
