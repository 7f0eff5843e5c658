"""Four operations at once."""

import dataclasses
from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops

from keras_nalu.benchmarks.tasks.base import Task
from keras_nalu.benchmarks.tasks.distributions import Uniform, Variant


@dataclasses.dataclass(frozen=True)
class FourFunctions(Task):
    """`x + y`, `x y`, `x / y` and the root of `x` at once (Heim et al.).

    The training range is [0.1, 2.1], as the published errors show: on the paper's
    [0.1, 2], an NMU's quotients are off by 12.1 and not by 11.4. The test is the mean
    absolute error on a grid of both inputs: for the root from 0.1 to 4 in steps of 0.1,
    for the others from -4.1 to 3.9 in steps of 0.2. There is no threshold.
    """

    operation: str = "all four"
    threshold: Any = None

    batch_size: ClassVar[int] = 100
    inputs: ClassVar[int] = 2
    judged: ClassVar[str] = "last"
    names: ClassVar[tuple] = ("add", "multiply", "divide", "root")
    variants: ClassVar[tuple] = (Variant("[0.1,2.1]", Uniform(((0.1, 2.1),)), None),)
    pieces: ClassVar[dict] = {"validation": 10, "test": 1}

    def sample_inputs(self, stream, rows, members, part):
        if part != "test":
            return super().sample_inputs(stream, rows, members, part)
        wide, roots = (
            np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
            for axis in (-4.1 + 0.2 * np.arange(41), 0.1 * np.arange(1, 41))
        )
        x = np.concatenate([wide, roots])[None, None]
        return ops.convert_to_tensor(x, keras.config.floatx())

    def answer(self, x, seeds):
        a, b = x[..., :1], x[..., 1:]
        root = ops.sqrt(ops.maximum(a, 0))
        return ops.concatenate([a + b, a * b, a / b, root], -1)

    def measures(self):
        wide = slice(0, 41**2)
        rows = [wide, wide, wide, slice(41**2, None)]
        return {
            name: OutputError(i, rows[i], name) for i, name in enumerate(self.names)
        }


class OutputError(keras.metrics.MeanMetricWrapper):
    """The mean absolute error of one output, in a test on this output's rows only."""

    def __init__(self, index, rows, name="output_error", dtype=None):
        def error(y_true, y_pred):
            used = rows if y_pred.shape[0] == 41**2 + 40**2 else slice(None)
            return ops.abs(y_true[used, index] - y_pred[used, index])

        super().__init__(error, name=name, dtype=dtype)
