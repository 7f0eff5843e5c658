"""What every layer promises. A new one adds a line to the tables where it differs."""

import copy
import functools
import inspect
import itertools
import json
import pickle
import re

import keras
import numpy as np
import pytest
from keras import initializers
from test_solutions import IDEAL, built

import keras_nalu
from keras_nalu.layers import LAYERS, NALU, NSR, SNMU
from keras_nalu.layers.base import walk_layers
from keras_nalu.losses import L2Loss

BACKEND = keras.backend.backend()
SHAPES = [(4, 3), (4, 5, 3), (2, 4, 5, 3)]

#: A second value of every constructor argument: one without a line here fails.
SECOND = {
    "units": 5,
    "kernel_initializer": initializers.Constant(0.3),
    "gate_initializer": initializers.Constant(0.3),
    "kernel_regularizer": keras.regularizers.L2(1.0),
    "gate_regularizer": keras.regularizers.L2(1.0),
    "kernel_constraint": keras.constraints.MaxNorm(1e-3),
    "gate_constraint": keras.constraints.MaxNorm(1e-3),
    "epsilon": 0.5,
    "omega": 0.1,
    "noise_range": (2, 3),
    "seed": 5,
    "redundancy": 3,
    "scale": 2.0,
}
#: The hyper-parameters of the papers and of their code, which layers have by default.
DEFAULTS = {
    **{name: {"epsilon": 1e-7} for name in ("NACMul", "NALU", "SeparateNALU", "GNALU")},
    **{name: {"epsilon": 1e-7, "omega": 20} for name in ("INALU", "SharedINALU")},
    **{name: {"epsilon": 2.0**-23} for name in ("NaiveNPU", "NPU", "RealNPU", "NMRU")},
    "SNMU": {"noise_range": (1, 5)},
    "NSR": {"redundancy": 1, "scale": 1},
}
#: The stored weights that `gate_*` act on, and those that nothing acts on; all others
#: are kernels.
GATES = {"G", "g", "gate_w", "gate_b"}
FREE = {"bias", "b"}
#: Effective weights that are not of shape (in, units), for 3 inputs and 2 units.
SHAPED = {("NMRU", "kernel"): (6, 2)} | {
    (name, "relevance"): (3,) for name in ("NPU", "RealNPU")
}
#: What inputs a layer is for, by its fact. Some bear others, too.
DOMAINS = {
    "all reals",
    "all reals but 0",
    "positive reals",
}
NO_ZERO = {"NRU", "NMRU", "MulMCFC"}
NO_NEGATIVE = {"MulMCFC"}
#: The magnitudes, beside 0, between which a fresh layer and its gradients are finite
#: whatever the seed, where it is not all: products of three inputs soon leave float32.
FINITE = {
    "NACMul": (0, 1e4),
    "SeparateNALU": (0, 1e4),
    "GNALU": (0, 1e4),
    "NMU": (0, 1e4),
    "SNMU": (0, 1e4),
    "NaiveNPU": (0, 1e4),
    "NPU": (0, 1e4),
    "RealNPU": (0, 1e4),
    "NRU": (1e-7, 1e4),
    "NMRU": (1e-7, 1e4),
    "MulMCFC": (1e-20, 1e4),
}
#: Chosen for their weights: two kernels and a gate; one; two and a gate of all units.
#: What the base class does alone the others show in the slow tests.
REPRESENTATIVE = {"NALU", "NMU", "NPU"}
SIZES = [0.0, 1e-45, 1e-38, 1e-20, 1e-7, 1.0, 1e4, 1e19, 1e30, 1e38]


def arguments(cls):
    parameters = inspect.signature(cls).parameters.values()
    return [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]


def takes(cls, name):
    return name in arguments(cls)


def part(weight):
    name = weight.name
    return "gate" if name in GATES else "free" if name in FREE else "kernel"


def sample(cls, shape=(4, 3)):
    """Inputs that the layer is for."""
    x = np.random.default_rng(0).uniform(-3, 3, shape).astype("float32")
    return np.abs(x) if cls.__name__ in NO_NEGATIVE else x


def numpy(y):
    return keras.ops.convert_to_numpy(keras.ops.cast(y, "float32"))


def penalty(layer):
    return float(np.sum([numpy(loss) for loss in layer.losses]))


