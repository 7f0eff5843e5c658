"""What every layer promises. A new layer adds nothing here but its arguments."""

import copy
import inspect
import itertools
import json
import pickle
import re

import keras
import numpy as np
import pytest
from keras import initializers

from keras_nalu.layers import LAYERS
from keras_nalu.losses import L2Loss

BACKEND = keras.backend.backend()
SHAPES = [(4, 3), (4, 5, 3), (2, 4, 5, 3)]
X = np.random.default_rng(0).uniform(-3, 3, (4, 3)).astype("float32")

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
}
#: The stored weights that `gate_*` act on; all others are kernels.
GATES = {"G"}


def arguments(cls):
    parameters = inspect.signature(cls).parameters.values()
    return [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]


def takes(cls, name):
    return name in arguments(cls)


def numpy(y):
    return keras.ops.convert_to_numpy(keras.ops.cast(y, "float32"))


def penalty(layer):
    return float(np.sum([numpy(loss) for loss in layer.losses]))


def varied(cls):
    """A layer in which every argument has its second value."""
    return cls(**{name: SECOND[name] for name in arguments(cls)})


def observe(layer):
    """All that a training step shows of a layer."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((3,)), layer])
    model.compile(keras.optimizers.SGD(0.1), L2Loss(), run_eagerly=True)
    y = numpy(model(X))
    shown = [y, penalty(layer)]
    model.train_on_batch(X, np.ones_like(y))
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
@pytest.mark.parametrize("shape", SHAPES)
def test_ranks(cls, shape):
    x = np.random.default_rng(0).uniform(1, 3, shape).astype("float32")
    layer = cls(2)
    y = numpy(layer(x))
    assert y.shape == layer.compute_output_shape(shape) == (*shape[:-1], 2)
    rows = numpy(layer(x.reshape(-1, 3))).reshape(y.shape)
    np.testing.assert_allclose(y, rows, rtol=1e-6)
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
        np.testing.assert_array_equal(
            model.predict_on_batch(x), numpy(model.layers[0](x))
        )


@each_layer
def test_symbolic_eager_and_jitted_agree(cls):
    layer = cls(2)
    eager = numpy(layer(X))
    if BACKEND == "tensorflow":
        import tensorflow as tf

        compiled = tf.function(layer, jit_compile=True)(X)
    elif BACKEND == "jax":
        import jax

        weights = [v.value for v in layer.trainable_variables]
        compiled, _ = jax.jit(layer.stateless_call)(weights, [], X)
    else:
        import torch

        compiled = torch.compile(layer, backend="aot_eager")(torch.as_tensor(X))
    inputs = keras.Input((3,))
    functional = keras.Model(inputs, layer(inputs))
    np.testing.assert_allclose(numpy(compiled), eager, rtol=1e-5)
    np.testing.assert_allclose(functional.predict_on_batch(X), eager, rtol=1e-5)


@each_layer
def test_no_rows(cls):
    assert cls(2)(np.zeros((0, 3), "float32")).shape == (0, 2)


@each_layer
def test_in_models(cls):
    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.layer = cls(2)

        def call(self, inputs):
            return self.layer(inputs)

    inputs = keras.Input((5, 3))
    recurrent = keras.layers.Bidirectional(keras.layers.LSTM(2, return_sequences=True))(
        inputs
    )
    models = [
        Subclassed(),
        keras.Model(inputs, cls(2)(recurrent)),
        keras.Model(inputs, keras.layers.TimeDistributed(cls(2))(inputs)),
    ]
    x = np.random.default_rng(0).uniform(1, 3, (4, 5, 3)).astype("float32")
    for model in models:
        model.compile("sgd", L2Loss())
        y = model.predict_on_batch(x)
        model.train_on_batch(x, y + 1)
        assert (model.predict_on_batch(x) != y).any()
    layer = models[2].layers[1].layer
    np.testing.assert_allclose(models[2].predict_on_batch(x), numpy(layer(x)), 1e-5)


@each_layer
def test_masks_pass_through(cls):
    steps = np.array([[[1.0], [2], [0]], [[3], [0], [0]]], "float32")
    layer = cls(1)
    model = keras.Sequential(
        [
            keras.Input((3, 1)),
            keras.layers.Masking(),
            layer,
            keras.layers.GlobalAveragePooling1D(),
        ]
    )
    y = numpy(layer(steps)) * (steps != 0)
    expected = y.sum(axis=1) / (steps != 0).sum(axis=1)
    np.testing.assert_allclose(model.predict_on_batch(steps), expected, rtol=1e-6)


@each_layer
def test_leading_member_axis(cls):
    class Members(cls):
        def add_weight(self, shape=None, **kwargs):
            return super().add_weight(shape=(6, *shape), **kwargs)

    many, one = Members(2), cls(2)
    y = numpy(many(X))
    assert y.shape == (6, 4, 2)
    one.build(X.shape)
    for member in range(6):
        one.set_weights([w[member] for w in many.get_weights()])
        np.testing.assert_allclose(y[member], numpy(one(X)), rtol=1e-5)


# Round trips.


@each_argument
def test_every_argument_is_alive(cls, name):
    plain, changed = {"units": 4}, {"units": 4, name: SECOND[name]}
    before = observe(cls(**plain))
    assert same(before, observe(cls(**plain)))
    assert not same(before, observe(cls(**changed)))
    config = cls(**changed).get_config()
    assert config[name] != cls(**plain).get_config()[name]
    assert same(observe(cls(**changed)), observe(cls.from_config(config)))


@each_layer
def test_only_units_is_positional(cls):
    kinds = [p.kind for p in inspect.signature(cls).parameters.values()]
    kind = inspect.Parameter
    assert kinds[0] is kind.POSITIONAL_OR_KEYWORD
    assert set(kinds[1:-1]) == {kind.KEYWORD_ONLY}
    assert kinds[-1] is kind.VAR_KEYWORD
    with pytest.raises(TypeError, match="positional argument"):
        cls(1, None)


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


@each_layer
@pytest.mark.parametrize(
    "trip",
    [
        by_file,
        by_weights_file,
        by_json,
        by_clone,
        lambda model, path: copy.deepcopy(model),
        lambda model, path: pickle.loads(pickle.dumps(model)),
    ],
    ids=["keras", "weights", "json", "clone", "deepcopy", "pickle"],
)
def test_model_round_trip(cls, trip, tmp_path):
    inner = cls(4, kernel_initializer="random_normal")
    model = keras.Sequential([keras.Input((3,)), inner, varied(cls)])
    again = trip(model, tmp_path)
    assert again.to_json() == model.to_json()
    np.testing.assert_array_equal(numpy(again(X)), numpy(model(X)))
    # The copy stands alone.
    again.set_weights([w + 1 for w in model.get_weights()])
    assert (numpy(again(X)) != numpy(model(X))).any()


# Initial weights.


def drawn(cls, initializer, seed=None, **kwargs):
    if seed is not None:
        keras.utils.set_random_seed(seed)
    if takes(cls, "gate_initializer"):
        kwargs["gate_initializer"] = initializer
    layer = cls(3, kernel_initializer=initializer, **kwargs)
    layer.build((None, 2))
    return layer.get_weights()


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


@each_layer
@pytest.mark.parametrize("make", INITIALIZERS.values(), ids=INITIALIZERS)
def test_no_two_weights_are_equal(cls, make):
    for a, b in itertools.combinations(drawn(cls, make()), 2):
        assert not np.isclose(a, b).any()


@each_layer
@pytest.mark.parametrize("kind", INITIALIZERS)
def test_two_layers_differ_unless_seeded(cls, kind):
    initializer = INITIALIZERS[kind]()
    equal = same(drawn(cls, initializer), drawn(cls, initializer))
    assert equal == (kind in ("seeded", "config"))


@each_layer
@pytest.mark.parametrize("kind", INITIALIZERS)
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
        assert same(layer.get_weights()[:2], again.get_weights()[:2])


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
        assert w.shape == (3, 2)
        assert (numpy(w) == (0 if w.name in GATES else 1)).all()
    assert gate == any(w.name in GATES for w in layer.weights)


# Regularizers, constraints, trainable.


@each_layer
@pytest.mark.parametrize("part", ["kernel", "gate"])
def test_regularizers_act_on_the_stored_weights(cls, part):
    name = f"{part}_regularizer"
    if not takes(cls, name):
        assert part == "gate"
        return
    layer = cls(2, **{name: keras.regularizers.L2(0.5)})
    layer(X)
    chosen = [w for w in layer.weights if (w.name in GATES) == (part == "gate")]
    assert len(layer.losses) == len(chosen) > 0
    expected = sum((numpy(w) ** 2).sum() / 2 for w in chosen)
    assert penalty(layer) == pytest.approx(expected, rel=1e-5)


@each_layer
@pytest.mark.parametrize("part", ["kernel", "gate"])
def test_constraints_hold_after_a_step(cls, part):
    name = f"{part}_constraint"
    if not takes(cls, name):
        assert part == "gate"
        return
    layer = cls(2, **{name: keras.constraints.MaxNorm(1e-3)})
    model = keras.Sequential([keras.Input((3,)), layer])
    model.compile("sgd", L2Loss(), run_eagerly=True)
    model.train_on_batch(X, np.ones((4, 2)))
    for w in layer.weights:
        held = np.linalg.norm(numpy(w), axis=0).max() < 1.001e-3
        assert held == ((w.name in GATES) == (part == "gate")), w.name


@each_layer
def test_activity_regularizer(cls):
    layer = cls(2, activity_regularizer=keras.regularizers.L2(0.5))
    y = numpy(layer(X))
    # Keras takes the mean over the batch.
    expected = (y**2).sum(axis=1).mean() / 2
    assert penalty(layer) == pytest.approx(expected, rel=1e-5)
    config = layer.get_config()
    assert cls.from_config(config).get_config() == config


@each_layer
def test_not_trainable(cls):
    layer = cls(2, trainable=False)
    model = keras.Sequential([keras.Input((3,)), layer, keras.layers.Dense(2)])
    before = layer.get_weights()
    model.compile("sgd", L2Loss(), run_eagerly=True)
    model.train_on_batch(X, np.ones((4, 2)))
    assert layer.trainable_weights == []
    assert len(layer.non_trainable_weights) == len(before) > 0
    assert same(before, layer.get_weights())


# Dtypes and values.


@each_layer
@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8", "bool", "float64"])
def test_inputs_of_any_dtype(cls, dtype):
    x, layer = np.array([[0, 1, 3], [1, 0, 1]], dtype), cls(2)
    expected = numpy(layer(x.astype("float32")))
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
def test_dtype_policies(cls, policy, variables, output):
    x = np.array([[0, 0, 0], [1e-7, 0, 3], [100, -200, 150], [3e4, 3e4, 3e4]])
    layer = cls(2, dtype=policy)
    y = layer(x.astype("float32"))
    assert {w.dtype for w in layer.weights} == {variables}
    assert keras.backend.standardize_dtype(y.dtype) == output
    assert np.isfinite(numpy(y)).all()
    assert layer(keras.Input((3,))).dtype == output
    model = keras.Sequential([keras.Input((3,)), layer])
    model.compile("sgd", L2Loss(), run_eagerly=True)
    model.train_on_batch(x[:2], np.ones((2, 2)))
    assert all(np.isfinite(numpy(w)).all() for w in layer.weights)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="keeps no float64")
@each_layer
def test_float64(cls):
    layer = cls(2, dtype="float64")
    assert layer(np.float64(X)).dtype == "float64"
    assert {w.dtype for w in layer.weights} == {"float64"}


@each_layer
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    "size", [0.0, 1e-45, 1e-38, 1e-20, 1e-7, 1.0, 1e4, 1e19, 1e30, 1e38]
)
def test_initial_outputs_and_gradients_are_finite(
    cls, policy, sign, size, differentiate
):
    layer = cls(2, dtype=policy)
    x = np.full((2, 3), sign * size, "float32")
    x[1, 1:] = [1, -1]
    layer.build(x.shape)
    y, gradients = differentiate(layer, x, np.ones((2, 2), "float32"))
    assert np.isfinite(numpy(y)).all()
    for name, gradient in gradients.items():
        assert np.isfinite(np.float32(gradient)).all(), name


@each_layer
@pytest.mark.parametrize(
    "stored", [(W, 20, G) for W in (-20, 20) for G in (-20, 0, 20)]
)
def test_outputs_and_gradients_of_a_trained_layer_are_finite(
    cls, stored, differentiate
):
    layer = cls(1)
    x = np.array([[v, w] for v in (0, 1e-30, 1e-7, 1, 1e9) for w in (v, -v, 1)])
    layer.build(x.shape)
    layer.set_weights([np.full((2, 1), w) for w in stored[: len(layer.weights)]])
    y, gradients = differentiate(layer, np.float32(x), np.ones((15, 1), "float32"))
    assert np.isfinite(numpy(y)).all()
    for name, gradient in gradients.items():
        assert np.isfinite(gradient).all(), name


# Errors.


@each_layer
@pytest.mark.parametrize("units", [0, -1, 2.5, "4", None, True, np.float64(2), [2]])
def test_wrong_units(cls, units):
    text = "invalid value for `units`, expected a positive integer. Received: units="
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
    assert layer(X).shape == (4, 3)
    assert json.loads(json.dumps(layer.get_config()))["units"] == 3


@each_layer
@pytest.mark.parametrize(
    "epsilon", [0, -1, 1e-50, float("nan"), float("inf"), "x", None, 1j, [1]]
)
def test_wrong_epsilon(cls, epsilon):
    if takes(cls, "epsilon"):
        text = "invalid value for `epsilon`, expected a positive number. Received: "
        text = re.escape(f"{text}epsilon={epsilon!r}")
        with pytest.raises(ValueError, match=text):
            cls(1, epsilon=epsilon)
        assert json.dumps(cls(1, epsilon=np.float32(0.5)).get_config()["epsilon"])
    else:
        with pytest.raises(ValueError, match=r"Unrecognized keyword.*epsilon"):
            cls(1, epsilon=epsilon)


@each_layer
def test_wrong_inputs(cls):
    layer = cls(2)
    with pytest.raises(ValueError, match="expected min_ndim=2, found ndim=1"):
        layer(np.ones(3))
    with pytest.raises(
        ValueError, match=r"last axis .* known size. Received: input_shape=\(None, None"
    ):
        layer(keras.Input((None,)))
    layer(X)
    with pytest.raises(ValueError, match="expected axis -1 of input shape to have"):
        layer(np.ones((4, 2)))


@each_layer
def test_wrong_keywords(cls):
    with pytest.raises(ValueError, match=r"Unrecognized keyword.*use_bias"):
        cls(1, use_bias=True)
    with pytest.raises(ValueError, match="Could not interpret initializer"):
        cls(1, kernel_initializer="no_such")
    with pytest.raises(TypeError, match="units"):
        cls()


@each_layer
def test_effective_weights(cls):
    layer = cls(2)
    for name in layer.effective_weights:
        text = rf"no `{name}` before it is built. Call it on data"
        if BACKEND == "torch":  # whose modules answer for a property that raises
            text = f"has no attribute '{name}'"
        with pytest.raises(AttributeError, match=text):
            getattr(layer, name)
    layer.build((None, 3))
    assert tuple(layer.kernels) == layer.effective_weights
    for name, value in layer.kernels.items():
        np.testing.assert_array_equal(numpy(value), numpy(getattr(layer, name)))
        assert value.shape == (3, 2)


@each_layer
def test_facts(cls):
    assert not isinstance(cls.initializer, initializers.Initializer)
    initializers.get(cls.initializer)
    assert cls.targets
    assert cls.operations
    assert cls.domain
    assert re.fullmatch(r"arXiv:\d{4}\.\d{5}", cls.reference)
    assert cls.reference in cls.__doc__
    assert cls.__name__ in LAYERS
