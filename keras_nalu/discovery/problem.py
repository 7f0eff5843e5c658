"""The search's input: rows, weights, precision, and the time that is left."""

import dataclasses
import math
import time

import numpy as np


class TimeUpError(Exception):
    """The time is up; the pool keeps what was found so far."""


class Clock:
    """A deadline in seconds from now; None sets no limit."""

    def __init__(self, seconds, whole=None):
        self.end = math.inf if seconds is None else time.monotonic() + seconds
        self.whole = whole

    def share(self, parts):
        """A clock for the next of `parts` tasks that share the remaining time."""
        return Clock(max(self.end - time.monotonic(), 0) / parts, self)

    def stop(self):
        """End the search, also for the other outputs."""
        self.end = -math.inf
        if self.whole is not None:
            self.whole.stop()

    def check(self):
        """Raise `TimeUpError` if the time is up."""
        if time.monotonic() > self.end:
            raise TimeUpError


@dataclasses.dataclass
class Problem:
    """Rows `X` (n, d), targets `y` (n,) and weights (n,) of mean 1.

    `floor`, `digits` and `noise` are errors relative to `scale`: below `floor` an error
    is the rounding of float64, below `digits` that of the digits of y (six, or those of
    float32), below `noise` it is not to be explained. `step` is `exponent_step`.
    `by_size_of_y` says that the weights are those of `by_size`.
    """

    X: np.ndarray
    y: np.ndarray
    weight: np.ndarray
    clock: Clock
    step: float = 0.5
    digits: float = 1e-11
    floor: float = 1e-11
    noise: float = 0.0
    by_size_of_y: bool = False

    @property
    def size(self):
        """The effective number of rows with these weights (Kish)."""
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

    def by_size(self, values):
        """The problem with weights for errors that grow with y, given its values.

        Values of a fit do not bias the constants; noisy ones make them too small.
        """
        weight = self.weight / (values**2 + (0.03 * self.scale) ** 2)
        return dataclasses.replace(
            self, weight=weight / weight.mean(), by_size_of_y=True
        )

    def mse(self, form):
        """The weighted mean square error; infinite if a row has no value."""
        error = form(self.X) - self.y
        if not np.isfinite(error).all():
            return np.inf
        return float(np.average(error**2, weights=self.weight))

    def exact(self, form, floor=None):
        """Whether the form is right on every row up to the relative error `floor`."""
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
    """The relative rounding of values: 1e-11 for float64, 6e-8 if float32 holds them,
    5e-6 for six decimal digits."""
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
