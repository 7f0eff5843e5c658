"""Members trained alone by Keras say what is right."""

import csv
import functools
import os
import subprocess
import sys
import types

import keras
import numpy as np
import pytest
from keras import layers, optimizers, regularizers
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import keras_nalu
from keras_nalu import NAC, NALU, L2Loss, Population
from keras_nalu.models.feeds import sampled

BACKEND = keras.backend.backend()
ROWS, BATCH, SIZE = 24, 8, 4
STEPS = 3
slow = pytest.mark.slow
on_jax = BACKEND == "jax"
PLAIN = {keras_nalu.Model: keras.Model, keras_nalu.Sequential: keras.Sequential}
RANGE = ("", "_min", "_q1", "_q3", "_max")

# Positive: a log of what is around zero is chaotic.
_rng = np.random.default_rng(0)
X = _rng.uniform(0.5, 2, size=(ROWS, 3)).astype("float32")
Y = X.sum(axis=1, keepdims=True) + 1
CLASSES = (Y > Y.mean()).astype("int64")
WEIGHT = _rng.uniform(0.5, 2, size=ROWS)
OWN_X = _rng.uniform(0.5, 2, size=(SIZE, ROWS, 3)).astype("float32")
OWN_Y = OWN_X.sum(axis=2, keepdims=True) * np.arange(1, SIZE + 1)[:, None, None]


@pytest.fixture(autouse=True)
def _skip_on_torch(request):
    if BACKEND == "torch" and request.node.name != "test_pytorch_is_refused":
        pytest.skip("no population trains there")


def stacked(*parts, shape=(3,)):
    return lambda cls: cls([keras.Input(shape), *(make() for make in parts)])


def dense(units=1, **options):
    return lambda: layers.Dense(units, **options)


line = stacked(dense())


def mixed(cls):
    """What a model may hold: penalties, constraints, counters, chance."""
    x = keras.Input((3,))
    h = layers.Dense(
        4,
        activation="tanh",
        kernel_regularizer="l2",
        activity_regularizer=regularizers.L1(0.01),
        kernel_constraint="non_neg",
    )(x)
    h = layers.Dropout(0.3)(layers.BatchNormalization(momentum=0.5)(h))
    return cls(x, layers.Dense(1)(h))


def two_outputs(cls):
    a, b = keras.Input((3,), name="a"), keras.Input((3,), name="b")
    total = layers.Dense(1, name="total")(layers.Add()([a, b]))
    return cls({"a": a, "b": b}, {"total": total, "pair": layers.Dense(2)(a)})


def listed_outputs(cls):
    x = keras.Input((3,))
    return cls(x, [layers.Dense(1, name="total")(x), layers.Dense(2, name="pair")(x)])


def compiling(optimizer=lambda: optimizers.SGD(0.02), loss="mse", metrics=("mae",)):
    return lambda: {
        "optimizer": optimizer(),
        "loss": loss() if callable(loss) else loss,
        "metrics": [each() if callable(each) else each for each in metrics],
    }


plain = compiling()


def weights_of(model):
    variables = [*model.trainable_variables, *model.non_trainable_variables]
    return [keras.ops.convert_to_numpy(v) for v in variables]


def give(model, weights):
    variables = [*model.trainable_variables, *model.non_trainable_variables]
    for variable, value in zip(variables, weights, strict=True):
        variable.assign(value)
    return model


def taken(index, data):
    return keras.tree.map_structure(lambda a: a[index], data)


def assert_same(weights, others, rtol=1e-4, atol=2e-5):
    assert len(weights) == len(others) > 0
    for a, b in zip(weights, others, strict=True):
        np.testing.assert_allclose(a, b, rtol, atol)


def assert_trains_as_alone(
    make, compiled=plain, data=(X, Y), cls=keras.Sequential, own=False, jit=True, **fit
):
    fit = {"batch_size": BATCH, "epochs": 3, "shuffle": False, "verbose": 0} | fit
    population = Population(make(PLAIN.get(cls, cls)), SIZE, seed=1)
    population.compile(**compiled())
    start = weights_of(population)
    keras.utils.set_random_seed(2)
    history = population.fit(*data, **fit)
    trained = weights_of(population)
    if cls not in PLAIN:
        compiled = functools.partial(
            lambda make: {"jit_compile": jit} | make(), compiled
        )
    model = make(cls)
    model.compile(**compiled())
    model.optimizer.build(model.trainable_variables)
    fresh = [np.array(keras.ops.convert_to_numpy(v)) for v in model.optimizer.variables]
    for member in (0, SIZE - 1):
        give(model, [w[member] for w in start])
        for variable, value in zip(model.optimizer.variables, fresh, strict=True):
            variable.assign(value)
        keras.utils.set_random_seed(2)
        told = dict(fit)
        if own:
            for name in {"validation_data", "sample_weight"} & {*told}:
                told[name] = taken(member, told[name])
        logs = model.fit(*(taken(member, data) if own else data), **told).history
        assert_same([w[member] for w in trained], weights_of(model))
        assert history.members.keys() == logs.keys()
        for name, values in logs.items():
            np.testing.assert_allclose(
                history.members[name][:, member], values, 1e-4, 1e-6, err_msg=name
            )
    moved = [np.abs(a - b).max() for a, b in zip(start, trained, strict=True)]
    assert max(moved[: len(population.trainable_variables)]) > 1e-3
    return history


@functools.cache
def _line_population():
    population = Population(line(keras.Sequential), SIZE, seed=1)
    population.compile(optimizers.SGD(0.02), "mse", metrics=["mae"])
    return population, weights_of(population)


@pytest.fixture
def lines():
    """One for many tests, which need not wait for a compilation each."""
    population, start = _line_population()
    population.stop_training = False
    return give(population, start)


def fit(population, x=X, y=Y, **options):
    defaults = {"batch_size": BATCH, "epochs": 2, "shuffle": False, "verbose": 0}
    return population.fit(x, y, **defaults | options)


def evaluate(population, x=X, y=Y, **options):
    defaults = {"batch_size": BATCH, "verbose": 0, "return_dict": True}
    return population.evaluate(x, y, **defaults | options)


