"""Dtype policies: which warn, and that all layers train under every one."""

import functools

import keras
import numpy as np
import pytest

import keras_nalu
from keras_nalu.layers import LAYERS, NAC, NALU, arguments

POLICIES = "float32", "float64", "mixed_bfloat16", "mixed_float16"
slow = pytest.mark.slow


@pytest.fixture
def policy():
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_pure_half_policy_warns_once(dtype, policy):
    arguments.warn_of_half.cache_clear()
    text = (
        rf"policy '{dtype}' stores weights in half precision: .* Use 'mixed_{dtype}', "
        rf".*`keras\.config\.set_dtype_policy\('mixed_{dtype}'\)`\."
    )

    def make():
        NALU(1, dtype=dtype)
        policy(dtype)
        NAC(1)

    with pytest.warns(UserWarning, match=text) as warned:
        make()
    assert len(warned) == 1


def test_a_mixed_policy_does_not_warn(policy):
    for name in POLICIES:
        NALU(1, dtype=name)
        policy(name)
        NALU(1)
        NALU(1, dtype="float32")


X = np.random.default_rng(0).uniform(1, 2, (640, 2)).astype("float32")


@functools.cache
def train(cls, policy, names):
    """A model of layers side by side, and each one's error before and after."""
    keras.config.set_dtype_policy(policy)
    keras.utils.set_random_seed(1)
    inputs = keras.Input((2,))
    outputs = [LAYERS[name](1)(inputs) for name in names]
    model = cls(inputs, keras.layers.Concatenate()(outputs))
    model.compile(keras.optimizers.Adam(0.02), "mse")
    Y = np.stack([answer(LAYERS[name]) for name in names], axis=-1)

    def errors():
        y = np.float32(keras.ops.convert_to_numpy(model.predict_on_batch(X)))
        return np.mean((y - Y) ** 2, axis=0)

    before = errors()
    model.fit(X, Y, batch_size=32, epochs=15, verbose=0)
    return model, before, errors()


def answer(cls):
    """Of the first operation that a layer claims."""
    return np.float32(getattr(np, cls.operations[0])(*X.T))


@slow
@pytest.mark.filterwarnings("ignore:Training step by step")  # On PyTorch.
@pytest.mark.filterwarnings("ignore:Explicitly requested dtype")  # On JAX.
@pytest.mark.parametrize(
    ("cls", "name", "names"),
    [
        (cls, name, tuple(LAYERS))
        for cls in (keras_nalu.Model, keras.Model)
        for name in POLICIES
    ],
)
@pytest.mark.usefixtures("policy")
def test_layers_train_under_every_policy(cls, name, names):
    model, before, after = train(cls, name, names)
    scaled = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert scaled == (name == "mixed_float16")
    stored = {"float64"} if name == "float64" else {"float32"}
    assert {weight.dtype for weight in model.weights} == stored
    for weight in model.get_weights():
        assert np.isfinite(weight).all()
    for layer, start, end in zip(names, before, after, strict=True):
        assert end < 0.7 * start, layer
    if name.startswith("mixed") and len(names) == len(LAYERS):
        # As exact as in float32, but for the rounding of the outputs.
        *_, wide = train(cls, "float32", names)
        np.testing.assert_array_less(after, 1.5 * wide + 2e-4)
