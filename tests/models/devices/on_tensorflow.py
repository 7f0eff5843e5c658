"""On two devices of TensorFlow: run by test_devices.py in a process of its own."""

import contextlib
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, optimizers

import keras_nalu
from keras_nalu.layers import NAU

BATCH = 16
ROWS = 128

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration()] * 2,
)

_rng = np.random.default_rng(0)
X = _rng.uniform(1, 2, (ROWS, 2)).astype("float32")
Y = X.sum(1, keepdims=True) * np.arange(1, 5, dtype="float32")


def draw(stream):
    x = stream.uniform((BATCH, 2), 1, 2)
    return x, x[..., :1] * np.arange(1, 5, dtype="float32")


def dataset(rows, batch=BATCH):
    return tf.data.Dataset.from_tensor_slices((X[:rows], Y[:rows])).batch(batch)


#: What is fitted, by name. The rest of 126 rows are 14.
DATA = {
    "arrays": lambda: {"x": X, "y": Y, "shuffle": False, "batch_size": BATCH},
    "with a rest": lambda: {
        "x": X[:126],
        "y": Y[:126],
        "batch_size": BATCH,
        "validation_data": (X, Y),
    },
    "drawn": lambda: {"x": draw, "steps_per_epoch": 8},
    "a data set": lambda: {
        "x": dataset(126),
        "shuffle": False,
        "validation_data": dataset(64),
    },
}


@pytest.fixture(scope="module")
def strategy():
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def train(cls, data, strategy=None, **compiled):
    keras.utils.set_random_seed(1)
    with strategy.scope() if strategy else contextlib.nullcontext():
        rounded = NAU(8, kernel_regularizer="l2")
        model = cls([keras.Input((2,)), rounded, layers.Dense(4)])
        sgd = optimizers.SGD(0.01, momentum=0.9)
        model.compile(sgd, "mse", metrics=["mae"], **compiled)
    history = model.fit(**DATA[data](), epochs=3, verbose=0).history
    return model, history


def assert_alike(one, other):
    (model, history), (spread, seen) = one, other
    for a, b in zip(model.get_weights(), spread.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert [*history] == [*seen]
    for name, values in history.items():
        np.testing.assert_allclose(seen[name], values, rtol=1e-5, err_msg=name)


def test_keras_fit_ends_as_on_one_device(strategy):
    alone = train(keras.Sequential, "arrays")
    assert_alike(alone, train(keras.Sequential, "arrays", strategy))
    ours = train(keras_nalu.Sequential, "arrays", strategy, steps_per_execution=1)
    assert_alike(alone, ours)


@pytest.mark.parametrize("data", ["arrays", "with a rest", "drawn"])
def test_fused_fit_ends_as_on_one_device(data, strategy):
    ends = []
    keep = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: ends.append(batch)
    )
    alone = train(keras_nalu.Sequential, data)
    spread = train(keras_nalu.Sequential, data, strategy)
    assert_alike(alone, spread)
    model, _ = spread
    model.fit(X, Y, BATCH, verbose=0, callbacks=[keep])
    assert ends == [7]
    first, kernel, bias = model.get_weights()
    np.testing.assert_allclose(
        model.predict(X[:63], verbose=0), X[:63] @ first @ kernel + bias, rtol=1e-4
    )
    assert model.evaluate(X, Y, verbose=0)[0] < 100


def test_logs_of_a_batch_are_means_also_those_of_several_numbers(strategy):
    seen = []
    keep = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(np.shape(logs["f1_score"]))
    )
    with strategy.scope():
        model = keras_nalu.Sequential([keras.Input((2,)), layers.Dense(4)])
        model.compile("sgd", "mse", metrics=[keras.metrics.F1Score(threshold=1.0)])
    model.fit(X, np.float32(Y > 6), BATCH, verbose=0, callbacks=[keep])
    assert seen == [(4,)]


@pytest.mark.parametrize("steps", ["auto", 4])
def test_a_data_set_goes_step_by_step(steps, strategy):
    alone = train(keras_nalu.Sequential, "a data set", steps_per_execution=steps)
    said = r"step by step.*cuts the batches of a data"
    with pytest.warns(UserWarning, match=said) as caught:
        ours = train(
            keras_nalu.Sequential, "a data set", strategy, steps_per_execution=steps
        )
    assert __file__ in {w.filename for w in caught if re.search(said, str(w.message))}
    assert_alike(alone, ours)


def test_keras_takes_several_steps_nowhere(strategy):
    """Why it is one step at a time. Once this fails, let Keras have the chunk."""
    with pytest.raises(tf.errors.InvalidArgumentError, match="value for placeholder"):
        train(keras.Sequential, "a data set", strategy, steps_per_execution=4)


def test_xla_compiles_for_one_device(strategy):
    """Why the loop is not XLA's. Once this fails, let it be."""
    with pytest.raises(tf.errors.InvalidArgumentError, match="Trying to access resou"):
        train(keras.Sequential, "arrays", strategy, jit_compile=True)


@pytest.mark.filterwarnings("ignore:Training step by step")
@pytest.mark.parametrize("steps", ["auto", 1])
def test_uneven_batches(steps, strategy):
    """Keras would take the mean of means of 7 and of 8 rows."""
    with strategy.scope():
        model = keras_nalu.Sequential([keras.Input((2,)), layers.Dense(4)])
        model.compile("sgd", "mse", steps_per_execution=steps)
    said = r"cut into 2 equal parts, .*Received: {}\. Try .* multiples of 2"

    def fails(what, call, *args, **options):
        with pytest.raises(ValueError, match=said.format(what)):
            call(*args, verbose=0, **options)

    fails("128 rows, in batches of 5", model.fit, X, Y, 5)
    fails("127 rows, in batches of 16", model.fit, X[1:], Y[1:], BATCH)
    fails("63 rows, .*", model.fit, X, Y, BATCH, validation_data=(X[:63], Y[:63]))
    fails("63 rows, .*", model.evaluate, X[:63], Y[:63])
    fails("parts of .7, 8. rows", model.fit, dataset(79), shuffle=False)
    fails("a batch that is not", model.fit, dataset(75, 15), shuffle=False)
    fails("parts of .7, 8. rows", model.evaluate, dataset(79))
    held_out = {"validation_data": dataset(79)}
    fails("parts of .7, 8. rows", model.fit, X, Y, BATCH, **held_out)
    # It goes on.
    model.fit(X, Y, BATCH, verbose=0)


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