def test_pytorch_is_refused(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    with pytest.raises(ValueError, match=r"trains on TensorFlow or JAX.*'torch'"):
        Population(line(keras.Sequential), 2)


def adam():
    return optimizers.Adam(0.01)


def test_members_train_as_alone():
    assert_trains_as_alone(
        stacked(lambda: NALU(1)),
        compiling(lambda: optimizers.SGD(1e-3), L2Loss, (keras_nalu.IsCloseAccuracy,)),
    )


@slow
def test_members_train_as_alone_whatever_the_layers():
    rows = ROWS - 3
    assert_trains_as_alone(
        mixed,
        compiling(lambda: optimizers.SGD(0.05, momentum=0.9)),
        (X[:rows], Y[:rows]),
        keras.Model,
        sample_weight=WEIGHT[:rows],
        validation_data=(X * 2, Y),
    )


LAYERS = {
    "NAC": (lambda: NAC(1),),
    "NALU": (lambda: NALU(2), lambda: NALU(1, epsilon=1e-3)),
    "penalized NALU": (
        lambda: NALU(1, kernel_regularizer=regularizers.L1L2(0.01, 0.01)),
    ),
    "Dense": (dense(8, activation="relu"), dense()),
    "l2": (dense(4, kernel_regularizer="l2", bias_regularizer="l1"), dense()),
    "activity": (dense(4, activity_regularizer="l1"), dense()),
    "orthogonal": (
        lambda: layers.Dense(4, kernel_regularizer="orthogonal_regularizer"),
        dense(),
    ),
    "non_neg": (dense(4, kernel_constraint="non_neg"), dense()),
    "max_norm": (
        dense(4, kernel_constraint=keras.constraints.MaxNorm(0.3)),
        dense(kernel_constraint="unit_norm"),
    ),
    "frozen": (dense(4, trainable=False), dense()),
    "Dropout": (dense(8), lambda: layers.Dropout(0.5), dense()),
    # No bias before it: its gradient is nothing but rounding, which Adam magnifies.
    "BatchNormalization": (
        dense(4, use_bias=False),
        lambda: layers.BatchNormalization(),
        dense(),
    ),
    "LayerNormalization": (dense(4), lambda: layers.LayerNormalization(), dense()),
    "Conv1D": (
        lambda: layers.Reshape((3, 1)),
        lambda: layers.Conv1D(4, 2),
        lambda: layers.Flatten(),
        dense(),
    ),
    "nested": (lambda: stacked(dense(4), dense(2))(keras.Sequential), dense()),
}
# TensorFlow has no parallel version of what this takes, and says so.
ignored = pytest.mark.filterwarnings("ignore:.*while_loop")


@slow
@pytest.mark.parametrize("parts", LAYERS.values(), ids=LAYERS)
def test_of_any_layer(parts):
    assert_trains_as_alone(stacked(*parts), compiling(adam))


@slow
def test_of_steps_in_time_of_any_number():
    make = stacked(dense(), shape=(None, 3))
    data = X.reshape(-1, 2, 3), Y.reshape(-1, 2, 1)
    assert_trains_as_alone(make, compiling(), data, batch_size=4)


@slow
def test_recurrent_layers_train_uncompiled_on_tensorflow(recwarn):
    make = stacked(
        lambda: layers.Reshape((3, 1)), lambda: layers.LSTM(4), dense(), shape=(3,)
    )
    jit = BACKEND == "jax"
    assert_trains_as_alone(make, compiling(adam), jit=jit)
    told = [each for each in recwarn if "XLA cannot compile" in str(each.message)]
    assert len(told) == (0 if jit else 1)


@keras.saving.register_keras_serializable()
class Scale(keras.layers.Layer):
    """A layer whose weight is one number."""

    def build(self, input_shape):
        self.scale = self.add_weight(shape=(), initializer="ones", name="scale")

    def call(self, inputs):
        return self.scale * inputs


OPTIMIZERS = {
    "SGD": lambda: optimizers.SGD(0.05, momentum=0.9, nesterov=True),
    "AdamW": lambda: optimizers.AdamW(0.01, weight_decay=0.1),
    "Adam, amsgrad": lambda: optimizers.Adam(0.01, amsgrad=True),
    "RMSprop": lambda: optimizers.RMSprop(0.01, centered=True),
    "Adagrad": lambda: optimizers.Adagrad(0.1),
    "Adadelta": lambda: optimizers.Adadelta(1.0),
    "Adamax": lambda: optimizers.Adamax(0.01),
    "Nadam": lambda: optimizers.Nadam(0.01),
    "Ftrl": lambda: optimizers.Ftrl(0.1),
    "Lion": lambda: optimizers.Lion(0.01),
    "schedule": lambda: optimizers.SGD(
        optimizers.schedules.ExponentialDecay(0.05, 2, 0.5)
    ),
    "clipvalue": lambda: optimizers.SGD(0.05, clipvalue=0.2),
    "clipnorm": lambda: optimizers.SGD(0.05, clipnorm=0.2),
    "global_clipnorm": lambda: optimizers.SGD(0.05, global_clipnorm=0.2),
    "averages": lambda: optimizers.SGD(0.05, use_ema=True, ema_momentum=0.5),
    "accumulated": lambda: optimizers.SGD(0.05, gradient_accumulation_steps=2),
}


@slow
@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_of_any_optimizer(optimizer):
    # A layer beside the one that the weights fit: members with gradients far apart;
    # and a weight that is one number, whose norm is a member's, too.
    make = stacked(dense(4, activation="tanh"), lambda: Scale(), dense())
    assert_trains_as_alone(make, compiling(optimizer))


LOSSES = {
    "mean": ("mse", Y),
    "sum": (lambda: keras.losses.MeanSquaredError(reduction="sum"), Y),
    "L2Loss": (L2Loss, Y),
    "two outputs": ("mse", np.hstack([Y, -Y])),
    "classes": (
        lambda: keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        CLASSES,
    ),
}


@slow
@pytest.mark.parametrize(("loss", "y"), LOSSES.values(), ids=LOSSES)
def test_of_any_loss(loss, y):
    make = stacked(dense(1 if y is Y else 2))
    # Keras' R2Score has a number for every output.
    of_numbers = ["mae", "r2_score", keras_nalu.IsCloseAccuracy]
    metrics = ["accuracy"] if y is CLASSES else of_numbers
    last = loss() if callable(loss) else keras.losses.MeanSquaredError()
    metrics.append(lambda: keras_nalu.LastBatchLoss(last))
    rows = slice(ROWS - 3)
    history = assert_trains_as_alone(
        make, compiling(loss=loss, metrics=metrics), (X[rows], y[rows])
    )
    assert {"loss", "accuracy", "last_batch_loss"} <= history.members.keys()


FITS = {
    "remainder": {"batch_size": 7},
    "sample_weight": {"sample_weight": WEIGHT},
    "class_weight": {"class_weight": {0: 1, 1: 5}},
    "validation_data": {"validation_data": (X * 2, CLASSES), "validation_freq": 2},
    "weighted validation": {"validation_data": (X * 2, CLASSES, WEIGHT)},
    "validation_split": {"validation_split": 0.3},
}


@slow
@pytest.mark.parametrize("options", FITS.values(), ids=FITS)
def test_of_any_fit(options):
    def compiled():
        made = compiling(loss="binary_crossentropy", metrics=["accuracy"])()
        return made | {"weighted_metrics": ["mae"]}

    make = stacked(dense(activation="sigmoid"))
    assert_trains_as_alone(make, compiled, (X, CLASSES), **options)


@slow
def test_shuffled_as_alone():
    def compiled():
        # Alone, too, in the loop: Keras shuffles in another order.
        return compiling(adam)() | {"steps_per_execution": 100}

    assert_trains_as_alone(
        line, compiled, cls=keras_nalu.Sequential, shuffle=True, batch_size=7
    )


def of_outputs(names):
    total, pair = names
    return lambda: {
        "optimizer": optimizers.SGD(0.02),
        "loss": {"total": "mse", pair: "mae"},
        "loss_weights": {"total": 2.0, pair: 0.5},
        "metrics": {total: ["mae"], pair: ["mse"]},
    }


@slow
def test_a_list_of_outputs():
    def compiled():
        return {
            "optimizer": optimizers.SGD(0.02),
            "loss": ["mse", "mae"],
            "loss_weights": [2.0, 0.5],
            "metrics": [["mae"], ["mse"]],
        }

    y = [Y, np.concatenate([Y, -Y], 1)]
    history = assert_trains_as_alone(listed_outputs, compiled, (X, y), keras.Model)
    assert {"total_loss", "pair_loss", "total_mae", "pair_mse"} < {*history.members}


@slow
@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 7, "validation_data": (OWN_X[:, ::-1] * 2, OWN_Y[:, ::-1])},
        {"validation_split": 0.3},
        {"sample_weight": np.stack([WEIGHT * (i + 1) for i in range(SIZE)])},
        {"batch_size": ROWS},
    ],
    ids=["remainder", "validation_split", "sample_weight", "whole batch"],
)
def test_each_its_own_data(options):
    assert_trains_as_alone(line, data=(OWN_X, OWN_Y), own=True, **options)


