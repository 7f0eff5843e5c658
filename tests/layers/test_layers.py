"""What is true of all the layers together."""

import copy
import json
import pickle
import re

import keras
import numpy as np
import pytest
from keras.src.testing import TestCase  # noqa: TID251  Keras' own contract.
from oracles import vectors
from oracles.cases import CASES
from oracles.conformance.facts import numpy, same

import keras_nalu
from keras_nalu import L2Loss
from keras_nalu.layers import LAYERS
from keras_nalu.layers.base import walk_layers

BACKEND = keras.backend.backend()
SLOW = pytest.mark.slow
#: Chosen for their weights: two kernels and a gate; one; two and a gate of all units.
SOME = ["NALU", "NMU", "NPU"]
#: What inputs a layer is for, by its fact. Some bear others, too.
DOMAINS = {"all reals", "all reals but 0", "positive reals"}
each_layer = pytest.mark.parametrize("name", LAYERS)


def test_every_vector_is_used():
    modules = [m for case in CASES.values() for m in case.modules]
    assert len({*modules}) == len(modules)
    assert {vectors.vectors(file)[1]["module"] for file in vectors.FILES} == {*modules}
    assert len(vectors.FILES) == 96
    assert not vectors.LEFT_OUT & {*modules}


def test_vectors_that_are_left_out_clip_what_no_constraint_has_kept():
    for file in vectors.CLIPPED:
        data, meta = vectors.vectors(file)
        assert meta["opts"]["nac_oob"] == "regualized"
        assert meta["weights"] == "oob"
        y, _ = CASES[meta["module"].upper()].exact_of(file)["y"]
        assert np.abs(y - data["y"]).max() > 0.1


@pytest.mark.parametrize("name", ["NAU", "NMU"])
def test_constraint_is_that_of_the_authors(name):
    file = f"{name.lower()}_4"
    data, _ = vectors.vectors(file)
    for variable in CASES[name].of_the_authors(file).layer.trainable_variables:
        expected = np.float32(data[f"after_optimize_{variable.name}"])
        assert (expected != numpy(variable)).any()
        np.testing.assert_array_equal(numpy(variable.constraint(variable)), expected)


@each_layer
def test_facts(name):
    cls, case = LAYERS[name], CASES[name]
    assert cls.__name__ == name
    assert keras.saving.get_registered_name(cls) == f"keras_nalu>{name}"
    assert not isinstance(cls.initializer, keras.initializers.Initializer)
    keras.initializers.get(cls.initializer)
    for values in cls.targets.values():
        assert {*values} <= {-1, 0, 1}
    assert {*cls.stored, *cls.exponents} <= {*cls.targets}
    assert cls.domain in DOMAINS
    assert re.fullmatch(r"arXiv:\d{4}\.\d{5}|doi:10\.\d+/\S+", cls.reference)
    assert cls.reference in cls.__doc__
    assert case.begins
    assert case.exactly
    assert case.rounded
    assert case.near
    assert case.says_so() == (not case.bounded)


@each_layer
def test_a_subclass_need_not_repeat_the_signature(name):
    class Sub(LAYERS[name]):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)

    config = Sub(3, kernel_regularizer="l2").get_config()
    assert config["units"] == 3
    assert Sub.from_config(config).get_config() == config


