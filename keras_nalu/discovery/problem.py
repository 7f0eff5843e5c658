"""What the search works on: the rows, their weights, and the time that is left."""

import dataclasses
import math
import time

import numpy as np


class TimeUpError(Exception):
    """The time is up: what was found so far is the answer."""


class Clock:
    """Counts the seconds that a search may take; None is no limit."""

    def __init__(self, seconds, whole=None):
        self.end = math.inf if seconds is None else time.monotonic() + seconds
        self.whole = whole

    def share(self, parts):
        """The clock of the next of `parts` tasks that have the time left."""
        return Clock(max(self.end - time.monotonic(), 0) / parts, self)

    def stop(self):
        """End the search, that of the other outputs, too."""
        self.end = -math.inf
        if self.whole is not None:
            self.whole.stop()

    def check(self):
        """Raise `TimeUpError` when the time is up."""
        if time.monotonic() > self.end:
            raise TimeUpError


@dataclasses.dataclass
class Problem:
    """Rows `X` (n, d), answers `y` (n,) and weights (n,) of mean 1.

    `floor` is the share of y's size below which an error is float64's rounding,
    `digits` that of the digits that y carries (float32, six digits); `noise` is the
    share below which no error is worth explaining.
    """

    X: np.ndarray
    y: np.ndarray
    weight: np.ndarray
    clock: Clock
    step: float = 0.5
    digits: float = 1e-11
    floor: float = 1e-11
    noise: float = 0.0

    @property
    def size(self):
        """How many rows the weights are worth (Kish)."""
        return self.weight.sum() ** 2 / (self.weight**2).sum()

    @property
    def scale(self):
        """The root mean square of y."""
        return float(np.sqrt(np.average(self.y**2, weights=self.weight)))

    def rows(self, chosen):
        """The same problem on some of the rows."""
        return dataclasses.replace(
            self, X=self.X[chosen], y=self.y[chosen], weight=self.weight[chosen]
        )

    def columns(self, chosen):
        """The same problem on some of the columns."""
        return dataclasses.replace(self, X=self.X[:, chosen])

    def mse(self, form):
        """The weighted mean square of the error, infinite where the form has no
        value."""
        error = form(self.X) - self.y
        if not np.isfinite(error).all():
            return np.inf
        return float(np.average(error**2, weights=self.weight))

    def exact(self, form, floor=None):
        """Whether the form is right on every row, up to `floor` (rounding)."""
        floor = floor or self.floor
        error = np.abs(form(self.X) - self.y)
        if not np.isfinite(error).all():
            return False
        size = np.abs(self.y)
        return bool(
            np.sqrt(np.average(error**2, weights=self.weight)) <= floor * self.scale
            and (error <= 100 * floor * (size + self.scale)).all()
        )


def digits_of(values):
    """The relative rounding of numbers: 1e-11 of float64, 6e-8 of what float32 holds,
    5e-6 of six digits."""
    values = values[values != 0]
    if not values.size or (values == np.round(values)).all():
        return 1e-11
    resolution = 1e-11
    with np.errstate(over="ignore"):
        if (values == values.astype(np.float32)).all():
            resolution = 2.0**-24
    size = np.floor(np.log10(np.abs(values)))
    for digits in 8, 7, 6, 5, 4:
        scaled = values * 10.0 ** (digits - 1 - size)
        if (np.abs(scaled - np.round(scaled)) > 1e-6).any():
            break
        resolution = max(resolution, 0.5 * 10.0 ** (1 - digits))
    return resolution