@slow
def test_each_its_own_data_with_several_inputs():
    y = {"total": OWN_Y, "pair": np.concatenate([OWN_Y, -OWN_Y], 2)}
    x = {"a": OWN_X, "b": -OWN_X}
    assert_trains_as_alone(
        two_outputs, of_outputs(("total", "pair")), (x, y), keras.Model, own=True
    )


@slow
def test_own_data_in_evaluate_and_predict(lines):
    logs = evaluate(lines, OWN_X, OWN_Y)
    fresh = give(Population(lines.template, SIZE), weights_of(lines))
    outputs = fresh.predict(OWN_X, batch_size=BATCH, verbose=0)
    assert outputs.shape == (SIZE, ROWS, 1)
    shared = fresh.predict(np.stack([X] * SIZE), verbose=0)
    assert_same([fresh.predict(X, verbose=0)], [shared], 1e-5, 1e-6)
    for i in range(SIZE):
        member = lines.member(i)
        np.testing.assert_allclose(
            outputs[i], member.predict(OWN_X[i], verbose=0), 1e-5, 1e-6
        )
        error = np.square(outputs[i] - OWN_Y[i]).mean()
        np.testing.assert_allclose(logs["loss"][i], error, 1e-5)


class Lowest(keras.metrics.Metric):
    """Of the errors; it starts high."""

    def __init__(self, name="lowest", dtype=None):
        super().__init__(name=name, dtype=dtype)
        self.value = self.add_variable((), "ones", name="value")
        self.value.assign(1e9)

    def update_state(self, y_true, y_pred, sample_weight=None):
        lowest = keras.ops.min(keras.ops.abs(y_true - y_pred))
        self.value.assign(keras.ops.minimum(self.value, lowest))

    def result(self):
        return keras.ops.copy(self.value)

    def reset_state(self):
        self.value.assign(1e9)


def test_metrics_start_where_they_start_alone():
    population = Population(line(keras.Sequential), SIZE, seed=0)
    population.compile("sgd", "mse", metrics=[Lowest()])
    twice = [evaluate(population, return_dict=True)["lowest"] for _ in range(2)]
    errors = np.abs(population.predict(X, verbose=0) - Y).min(axis=(1, 2))
    np.testing.assert_allclose(twice, [errors, errors], 1e-5)


@slow
def test_own_data_of_float64_is_trained_on_as_float32():
    def trained(dtype):
        population = Population(line(keras.Sequential), SIZE, seed=0)
        population.compile("sgd", "mse")
        fit(population, OWN_X.astype(dtype), OWN_Y.astype(dtype))
        return population.get_weights()

    for of_double, of_single in zip(
        trained("float64"), trained("float32"), strict=True
    ):
        np.testing.assert_allclose(of_double, of_single, 1e-6)


def test_another_number_of_members_is_refused(lines):
    x, y = OWN_X[:-1], OWN_Y[:-1]
    text = rf"Expected data of {SIZE} members.*Received: \({SIZE - 1}, "
    with pytest.raises(ValueError, match=text):
        fit(lines, x, y)
    with pytest.raises(ValueError, match=text):
        fit(lines, validation_data=(x, y))
    with pytest.raises(ValueError, match=text):
        evaluate(lines, x, y)
    with pytest.raises(ValueError, match=text):
        lines.predict(x)


def test_logs_are_quantiles_of_the_members(lines):
    seen = []
    record = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen.append(dict(logs))
    )
    history = fit(lines, epochs=3, validation_data=(X * 2, Y), callbacks=[record])
    names = ["loss", "mae", "val_loss", "val_mae"]
    assert [*history.members] == names
    assert {*history.history} == {
        *(name + suffix for name in names for suffix in RANGE),
        "diverged",
        "val_diverged",
    }
    for name in names:
        values = history.members[name]
        assert values.shape == (3, SIZE)
        expected = np.quantile(values, [0.5, 0, 0.25, 0.75, 1], axis=1)
        for suffix, quantile in zip(RANGE, expected, strict=True):
            np.testing.assert_allclose(history.history[name + suffix], quantile, 1e-6)
    assert history.history["diverged"] == history.history["val_diverged"] == [0, 0, 0]
    assert seen == [
        {name: values[epoch] for name, values in history.history.items()}
        for epoch in range(3)
    ]


def test_evaluate_and_predict(lines):
    logs = evaluate(lines)
    assert [*logs] == ["loss", "mae"]
    listed = evaluate(lines, return_dict=False)
    assert isinstance(listed, list)
    outputs = lines.predict(X, batch_size=7, verbose=0)
    assert outputs.shape == (SIZE, ROWS, 1)
    np.testing.assert_array_equal(listed, [*logs.values()])
    errors = outputs - Y
    np.testing.assert_allclose(logs["loss"], np.square(errors).mean((1, 2)), 1e-5)
    np.testing.assert_allclose(logs["mae"], np.abs(errors).mean((1, 2)), 1e-5)
    assert len({*logs["loss"]}) == SIZE


@pytest.mark.parametrize("options", [{}, {"batch_size": ROWS}])
def test_evaluate_on_a_single_batch(lines, options):
    fit(lines, validation_data=(X * 2, Y))
    expected = np.square(lines.predict(X, verbose=0) - Y).mean((1, 2))
    logs = lines.evaluate(X, Y, verbose=0, return_dict=True, **options)
    np.testing.assert_allclose(logs["loss"], expected, 1e-5)


def test_fit_on_a_single_batch(lines):
    start = weights_of(lines)
    history = fit(lines, batch_size=ROWS)
    other = keras.Sequential([keras.Input((3,)), layers.Dense(1)])
    give(other, [w[1] for w in start]).compile(optimizers.SGD(0.02), "mse")
    logs = fit(other, batch_size=ROWS).history
    np.testing.assert_allclose(history.members["loss"][:, 1], logs["loss"], 1e-5)
    assert "loss_q1" in history.history


