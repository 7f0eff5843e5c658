"""Products of wide layers are those that broadcast, and take less memory."""

import keras
import numpy as np
import pytest
from keras import ops
from oracles.gradients import differentiate

from keras_nalu import ops as equations
from keras_nalu import wide
from keras_nalu.models import backends

BACKEND = keras.backend.backend()
#: JAX and PyTorch have no more by default.
DTYPE = "float64" if BACKEND == "tensorflow" else "float32"
RTOL = 1e-12 if BACKEND == "tensorflow" else 2e-5


def gated(x, W):
    return ops.prod(W * x[..., None] + (1 - W), axis=-2)


def gated_powers(x, W):
    x, A = x[..., None], W * ops.sign(W)  # Of slope 0 at 0.
    return ops.prod(ops.sign(x) * ops.abs(x) ** W * A + (1 - A), axis=-2)


def signed(x, W):
    A = W * ops.sign(W)
    m = ops.exp(ops.minimum(ops.log(ops.maximum(ops.abs(x), 1e-7)) @ W, 20.0))
    return m * ops.prod(ops.sign(x)[..., None] * A + (1 - A), axis=-2)


#: What is called -> the same, written as a broadcast.
ORACLES = {
    "gated": (equations.gated_product, gated),
    "powers": (
        lambda x, W: equations.gated_powers(x, W, equations.magnitude(W)),
        gated_powers,
    ),
    "signed": (lambda x, W: equations.signed_product(x, W, 1e-7, 20.0), signed),
}
each_product = pytest.mark.parametrize("name", ORACLES)


@pytest.fixture(autouse=True)
def _wide(monkeypatch):
    monkeypatch.setattr(wide, "WEIGHTS", 0)
    monkeypatch.setattr(equations, "SIGNS", 0)


class Product(keras.Layer):
    def __init__(self, function, W):
        super().__init__(dtype=DTYPE)
        self.function = function
        self.W = self.add_weight(shape=W.shape, name="W")
        self.W.assign(W)
        self.built = True

    def call(self, x):
        return self.function(x, ops.convert_to_tensor(self.W))


def data(name, rows, inputs, units):
    """Many weights are 0, 1 or 1/2, and some inputs 0 or 1, as what they multiply to
    must not vanish."""
    rng = np.random.default_rng(inputs)
    W = rng.uniform(0 if name == "gated" else -1, 1, (inputs, units))
    kind = rng.uniform(size=W.shape)
    zero = max(0.6, 1 - 8 / inputs)
    W = np.select([kind < zero, kind > 0.98, kind > 0.95], [0, 0.5, 1], W)
    x = rng.uniform(0.5, 1.5, (*rows, inputs)) * rng.choice([-1, 1], (*rows, inputs))
    kind = rng.uniform(size=x.shape)
    x = np.select([kind < 0.05, kind < 0.1], [1, 1 if name == "powers" else 0], x)
    return x.astype(DTYPE), W.astype(DTYPE), rng.normal(size=(*rows, units))


def both(name, x, W, c):
    for function in ORACLES[name]:
        y, gradients = differentiate(Product(function, W), x, c.astype(DTYPE))
        yield {"y": ops.convert_to_numpy(y), **gradients}


@each_product
@pytest.mark.parametrize(
    ("rows", "sizes"),
    [
        ((6,), (1, 1)),
        ((2, 3), (2, 5)),
        ((0,), (33, 7)),
        ((6,), (70, 3)),
        ((9,), (300, 2)),
    ],
    ids=["one", "of rank 3", "empty", "padded", "many"],
)
def test_values_and_gradients(name, rows, sizes):
    got, expected = both(name, *data(name, rows, *sizes))
    for key, value in expected.items():
        assert got[key].dtype == value.dtype, key
        assert value.any() or 0 in rows or sizes == (1, 1), key
        atol = RTOL * np.abs(value).max(initial=0)
        np.testing.assert_allclose(got[key], value, RTOL, atol, err_msg=key)


