"""What members have of their template, and which templates are refused."""

import functools
import threading

import keras
import numpy as np
import pytest
from keras import layers

import keras_nalu
from keras_nalu import NALU, NAU, Population

BACKEND = keras.backend.backend()
pytestmark = pytest.mark.skipif(BACKEND == "torch", reason="populations are refused")

X = np.random.default_rng(0).uniform(1, 3, (48, 2)).astype("float32")
Y = X.sum(axis=1, keepdims=True)
SLOW = pytest.mark.slow
RARE = "PyDataset", "data set", "unknown", "generator"
GIVEN = np.array([[5.0, 0.0], [0.0, 7.0]], "float32")
FIT = {"batch_size": 8, "shuffle": False, "verbose": 0}


def pretrained(trainable):
    base = layers.Dense(2, use_bias=False, name="base")
    template = keras.Sequential([keras.Input((2,)), base, NAU(1)])
    base.set_weights([GIVEN])
    base.trainable = trainable
    return template


def values(population, variable):
    return keras.ops.convert_to_numpy(population.stacked(variable))


def test_frozen_weights_are_the_templates():
    template = pretrained(trainable=False)
    population = Population(template, 3, seed=0)
    kernel = template.layers[0].kernel
    np.testing.assert_array_equal(values(population, kernel), [GIVEN] * 3)
    population.compile(keras.optimizers.SGD(1e-3), "mse")
    population.fit(X, Y, **FIT)
    member = population.member(0)
    np.testing.assert_array_equal(member.layers[0].get_weights()[0], GIVEN)
    assert member.layers[0].trainable is False


def test_frozen_models_and_embeddings_within_a_template():
    inner = keras.Sequential([keras.Input((2,)), layers.Dense(2, use_bias=False)])
    inner.set_weights([GIVEN])
    inner.trainable = False
    x = keras.Input((2,))
    population = Population(keras.Model(x, NAU(1)(inner(x))), 2, seed=0)
    kernel = inner.layers[0].kernel
    np.testing.assert_array_equal(values(population, kernel), [GIVEN] * 2)
    vectors = layers.Embedding(2, 2, trainable=False)
    template = keras.Sequential([keras.Input((), dtype="int32"), vectors, NAU(1)])
    vectors.set_weights([GIVEN])
    population = Population(template, 2, seed=0)
    np.testing.assert_array_equal(values(population, vectors.embeddings), [GIVEN] * 2)


@pytest.mark.parametrize("keep", [(), ["base"]])
def test_trained_weights_are_drawn_but_for_those_to_keep(keep, tmp_path):
    template = pretrained(trainable=True)
    population = Population(template, 3, seed=0, keep=keep)
    kernel = values(population, template.layers[0].kernel)
    assert np.array_equal(kernel, [GIVEN] * 3) == bool(keep)
    head = values(population, template.layers[1].W)
    assert not np.array_equal(head[0], head[1])
    population.save(tmp_path / "population.keras")
    copy = keras_nalu.load_model(tmp_path / "population.keras")
    assert [*copy.keep] == [*keep]


def test_layers_to_keep_are_the_templates():
    with pytest.raises(ValueError, match=r"keep=\['bases'\]. It has: .*base"):
        Population(pretrained(trainable=True), 3, keep=["bases"])


@pytest.mark.parametrize("name", ["compute_loss", "train_step", "compute_metrics"])
def test_templates_with_steps_of_their_own_are_refused(name):
    own = type("Own", (keras.Model,), {name: lambda self, *args, **kwargs: None})
    x = keras.Input((2,))
    with pytest.raises(ValueError, match=f"Own has a `{name}` of its own"):
        Population(own(x, NAU(1)(x)), 2)