def draw_sums(stream):
    x = stream.uniform((16, 3), 0.5, 2.0)
    return x, keras.ops.sum(x, axis=-1, keepdims=True)


@pytest.mark.parametrize("kind", ["population", pytest.param("sequential", marks=slow)])
def test_trains_on_what_a_function_draws(kind):
    model = keras_nalu.Sequential([keras.Input((3,)), layers.Dense(1)])
    if kind == "population":
        model = Population(model, SIZE)
    model.compile(optimizers.Adam(0.1), "mse")
    keras.utils.set_random_seed(3)
    history = model.fit(draw_sums, steps_per_epoch=40, epochs=3, verbose=0)
    assert int(model.optimizer.iterations) == 120
    losses = history.history["loss" if kind == "sequential" else "loss_max"]
    assert losses[0] > 0.5 > 0.15 > losses[-1]
    keras.utils.set_random_seed(3)
    logs = model.evaluate(draw_sums, steps=4, verbose=0, return_dict=True)
    assert np.max(logs["loss"]) < 0.15
    with pytest.raises(ValueError, match=r"number of steps of an epoch.*steps_per_ep"):
        model.fit(draw_sums, verbose=0)
    with pytest.raises(ValueError, match=r"number of steps of an epoch.*steps=1000"):
        model.evaluate(draw_sums, verbose=0)


@pytest.mark.parametrize(("options", "later"), [({}, 5), ({"repeats": True}, 0)])
def test_batches_that_are_drawn_are_counted(options, later):
    feed = sampled.Sampled(draw_sums, 5, **options)
    for start in (0, later):
        pieces = [piece for _ in range(3) for piece in feed.chunk(2, None)]
        steps = [(first - start, last - start) for _, _, first, last in pieces]
        assert steps == [(0, 1), (2, 3), (4, 4)]


def test_any_seed_leaves_room_for_what_is_counted(monkeypatch):
    monkeypatch.setattr(np.random, "randint", lambda high: high - 1)
    seed, _ = keras.ops.convert_to_numpy(sampled.Sampled(draw_sums, 5).seed).tolist()
    assert 2**30 < seed < 2**31 - 2**16


def uniform_of_jax(key, low, high):
    import jax

    key = np.array(key, "uint32")
    return jax.random.uniform(key, (16, 3), "float32", low, high)


def uniform_of_tensorflow(key, low, high):
    import tensorflow as tf

    draw = tf.function(tf.random.stateless_uniform, jit_compile=True)
    return draw((16, 3), key, low, high, alg="threefry")


def test_a_seeds_numbers_are_those_of_the_backends_generator():
    """So a benchmark's rows can be computed again."""
    backend = keras.backend.backend()
    right = uniform_of_jax if backend == "jax" else uniform_of_tensorflow
    bounds = [(0.0, 1.0), (-2.0, 5.0)]

    def draw(stream):
        unit = stream.uniform((16, 3))
        return unit, stream.uniform((16, 3), -2.0, 5.0)

    feed = sampled.Sampled(draw, 5, seed=7)
    assert feed.batch_size == 16
    for batch in range(3):
        for call, drawn in enumerate(feed[batch]):
            # A compiler may round the product and the sum at once.
            np.testing.assert_allclose(
                drawn, right([8 + call, batch], *bounds[call]), atol=2**-20
            )


def least(y_true, y_pred):
    return keras.ops.min(y_pred)


def most(y_true, y_pred):
    return keras.ops.max(y_pred)


@pytest.mark.only("jax", reason="JAX' generator")
@pytest.mark.parametrize("shape", [(), (4, 5), (2**9, 2**9), (100, 128, 100)])
@pytest.mark.parametrize("bounds", [(0, 1), (-6, -1.2)])
def test_many_numbers_are_those_of_few(shape, bounds):
    import jax

    from keras_nalu.models import backends

    key = np.array([2**31 - 1, 7], "uint32")
    drawn = jax.jit(lambda key: backends.current().uniform(key, shape, *bounds))(key)
    right = jax.random.uniform(key, shape, "float32", *bounds)
    assert drawn.dtype == right.dtype
    # A compiler may round the product and the sum at once.
    precision = 0 if bounds == (0, 1) else 2**-23 * max(map(abs, bounds))
    np.testing.assert_allclose(drawn, right, rtol=0, atol=precision)
    assert np.min(drawn) >= np.float32(bounds[0])


@slow
@pytest.mark.parametrize(
    "kind",
    [
        "population",
        "sequential",
    ],
)
def test_what_is_drawn(kind):
    """Weights of 1 that do not move: the losses tell the numbers."""

    def pairs(stream):
        return stream.uniform((50, 1), 2, 5), stream.uniform((50, 1), 2, 5)

    def losses():
        keras.utils.set_random_seed(3)
        history = model.fit(pairs, steps_per_epoch=3, epochs=4, verbose=0)
        logs = history.members if kind == "population" else history.history
        return {name: np.asarray(values) for name, values in logs.items()}

    ones = dense(use_bias=False, kernel_initializer="ones")
    model = stacked(ones, shape=(1,))(keras_nalu.Sequential)
    if kind == "population":
        model = Population(model, SIZE)
    error = keras.losses.MeanAbsoluteError()
    model.compile(
        optimizers.SGD(0.0),
        error,
        metrics=[least, most, keras_nalu.LastBatchLoss(error)],
    )
    logs = losses()
    assert len({*logs["loss"].ravel()}) == logs["loss"].size
    assert len({*logs["last_batch_loss"].ravel()}) == logs["loss"].size
    assert np.all(np.abs(logs["loss"] - logs["last_batch_loss"]) > 1e-4)
    # Of two independent numbers in a range of 3.
    np.testing.assert_allclose(logs["loss"], 1, atol=0.3)
    assert logs["least"].min() >= 2
    assert logs["least"].max() < 2.4
    assert logs["most"].max() < 5
    assert logs["most"].min() > 4.6
    for name, values in losses().items():
        np.testing.assert_array_equal(values, logs[name])
    history = model.fit(pairs, steps_per_epoch=3, epochs=4, verbose=0)
    again = history.members if kind == "population" else history.history
    assert not np.any(np.asarray(again["loss"]) == logs["loss"])


@slow
def test_a_function_draws_the_validation(lines):
    options = {"steps_per_epoch": 4, "validation_steps": 3, "epochs": 2, "verbose": 0}
    history = lines.fit(draw_sums, validation_data=draw_sums, **options)
    assert history.members["val_loss"].shape == (2, SIZE)
    assert len({*history.members["val_loss"].ravel()}) == 2 * SIZE
    assert history.history["val_diverged"] == [0, 0]


@pytest.fixture
def counting():
    class Counting(layers.Layer):
        calls = 0

        def call(self, inputs):
            Counting.calls += 1
            return inputs * 1

    return Counting


