"""The statistics of the papers' tables: means and rates with 95% intervals.

The success rate has a Wilson interval, as in Madsen and Johansen (arXiv:2001.05016) and
in Mistry et al. They fit a gamma distribution to the step at which a run was solved and
a beta distribution to its sparsity error; here both have a bootstrap interval of the
mean, which assumes no distribution. Their code fits the beta distribution on [0, 1] and
reports half of its mean: except where it falls back to Student's t, the sparsity errors
of their tables are half of what was measured.
"""

import math
from typing import NamedTuple

import numpy as np


class Interval(NamedTuple):
    """An estimate and the ends of its 95% interval; NaN if unknown."""

    estimate: float
    low: float
    high: float


class Spread(NamedTuple):
    """An estimate, and a deviation or standard error."""

    estimate: float
    spread: float


def wilson(successes, runs, z=1.959964):
    """The success rate with its Wilson interval; `z` is the normal quantile."""
    rate = float(successes / runs)
    middle = (rate + z**2 / (2 * runs)) / (1 + z**2 / runs)
    half = math.sqrt(rate * (1 - rate) / runs + z**2 / (4 * runs**2))
    half *= z / (1 + z**2 / runs)
    # Exactly 0 and 1 without rounding.
    low = middle - half if successes else 0.0
    return Interval(rate, low, middle + half if successes < runs else 1.0)


def mean_interval(values):
    """The mean, with its bootstrap interval (bias-corrected and accelerated)."""
    from scipy.stats import bootstrap

    x = np.asarray(values, float)
    if len(x) < 2 or not np.isfinite(x).all():
        mean = float(x.mean()) if len(x) else math.nan
        return Interval(mean, math.nan, math.nan)
    if x.min() == x.max():
        # The bootstrap of equal values is undefined.
        return Interval(*[float(x[0])] * 3)
    ends = bootstrap((x,), np.mean, rng=np.random.default_rng(0)).confidence_interval
    return Interval(float(x.mean()), float(ends.low), float(ends.high))


def median_deviation(errors):
    """The median and the median absolute deviation."""
    x = np.asarray(errors, float)
    middle = np.median(x)
    return Spread(float(middle), float(np.median(np.abs(x - middle))))


def mean_deviation(errors):
    """The mean and its standard error."""
    x = np.asarray(errors, float)
    if len(x) < 2 or not np.isfinite(x).all():
        return Spread(float(x.mean()), math.nan)
    return Spread(float(x.mean()), float(x.std(ddof=1) / math.sqrt(len(x))))
