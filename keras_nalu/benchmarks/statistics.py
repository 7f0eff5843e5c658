"""The statistics of the papers' tables: means and rates, with their 95% intervals.

The measures are those of Madsen and Johansen (arXiv:2001.05016): a Wilson interval for
the success rate, a gamma distribution for the step at which a run was solved, a beta
distribution on [0, 0.5] for the sparsity error, and of both the profile likelihood of
the mean.

In two points their code computes something else than these words say. Its optimizer
does not move the gamma's variance, which stays that of the sample: the intervals are
narrower than those of the profile. And its beta distribution is the one on [0, 1], with
a mean of twice the parameter that is then reported: the sparsity errors of their tables
are half of what was measured, save those where it falls back to Student's t. The
functions here do what the words say.
"""

import math
from typing import NamedTuple

import numpy as np


class Interval(NamedTuple):
    """An estimate, and the ends of its 95% interval; what is unknown is NaN."""

    estimate: float
    low: float
    high: float


class Spread(NamedTuple):
    """An estimate, and how far from it the runs are, or the estimate itself may be."""

    estimate: float
    spread: float


def wilson(successes, runs):
    """The success rate, with the Wilson interval."""
    from scipy.stats import binomtest

    low, high = binomtest(int(successes), int(runs)).proportion_ci(method="wilson")
    return Interval(successes / runs, float(low), float(high))


def gamma_interval(steps):
    """The mean step, with the profile-likelihood interval of a gamma distribution.

    Student's t where there is no such distribution: all steps are equal, or one is 0.
    """
    from scipy.optimize import brentq
    from scipy.special import digamma, gammaln

    x = np.asarray(steps, float)
    if len(x) < 2 or x.min() <= 0 or x.std(ddof=1) <= max(1e-5, 1e-5 * x.mean()):
        return _student(x, 0, math.inf)
    spread = -np.mean(np.log(x / x.mean()))

    def profile(log_mean):
        """The mean log-likelihood of a mean, relative to the sample's, at its best
        shape k: that has log(k) - digamma(k) = s, between 1 / (2 k) and 1 / k."""
        s = spread + log_mean + math.expm1(-log_mean)
        k = brentq(lambda k: math.log(k) - digamma(k) - s, 0.4 / s, 1.1 / s)
        return k * math.log(k) - gammaln(k) - k * (s + 1)

    low, high = _ends(profile, 0, len(x))
    mean = float(x.mean())
    return Interval(mean, mean * math.exp(low), mean * math.exp(high))


def beta_interval(errors):
    """The mean error, with the profile-likelihood interval of a beta distribution on
    [0, 0.5].

    Larger errors count as 0.5. Student's t where there is no such distribution: all
    errors are equal, or one is at an end, as those of weights that are clipped.
    """
    from scipy.optimize import brentq, minimize_scalar
    from scipy.special import betaln, digamma, entr

    x = np.clip(np.asarray(errors, float), 0, 0.5)
    if (
        len(x) < 2
        or min(x.min(), 0.5 - x.max()) <= 1e-16
        or x.std(ddof=1) <= max(1e-10, 1e-5 * min(x.mean(), 0.5 - x.mean()))
    ):
        return _student(x, 0, 0.5)
    inside, outside = np.mean(np.log(2 * x)), np.mean(np.log1p(-2 * x))

    def profile(logit):
        """The mean log-likelihood of a mean m / 2, at its best precision v.

        There the slope is 0. It is above `least`, by between 1 / (2 v) and 3 / (2 v).
        """
        m, rest = 1 / (1 + math.exp(-logit)), 1 / (1 + math.exp(logit))
        data = m * inside + rest * outside
        least = data + entr(m) + entr(rest)

        def slope(v):
            means = m * digamma(m * v) + rest * digamma(rest * v)
            return data + digamma(v) - means

        v = brentq(slope, -0.25 / least, -2 / least)
        a, b = m * v, rest * v
        return (a - 1) * inside + (b - 1) * outside - betaln(a, b)

    start = math.log(x.mean() / (0.5 - x.mean()))
    best = minimize_scalar(lambda logit: -profile(logit), (start, start + 0.1))
    logits = best.x, *_ends(profile, best.x, len(x))
    return Interval(*(0.5 / (1 + math.exp(-logit)) for logit in logits))


def median_deviation(errors):
    """The median, and the median absolute deviation from it."""
    x = np.asarray(errors, float)
    middle = np.median(x)
    return Spread(float(middle), float(np.median(np.abs(x - middle))))


def mean_deviation(errors):
    """The mean, and its standard error."""
    x = np.asarray(errors, float)
    if len(x) < 2 or not np.isfinite(x).all():
        return Spread(float(x.mean()), math.nan)
    return Spread(float(x.mean()), float(x.std(ddof=1) / math.sqrt(len(x))))


def _student(x, lowest, highest):
    from scipy.stats import t

    if not len(x):
        return Interval(math.nan, math.nan, math.nan)
    mean = float(x.mean())
    if len(x) == 1:
        return Interval(mean, math.nan, math.nan)
    half = float(t.ppf(0.975, len(x) - 1) * x.std(ddof=1) / math.sqrt(len(x)))
    return Interval(mean, max(lowest, mean - half), min(highest, mean + half))


def _ends(profile, best, runs):
    """Where twice the log-likelihood has fallen by the 95% quantile of chi-square."""
    from scipy.optimize import brentq
    from scipy.stats import chi2

    line = profile(best) - chi2.ppf(0.95, 1) / (2 * runs)
    for side in (-1, 1):
        far = side / 64
        while profile(best + far) > line:
            far *= 2
        yield brentq(lambda t: profile(t) - line, best, best + far)