def test_nothing_is_traced_twice(counting):
    population = Population(stacked(counting, dense())(keras.Sequential), 3)
    population.compile("sgd", "mse")
    fit(population, epochs=1)
    evaluate(population)
    calls, loops = counting.calls, {**population.train_function.loops}
    assert len(loops) == 1
    fit(population, epochs=3, shuffle=True)
    fit(population, validation_data=(X, Y))
    evaluate(population)
    assert (counting.calls, population.train_function.loops) == (calls, loops)


@slow
def test_nothing_is_compiled_twice(tmp_path):
    code = f"""
import os, keras, numpy as np, keras_nalu
x = np.random.default_rng(0).uniform(0.5, 2, (20, 3)).astype("float32")
model = keras.Sequential([keras.Input((3,)), keras_nalu.NALU(2), keras_nalu.NALU(1)])
population = keras_nalu.Population(model, 3, seed=0)
population.compile("adam", "mse")
def train(epochs):
    population.fit(x, x[:, :1], batch_size=8, epochs=epochs, verbose=0)
    population.evaluate(x, x[:, :1], batch_size=8, verbose=0)
    return len(os.listdir({str(tmp_path)!r}))
print(train(2), train(1), train(5))
"""
    env = os.environ | {
        "KERAS_BACKEND": BACKEND,
        "XLA_FLAGS": f"--xla_dump_to={tmp_path}",
        "JAX_ENABLE_COMPILATION_CACHE": "0",
    }
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=env
    )
    assert out.returncode == 0, out.stderr
    first, *others = map(int, out.stdout.split())
    assert first > 10
    assert others == [first, first]


def distinct(values):
    """Whether no two members have the same."""
    return len({value.tobytes() for value in values}) == len(values)


def everything(cls=keras.Sequential):
    return cls(
        [
            keras.Input((6, 3)),
            layers.TimeDistributed(layers.Dense(4)),
            layers.Bidirectional(layers.GRU(3)),
            layers.Dropout(0.5, seed=3),
            keras.Sequential([keras.Input((6,)), layers.Dense(4, name="inner")]),
            layers.Dense(4, kernel_initializer=keras.initializers.Orthogonal(seed=1)),
            layers.Dense(4, kernel_initializer=keras.initializers.HeNormal(seed=1)),
            NALU(3, kernel_initializer=keras.initializers.RandomUniform(seed=1)),
            NALU(1),
        ]
    )


def test_members_start_apart():
    template = everything()
    population = Population(template, 5, seed=2)
    variables = [*template.trainable_variables, *template.non_trainable_variables]
    apart = 0
    for variable, values in zip(variables, weights_of(population), strict=True):
        assert values.shape == (5, *variable.shape)
        if "bias" in variable.path:
            assert not values.any()
        else:
            assert distinct(values), variable.path
            apart += 1
    kernels = [v for v in population.weights if v.name.endswith(("W_hat", "M_hat"))]
    assert len(kernels) == 4
    by_name = [keras.ops.convert_to_numpy(v) for v in kernels]
    assert distinct([*by_name[0], *by_name[1]])
    assert distinct([*by_name[2], *by_name[3]])
    assert apart == len([v for v in variables if "bias" not in v.path]) > 10


def test_a_member_depends_on_the_seed_and_its_number():
    make = stacked(dense(4), lambda: layers.Dropout(0.5), lambda: NALU(2))
    template = make(keras.Sequential)
    first = weights_of(Population(template, 3, seed=2))
    keras.utils.set_random_seed(9)
    more = weights_of(Population(make(keras.Sequential), 10, seed=2))
    other = weights_of(Population(template, 3, seed=3))
    for a, b, c in zip(first, more, other, strict=True):
        np.testing.assert_array_equal(a, b[:3])
        assert not a.any() or not np.array_equal(a, c)


def test_without_a_seed_it_comes_from_keras():
    template = line(keras.Sequential)
    seeds = []
    for seed in (5, 5, 6):
        keras.utils.set_random_seed(seed)
        pair = Population(template, 2), Population(template, 2)
        assert pair[0].seed != pair[1].seed
        seeds.append([weights_of(each)[0] for each in pair])
    np.testing.assert_array_equal(seeds[0], seeds[1])
    assert not np.any(np.asarray(seeds[0]) == seeds[2])
    assert not np.any(seeds[0][0] == seeds[0][1])


@slow
def test_initial_weights_have_their_distribution():
    make = stacked(
        lambda: NALU(40),
        dense(10),
        dense(6, kernel_initializer="orthogonal"),
        dense(5, kernel_initializer="he_normal"),
        dense(kernel_initializer="ones", bias_initializer="random_normal"),
        shape=(30,),
    )
    population = Population(make(keras.Sequential), 50, seed=0)
    (*nalu, kernel, _, orthogonal, _, he, _, ones, bias) = weights_of(population)
    assert len(nalu) == 3
    for values in nalu:
        assert abs(values.mean()) < 5e-4
        # Cut off at two deviations, which leaves a smaller one.
        assert values.std() == pytest.approx(0.02 * 0.8796, rel=0.02)
        assert 0.039 < np.abs(values).max() <= 0.04
    limit = np.sqrt(6 / (40 + 10))
    assert 0.99 * limit < np.abs(kernel).max() <= limit
    assert kernel.std() == pytest.approx(limit / np.sqrt(3), rel=0.02)
    products = np.swapaxes(orthogonal, 1, 2) @ orthogonal
    np.testing.assert_allclose(products, [np.eye(6)] * 50, atol=1e-5)
    assert he.std() == pytest.approx(np.sqrt(2 / 6), rel=0.05)
    assert np.all(ones == 1)
    assert bias.std() == pytest.approx(0.05, rel=0.3)


class WeightFromTheStart(layers.Layer):
    def __init__(self, **options):
        super().__init__(**options)
        self.kernel = self.add_weight(shape=(3, 2), initializer="glorot_uniform")

    def call(self, inputs):
        return inputs @ self.kernel


class PartFromBuild(layers.Layer):
    def build(self, input_shape):
        self.part = layers.Dense(2)
        self.part.build(input_shape)

    def call(self, inputs):
        return self.part(inputs)


def attention():
    x = keras.Input((4, 3))
    return keras.Model(x, layers.MultiHeadAttention(2, 3)(x, x))


@pytest.mark.parametrize(
    "make",
    [
        lambda: stacked(WeightFromTheStart)(keras.Sequential),
        lambda: stacked(PartFromBuild)(keras.Sequential),
        attention,
    ],
    ids=["weight from the start", "part from build", "attention"],
)
def test_members_start_apart_wherever_a_weight_is_made(make):
    template = make()
    population = Population(template, 3, seed=2)
    paths = [v.path for v in template.trainable_variables]
    for path, values in zip(paths, weights_of(population), strict=True):
        assert "bias" in path or distinct(values), path


@slow
def test_ten_thousand_members():
    template = stacked(lambda: NAC(2), lambda: NALU(1))(keras.Sequential)
    population = Population(template, 10_000, seed=0)
    shapes = [(10_000, *v.shape) for v in template.trainable_variables]
    assert [v.shape for v in weights_of(population)] == shapes
    assert all(distinct(values) for values in weights_of(population))