def varied(cls):
    """A layer in which every argument has its second value."""
    return cls(**{name: SECOND[name] for name in arguments(cls)})


def step(layer, gradients):
    optimizer = keras.optimizers.SGD(0.1)
    gradients = [keras.ops.convert_to_tensor(g) for g in gradients]
    optimizer.apply(gradients, layer.trainable_variables)


def observe(make, differentiate):
    """All that a training step shows of a layer."""
    keras.utils.set_random_seed(1)
    layer = make()
    x = sample(type(layer))
    layer.build(x.shape)
    c = np.random.default_rng(1).uniform(1, 2, (4, layer.units)).astype("float32")
    y, gradients = differentiate(layer, x, c)
    shown = [numpy(y), penalty(layer), numpy(layer(x, training=True))]
    step(layer, list(gradients.values())[1:])
    return [*shown, *layer.get_weights()]


def same(first, second):
    return all(
        np.shape(a) == np.shape(b) and np.array_equal(a, b)
        for a, b in zip(first, second, strict=True)
    )


ARGUMENTS = [(cls, name) for cls in LAYERS.values() for name in arguments(cls)]
each_layer = pytest.mark.parametrize("cls", LAYERS.values(), ids=LAYERS)
each_argument = pytest.mark.parametrize(
    ("cls", "name"), ARGUMENTS, ids=[f"{c.__name__}-{n}" for c, n in ARGUMENTS]
)


# Shapes and modes.


@each_layer
def test_ranks(cls):
    layer = cls(2)
    for shape in SHAPES:
        x = sample(cls, shape)
        y = numpy(layer(x))
        assert y.shape == layer.compute_output_shape(shape) == (*shape[:-1], 2)
        rows = numpy(layer(x.reshape(-1, 3))).reshape(y.shape)
        np.testing.assert_allclose(y, rows, rtol=1e-5, atol=1e-6)
        for batch in (shape, (None,) * (len(shape) - 1) + (3,)):
            symbolic = cls(2)(keras.KerasTensor(batch))
            assert symbolic.shape == (*batch[:-1], 2)
            assert symbolic.dtype == "float32"


@each_layer
def test_unknown_time_steps(cls):
    model = keras.Sequential([keras.Input((None, 3)), cls(2)])
    assert model.output_shape == (None, None, 2)
    for steps in (1, 6):
        x = np.ones((4, steps, 3), "float32")
        y = model.predict_on_batch(x)
        np.testing.assert_allclose(y, numpy(model.layers[0](x)), rtol=1e-6)


@each_layer
def test_symbolic_eager_and_jitted_agree(cls):
    layer, x = cls(2), sample(cls)
    eager = numpy(layer(x))
    if BACKEND == "tensorflow":
        import tensorflow as tf

        compiled = tf.function(layer, jit_compile=True)(x)
    elif BACKEND == "jax":
        import jax

        weights = [v.value for v in layer.trainable_variables]
        others = [v.value for v in layer.non_trainable_variables]
        compiled, _ = jax.jit(layer.stateless_call)(weights, others, x)
    else:
        import torch

        compiled = torch.compile(layer, backend="aot_eager")(torch.as_tensor(x))
    inputs = keras.Input((3,))
    functional = keras.Model(inputs, layer(inputs))
    np.testing.assert_allclose(numpy(compiled), eager, rtol=1e-5, atol=1e-6)
    predicted = functional.predict_on_batch(x)
    np.testing.assert_allclose(predicted, eager, rtol=1e-5, atol=1e-6)


@each_layer
def test_no_rows(cls):
    assert cls(2)(np.zeros((0, 3), "float32")).shape == (0, 2)


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


