"""Statistics of a few training runs and of many images.

Two arms are compared by the difference of their means, with an interval of Student's t: `welch`
where the runs of one arm have nothing to do with those of the other (a seed shared by two different
nets does not pair them), `paired` where one net is read twice. Small samples are judged by what is
exact for them: `log_rank` counts permutations, `binomial` the binomial distribution. Needs NumPy
alone, so that a base installation can judge; the tests compare with SciPy and with printed tables.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np

LEVEL = 0.05  # of a two-sided test; 1 - LEVEL is the coverage of an interval
POWER = 0.8  # the probability with which an effect of the size asked about is seen
TAILS = (LEVEL / 2, 1 - LEVEL / 2)  # the quantiles where a 95 % interval ends
PERMUTATIONS = 20_000  # up to so many, the log-rank test counts them all


@dataclass(frozen=True)
class Estimate:
    """A mean or a difference of means.

    Args:
        value: The estimate.
        error: Its standard error; infinite where there is one run.
        degrees: Of freedom of Student's t; infinite for the normal distribution.
        spread: Standard deviation of one run, pooled over the arms, or of one difference.
        seeds: Number of runs, of the smaller arm.
        arms: 2 where two independent arms are compared, else 1.
    """

    value: float
    error: float
    degrees: float = math.inf
    spread: float = math.nan
    seeds: int = 1
    arms: int = 1

    @property
    def half(self) -> float:
        """Half the width of the 95 % interval."""
        return self.error and self.error * t_quantile(TAILS[1], self.degrees)

    @property
    def interval(self) -> tuple[float, float]:
        return self.value - self.half, self.value + self.half

    def p(self, null: float = 0.0) -> float:
        """The two-sided p-value of the hypothesis that the true value is `null`."""
        return 2 * self._above(abs(self.value - null))

    def p_within(self, low: float, high: float) -> float:
        """The p-value by which the true value lies between `low` and `high`: twice the larger of
        two one-sided tests (TOST), so that it is below LEVEL exactly where the 95 % interval lies
        inside. Each one-sided test is at LEVEL / 2."""
        return min(1.0, 2 * max(self._above(self.value - low), self._above(high - self.value)))

    def _above(self, distance: float) -> float:
        """The probability of an estimate so far above the true value, or farther."""
        if self.error == 0:
            return 0.5 if distance == 0 else float(distance < 0)
        return t_tail(distance / self.error, self.degrees)


def one_sample(values: Sequence[float]) -> Estimate:
    """The mean of one arm's runs."""
    count = len(values)
    if count == 1:
        return Estimate(values[0], math.inf, 1, math.inf)
    spread = statistics.stdev(values)
    return Estimate(statistics.mean(values), spread / count**0.5, count - 1, spread, count)


def paired(first: Sequence[float], second: Sequence[float]) -> Estimate:
    """The mean difference of two readings of the same runs, first minus second.

    Args:
        first: One value a run.
        second: The other reading, in the same order.
    """
    return one_sample([a - b for a, b in zip(first, second, strict=True)])


def welch(first: Sequence[float], second: Sequence[float]) -> Estimate:
    """The difference of the means of two independent arms, first minus second.

    Args:
        first: One value a run, of one arm.
        second: Of the other.

    Source:
        Welch, Biometrika 34 (1947): variances may differ; degrees of freedom by Satterthwaite.
    """
    difference, counts = statistics.mean(first) - statistics.mean(second), (len(first), len(second))
    if min(counts) == 1:
        return Estimate(difference, math.inf, 1, math.inf, 1, 2)
    parts = [statistics.variance(arm) / len(arm) for arm in (first, second)]
    error = sum(parts) ** 0.5
    terms = sum(part**2 / (count - 1) for part, count in zip(parts, counts))
    degrees = sum(parts) ** 2 / terms if terms else sum(counts) - 2
    spread = error / sum(1 / count for count in counts) ** 0.5
    return Estimate(difference, error, degrees, spread, min(counts), 2)


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """The mean, and half the width of its 95 % interval by Student's t; infinite for one value."""
    estimate = one_sample(values)
    return estimate.value, estimate.half


