"""On two devices of TensorFlow: run by test_devices.py in a process of its own."""

import contextlib
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from oracles.devices import BATCH, assert_alike, draw, made

import keras_nalu

ROWS = 128
SAID = (
    "^Training step by step, as Keras does: the model is on several devices, by a "
    r"strategy of TensorFlow\.$"
)

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration()] * 2,
)

_rng = np.random.default_rng(0)
X = _rng.uniform(1, 2, (ROWS, 2)).astype("float32")
Y = X.sum(1, keepdims=True) * np.arange(1, 5, dtype="float32")


def dataset(rows, batch=BATCH):
    return tf.data.Dataset.from_tensor_slices((X[:rows], Y[:rows])).batch(batch)


#: What is fitted, by name.
DATA = {
    "arrays": lambda: {
        "x": X,
        "y": Y,
        "shuffle": False,
        "batch_size": BATCH,
        "validation_data": (X, Y),
    },
    "a data set": lambda: {
        "x": dataset(128),
        "shuffle": False,
        "validation_data": dataset(64),
    },
}


@pytest.fixture(scope="module")
def strategy():
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def train(cls, data, strategy=None, **compiled):
    with strategy.scope() if strategy else contextlib.nullcontext():
        model = made(cls, **compiled)
    history = model.fit(**DATA[data](), epochs=3, verbose=0).history
    return model, history


def test_keras_fit_ends_as_on_one_device(strategy):
    alone = train(keras.Sequential, "arrays")
    assert_alike(alone, train(keras.Sequential, "arrays", strategy))
    ours = train(keras_nalu.Sequential, "arrays", strategy, steps_per_execution=1)
    assert_alike(alone, ours)


@pytest.mark.parametrize("data", DATA)
def test_keras_own_step_trains_and_one_line_says_why(data, strategy):
    alone = train(keras_nalu.Sequential, data)
    with pytest.warns(UserWarning, match=SAID) as caught:
        spread = train(keras_nalu.Sequential, data, strategy)
    (line,) = (w for w in caught if re.search(SAID, str(w.message)))
    assert line.filename == __file__
    assert_alike(alone, spread)
    model, _ = spread
    first, kernel, bias = model.get_weights()
    answers = X @ first @ kernel + bias
    np.testing.assert_allclose(model.predict(X, verbose=0), answers, rtol=1e-4)
    with pytest.warns(UserWarning, match=SAID):
        error = model.evaluate(X, Y, verbose=0)[1]
    np.testing.assert_allclose(error, np.abs(answers - Y).mean(), rtol=1e-4)
    assert not model.train_function.loops
    assert not model.test_function.loops


def test_what_is_drawn_is_refused(strategy):
    """Keras has no way to train on it."""
    with strategy.scope():
        model = keras_nalu.Sequential([keras.Input((2,)), layers.Dense(4)])
        model.compile("sgd", "mse")
    before = model.get_weights()
    said = "function that samples batches, but the model is on several devices"
    with pytest.raises(ValueError, match=said):
        model.fit(draw, steps_per_epoch=8, verbose=0)
    with pytest.raises(ValueError, match=said):
        model.evaluate(draw, steps=8, verbose=0)
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_xla_compiles_for_one_device(strategy):
    """Why nothing is fused. Once this fails, let it be."""
    with pytest.raises(tf.errors.InvalidArgumentError, match="Trying to access resou"):
        train(keras.Sequential, "arrays", strategy, jit_compile=True)


def test_a_population_is_refused(strategy):
    template = keras.Sequential([keras.Input((2,)), layers.Dense(1)])
    with strategy.scope():
        population = keras_nalu.Population(template, 4)
        population.compile("sgd", "mse")
    with pytest.raises(ValueError, match=r"several devices\. Try `KERAS_BACKEND=jax`"):
        population.fit(X, X[:, :1], verbose=0)


def test_a_keras_distribution_is_for_jax():
    """Keras trains on one device of it, and says nothing."""
    distribution = keras.distribution
    model, _ = train(keras_nalu.Sequential, "arrays")
    distribution.set_distribution(distribution.DataParallel())
    try:
        with pytest.raises(ValueError, match=r"is for JAX; .*MirroredStrategy"):
            model.fit(X, Y, verbose=0)
    finally:
        distribution.set_distribution(None)
