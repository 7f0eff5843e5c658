"""Running sums and products, for recurrent cells."""

import dataclasses
import functools
from typing import Any, ClassVar

import keras
from keras import ops

from keras_nalu.benchmarks.tasks.base import Task
from keras_nalu.benchmarks.tasks.distributions import Uniform, Variant


@dataclasses.dataclass(frozen=True)
class Running(Task):
    """The running sum or product of digits, for a recurrent cell (Madsen and Johansen).

    Sums of 10 digits from 0 to 9, tested on 1,000; products of 2 digits from 1 to 9,
    tested on 20. The inputs are numbers, as from a perfect classifier of images. The
    error is ((y - y_pred) / max(|y|, 1))^2, averaged over all prefixes. The authors
    train on images for 1,000 epochs, and take a threshold for every length from
    networks in which the operation is fixed.
    """

    threshold: Any = 1e-5

    known = ("add", "multiply")
    inputs: ClassVar[int] = 1
    batch_size: ClassVar[int] = 64
    rows: ClassVar[int] = 100
    pieces: ClassVar[dict] = {"validation": 1, "test": 1}

    @property
    def input_shape(self):
        return (None, 1)

    @property
    def variants(self):
        digits = (0, 10) if self.operation == "add" else (1, 10)
        return (Variant(f"{digits[0]}..9", *[Uniform((digits,))] * 2),)

    def sample_inputs(self, stream, rows, members, part):
        near, far = (10, 1000) if self.operation == "add" else (2, 20)
        length = far if part == "test" else near
        u = stream.uniform((rows, length, 1), members=members)
        return ops.stack([ops.floor(v.of(part).sample(u)) for v in self.variants])

    def answer(self, x, seeds):
        return (ops.cumsum if self.operation == "add" else ops.cumprod)(x, axis=-2)

    def measures(self):
        def error(y_true, y_pred):
            scale = ops.maximum(ops.abs(y_true), 1)
            return ops.square((y_true - y_pred) / scale)

        name = self.operation
        return {name: keras.metrics.MeanMetricWrapper(error, name=name)}


@dataclasses.dataclass(frozen=True)
class RunningImages(Running):
    """`Running` on images of handwritten digits, of 64 grey values (8 by 8 pixels).

    The images are scikit-learn's, not MNIST's: 1,200 for training, the others for
    validation and test. There is no threshold, as no classifier of images is perfect.
    """

    threshold: Any = None

    inputs: ClassVar[int] = 64

    @property
    def input_shape(self):
        return (None, 64)

    def sample(self, stream, seeds, part="training"):
        training = part == "training"
        images, digits = _images(training, self.operation == "multiply")
        rows = self.batch_size if training else self.rows
        length, far = (10, 100) if self.operation == "add" else (2, 20)
        shape = (rows, far if part == "test" else length)
        members = len(seeds) if training else 1
        u = stream.uniform(shape, members=members)
        chosen = ops.cast(ops.floor(u * len(digits)), "int32")
        x, y = ops.take(images, chosen, axis=0), ops.take(digits, chosen, axis=0)
        y = self.answer(ops.expand_dims(y, -1), seeds)
        shape = (len(seeds), *shape)
        return (
            ops.broadcast_to(x, (*shape, self.inputs)),
            ops.broadcast_to(y, (*shape, 1)),
        )


@functools.cache
def _images(training, without_zero):
    """Images and their digits, as arrays."""
    from sklearn.datasets import load_digits

    images, digits = load_digits(return_X_y=True)
    split = slice(1200) if training else slice(1200, None)
    images, digits = images[split] / 16, digits[split]
    kept = digits > 0 if without_zero else digits >= 0
    return images[kept].astype("float32"), digits[kept].astype("float32")