@pytest.mark.parametrize(
    "make",
    [
        Subclassed,
        pytest.param(behind_a_recurrent_layer, marks=pytest.mark.slow),
        pytest.param(distributed_in_time, marks=pytest.mark.slow),
    ],
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


@each_layer
def test_masks_pass_through(cls):
    steps = np.array([[[1.0], [2], [0]], [[3], [0], [0]]], "float32")
    layer = cls(1)
    model = keras.Sequential(
        [
            keras.Input((3, 1)),
            keras.layers.Masking(),
            keras.layers.Activation("exponential"),
            layer,
            keras.layers.GlobalAveragePooling1D(),
        ]
    )
    y = numpy(layer(np.exp(steps))) * (steps != 0)
    expected = y.sum(axis=1) / (steps != 0).sum(axis=1)
    np.testing.assert_allclose(numpy(model(steps)), expected, rtol=1e-5)


each_group = pytest.mark.parametrize(
    "names",
    [sorted(REPRESENTATIVE), pytest.param([*LAYERS], marks=pytest.mark.slow)],
    ids=["some", "all"],
)


def members(names):
    """A population of two models that hold these layers, and its members alone."""
    inputs = keras.Input((3,))
    population = keras_nalu.Population(
        side_by_side(inputs, inputs, names=names), 2, seed=0
    )
    population.compile("sgd", L2Loss())
    return population, [population.member(index) for index in range(2)]


@pytest.mark.skipif(BACKEND == "torch", reason="trains no populations")
@each_group
def test_a_member_of_a_population_is_the_plain_model(names):
    x = np.random.default_rng(0).uniform(1, 3, (4, 3)).astype("float32")
    population, alone = members(names)
    y = population.predict(x, verbose=0)
    assert y.shape == (2, 4, 2 * len(names))
    for index, name in enumerate(names):
        own = y[..., 2 * index : 2 * index + 2]
        assert (own[0] != own[1]).any(), name
        for one, model in zip(own, alone, strict=True):
            expected = numpy(model.layers[1 + index](x))
            np.testing.assert_allclose(
                one, expected, rtol=1e-4, atol=1e-5, err_msg=name
            )


@pytest.mark.slow
@pytest.mark.skipif(BACKEND == "torch", reason="trains no populations")
def test_a_member_of_a_population_trains_as_alone():
    x = np.random.default_rng(0).uniform(1, 3, (4, 3)).astype("float32")
    y = np.ones((4, 2 * len(LAYERS)), "float32")
    population, alone = members(LAYERS)
    fit = {"batch_size": 4, "shuffle": False, "verbose": 0}
    population.fit(x, y, **fit)
    for index, model in enumerate(alone):
        # The noise of SNMU: TensorFlow draws other numbers without XLA.
        model.compile("sgd", L2Loss(), jit_compile=True)
        model.fit(x, y, **fit)
        trained = population.member(index).weights
        for weight, own in zip(model.weights, trained, strict=True):
            np.testing.assert_allclose(
                numpy(own), numpy(weight), rtol=1e-4, atol=1e-5, err_msg=weight.path
            )


# Round trips.


@pytest.fixture(scope="session")
def plain(differentiate):
    return functools.cache(lambda cls: observe(lambda: cls(4), differentiate))


@each_layer
def test_a_step_can_be_repeated(cls, plain, differentiate):
    assert all(np.isfinite(shown).all() for shown in plain(cls))
    assert same(plain(cls), observe(lambda: cls(4), differentiate))


@each_argument
def test_every_argument_is_alive(cls, name, plain, differentiate):
    arguments = {"units": 4, name: SECOND[name]}
    assert not same(plain(cls), observe(lambda: cls(**arguments), differentiate))
    assert cls(**arguments).get_config()[name] != cls(4).get_config()[name]


@each_layer
def test_a_config_restores_the_layer(cls, differentiate):
    config = varied(cls).get_config()
    again = observe(lambda: cls.from_config(config), differentiate)
    assert same(again, observe(lambda: varied(cls), differentiate))


@each_layer
def test_only_units_is_positional(cls):
    kinds = [p.kind for p in inspect.signature(cls).parameters.values()]
    kind = inspect.Parameter
    assert kinds[0] is kind.POSITIONAL_OR_KEYWORD
    assert set(kinds[1:-1]) == {kind.KEYWORD_ONLY}
    assert kinds[-1] is kind.VAR_KEYWORD
    with pytest.raises(TypeError, match="positional argument"):
        cls(1, None)
    given, known = arguments(cls), arguments(NALU)
    assert given == [
        *(name for name in known if name in given),
        *(name for name in given if name not in known),
    ]


@each_layer
def test_config_round_trip(cls):
    layer = varied(cls)
    config = json.loads(json.dumps(layer.get_config()))
    assert set(arguments(cls)) <= set(config)
    assert cls.from_config(config).get_config() == layer.get_config()
    whole = keras.saving.serialize_keras_object(layer)
    assert whole["registered_name"] == f"keras_nalu>{cls.__name__}"
    copied = keras.saving.deserialize_keras_object(json.loads(json.dumps(whole)))
    assert type(copied) is cls
    assert copied.get_config() == layer.get_config()


@each_layer
def test_arguments_by_name_are_keras_own(cls):
    layer = cls(
        2,
        kernel_initializer="ones",
        kernel_regularizer="l2",
        kernel_constraint="non_neg",
        name="mine",
    )
    assert isinstance(layer.kernel_initializer, initializers.Ones)
    assert isinstance(layer.kernel_regularizer, keras.regularizers.L2)
    assert isinstance(layer.kernel_constraint, keras.constraints.NonNeg)
    assert layer.name == "mine"


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


def by_clone(model, path):
    fresh = keras.models.clone_model(model)
    fresh.set_weights(model.get_weights())
    return fresh


@pytest.mark.parametrize(
    "trip",
    [
        pytest.param(by_file, id="keras"),
        pytest.param(by_weights_file, id="weights"),
        *(
            pytest.param(trip, id=name, marks=pytest.mark.slow)
            for name, trip in {
                "json": by_json,
                "clone": by_clone,
                "deepcopy": lambda model, path: copy.deepcopy(model),
                "pickle": lambda model, path: pickle.loads(pickle.dumps(model)),
            }.items()
        ),
    ],
)
def test_model_round_trip(trip, tmp_path):
    """Every layer, with its own arguments and with their second values."""
    inputs = keras.Input((3,), name="x")
    layers = [
        layer
        for cls in LAYERS.values()
        for layer in (cls(4, kernel_initializer="random_uniform"), varied(cls))
    ]
    model = keras.Model(inputs, [layer(inputs) for layer in layers])
    x = np.random.default_rng(0).uniform(1, 3, (4, 3)).astype("float32")
    again = trip(model, tmp_path)
    assert again.to_json() == model.to_json()
    before = [numpy(y) for y in model(x)]
    for layer, y, expected in zip(layers, again(x), before, strict=True):
        np.testing.assert_array_equal(numpy(y), expected, err_msg=layer.name)
    # The copy stands alone.
    again.set_weights([w + 1 for w in model.get_weights()])
    assert same([numpy(y) for y in model(x)], before)
    for layer, y, expected in zip(layers, again(x), before, strict=True):
        assert (numpy(y) != expected).any(), layer.name


# Initial weights.


def drawn(cls, initializer, seed=None):
    """The kernels' and the gates' weights, but for the constants among them."""
    if seed is not None:
        keras.utils.set_random_seed(seed)
    gate = {"gate_initializer": initializer} if takes(cls, "gate_initializer") else {}
    layer = cls(3, kernel_initializer=initializer, **gate)
    layer.build((None, 2))
    weights = [numpy(w) for w in layer.weights if part(w) != "free"]
    return [w for w in weights if np.ptp(w)]


INITIALIZERS = {
    "default": lambda: None,
    "string": lambda: "random_normal",
    "class": lambda: initializers.GlorotUniform,
    "config": lambda: {"class_name": "RandomNormal", "config": {"seed": 3}},
    "unseeded": lambda: initializers.RandomUniform(),
    "seeded": lambda: initializers.TruncatedNormal(seed=7),
    "generator": lambda: initializers.HeNormal(seed=keras.random.SeedGenerator(7)),
    "function": lambda: keras.random.normal,
}


each_initializer = pytest.mark.parametrize(
    ("cls", "kind"),
    [
        pytest.param(cls, kind, marks=() if at_once else pytest.mark.slow)
        for name, cls in LAYERS.items()
        for kind in INITIALIZERS
        for at_once in [name in REPRESENTATIVE or kind in ("default", "seeded")]
    ],
)


@each_initializer
def test_no_two_weights_are_equal(cls, kind):
    weights = drawn(cls, INITIALIZERS[kind]())
    assert weights
    # The same draw may be shifted, and scaled.
    unit = [((w - w.mean()) / w.std()).ravel() for w in weights]
    for a, b in itertools.combinations(unit, 2):
        size = min(len(a), len(b))
        assert not np.allclose(a[:size], b[:size], atol=1e-3)


@each_initializer
def test_two_layers_differ_unless_seeded(cls, kind):
    initializer = INITIALIZERS[kind]()
    equal = same(drawn(cls, initializer), drawn(cls, initializer))
    assert equal == (kind in ("seeded", "config"))


@each_initializer
def test_set_random_seed_reproduces(cls, kind):
    first, second = (drawn(cls, INITIALIZERS[kind](), seed=5) for _ in range(2))
    assert same(first, second)
    third = drawn(cls, INITIALIZERS[kind](), seed=6)
    assert same(first, third) == (kind in ("seeded", "config", "generator"))


@each_layer
def test_a_seeded_initializer_survives_the_config(cls):
    for kind in ("seeded", "generator"):
        layer = cls(3, kernel_initializer=INITIALIZERS[kind]())
        again = cls.from_config(json.loads(json.dumps(layer.get_config())))
        layer.build((None, 2))
        again.build((None, 2))
        kernels = [w for w in layer.weights if part(w) == "kernel"]
        copies = [w for w in again.weights if part(w) == "kernel"]
        assert same(map(numpy, kernels), map(numpy, copies))


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


@each_layer
def test_initializers_reach_their_own_weights(cls):
    gate = takes(cls, "gate_initializer")
    kwargs = {"gate_initializer": "zeros"} if gate else {}
    layer = cls(2, kernel_initializer="ones", **kwargs)
    layer.build((None, 3))
    for w in layer.weights:
        assert (numpy(w) == (1 if part(w) == "kernel" else 0)).all(), w.name
    assert any(part(w) == "kernel" for w in layer.weights)
    assert gate == any(part(w) == "gate" for w in layer.weights)


# Regularizers, constraints, trainable.


@each_layer
@pytest.mark.parametrize("which", ["kernel", "gate"])
def test_regularizers_act_on_the_stored_weights(cls, which):
    name = f"{which}_regularizer"
    if not takes(cls, name):
        assert which == "gate"
        return
    layer = cls(2, **{name: keras.regularizers.L2(0.5)})
    layer(sample(cls))
    chosen = [w for w in layer.weights if part(w) == which]
    assert len(layer.losses) == len(chosen) > 0
    expected = sum((numpy(w) ** 2).sum() / 2 for w in chosen)
    assert penalty(layer) == pytest.approx(expected, rel=1e-5)


def stepped(layer, value):
    """The weights of this value after a step that changes none of them."""
    layer.build((None, 3))
    layer.set_weights([np.full(w.shape, value) for w in layer.weights])
    step(layer, [np.zeros(w.shape, w.dtype) for w in layer.trainable_variables])
    return layer.weights


@each_layer
@pytest.mark.parametrize("which", ["kernel", "gate"])
def test_constraints_hold_after_a_step(cls, which):
    name = f"{which}_constraint"
    if not takes(cls, name):
        assert which == "gate"
        return
    for w in stepped(cls(2, **{name: keras.constraints.MaxNorm(1e-3)}), 0.5):
        held = np.linalg.norm(numpy(w), axis=0).max() < 1.001e-3
        assert held == (part(w) == which), w.name


@each_layer
def test_the_constraint_of_the_paper(cls):
    for value in (-5, 5):
        for w in stepped(cls(2), value):
            paper = cls.constraint if part(w) == "kernel" else None
            expected = np.clip(value, paper.low, paper.high) if paper else value
            assert (numpy(w) == expected).all(), w.name
        for w in stepped(cls(2, kernel_constraint=keras.constraints.Constraint()), 5):
            assert (numpy(w) == 5).all(), w.name


@each_layer
def test_a_call_is_no_training_step_unless_it_says_so(cls):
    ramp = keras_nalu.regularizers.LinearRamp(1, 0, 9)
    layer = cls(2, kernel_regularizer=keras_nalu.regularizers.L1(ramp))

    def counted():
        assert len(layer.losses) == len(layer.scheduled) > 0
        return {int(each.steps) for each in layer.scheduled}

    layer.build((None, 3))
    assert counted() == {0}
    for training, count in (({}, 0), ({"training": True}, 1), ({}, 1)):
        layer(sample(cls), **training)
        # The penalty may be read twice.
        assert counted() == counted() == {count}


@each_layer
def test_activity_regularizer(cls):
    layer = cls(2, activity_regularizer=keras.regularizers.L2(0.5))
    y = numpy(layer(sample(cls)))
    # Keras takes the mean over the batch.
    expected = (y**2).sum(axis=1).mean() / 2
    assert penalty(layer) == pytest.approx(expected, rel=1e-5)
    config = layer.get_config()
    assert cls.from_config(config).get_config() == config


@each_layer
def test_not_trainable(cls):
    layer = cls(2, trainable=False)
    layer.build((None, 3))
    assert layer.trainable_weights == []
    assert len(layer.non_trainable_weights) == len(layer.weights) > 0
    layer.trainable = True
    assert len(layer.trainable_weights) == len(layer.weights)


# Dtypes and values.


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8", "bool", "float64"])
@each_layer
def test_inputs_of_any_dtype(cls, dtype):
    x, layer = np.array([[0, 1, 3], [1, 0, 1]]), cls(2)
    x = (x + (cls.__name__ in NO_ZERO)).astype(dtype)
    expected = numpy(layer(x.astype("float32")))
    assert np.isfinite(expected).all()
    np.testing.assert_array_equal(numpy(layer(x)), expected)
    if BACKEND != "jax" or not dtype.endswith("64"):  # JAX has 32 bits
        tensor = keras.ops.convert_to_tensor(x, dtype=dtype)
        np.testing.assert_array_equal(numpy(layer(tensor)), expected)
    if dtype != "float64":
        assert layer(keras.Input((3,), dtype=dtype)).dtype == "float32"


@each_layer
def test_sparse_inputs(cls):
    dense, layer = np.array([[0, 1, 3], [1, 0, 0]], "float32"), cls(2)
    expected = numpy(layer(dense))
    if BACKEND == "tensorflow":
        import tensorflow as tf

        sparse = tf.sparse.from_dense(dense)
    elif BACKEND == "jax":
        from jax.experimental.sparse import BCOO

        sparse = BCOO.fromdense(dense)
    else:
        with pytest.raises(ValueError, match="is not supported with torch"):
            keras.ops.convert_to_tensor(dense, sparse=True)
        return
    np.testing.assert_array_equal(numpy(layer(sparse)), expected)
    inputs = keras.Input((3,), sparse=True)
    model = keras.Model(inputs, layer(inputs))
    np.testing.assert_allclose(numpy(model(sparse)), expected, rtol=1e-6)


@pytest.mark.filterwarnings("ignore:The dtype policy .* half precision")
@each_layer
@pytest.mark.parametrize(
    ("policy", "variables", "output"),
    [
        ("mixed_float16", "float32", "float16"),
        ("mixed_bfloat16", "float32", "bfloat16"),
        ("float16", "float16", "float16"),
        ("bfloat16", "bfloat16", "bfloat16"),
        ("float32", "float32", "float32"),
    ],
)
def test_dtype_policies(cls, policy, variables, output, differentiate):
    x = np.float32([[0, 0, 0], [1e-7, 0, 3], [100, -200, 150], [3e4, 3e4, 3e4]])
    if cls.__name__ in FINITE:  # products and quotients that float16 can hold
        x = np.float32([[1, 1, 1], [0.5, 1, 3], [10, -20, 15], [30, 30, 30]])
    x = np.abs(x) if cls.__name__ in NO_NEGATIVE else x
    layer = cls(2, dtype=policy)
    layer.build(x.shape)
    y, gradients = differentiate(layer, x, np.ones((4, 2), "float32"))
    assert {w.dtype for w in layer.weights} == {variables}
    assert keras.backend.standardize_dtype(y.dtype) == output
    assert np.isfinite(numpy(y)).all()
    for name, gradient in gradients.items():
        assert np.isfinite(np.float32(gradient)).all(), name
    assert layer(keras.Input((3,))).dtype == output
    step(layer, list(gradients.values())[1:])
    assert {w.dtype for w in layer.weights} == {variables}


@pytest.mark.only("tensorflow", reason="keeps no float64")
@each_layer
def test_float64(cls):
    layer = cls(2, dtype="float64")
    assert layer(np.float64(sample(cls))).dtype == "float64"
    assert {w.dtype for w in layer.weights} == {"float64"}
    assert {value.dtype.name for value in layer.kernels.values()} == {"float64"}


def extremes(cls, sizes):
    """Rows of inputs all of one size, or two of them around 1, of both signs."""
    signs = (1,) if cls.__name__ in NO_NEGATIVE else (1, -1)
    rows = [
        row
        for size in sizes
        for sign in signs
        for row in ([sign * size] * 3, [sign * size, 1, 2 * signs[-1]])
    ]
    return np.array(rows, "float32")


def within(cls, size):
    low, high = FINITE.get(cls.__name__, (0, np.inf))
    return size <= high and ((size >= low and size) or cls.__name__ not in NO_ZERO)


@each_layer
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_initial_outputs_and_gradients_are_finite(cls, policy, differentiate):
    layer = cls(2, dtype=policy)
    layer.build((None, 3))
    x = extremes(cls, [size for size in SIZES if within(cls, size)])
    y, gradients = differentiate(layer, x, np.ones((len(x), 2), "float32"))
    assert np.isfinite(numpy(y)).all()
    for name, gradient in gradients.items():
        assert np.isfinite(np.float32(gradient)).all(), name


def test_nmru_divides_by_the_smallest_normal_number_in_the_place_of_zero():
    tiny = np.finfo("float32").tiny
    x = np.array([[0, 3], [3, 0], [-3, 0], [0, 0]], "float32")
    product = built("NMRU", IDEAL["NMRU"]["multiply"])
    np.testing.assert_array_equal(numpy(product(x)), np.zeros((4, 1)))
    quotient = built("NMRU", IDEAL["NMRU"]["divide"])
    expected = np.array([[0], [3 / tiny], [-3 / tiny], [0]])
    np.testing.assert_allclose(numpy(quotient(x)), expected, rtol=1e-6)
    if BACKEND == "torch":  # where it has a sign; to the others it is 0
        less = np.array([[3, -1e-40]], "float32")
        np.testing.assert_allclose(numpy(quotient(less)), [[-3 / tiny]], rtol=1e-6)
    assert "8.5e37" in LAYERS["NMRU"].__doc__
    assert 1 / tiny == pytest.approx(8.5e37, rel=1e-2)


@pytest.mark.parametrize("name", sorted(NO_ZERO - {"NMRU"}))
def test_what_a_layer_cannot_bear_is_documented(name, differentiate):
    cls, rows = LAYERS[name], [[0, 2], [2, 0]] + [[-1, 2]] * (name in NO_NEGATIVE)
    unbearable = False
    for weights in IDEAL[name].values():
        for row in rows:
            x, c = np.array([row], "float32"), np.ones((1, 1), "float32")
            y, gradients = differentiate(built(name, weights), x, c)
            values = [numpy(y), *gradients.values()]
            if np.isinf(values[0]).any():
                assert "infinity" in cls.__doc__
            if any(np.isnan(value).any() for value in values):
                assert "NaN" in cls.__doc__
            unbearable |= not all(np.isfinite(value).all() for value in values)
    assert unbearable
    assert cls.domain in ("all reals but 0", "positive reals")


@each_layer
def test_outputs_and_gradients_of_a_trained_layer_are_finite(cls, differentiate):
    """Of the ideal weights for every operation."""
    name = cls.__name__
    for operation, weights in IDEAL[name].items():
        sizes = [1e-7, 1, 1e9]
        if name not in NO_ZERO:
            # Without a logarithm, a small divisor divides.
            sizes += [0, 1e-30]
        signs = (1,) if name in NO_NEGATIVE else (1, -1)
        x = [[s * v, w] for v in sizes for s in signs for w in (v, 1, 2 * signs[-1])]
        layer = built(name, weights)
        c = np.ones((len(x), 1), "float32")
        y, gradients = differentiate(layer, np.float32(x), c)
        assert np.isfinite(numpy(y)).all(), operation
        for weight, gradient in gradients.items():
            assert np.isfinite(gradient).all(), (operation, weight)


# Errors.


@each_layer
def test_wrong_units(cls):
    text = "invalid value for `units`, expected a positive integer. Received: units="
    for units in [0, -1, 2.5, "4", None, True, np.float64(2), [2]]:
        with pytest.raises(ValueError, match=text + re.escape(repr(units))):
            cls(units)


@each_layer
def test_a_subclass_need_not_repeat_the_signature(cls):
    class Sub(cls):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)

    config = Sub(3, kernel_regularizer="l2").get_config()
    assert config["units"] == 3
    assert Sub.from_config(config).get_config() == config