@SLOW
def test_left_out_of_the_weight_decay_as_alone():
    def compiled(model):
        optimizer = keras.optimizers.AdamW(0.01, weight_decay=0.5)
        optimizer.exclude_from_weight_decay(var_list=[template.layers[0].kernel])
        model.compile(optimizer, "mse")
        return model

    template = keras.Sequential([keras.Input((2,)), layers.Dense(2), NAU(1)])
    population = compiled(Population(template, 2, seed=0))
    initial = population.member(1)
    alone = keras.models.clone_model(template)
    alone.set_weights(initial.get_weights())
    optimizer = keras.optimizers.AdamW(0.01, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_list=[alone.layers[0].kernel])
    alone.compile(optimizer, "mse")
    for model in (population, alone, initial):
        model.fit(X, Y, epochs=3, **FIT)
    for a, b, c in zip(
        population.member(1).get_weights(),
        alone.get_weights(),
        initial.get_weights(),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, 1e-4, 1e-5)
        np.testing.assert_allclose(c, b, 1e-4, 1e-5)


def test_made_in_several_threads():
    add_weight = keras.layers.Layer.add_weight
    made, barrier = [None] * 4, threading.Barrier(4)

    def make(index):
        parts = [keras.Input((5,)), layers.Dense(5), NALU(1)]
        template = keras.Sequential(parts)
        barrier.wait()
        made[index] = Population(template, 3, seed=7)

    threads = [threading.Thread(target=make, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert keras.layers.Layer.add_weight is add_weight
    first = made[0].get_weights()
    for population in made:
        for weight, expected in zip(population.get_weights(), first, strict=True):
            np.testing.assert_array_equal(weight, expected)
            assert weight.ndim < 3 or not np.array_equal(weight[0], weight[1])


# Data ---------------------------------------------------------------------------------


def ready():
    template = keras.Sequential([keras.Input((2,)), NAU(1)])
    population = Population(template, 3, seed=0)
    population.compile(keras.optimizers.SGD(0.01), "mse")
    return population


def tables():
    pandas = pytest.importorskip("pandas")
    return pandas.DataFrame(X, columns=["a", "b"]), pandas.Series(Y[:, 0])


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 6

    def __getitem__(self, index):
        rows = slice(8 * index, 8 * index + 8)
        return X[rows], Y[rows]


def data_set():
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices((X, Y)).batch(8)


def generator():
    for rows in np.split(np.arange(48), 6):
        yield X[rows], Y[rows]


SOURCES = {
    "tables": tables,
    "PyDataset": lambda: (Batches(),),
    "data set": lambda: (data_set(),),
    "unknown": lambda: (data_set().filter(lambda x, y: True),),
    "generator": lambda: (generator(),),
}


@functools.cache
def of_arrays():
    """The losses, the evaluation, the best member and the outputs."""
    population = ready()
    losses = population.fit(X, Y, **FIT).members["loss"]
    evaluation = population.evaluate(X, Y, 8, verbose=0)
    best = population.best(X, Y).get_weights()
    return losses, evaluation, best, population.predict(X, verbose=0)


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize(
    "source",
    [
        pytest.param(source, id=name, marks=SLOW if name in RARE else ())
        for name, source in SOURCES.items()
    ],
)
def test_data_of_any_kind_train_as_arrays(source):
    population, (losses, evaluation, best, outputs) = ready(), of_arrays()
    size = {"batch_size": 8} if source is tables else {}
    found = population.fit(*source(), **size, shuffle=False, verbose=0).members["loss"]
    np.testing.assert_allclose(found, losses, 1e-5)
    found = population.evaluate(*source(), **size, verbose=0)
    np.testing.assert_allclose(found, evaluation, 1e-4)
    found = population.best(*source()).get_weights()
    for a, b in zip(found, best, strict=True):
        np.testing.assert_allclose(a, b, 1e-5)
    x, *_ = source()
    if source is not SOURCES["generator"]:
        found = population.predict(x, verbose=0)
        np.testing.assert_allclose(found, outputs, 1e-4)


class Buckets(keras.utils.PyDataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        return X[: 4 + index], Y[: 4 + index]


def test_batches_of_many_shapes():
    population = ready()
    initial = population.member(2)
    population.fit(Buckets(), shuffle=False, verbose=0)
    initial.fit(Buckets(), shuffle=False, verbose=0)
    for a, b in zip(
        population.member(2).get_weights(), initial.get_weights(), strict=True
    ):
        np.testing.assert_allclose(a, b, 1e-5)