def holm(p_values: Sequence[float], family: int | None = None) -> list[float]:
    """Adjusted p-values, in the order given.

    Args:
        p_values: Of some hypotheses of a family.
        family: How many hypotheses the family has; those that are not here count as not rejected.

    Source:
        Holm, Scandinavian Journal of Statistics 6 (1979): step-down, any dependence.
    """
    size, adjusted, largest = family or len(p_values), [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (size - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


# --- images ---------------------------------------------------------------------------------------


def bootstrap_interval(values: np.ndarray, draws: int = 2000, seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of a mean by the percentiles of bootstrapped means.

    Args:
        values: One value an image, (N,): whether it is missed; or, for the gain of an average over
            its members, what the average misses minus the members' mean.
        draws: How many times N images are drawn, with replacement.
        seed: Of the draws.

    Returns:
        The interval's ends.
    """
    generator = np.random.default_rng(seed)
    count = len(values)
    means = [values[generator.integers(count, size=count)].mean() for _ in range(draws)]
    low, high = np.quantile(means, TAILS)
    return float(low), float(high)


def from_interval(value: float, low: float, high: float) -> Estimate:
    """A mean over images with its bootstrap interval, taken as that of a normal distribution."""
    error = (high - low) / 2 / t_quantile(TAILS[1], math.inf)
    return Estimate(value, error, seeds=1)


# --- shares, and times that may be censored -------------------------------------------------------


def binomial(hits: int, trials: int, null: float = 0.5) -> tuple[float, tuple[float, float]]:
    """The two-sided p-value (twice the smaller tail) of a share, and its exact 95 % interval.

    Args:
        hits: 0..trials.
        trials: 1 or more.
        null: The share that the p-value is of, 0..1.

    Source:
        Clopper and Pearson, Biometrika 26 (1934).
    """
    most, least = range(hits + 1), range(hits, trials + 1)
    p = min(1.0, 2 * min(_tail(null, trials, most), _tail(null, trials, least)))
    low = 0.0 if hits == 0 else _root(lambda s: _tail(s, trials, least) - TAILS[0], 0.0, 1.0)
    high = 1.0 if hits == trials else _root(lambda s: TAILS[0] - _tail(s, trials, most), 0.0, 1.0)
    return p, (low, high)


def _tail(share: float, trials: int, counts: range) -> float:
    """The probability of so many hits."""
    return math.fsum(math.comb(trials, k) * share**k * (1 - share) ** (trials - k) for k in counts)


Time = tuple[float, bool]  # a step, and whether the event took place there; else it is censored


def kaplan_meier(times: Sequence[Time]) -> list[tuple[float, float]]:
    """The share of runs that still wait for the event, after each step at which one had it.

    Source:
        Kaplan and Meier, Journal of the American Statistical Association 53 (1958).
    """
    curve, share = [], 1.0
    for step in sorted({time for time, happened in times if happened}):
        waiting = sum(time >= step for time, _ in times)
        share *= 1 - times.count((step, True)) / waiting
        curve.append((step, share))
    return curve


def median(times: Sequence[Time]) -> float | None:
    """The step by which half of the runs have had the event, by `kaplan_meier`; None: later than
    all that was seen."""
    return next((step for step, share in kaplan_meier(times) if share < 0.5 + 1e-9), None)


def log_rank(first: Sequence[Time], second: Sequence[Time]) -> tuple[float, float]:
    """Whether the event comes as soon in one arm as in the other.

    Args:
        first: Times of one arm, and whether the event came.
        second: Of the other.

    Returns:
        The statistic: events in the first arm minus those expected, in standard deviations, below
        0 where the first arm is later; and the two-sided p-value: the share of all ways to deal
        the runs to the arms that are as extreme, or, beyond PERMUTATIONS ways, the normal one.

    Source:
        Mantel, Cancer Chemotherapy Reports 50 (1966).
    """
    count, total = len(first), len(first) + len(second)
    few = math.comb(total, count) <= PERMUTATIONS
    ways = list(combinations(range(total), count)) if few else [tuple(range(count))]
    own = np.zeros((len(ways), total))  # the first way is how the runs lie
    np.put_along_axis(own, np.array(ways), 1.0, axis=1)
    z = _standardized([*first, *second], own)
    if not few:
        return float(z[0]), math.erfc(abs(z[0]) / 2**0.5)
    return float(z[0]), float((abs(z) >= abs(z[0]) - 1e-9).mean())


def _standardized(times: Sequence[Time], own: np.ndarray) -> np.ndarray:
    """The statistic of each way to choose an arm's runs: `own` is (ways, runs), of 0 and 1."""
    steps, happened = np.array([t for t, _ in times]), np.array([event for _, event in times])
    excess, variance = np.zeros(len(own)), np.zeros(len(own))
    for step in np.unique(steps[happened]):
        at_risk, events = steps >= step, happened & (steps == step)
        waiting, count = at_risk.sum(), events.sum()
        share = own @ at_risk / waiting
        excess += own @ events - count * share
        if waiting > 1:
            variance += count * share * (1 - share) * (waiting - count) / (waiting - 1)
    return np.divide(excess, variance**0.5, out=np.zeros(len(own)), where=variance > 1e-12)


def factor_interval(first: Sequence[Time], second: Sequence[Time]) -> tuple[float, float]:
    """By which factors the event may come later in the first arm than in the second: those that
    `log_rank` does not reject at LEVEL once the first arm's times are divided by them.

    Returns:
        The 95 % interval; from 0, or to infinity, where no end can be given.
    """
    ratios = sorted({a / b for a, _ in first for b, _ in second})
    ends = [0.0, *ratios, math.inf]  # between two neighbors the order of the times is one
    kept = []
    for low, high in pairwise(ends):
        factor = high / 2 if low == 0 else 2 * low if high == math.inf else (low * high) ** 0.5
        if log_rank([(t / factor, event) for t, event in first], second)[1] >= LEVEL:
            kept += [low, high]
    return (min(kept), max(kept)) if kept else (0.0, math.inf)


# --- how many runs --------------------------------------------------------------------------------


def power(effect: float, spread: float, seeds: int, arms: int = 2, level: float = LEVEL) -> float:
    """The probability that a two-sided t test sees an effect.

    Args:
        effect: The true difference of means.
        spread: Standard deviation of one run; of one difference, where runs are paired.
        seeds: Runs an arm, 2 or more.
        arms: 2 independent ones; 1 for paired differences and single means.
        level: Of the test, after correction for other tests.
    """
    degrees = arms * (seeds - 1)
    critical = t_quantile(1 - level / 2, degrees)
    shift = abs(effect) / (spread * (arms / seeds) ** 0.5) if spread else math.inf
    # Student's t is a normal variable over a chi variable: average over the latter
    step = (1 + 10 / (2 * degrees) ** 0.5) / 2000
    s = step * (np.arange(2000) + 0.5)
    scale = math.log(2) + degrees / 2 * math.log(degrees / 2) - math.lgamma(degrees / 2)
    density = np.exp(scale + (degrees - 1) * np.log(s) - degrees * s**2 / 2)
    seen = [_normal(shift - critical * one) + _normal(-shift - critical * one) for one in s]
    return float(step * (density * np.array(seen)).sum())


def smallest_effect(
    spread: float, seeds: int, arms: int = 2, level: float = LEVEL, least: float = POWER
) -> float:
    """The smallest effect that so many seeds see with probability `least`; infinite for one seed.
    Arguments as of `power`."""
    if seeds < 2 or not math.isfinite(spread):
        return math.inf
    if spread == 0:
        return 0.0
    high = spread
    while power(high, spread, seeds, arms, level) < least:
        high *= 2
    return _root(lambda e: power(e, spread, seeds, arms, level) - least, 0.0, high, 1e-6 * high)


def seeds_needed(
    effect: float, spread: float, arms: int = 2, level: float = LEVEL, least: float = POWER
) -> int:
    """How many seeds an arm see an effect with probability `least`, 2 or more. Arguments as of
    `power`."""
    low, high = 1, 2
    while power(effect, spread, high, arms, level) < least:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        enough = power(effect, spread, middle, arms, level) >= least
        low, high = (low, middle) if enough else (middle, high)
    return high


def smallest_share(trials: int, level: float = LEVEL, least: float = POWER) -> float:
    """The smallest share above a half that `binomial` tells from a half with probability `least`;
    infinite where so few trials never do. Arguments as of `power`."""
    counts = range(trials // 2 + 1, trials + 1)
    enough = next((hits for hits in counts if binomial(hits, trials)[0] < level), None)
    if enough is None:
        return math.inf
    return _root(lambda s: _tail(s, trials, range(enough, trials + 1)) - least, 0.5, 1.0)


# --- distributions --------------------------------------------------------------------------------


def t_quantile(probability: float, degrees: float) -> float:
    """A quantile of Student's t.

    Args:
        probability: From 0.5 up to, not including, 1.
        degrees: Of freedom, above 0; infinite for the normal distribution.
    """
    if math.isinf(degrees):
        return statistics.NormalDist().inv_cdf(probability)
    tail = 1 - probability
    angle = _root(lambda a: tail - _t_tail_at(a, degrees), 0.0, math.pi / 2)
    return math.tan(angle) * degrees**0.5


def t_tail(t: float, degrees: float) -> float:
    """The probability that Student's t lies above `t`."""
    if math.isinf(degrees):
        return _normal(-t)
    tail = _t_tail_at(math.atan2(abs(t), degrees**0.5), degrees)
    return tail if t >= 0 else 1 - tail


def _t_tail_at(angle: float, degrees: float) -> float:
    """The tail above tan(angle) times the root of the degrees of freedom."""
    return _beta(math.cos(angle) ** 2, math.sin(angle) ** 2, degrees / 2, 0.5) / 2


def _beta(x: float, rest: float, a: float, b: float) -> float:
    """The regularized incomplete beta function of x, with rest = 1 - x.

    Source:
        NIST Digital Library of Mathematical Functions, 8.17.22, by Lentz's algorithm.
    """
    if x <= 0 or rest <= 0:
        return float(rest <= 0)
    if x > (a + 1) / (a + b + 2):  # where the fraction converges slowly
        return 1 - _beta(rest, x, b, a)
    front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    front = math.exp(front + a * math.log(x) + b * math.log(rest)) / a
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, 1000):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            c, d = 1 + term / c, 1 / (1 + term * d)
            value *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return front * value


def _normal(z: float) -> float:
    """The probability that a standard normal variable lies below z."""
    return math.erfc(-z / 2**0.5) / 2


def _root(rising: Callable[[float], float], low: float, high: float, width: float = 0.0) -> float:
    """Where a rising function passes 0 between `low` and `high`, by bisection."""
    while (middle := (low + high) / 2) not in (low, high) and high - low > width:
        low, high = (low, middle) if rising(middle) > 0 else (middle, high)
    return middle