@each_layer
def test_numpy_units(cls):
    layer = cls(np.int64(3))
    assert layer(sample(cls)).shape == (4, 3)
    assert json.loads(json.dumps(layer.get_config()))["units"] == 3


@each_layer
@pytest.mark.parametrize("name", ["epsilon", "omega", "scale"])
def test_wrong_numbers(cls, name):
    for value in [0, -1, 1e-50, float("nan"), float("inf"), "x", None, 1j, [1]]:
        text = f"invalid value for `{name}`, expected a positive number. Received: "
        text = re.escape(f"{text}{name}={value!r}")
        if not takes(cls, name):
            text = rf"Unrecognized keyword.*{name}"
        with pytest.raises(ValueError, match=text):
            cls(1, **{name: value})
    if takes(cls, name):
        given = cls(1, **{name: np.float32(0.5)}).get_config()[name]
        assert json.dumps(given) == "0.5"


def test_wrong_redundancy():
    for value in [0, -1, 2.5, "4", None, [2]]:
        with pytest.raises(ValueError, match="invalid value for `redundancy`"):
            NSR(1, redundancy=value)


def test_wrong_noise_range():
    for value in [(2, 1), (1, 1), (1,), (1, 2, 3), 5, "all", None]:
        with pytest.raises(ValueError, match=r"`noise_range`, expected two numbers"):
            SNMU(1, noise_range=value)


