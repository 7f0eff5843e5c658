"""Models of which the program is the same share it; where it differs, they do not."""

import collections
import gc
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers, optimizers

import keras_nalu
from keras_nalu import NALU
from keras_nalu.models.backends import programs

BACKEND = keras.backend.backend()
pytestmark = pytest.mark.skipif(BACKEND == "torch", reason="no loop on the device")

X = np.random.default_rng(0).uniform(1, 3, (44, 2)).astype("float32")
Y = X.sum(axis=1, keepdims=True)


@pytest.fixture
def count(monkeypatch):
    """`count()` is how many programs were compiled since the test began."""
    monkeypatch.setattr(programs, "_held", collections.OrderedDict())
    return lambda: len(programs._held)


FIT = {"batch_size": 8, "shuffle": False, "verbose": 0}


def compiled(model, optimizer=None, **options):
    options = {"steps_per_execution": 9} | options
    model.compile(optimizer or optimizers.SGD(0.02), "mse", metrics=["mae"], **options)
    return model


def one(seed, *make, cls=keras_nalu.Sequential):
    keras.utils.set_random_seed(seed)
    return cls([keras.Input((2,)), *(each() for each in make), layers.Dense(1)])


def hidden():
    return layers.Dense(2, "tanh")


def many(seed):
    template = keras.Sequential([keras.Input((2,)), layers.Dropout(0.2), NALU(1)])
    population = keras_nalu.Population(template, 3, seed=seed)
    population.compile(optimizers.Adam(0.02), "mse", metrics=["mae"])
    return population


def assert_as_keras(make, *fits):
    """Each of the models that `make` makes trains as Keras'."""
    for i, fit in enumerate(fits):
        losses = [
            compiled(make(i, cls), steps_per_execution=steps)
            .fit(X, Y, **FIT | fit)
            .history
            for cls, steps in ((keras_nalu.Sequential, 9), (keras.Sequential, 1))
        ]
        assert losses[0].keys() == losses[1].keys()
        for name, values in losses[0].items():
            np.testing.assert_allclose(values, losses[1][name], 1e-4, err_msg=name)


def test_a_model_of_the_same_kind_compiles_nothing(count):
    trained, counts = [], []
    for seed in (1, 2):
        model = compiled(one(seed, hidden))
        model.fit(X, Y, epochs=2, validation_data=(X[:20], Y[:20]), **FIT)
        trained.append(model.get_weights())
        counts.append(count())
    assert counts[0] == counts[1] > 0
    assert np.abs(trained[0][0] - trained[1][0]).max() > 1e-3
    assert_as_keras(lambda i, cls: one(i, hidden, cls=cls), {}, {"epochs": 2})
    assert count() == counts[0]


def test_names_are_no_program(count):
    """Keras and TensorFlow sort by names, and "dense_10" comes before "dense_9"."""
    counts = []
    for names in (("dense_8", "dense_9"), ("dense_9", "dense_10")):
        named = [lambda name=name: layers.Dense(2, name=name) for name in names]
        compiled(one(1, *named)).fit(X, Y, **FIT)
        counts.append(count())
    assert counts[0] == counts[1] > 0


@pytest.mark.slow
def test_a_population_of_the_same_kind_compiles_nothing(count):
    def train(seed):
        return many(seed).fit(X, Y, epochs=2, **FIT).members["loss"]

    first, before = train(1), count()
    assert np.abs(train(2) - first).max() > 1e-3
    np.testing.assert_array_equal(train(1), first)
    assert count() == before


class Shifted(layers.Layer):
    """Has a constant that its configuration does not name."""

    def __init__(self, by, **kwargs):
        super().__init__(**kwargs)
        self.by = np.float32(by)

    def call(self, inputs):
        return inputs + self.by * np.arange(2, dtype="float32")


class Constant(layers.Layer):
    """Has a tensor that is no variable."""

    def __init__(self, by, **kwargs):
        super().__init__(**kwargs)
        self.by = keras.ops.convert_to_tensor(np.full((2,), by, "float32"))

    def call(self, inputs):
        return inputs + self.by


def adapted(by):
    layer = layers.Normalization()
    layer.adapt(by + X * (1 + by))
    return layer


@pytest.mark.parametrize(
    "make",
    [
        Shifted,
        *(
            pytest.param(make, marks=pytest.mark.slow)
            for make in (Constant, adapted, lambda by: layers.Dense(2 + by))
        ),
    ],
)
def test_what_no_configuration_tells_is_kept(make):
    assert_as_keras(lambda i, cls: one(1, lambda: make(i), cls=cls), {}, {})


@pytest.mark.slow
def test_a_learning_rate_is_no_program_and_a_schedule_is(count):
    rates = 0.01, 0.02, optimizers.schedules.ExponentialDecay(0.02, 5, 0.5)
    counts = []
    for rate in rates:
        losses = []
        for cls, steps in ((keras_nalu.Sequential, 9), (keras.Sequential, 1)):
            model = one(1, cls=cls)
            compiled(model, optimizers.SGD(rate), steps_per_execution=steps)
            losses.append(model.fit(X, Y, **FIT).history["loss"])
        np.testing.assert_allclose(*losses, 1e-5)
        counts.append(count())
    assert counts[0] == counts[1] < counts[2]


@pytest.mark.slow
def test_more_rows_are_no_other_program(count):
    counts = []
    for rows in (41, 44, 33, 49, 57, 63):
        rng = np.random.default_rng(rows)
        x = rng.uniform(1, 3, (rows, 2)).astype("float32")
        losses = [
            compiled(one(1, cls=cls), steps_per_execution=steps)
            .fit(x, x[:, :1], epochs=2, **FIT)
            .history["loss"]
            for cls, steps in ((keras_nalu.Sequential, 9), (keras.Sequential, 1))
        ]
        np.testing.assert_allclose(*losses, 1e-5)
        counts.append(count())
    # The last batches have 1, 4, 1, 1, 1 and 7 rows.
    assert np.diff(counts).tolist() == [1, 0, 0, 0, 1]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="of Linux")
@pytest.mark.parametrize(
    "make", [lambda seed: compiled(one(seed, lambda: NALU(1))), many]
)
def test_a_process_may_make_many_models(make):
    def mappings():
        gc.collect()
        return len(Path("/proc/self/maps").read_text().splitlines())

    for seed in range(40):
        make(seed).fit(X, Y, **FIT)
        if seed == 9:
            before = mappings()
    # It was 120 of each.
    assert mappings() - before < 5 * 30