@each_product
def test_one_zero_factor_and_two(name):
    """Of an input, and of a weight; an input that is 0 and divides is not tested."""
    x = np.array([[0, 2, -3], [0, 0, 2], [-1, 2, 3], [-1, -1, 3]], DTYPE)
    W = np.array([[1, 0.5], [1, 0.5], [0.25, 1]], DTYPE)
    if name == "powers":
        x = np.where(x == 0, -1, x)
    got, expected = both(name, x, W, np.ones((4, 2)))
    assert (expected["y"] == 0).any()
    for key, value in expected.items():
        np.testing.assert_allclose(got[key], value, 100 * RTOL, 1e-6, err_msg=key)


@each_product
def test_nan_and_huge_inputs_stay_in_their_rows(name):
    x, W, c = data(name, (6,), 40, 3)
    x[1, 5], x[2, 7] = np.nan, 1e30
    W[5], W[7] = 0.5, 0
    got, expected = both(name, x, W, c)
    # PyTorch gives a NaN the sign 0.
    missing = np.isnan(expected["y"][1])
    assert missing.any()
    np.testing.assert_array_equal(np.isnan(got["y"][1]), missing)
    finite = np.isfinite(expected["y"])
    assert finite[[0, 2, 3, 4, 5]].all()
    for key in "yx":
        rest = np.delete(expected[key], 1, axis=0)
        atol = RTOL * np.abs(rest).max()
        np.testing.assert_allclose(np.delete(got[key], 1, 0), rest, 10 * RTOL, atol)


@pytest.mark.parametrize(
    "name",
    ["signed", *(pytest.param(n, marks=pytest.mark.slow) for n in ("gated", "powers"))],
)
@pytest.mark.skipif(BACKEND == "torch", reason="it has no populations")
def test_of_many_members_in_a_compiled_step(name):
    given = [data(name, (4,), inputs, 3)[:2] for inputs in (9, 9)]
    values = [ops.convert_to_tensor(np.stack(v)) for v in zip(*given, strict=True)]

    def step(function):
        def of_member(values):
            def lose(weights):
                return ops.sum(function(*weights) ** 2), ()

            return backends.current().gradient(lose, [*values])[0]

        mapped = lambda values: ops.vectorized_map(of_member, values)  # noqa: E731
        return backends.current().compiled(mapped)(values)

    for got, expected in zip(*map(step, ORACLES[name]), strict=True):
        np.testing.assert_allclose(got, expected, 1e-4, 1e-4)


@each_product
def test_second_derivatives(name):
    x, W, _ = data(name, (3,), 9, 2)

    def slope(function):
        if BACKEND == "jax":
            import jax

            def slopes(W):
                return jax.grad(lambda W: (function(x, W) ** 2).sum())(W)

            return jax.grad(lambda W: (slopes(W) ** 2).sum())(W)
        if BACKEND == "torch":
            import torch

            given = torch.tensor(W, requires_grad=True)
            y = (function(torch.tensor(x), given) ** 2).sum()
            (first,) = torch.autograd.grad(y, given, create_graph=True)
            return torch.autograd.grad((first**2).sum(), given)[0]
        import tensorflow as tf

        given = tf.constant(W)
        with tf.GradientTape() as outer:
            outer.watch(given)
            with tf.GradientTape() as tape:
                tape.watch(given)
                y = tf.reduce_sum(function(tf.constant(x), given) ** 2)
            total = tf.reduce_sum(tape.gradient(y, given) ** 2)
        return outer.gradient(total, given)

    got, expected = (np.asarray(slope(f)) for f in ORACLES[name])
    atol = 10 * RTOL * np.abs(expected).max()
    np.testing.assert_allclose(got, expected, 100 * RTOL, atol)


@each_product
@pytest.mark.only("jax", reason="it says what a compiled function needs")
def test_memory(name):
    import jax

    def needs(function, size=512):
        step = jax.grad(lambda x, W: function(x, W).sum(), (0, 1))
        x, W = np.ones((128, size), "float32"), np.ones((size, size), "float32")
        compiled = jax.jit(step).lower(x, W).compile()
        return compiled.memory_analysis().temp_size_in_bytes / 1e6

    got, broadcast = map(needs, ORACLES[name])
    assert got < 60
    assert broadcast > 128 * 512 * 512 * 4 / 1e6