@slow
def test_so_many_members_that_a_chunk_is_one_step():
    population = Population(line(keras.Sequential), 20_000, seed=0)
    population.compile("sgd", "mse")
    x = np.repeat(X, 200, axis=0)
    history = fit(population, x, x[:, :1], batch_size=2400)
    assert history.members["loss"].shape == (2, 20_000)
    assert np.all(np.diff(history.members["loss"], axis=0) < 0)


def test_one_that_diverges_disturbs_no_other(lines, capsys):
    alone = fit(lines, epochs=3, validation_data=(X, Y))
    expected = weights_of(lines)
    start = [np.array(w) for w in _line_population()[1]]
    start[0][1], start[0][2] = np.nan, 1e20
    give(lines, start)
    history = fit(lines, epochs=3, validation_data=(X, Y))
    assert history.history["diverged"] == history.history["val_diverged"] == [2, 2, 2]
    for values, others in zip(weights_of(lines), expected, strict=True):
        np.testing.assert_array_equal(values[[0, 3]], others[[0, 3]])
        assert np.isnan(values[1]).all()
    for name, values in history.members.items():
        np.testing.assert_array_equal(
            values[:, [0, 3]], alone.members[name][:, [0, 3]], err_msg=name
        )
    for name in ("loss", "val_loss"):
        others = history.members[name][:, [0, 3]]
        for suffix, level in (("", 0.5), ("_q1", 0.25), ("_max", 1)):
            quantiles = np.quantile(others, level, axis=1)
            np.testing.assert_allclose(history.history[name + suffix], quantiles, 1e-6)
    losses = evaluate(lines)["loss"]
    assert np.isfinite(losses).tolist() == [True, False, False, True]
    capsys.readouterr()
    best = lines.best(X, Y, batch_size=BATCH)
    assert capsys.readouterr().out == ""
    lowest = 3 if losses[3] < losses[0] else 0
    assert_same(best.get_weights(), [w[lowest] for w in expected])


def test_no_member_is_best_where_all_diverged(lines):
    give(lines, [np.full_like(w, np.nan) for w in weights_of(lines)])
    history = fit(lines)
    assert history.history["diverged"] == [SIZE, SIZE]
    assert np.isnan(history.history["loss"]).all()
    with pytest.raises(ValueError, match="a member whose loss on this data is finite"):
        lines.best(X, Y, batch_size=BATCH)


@pytest.mark.parametrize("call", ["fit", "evaluate", "best"])
def test_no_labels(lines, call):
    with pytest.raises(ValueError, match=r"Expected labels.*Received: y=None"):
        getattr(lines, call)(X)


def test_of_other_rows_only_keras_speaks(lines, recwarn):
    with pytest.raises(ValueError, match="same number of samples"):
        fit(lines, y=Y[:5])
    assert not recwarn


@pytest.mark.parametrize("size", [0, -1, 2.5, True, "3", None])
def test_sizes_that_are_refused(size):
    text = rf"`size`, expected a positive integer\. Received: size={size!r}\. Try"
    with pytest.raises(ValueError, match=text):
        Population(line(keras.Sequential), size)


def test_size_of_numpy():
    population = Population(line(keras.Sequential), np.int64(2))
    assert population.size == 2


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(1)

    def call(self, inputs):
        return self.dense(inputs)


@pytest.mark.parametrize(
    "template",
    [
        lambda: keras.Sequential([layers.Dense(1)]),
        Subclassed,
        lambda: layers.Dense(1),
        lambda: None,
    ],
    ids=["without input", "subclassed", "layer", "nothing"],
)
def test_templates_that_are_refused(template):
    with pytest.raises(ValueError, match=r"Sequential or functional model.*Received: "):
        Population(template(), 2)


class OwnAdam(optimizers.Adam):
    pass


@pytest.mark.parametrize(
    ("optimizer", "text"),
    [
        (
            lambda: optimizers.SGD(clipnorm=1.0, gradient_accumulation_steps=2),
            r"clips by norm.*Received: .*_steps=2\. Try larger batches",
        ),
        (lambda: optimizers.Lamb(), r"by itself.*Received: Lamb\."),
        (lambda: optimizers.Muon(0.1), r"by itself.*Received: Muon\."),
        (lambda: optimizers.Adafactor(), r"by itself.*Received: Adafactor\. Try "),
        (OwnAdam, r"by itself.*Received: OwnAdam\."),
        (
            lambda: optimizers.LossScaleOptimizer(optimizers.SGD()),
            r"by itself.*Received: LossScaleOptimizer\.",
        ),
    ],
)
def test_optimizers_that_are_refused(lines, optimizer, text):
    with pytest.raises(ValueError, match=text):
        lines.compile(optimizer(), "mse")
    assert type(lines.optimizer) is optimizers.SGD
    fit(lines, epochs=1)


@pytest.mark.parametrize("options", [{"run_eagerly": True}, {"jit_compile": False}])
def test_running_eagerly_is_refused(lines, options):
    with pytest.raises(ValueError, match=r"not run eagerly.*population\.member\(0\)"):
        lines.compile("sgd", "mse", **options)


@pytest.mark.parametrize("steps", [0, 2.5, "2"])
def test_steps_per_execution_that_are_refused(steps):
    population = Population(line(keras.Sequential), 2)
    with pytest.raises(ValueError, match=r"`steps_per_execution`.*Received: "):
        population.compile("sgd", "mse", steps_per_execution=steps)


@pytest.fixture
def policy():
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy("float32")


def test_loss_scaling_is_refused(policy):
    policy("mixed_float16")
    population = Population(line(keras.Sequential), 2)
    with pytest.raises(ValueError, match=r"'mixed_float16'.*'mixed_bfloat16'"):
        population.compile("sgd", "mse")


@slow
@ignored
def test_half_precision(policy):
    policy("mixed_bfloat16")
    make = stacked(dense(4), lambda: NALU(1))
    population = Population(make(keras.Sequential), SIZE, seed=1)
    population.compile(optimizers.Adam(0.01), "mse")
    start = weights_of(population)
    history = fit(population, epochs=5)
    model = give(make(keras.Sequential), [w[2] for w in start])
    model.compile(optimizers.Adam(0.01), "mse", jit_compile=True)
    logs = fit(model, epochs=5).history
    np.testing.assert_allclose(history.members["loss"][:, 2], logs["loss"], rtol=0.02)
    assert {w.dtype.name for w in weights_of(population)} == {"float32"}


@slow
def test_a_loss_of_every_row_is_refused():
    population = Population(line(keras.Sequential), 2)
    population.compile("sgd", keras.losses.MeanSquaredError(reduction=None))
    with pytest.raises(ValueError, match=r"must be one number.*such as 'sum'"):
        fit(population)


