"""Comparisons of two numbers."""

import dataclasses
from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops

from keras_nalu.benchmarks.tasks.base import Task
from keras_nalu.benchmarks.tasks.distributions import Uniform, Variant
from keras_nalu.datasets import COMPARISONS


@dataclasses.dataclass(frozen=True)
class Comparison(Task):
    """Whether one digit is less than, greater than or equal to another (NSR).

    A batch has all pairs of the digits 1 to 9, also for equality, for which the
    authors' code has 18 pairs. Each variant is a number of `digits`: its test pairs
    differ by at most 5, as the authors' do, and all of them have to be right. Their
    code computes in double precision with up to 18 digits, and its labels compare
    `10,000 x1` with `x2`, so that the first is always greater.
    """

    threshold: Any = 0.5
    digits: tuple = (2, 3, 4, 5, 6, 7)

    known = COMPARISONS
    batch_size: ClassVar[int] = 81
    loss: ClassVar[str] = "mae"
    inputs: ClassVar[int] = 2

    def __post_init__(self):
        super().__post_init__()
        if not all(0 < digits < 8 for digits in self.digits):
            raise ValueError(
                "Expected numbers of 7 digits at most, which float32 holds. Received: "
                f"digits={self.digits!r}."
            )

    @property
    def variants(self):
        return tuple(
            Variant(f"10^{n}", None, Uniform(((10 ** (n - 1), 10**n),)))
            for n in self.digits
        )

    def sample_inputs(self, stream, rows, members, part):
        if part != "test":
            pairs = np.stack(np.meshgrid(range(1, 10), range(1, 10)), -1)
            x = pairs.reshape(81, 2).astype("float32")
            return ops.broadcast_to(x, (len(self.variants), members, 81, 2))
        first = ops.floor(super().sample_inputs(stream, rows, members, part)[..., :1])
        apart = ops.floor(stream.uniform((rows, 1), 0, 11, members=members)) - 5
        return ops.concatenate([first, first + apart], -1)

    def answer(self, x, seeds):
        right = COMPARISONS[self.operation](x[..., :1], x[..., 1:])
        return ops.cast(right, "float32")

    def measures(self):
        # The largest error, as all pairs have to be right.
        return {self.operation: LargestError(self.operation)}


class LargestError(keras.metrics.Metric):
    """The largest absolute error of all rows."""

    def __init__(self, name="largest_error", dtype=None):
        super().__init__(name=name, dtype=dtype)
        self.largest = self.add_variable((), initializer="zeros", name="largest")

    def update_state(self, y_true, y_pred, sample_weight=None):
        error = ops.max(ops.abs(ops.cast(y_true, y_pred.dtype) - y_pred))
        self.largest.assign(ops.maximum(self.largest, error))

    def result(self):
        return ops.copy(self.largest)
