"""Distributions of inputs, and the variants that consist of them."""

import dataclasses
import math
from typing import Any

from keras import ops


def _expect_below(low, high):
    if not low < high:
        raise ValueError(
            f"Expected low < high. Received: low={low!r}, high={high!r}. "
            "Try low=1, high=2."
        )


def _expect_positive(name, value):
    if not value > 0:
        raise ValueError(f"Expected a positive number. Received: {name}={value!r}.")


@dataclasses.dataclass(frozen=True)
class Uniform:
    """Uniform in one interval, or in several that are equally likely."""

    intervals: tuple

    def __post_init__(self):
        for interval in self.intervals:
            _expect_below(*interval)

    def sample(self, u):
        """The sample for uniform numbers in [0, 1)."""
        count = len(self.intervals)
        pieces = [low + (high - low) * count * u for low, high in self.intervals]
        x = pieces[0]
        for i, (low, high) in enumerate(self.intervals[1:], 1):
            x = ops.where(count * u < i, x, pieces[i] - i * (high - low))
        return x


@dataclasses.dataclass(frozen=True)
class Normal:
    """Normal, cut off at `low` and `high`."""

    mean: float
    deviation: float
    low: float
    high: float

    def __post_init__(self):
        _expect_positive("deviation", self.deviation)
        _expect_below(self.low, self.high)

    def sample(self, u):
        first, last = (
            0.5 + 0.5 * math.erf((end - self.mean) / self.deviation / math.sqrt(2))
            for end in (self.low, self.high)
        )
        z = math.sqrt(2) * ops.erfinv(2 * (first + (last - first) * u) - 1)
        # Single precision makes the far end of the tail infinite.
        return ops.clip(self.mean + self.deviation * z, self.low, self.high)


@dataclasses.dataclass(frozen=True)
class Exponential:
    """Exponential, with the rate `1 / mean`."""

    mean: float

    def __post_init__(self):
        _expect_positive("mean", self.mean)

    def sample(self, u):
        return -self.mean * ops.log1p(-u)


@dataclasses.dataclass(frozen=True)
class Benford:
    """Numbers whose leading digits follow Benford's law: uniform in the logarithm."""

    low: float
    high: float

    def __post_init__(self):
        _expect_positive("low", self.low)
        _expect_below(self.low, self.high)

    def sample(self, u):
        return ops.exp(math.log(self.low) + math.log(self.high / self.low) * u)


@dataclasses.dataclass(frozen=True)
class Halves:
    """The first half of the inputs from one distribution, the others from another."""

    first: Any
    second: Any

    def sample(self, u):
        half = u.shape[-1] // 2
        parts = self.first.sample(u[..., :half]), self.second.sample(u[..., half:])
        return ops.concatenate(parts, -1)


@dataclasses.dataclass(frozen=True)
class Variant:
    """The distributions of a task's inputs, in training and validation, and in test."""

    name: str
    training: Any
    test: Any

    def config(self):
        """The variant as plain data; a distribution is its `repr`."""
        return [self.name, repr(self.training), repr(self.test)]

    def of(self, part):
        return self.test if part == "test" else self.training


def _ranges(*pairs):
    return tuple(
        Variant(_label(near), Uniform(near), Uniform(far)) for near, far in pairs
    )


def _label(intervals):
    return " u ".join(f"[{low:g},{high:g}]" for low, high in intervals)


#: The nine of Mistry et al., who took most from Madsen and Johansen.
RANGES = _ranges(
    (((-20, -10),), ((-40, -20),)),
    (((-2, -1),), ((-6, -2),)),
    (((-1.2, -1.1),), ((-6.1, -1.2),)),
    (((-0.2, -0.1),), ((-2, -0.2),)),
    (((-2, 2),), ((-6, -2), (2, 6))),
    (((0.1, 0.2),), ((0.2, 2),)),
    (((1, 2),), ((2, 6),)),
    (((1.1, 1.2),), ((1.2, 6),)),
    (((10, 20),), ((20, 40),)),
)


def _signs(name, first, second):
    """A variant with two ranges for two inputs or halves, tested on 2 <= |x| <= 6."""
    far = {True: Uniform(((-6, -2),)), False: Uniform(((2, 6),))}
    near = Uniform((first,)), Uniform((second,))
    test = far[first[0] < 0], far[second[0] < 0]
    return Variant(name, Halves(*near), Halves(*test))


#: Dividend and divisor of different signs (Mistry et al., on division).
MIXED_SIGNS = (
    *(variant for variant in RANGES if variant.name == "[-2,2]"),
    _signs("[-2,-0.1] / [0.1,2]", (-2, -0.1), (0.1, 2)),
    _signs("[0.1,2] / [-2,-0.1]", (0.1, 2), (-2, -0.1)),
    _signs("[-2,-1] / [1,2]", (-2, -1), (1, 2)),
    _signs("[1,2] / [-2,-1]", (1, 2), (-2, -1)),
)
#: Other distributions than uniform ones in one interval (the same).
DISTRIBUTIONS = (
    Variant("Benford [10,100]", Benford(10, 100), Benford(100, 1000)),
    Variant("Normal(-1,3)", Normal(-1, 3, -5, 10), Normal(-10, 3, -15, -5)),
    Variant("Normal(1,3)", Normal(1, 3, -10, 5), Normal(10, 3, 5, 15)),
    Variant("Normal(0,1)", Normal(0, 1, -5, 5), Normal(10, 1, 5, 15)),
    *_ranges(
        (((-50, 50),), ((-100, -50), (50, 100))),
        (((-100, 100),), ((-200, -100), (100, 200))),
    ),
)
#: The range of the main table of Madsen and Johansen.
ONE_TO_TWO = tuple(variant for variant in RANGES if variant.name == "[1,2]")