@each_layer
def test_wrong_inputs(cls):
    layer = cls(2)
    with pytest.raises(ValueError, match="expected min_ndim=2, found ndim=1"):
        layer(np.ones(3))
    with pytest.raises(
        ValueError, match=r"last axis .* known size. Received: input_shape=\(None, None"
    ):
        layer(keras.Input((None,)))
    layer(sample(cls))
    with pytest.raises(ValueError, match="expected axis -1 of input shape to have"):
        layer(np.ones((4, 2)))
    with pytest.raises(ValueError, match="expected min_ndim=2, found ndim=1"):
        layer(np.ones(3))


@each_layer
def test_wrong_keywords(cls):
    with pytest.raises(ValueError, match=r"Unrecognized keyword.*use_bias"):
        cls(1, use_bias=True)
    with pytest.raises(ValueError, match=r"`kernel_initializer`.*'no_such'\. Try"):
        cls(1, kernel_initializer="no_such")
    with pytest.raises(TypeError, match="units"):
        cls()


@each_layer
def test_effective_weights(cls):
    layer = cls(2)
    for name in layer.targets:
        text = rf"no `{name}` before it is built. Call it on data"
        if BACKEND == "torch":  # whose modules answer for a property that raises
            text = f"has no attribute '{name}'"
        with pytest.raises(AttributeError, match=text):
            getattr(layer, name)
    layer.build((None, 3))
    assert list(layer.kernels) == list(layer.targets)
    for name, value in layer.kernels.items():
        np.testing.assert_array_equal(numpy(value), numpy(getattr(layer, name)))
        assert value.shape == SHAPED.get((cls.__name__, name), (3, 2))