@pytest.mark.parametrize("name", SOME)
def test_arguments_by_name_are_keras_own(name):
    layer = LAYERS[name](
        np.int64(2),
        kernel_initializer="ones",
        kernel_regularizer="l2",
        kernel_constraint="non_neg",
        activity_regularizer=keras.regularizers.L2(0.5),
        name="mine",
    )
    assert isinstance(layer.kernel_initializer, keras.initializers.Ones)
    assert isinstance(layer.kernel_regularizer, keras.regularizers.L2)
    assert isinstance(layer.kernel_constraint, keras.constraints.NonNeg)
    assert layer.name == "mine"
    config = json.loads(json.dumps(layer.get_config()))
    assert type(layer).from_config(config).get_config() == layer.get_config()
    y = numpy(layer(np.ones((4, 3), "float32")))
    # Keras takes the mean over the batch.
    expected = (y**2).sum(axis=1).mean() / 2
    assert numpy(layer.losses[0]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", ["NAC", "NALU"])
def test_notebooks_initial_weights(name):
    """`tf.truncated_normal(stddev=0.02)`: cut at two deviations, not rescaled."""
    layer = LAYERS[name](100)
    layer.build((None, 100))
    for w in layer.get_weights():
        outside = np.sum(np.abs(w) > 0.04)
        # On PyTorch Keras draws four times, and lets through what is outside then.
        assert outside == 0 or (BACKEND == "torch" and outside <= 3)
        assert np.sum(np.abs(w) > 0.0395) > 10
        assert w.std() == pytest.approx(0.02 * 0.8796, rel=0.02)
        assert abs(w.mean()) < 1e-3


def test_a_weight_of_an_input_that_does_not_matter_is_discrete():
    for name in LAYERS.keys() - {"MCFC", "MulMCFC", "NSR"}:
        layer = LAYERS[name](1)
        layer.build((None, 2))
        layer.set_weights([np.zeros(weight.shape) for weight in layer.weights])
        assert not any(numpy(W).any() for W in layer.kernels.values()), name
        assert layer.is_discrete(0)


# In models.


class Subclassed(keras.Model):
    def __init__(self, shape):
        super().__init__()
        self.parts = [cls(2) for cls in LAYERS.values()]

    def call(self, inputs):
        return keras.ops.concatenate([layer(inputs) for layer in self.parts], -1)


def side_by_side(inputs, h, wrap=lambda layer: layer, names=LAYERS):
    parts = [wrap(LAYERS[name](2))(h) for name in names]
    return keras.Model(inputs, keras.layers.Concatenate()(parts))


def behind_a_recurrent_layer(shape):
    inputs = keras.Input(shape)
    lstm = keras.layers.LSTM(2, return_sequences=True)
    h = keras.layers.Bidirectional(lstm)(inputs)
    return side_by_side(inputs, keras.layers.Activation("exponential")(h))


def distributed_in_time(shape):
    inputs = keras.Input(shape)
    return side_by_side(inputs, inputs, keras.layers.TimeDistributed)


@SLOW
@pytest.mark.parametrize(
    "make", [Subclassed, behind_a_recurrent_layer, distributed_in_time]
)
def test_in_models(make):
    """All the layers train in one model, side by side."""
    model = make((5, 3))
    x = np.random.default_rng(0).uniform(1, 3, (4, 5, 3)).astype("float32")
    # To compile all that takes seconds.
    eagerly = make is not Subclassed
    model.compile(keras.optimizers.SGD(0.1), L2Loss(), run_eagerly=eagerly)
    y = model.predict_on_batch(x)
    model.train_on_batch(x, y + 1)
    again = model.predict_on_batch(x)
    assert y.shape == (4, 5, 2 * len(LAYERS))
    layers = [
        next(own for own in walk_layers(model) if type(own) is cls)
        for cls in LAYERS.values()
    ]
    for index, layer in enumerate(layers):
        own = slice(2 * index, 2 * index + 2)
        name = type(layer).__name__
        assert np.isfinite(again[..., own]).all(), name
        assert (again[..., own] != y[..., own]).any(), name
        if make is not behind_a_recurrent_layer:
            expected = numpy(layer(x))
            np.testing.assert_allclose(
                again[..., own], expected, rtol=1e-4, atol=1e-5, err_msg=name
            )


@SLOW
@pytest.mark.skipif(BACKEND == "torch", reason="trains no populations")
def test_a_member_of_a_population_trains_as_alone():
    x = np.random.default_rng(0).uniform(1, 3, (4, 3)).astype("float32")
    y = np.ones((4, 2 * len(LAYERS)), "float32")
    inputs = keras.Input((3,))
    population = keras_nalu.Population(side_by_side(inputs, inputs), 2, seed=0)
    population.compile("sgd", L2Loss())
    alone = [population.member(index) for index in range(2)]
    predicted = population.predict(x, verbose=0)
    for one, model in zip(predicted, alone, strict=True):
        np.testing.assert_allclose(one, numpy(model(x)), rtol=1e-4, atol=1e-5)
    fit = {"batch_size": 4, "shuffle": False, "verbose": 0}
    population.fit(x, y, **fit)
    last = alone[1]
    # The noise of SNMU: TensorFlow draws other numbers without XLA.
    last.compile("sgd", L2Loss(), jit_compile=True)
    last.fit(x, y, **fit)
    for weight, own in zip(last.weights, population.member(1).weights, strict=True):
        np.testing.assert_allclose(
            numpy(own), numpy(weight), rtol=1e-4, atol=1e-5, err_msg=weight.path
        )


def by_weights_file(model, path):
    fresh = keras.models.clone_model(model)
    model.save_weights(path / "model.weights.h5")
    fresh.load_weights(path / "model.weights.h5")
    return fresh


def by_file(model, path):
    model.save(path / "model.keras")
    return keras.saving.load_model(path / "model.keras")


def by_json(model, path):
    fresh = keras.models.model_from_json(model.to_json())
    fresh.set_weights(model.get_weights())
    return fresh


TRIPS = {
    "keras": by_file,
    "weights": by_weights_file,
    "json": by_json,
    "deepcopy": lambda model, path: copy.deepcopy(model),
    "pickle": lambda model, path: pickle.loads(pickle.dumps(model)),
}


@SLOW
@pytest.mark.parametrize("trip", TRIPS)
def test_model_round_trip(trip, tmp_path):
    """Every layer, with its own arguments and with their second values."""
    inputs = keras.Input((3,), name="x")
    layers = [
        layer
        for name, cls in LAYERS.items()
        for layer in (cls(4, kernel_initializer="random_uniform"), CASES[name].varied())
    ]
    model = keras.Model(inputs, [layer(inputs) for layer in layers])
    x = np.random.default_rng(0).uniform(1, 3, (4, 3)).astype("float32")
    again = TRIPS[trip](model, tmp_path)
    assert again.to_json() == model.to_json()
    before = [numpy(y) for y in model(x)]
    for layer, y, expected in zip(layers, again(x), before, strict=True):
        np.testing.assert_array_equal(numpy(y), expected, err_msg=layer.name)
    # The copy stands alone.
    again.set_weights([w + 1 for w in model.get_weights()])
    assert same([numpy(y) for y in model(x)], before)


# What Keras asks of a layer, and what its Dense takes.

CONFIGS = {
    "plain": {},
    "mixed": {"dtype": "mixed_float16"},
    "regularized": {"kernel_regularizer": "l2", "activity_regularizer": "l1"},
    "constrained": {"kernel_constraint": "non_neg", "trainable": False},
    "scheduled": {
        "kernel_regularizer": keras_nalu.regularizers.Sparsity(
            keras_nalu.regularizers.LinearRamp(1, 2, 3)
        )
    },
    "drawn": {"kernel_initializer": keras.initializers.RandomUniform(seed=3)},
}
INPUTS = {"rows": (2, 3), "sequences": (2, 4, 3), "images": (2, 4, 5, 3)}


@pytest.mark.filterwarnings("ignore:`shuffle=True` was passed")  # Its own.
@each_layer
@pytest.mark.parametrize(
    "config", [pytest.param(c, marks=() if c == "plain" else SLOW) for c in CONFIGS]
)
def test_keras_own_contract(name, config):
    """Of every layer of Keras; training takes seconds each, and is slow."""
    trains = config in ("regularized", "scheduled")
    for kind, shape in INPUTS.items():
        TestCase().run_layer_test(
            LAYERS[name],
            {"units": 5, **CONFIGS[config]},
            input_shape=shape,
            expected_output_shape=(*shape[:-1], 5),
            supports_masking=True,
            run_training_check=trains and kind == "rows",
            run_mixed_precision_check=config == "mixed",
        )


def frame():
    return pytest.importorskip("pandas").DataFrame(np.ones((4, 3)), columns=[*"abc"])


X = np.ones((4, 3), "float32")
#: What one may do with `keras.layers.Dense`, of a class.
WAYS = {
    "build of a list": lambda cls: cls(2).build([None, 3]),
    "build of an array": lambda cls: cls(2).build(np.array([4, 3])),
    "build of a range": lambda cls: cls(2).build(range(2, 4)),
    "build of one axis": lambda cls: cls(2).build((3,)),
    "build by name": lambda cls: cls(2).build(input_shape=(None, np.int64(3))),
    "build of no inputs": lambda cls: cls(2).build((None, 0)),
    "build from a config": lambda cls: cls(2).build_from_config(
        {"input_shape": [None, 3]}
    ),
    "shape of a list": lambda cls: cls(2).compute_output_shape([None, 3]),
    "spec": lambda cls: cls(2).compute_output_spec(keras.KerasTensor((None, 3))),
    "frame": lambda cls: cls(2)(frame()),
    "variable": lambda cls: cls(2)(keras.Variable(X)),
    "half": lambda cls: cls(2)(X.astype("float16")),
    "inputs by name": lambda cls: cls(2)(inputs=X),
    "training": lambda cls: cls(2)(X, training=True),
    "units by name": lambda cls: cls(units=2),
    "policy": lambda cls: cls(2, dtype=keras.DTypePolicy("mixed_bfloat16"))(X),
    "no autocast": lambda cls: cls(2, autocast=False)(X),
    "input shape": lambda cls: cls(2, input_shape=(3,)),
    "input dim": lambda cls: cls(2, input_dim=3),
    "classes": lambda cls: cls(
        2,
        kernel_initializer=keras.initializers.GlorotUniform,
        kernel_regularizer=keras.regularizers.L2,
        kernel_constraint=keras.constraints.NonNeg,
    )(X),
    "functions": lambda cls: cls(
        2,
        kernel_initializer=lambda shape, dtype=None: keras.ops.ones(shape, dtype),
        kernel_regularizer=lambda w: keras.ops.sum(w),
        kernel_constraint=lambda w: w,
    )(X),
    "batch of known size": lambda cls: cls(2)(keras.Input(batch_shape=(4, 3))),
    "remat": lambda cls: keras.remat(cls(2))(X),
    "distributed": lambda cls: keras.layers.TimeDistributed(cls(2))(X[None]),
    "predict of a frame": lambda cls: keras.Sequential(
        [keras.Input((3,)), cls(2)]
    ).predict(frame(), verbose=0),
    "quantize": lambda cls: keras.Sequential([keras.Input((3,)), cls(2)]).quantize(
        "int8"
    ),
}
if BACKEND == "tensorflow":
    import tensorflow as tf

    WAYS |= {
        "build of a TensorShape": lambda cls: cls(2).build(tf.TensorShape([9, 3])),
        "shape of a TensorShape": lambda cls: cls(2).compute_output_shape(
            tf.TensorShape([None, 3])
        ),
        "tf.Variable": lambda cls: cls(2)(tf.Variable(X)),
    }


@pytest.mark.filterwarnings("ignore:Do not pass an `input_shape`")
@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize` method")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "name", ["NALU", *(pytest.param(n, marks=SLOW) for n in LAYERS if n != "NALU")]
)
def test_what_dense_takes(name, way):
    WAYS[way](keras.layers.Dense)
    WAYS[way](LAYERS[name])


@pytest.mark.parametrize("shape", [[(None, 2), (None, 2)], {"a": (None, 2)}, 5, "ab"])
def test_a_shape_of_anything_else(shape):
    with pytest.raises(ValueError, match="`input_shape`, expected the shape of one"):
        keras_nalu.NAU(1).build(shape)