def test_before_compile():
    population = Population(line(keras.Sequential), 3, seed=1)
    outputs = population.predict(X, verbose=0)
    assert outputs.shape == (3, ROWS, 1)
    member = population.member(1)
    assert not member.compiled
    np.testing.assert_allclose(outputs[1], member.predict(X, verbose=0), 1e-5, 1e-6)
    with pytest.raises(ValueError, match=r"call `compile\(\)`"):
        fit(population)
    with pytest.raises(ValueError, match=r"call `compile\(\)`"):
        evaluate(population)


def test_member_is_a_model_of_its_own(lines, tmp_path):
    fit(lines)
    logs = evaluate(lines)
    before = weights_of(lines)
    member = lines.member(2)
    assert type(member) is keras.Sequential
    assert_same(weights_of(member), [w[2] for w in before], 0, 0)
    expected = {name: values[2] for name, values in logs.items()}
    assert evaluate(member) == pytest.approx(expected, rel=1e-5)
    assert float(member.optimizer.learning_rate) == pytest.approx(0.02)
    member.save(tmp_path / "member.keras")
    loaded = keras_nalu.load_model(tmp_path / "member.keras")
    assert evaluate(loaded) == pytest.approx(expected, rel=1e-5)
    fit(member)
    assert_same(weights_of(lines), before, 0, 0)
    assert not np.array_equal(weights_of(member)[0], before[0][2])


def test_member_is_a_plain_model():
    def of(template):
        return type(Population(template, 2).member(0))

    assert of(line(keras.Sequential)) is keras.Sequential
    assert of(mixed(keras.Model)) is type(mixed(keras.Model))
    assert of(mixed(keras_nalu.Model)) is type(mixed(keras_nalu.Model))
    assert of(line(keras_nalu.Sequential)) is keras.Sequential


def test_members_count_from_the_end_too(lines):
    last = [w[-1] for w in weights_of(lines)]
    assert_same(weights_of(lines.member(-1)), last, 0, 0)
    for index in (SIZE, -SIZE - 1):
        with pytest.raises(IndexError, match=rf"from 0 to {SIZE - 1}.*: {index}\."):
            lines.member(index)


def test_best_is_the_lowest_loss(lines):
    outputs = lines.predict(X, verbose=0)
    for target in range(SIZE):
        best = lines.best(X, outputs[target], batch_size=BATCH)
        assert_same(weights_of(best), [w[target] for w in weights_of(lines)], 0, 0)
    best = lines.best(OWN_X, OWN_Y, batch_size=BATCH)
    losses = evaluate(lines, OWN_X, OWN_Y)["loss"]
    expected = [w[np.argmin(losses)] for w in weights_of(lines)]
    assert_same(weights_of(best), expected, 0, 0)


@slow
def test_member_of_several_outputs():
    population = Population(two_outputs(keras.Model), 3, seed=0)
    population.compile(**of_outputs(("total", "pair"))())
    x, y = {"a": X, "b": -X}, {"total": Y, "pair": np.concatenate([Y, -Y], 1)}
    logs = evaluate(population, x, y)
    outputs = population.predict(x, verbose=0)
    assert {name: a.shape for name, a in outputs.items()} == {
        "total": (3, ROWS, 1),
        "pair": (3, ROWS, 2),
    }
    expected = {name: values[1] for name, values in logs.items()}
    assert evaluate(population.member(1), x, y) == pytest.approx(expected, rel=1e-5)


def own_loss(y_true, y_pred):
    return keras.ops.mean(keras.ops.abs(y_true - y_pred) ** 3, axis=-1)


@slow
def test_member_with_a_loss_of_ones_own():
    population = Population(line(keras.Sequential), 3, seed=0)
    population.compile("sgd", own_loss, metrics=[own_loss])
    logs = evaluate(population)
    member = population.member(1)
    expected = {name: values[1] for name, values in logs.items()}
    assert evaluate(member) == pytest.approx(expected, rel=1e-5)


@slow
def test_member_knows_the_statistics_of_its_inputs():
    normalization = layers.Normalization()
    normalization.adapt(X * 10)
    template = keras.Sequential([keras.Input((3,)), normalization, layers.Dense(1)])
    population = Population(template, 2, seed=0)
    np.testing.assert_allclose(
        population.predict(X, verbose=0)[1],
        population.member(1).predict(X, verbose=0),
        1e-5,
        1e-6,
    )


@slow
def test_masked_steps_do_not_count():
    x = keras.Input((4,), dtype="int32")
    embedded = layers.Embedding(5, 2, mask_zero=True)(x)
    population = Population(keras.Model(x, layers.Dense(1)(embedded)), 2, seed=0)
    population.compile("sgd", "mse")
    tokens = np.array([[1, 2, 0, 0], [3, 4, 1, 0]] * 8)
    labels = np.ones((16, 4, 1), "float32")
    member = population.member(1)
    expected = evaluate(member, tokens, labels)
    assert evaluate(population, tokens, labels)["loss"][1] == pytest.approx(
        expected["loss"], rel=1e-5
    )
    history = fit(population, tokens, labels)
    logs = fit(member, tokens, labels).history
    np.testing.assert_allclose(history.members["loss"][:, 1], logs["loss"], 1e-5)


@slow
def test_the_template_stays_as_it_is():
    make = stacked(dense(2), lambda: layers.BatchNormalization(), dense())
    template = make(keras.Sequential)
    before = [np.array(w) for w in weights_of(template)]
    population = Population(template, 2, seed=0)
    population.compile("sgd", "mse")
    assert not {id(v) for v in template.variables} & {
        id(v) for v in population.variables
    }
    assert len(population.weights) == len(template.variables)
    assert all(v.shape[0] == 2 for v in population.weights)
    fit(population)
    assert_same(weights_of(template), before, 0, 0)
    assert not template.compiled


def test_save_and_load(lines, tmp_path):
    fit(lines)
    lines.save(tmp_path / "population.keras")
    loaded = keras_nalu.load_model(tmp_path / "population.keras")
    assert type(loaded) is Population
    assert (loaded.size, loaded.seed, loaded.name) == (SIZE, 1, lines.name)
    assert_same(weights_of(loaded), weights_of(lines), 0, 0)
    assert float(loaded.optimizer.learning_rate) == pytest.approx(0.02)
    assert_same(
        [loaded.predict(X, verbose=0)], [lines.predict(X, verbose=0)], 1e-6, 1e-6
    )


@slow
def test_training_goes_on_after_loading(tmp_path):
    population = Population(mixed(keras.Model), 3, seed=4)
    population.compile(
        optimizers.Adam(0.01), L2Loss(), metrics=[keras_nalu.IsCloseAccuracy()]
    )
    fit(population)
    population.save(tmp_path / "population.keras")
    loaded = keras_nalu.load_model(tmp_path / "population.keras")
    first, second = (
        fit(each, validation_data=(X, Y), epochs=3) for each in (population, loaded)
    )
    assert loaded.optimizer.iterations == population.optimizer.iterations == 15
    assert_same(weights_of(loaded), weights_of(population))
    assert first.members.keys() == second.members.keys()
    for name, values in first.members.items():
        np.testing.assert_allclose(values, second.members[name], 1e-5)


