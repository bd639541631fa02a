"""Means with their 95 % intervals: over seeds by Student's t, over images by bootstrap."""

import math
import statistics
from collections.abc import Sequence

import numpy as np

TAILS = (0.025, 0.975)  # the quantiles where a 95 % interval ends


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """The mean, and half the width of its 95 % interval by Student's t; infinite for one value."""
    if len(values) == 1:
        return values[0], math.inf
    quantile = t_quantile(TAILS[1], len(values) - 1)
    return statistics.mean(values), quantile * statistics.stdev(values) / len(values) ** 0.5


def bootstrap_interval(values: np.ndarray, draws: int = 2000, seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of a mean by the percentiles of bootstrapped means.

    Args:
        values: One value an image, (N,).
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


def t_quantile(probability: float, degrees: int) -> float:
    """A quantile of Student's t.

    Args:
        probability: From 0.5 up to, not including, 1.
        degrees: Of freedom, 1 or more.

    Source:
        Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4, solved for
        the angle by bisection.
    """
    low, high = 0.0, math.pi / 2
    while (angle := (low + high) / 2) not in (low, high):
        low, high = (
            (angle, high) if _t_inside(angle, degrees) < 2 * probability - 1 else (low, angle)
        )
    return math.tan(angle) * degrees**0.5


def _t_inside(angle: float, degrees: int) -> float:
    """The probability that |t| lies below tan(angle) times the root of the degrees of freedom."""
    odd = degrees % 2
    term, total = (math.cos(angle) if odd else 1.0), 0.0
    for i in range(2 + odd, degrees + 1, 2):
        total += term
        term *= (i - 1) / i * math.cos(angle) ** 2
    total *= math.sin(angle)
    return 2 / math.pi * (angle + total) if odd else total