@each_layer
def test_sparsity_error(cls):
    layer = cls(2, kernel_initializer="random_uniform")
    layer.build((None, 3))
    expected = max(
        np.min([np.abs(numpy(kernel) - t) for t in layer.targets[name]], axis=0).max()
        for name, kernel in layer.kernels.items()
    )
    error = float(numpy(layer.sparsity_error()))
    assert error == pytest.approx(expected, rel=1e-6)
    assert 1e-3 < error
    assert layer.is_discrete(error * 1.01) is True
    assert layer.is_discrete(error * 0.99) is False
    assert layer.is_discrete() is False


@each_layer
def test_hyper_parameters_of_the_paper(cls):
    layer = cls(2)
    given = {name: getattr(layer, name) for name in arguments(cls)[1:]}
    own = {name: value for name, value in given.items() if value is not None}
    assert own == DEFAULTS.get(cls.__name__, {})


@each_layer
def test_facts(cls):
    assert not isinstance(cls.initializer, initializers.Initializer)
    initializers.get(cls.initializer)
    assert cls.targets
    for values in cls.targets.values():
        assert set(values) <= {-1, 0, 1}
    assert cls.operations
    assert cls.domain in DOMAINS
    assert re.fullmatch(r"arXiv:\d{4}\.\d{5}|doi:10\.\d+/\S+", cls.reference)
    assert cls.reference in cls.__doc__
    assert LAYERS[cls.__name__] is cls
