"""A model for training on one device and on several, with equal results."""

import keras
import numpy as np
from keras import layers, optimizers

from keras_nalu.layers import NAU

BATCH = 16


def draw(stream):
    x = stream.uniform((BATCH, 2), 1, 2)
    return x, x[..., :1] * np.arange(1, 5, dtype="float32")


def made(cls, **compiled):
    keras.utils.set_random_seed(1)
    rounded = NAU(8, name="sum", kernel_regularizer="l2")
    model = cls([keras.Input((2,)), rounded, layers.Dense(4, name="last")])
    sgd = optimizers.SGD(0.01, momentum=0.9)
    model.compile(sgd, "mse", metrics=["mae"], **compiled)
    return model


def assert_alike(one, other):
    """Compares two pairs of a model and its history."""
    (model, history), (spread, seen) = one, other
    for a, b in zip(model.get_weights(), spread.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert [*history] == [*seen]
    for name, values in history.items():
        np.testing.assert_allclose(seen[name], values, rtol=1e-5, err_msg=name)