@slow
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_chunks_of_any_length(lines, steps):
    expected = fit(lines, epochs=3, batch_size=5, validation_data=(X, Y))
    population = Population(line(keras.Sequential), SIZE, seed=1)
    population.compile(
        optimizers.SGD(0.02), "mse", metrics=["mae"], steps_per_execution=steps
    )
    batches = []
    count = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: batches.append(batch)
    )
    options = {"epochs": 3, "batch_size": 5, "validation_data": (X, Y)}
    history = fit(population, callbacks=[count], **options)
    assert len(batches) == 3 * -(-5 // steps)
    assert history.history.keys() == expected.history.keys()
    for name, values in expected.members.items():
        np.testing.assert_allclose(history.members[name], values, 1e-5)
    assert_same(weights_of(population), weights_of(lines))


class Stop(Exception):
    pass


@pytest.mark.parametrize(
    ("event", "last"),
    [("on_epoch_end", 0), pytest.param("on_train_batch_end", STEPS - 1, marks=slow)],
)
def test_usable_after_an_exception_in_a_callback(lines, event, last):
    def stop(index, logs):
        if index == last:
            raise Stop

    with pytest.raises(Stop):
        fit(lines, callbacks=[keras.callbacks.LambdaCallback(**{event: stop})])
    interrupted = weights_of(lines)
    give(lines, _line_population()[1])
    fit(lines, epochs=1)
    assert_same(weights_of(lines), interrupted)
    assert np.isfinite(evaluate(lines)["loss"]).all()
    assert lines.predict(X, verbose=0).shape == (SIZE, ROWS, 1)


def test_callbacks_of_keras(lines, tmp_path, capsys):
    path = str(tmp_path / "best.keras")
    callbacks = [
        keras.callbacks.EarlyStopping("val_loss", min_delta=1e9, patience=1),
        keras.callbacks.ModelCheckpoint(path, "val_loss", save_best_only=True),
        keras.callbacks.CSVLogger(str(tmp_path / "log.csv")),
    ]
    options = {"callbacks": callbacks, "validation_data": (X, Y), "verbose": 2}
    history = fit(lines, epochs=9, **options)
    assert history.epoch == [0, 1]
    printed = capsys.readouterr().out
    assert "Epoch 2/9" in printed
    assert f"val_loss_q3: {history.history['val_loss_q3'][-1]:.4f}" in printed
    with open(tmp_path / "log.csv") as file:
        rows = [*csv.DictReader(file)]
    assert [float(row["loss_max"]) for row in rows] == history.history["loss_max"]
    assert [float(row["diverged"]) for row in rows] == [0, 0]
    saved = keras_nalu.load_model(path, compile=False)
    assert_same(weights_of(saved), weights_of(lines), 0, 0)


@slow
def test_early_stopping_on_the_training_loss(lines):
    stop = keras.callbacks.EarlyStopping(
        "loss", min_delta=1e9, patience=2, restore_best_weights=True
    )
    fit(lines, epochs=1)
    first = weights_of(lines)
    give(lines, _line_population()[1])
    assert len(fit(lines, epochs=9, callbacks=[stop]).epoch) == 3
    assert_same(weights_of(lines), first)


def test_tensorboard_of_keras(lines, tmp_path):
    tensorboard = keras.callbacks.TensorBoard(str(tmp_path))
    history = fit(lines, validation_data=(X, Y), callbacks=[tensorboard])
    assert len(history.history) == 22
    for name, values in history.history.items():
        run = "validation" if name.startswith("val_") else "train"
        events = EventAccumulator(str(tmp_path / run), {"tensors": 0}).Reload()
        written = events.Tensors(f"epoch_{name.removeprefix('val_')}")
        assert [event.step for event in written] == [0, 1]
        numbers = [
            np.frombuffer(e.tensor_proto.tensor_content, "float32") for e in written
        ]
        numbers = [
            n[0] if n.size else e.tensor_proto.float_val[0]
            for n, e in zip(numbers, written, strict=True)
        ]
        np.testing.assert_allclose(numbers, values, 1e-6)


@slow
def test_compiling_anew():
    population = Population(line(keras.Sequential), 3, seed=0)
    population.compile("sgd", "mse", metrics=["mae"])
    fit(population)
    population.compile("adam", "mae", metrics=["mse", "msle"])
    assert [*evaluate(population)] == ["loss", "mse", "msle"]
    assert [*fit(population).members] == ["loss", "mse", "msle"]
    assert len(population.metrics) == 2


@pytest.mark.slow
def test_sparsity_error_of_every_member(tmp_path):
    template = stacked(lambda: NAC(2), lambda: keras_nalu.NMU(1))(keras.Sequential)
    population = Population(template, SIZE, seed=1)
    population.compile(
        optimizers.SGD(0.02),
        "mse",
        metrics=["mae", keras_nalu.SparsityError()],
        weighted_metrics=[keras_nalu.SparsityError(template.layers[0], name="first")],
    )
    history = population.fit(
        X, Y, BATCH, epochs=2, verbose=0, validation_data=(X, Y)
    ).members

    def errors(kernel):
        return float(np.min([np.abs(kernel - t) for t in (-1, 0, 1)], axis=0).max())

    for i in range(SIZE):
        member = population.member(i)
        first, second = (
            errors(keras.ops.convert_to_numpy(layer.kernel)) for layer in member.layers
        )
        told = {"sparsity_error": max(first, second), "first": first}
        mine = {name: history[name][-1, i] for name in told}
        assert mine == pytest.approx(told)
        assert mine == {name: history[f"val_{name}"][-1, i] for name in told}
        alone = member.evaluate(X, Y, verbose=0, return_dict=True)
        assert {name: alone[name] for name in told} == pytest.approx(told)
    assert np.all(history["first"][0] != history["first"][1])
    population.save(tmp_path / "population.keras")
    loaded = keras_nalu.load_model(tmp_path / "population.keras")
    logs = loaded.evaluate(X, Y, verbose=0, return_dict=True)
    for name in ("sparsity_error", "first"):
        np.testing.assert_allclose(logs[name], history[name][-1], rtol=1e-6)


@pytest.mark.only("tensorflow", reason="a strategy of TensorFlow")
def test_several_replicas_are_refused(lines, monkeypatch):
    monkeypatch.setattr(
        type(lines),
        "distribute_strategy",
        types.SimpleNamespace(num_replicas_in_sync=2),
    )
    with pytest.raises(ValueError, match=r"for one device, and several.*BACKEND=jax"):
        lines.evaluate(X, Y, verbose=0)


def test_a_model_may_have_members_of_its_own():
    class Ensemble(keras_nalu.Model):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.members = [layers.Dense(1), layers.Dense(1)]

        def call(self, x):
            return sum(member(x) for member in self.members) / 2

    def draw(stream):
        x = stream.uniform((BATCH, 3), 1, 2)
        return x, keras.ops.sum(x, 1, keepdims=True)

    model = Ensemble()
    model(X)
    model.compile("sgd", "mse")
    logs = model.fit(draw, steps_per_epoch=20, epochs=2, verbose=0).history
    assert logs["loss"][1] < logs["loss"][0]
