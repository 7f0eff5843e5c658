"""With the ideal weights written in, a layer computes its operations exactly."""

import keras
import numpy as np
import pytest

from keras_nalu.layers import LAYERS

ONE, NONE = np.ones((2, 1)), np.zeros((2, 1))
PLUS, MINUS = ONE, np.array([[1.0], [-1.0]])
ON, OFF = np.array([100.0]), np.array([-100.0])
SAME, OTHER = np.array([[1], [1], [0], [0]]), np.array([[1], [0], [0], [1]])
# The left register is the first input, and the right one the second.
LEFT, RIGHT = 60 * MINUS, -60 * MINUS


def bounded(sign):
    """`W_hat` and `M_hat`: tanh(20) * sigmoid(20) is 1 in float32."""
    return 20 * sign, 20 * ONE


def golden(sign, gate):
    """In GNALU ln(phi), 0.48, multiplies all that is squashed."""
    return 40 * sign, 40 * ONE, 40 * gate


def register(sign, zero):
    return LEFT, RIGHT, np.array([[sign]]), np.array([[zero]]), np.zeros(1)


SUMS = {"add": PLUS, "subtract": MINUS}
PRODUCTS = {"multiply": PLUS, "divide": MINUS}
#: By layer and operation: the stored weights, in the layer's order.
IDEAL = {
    "NAC": {op: bounded(W) for op, W in SUMS.items()},
    "NACMul": {op: bounded(W) for op, W in PRODUCTS.items()},
    "NALU": {op: (*bounded(W), 20 * ONE) for op, W in SUMS.items()}
    | {op: (*bounded(W), -20 * ONE) for op, W in PRODUCTS.items()},
    "SeparateNALU": {
        op: (*bounded(W), *bounded(NONE), 20 * ONE) for op, W in SUMS.items()
    }
    | {op: (*bounded(NONE), *bounded(W), -20 * ONE) for op, W in PRODUCTS.items()},
    "GNALU": {op: golden(W, ONE) for op, W in SUMS.items()}
    | {op: golden(W, -ONE) for op, W in PRODUCTS.items()},
    "INALU": {op: (*bounded(W), *bounded(NONE), ON) for op, W in SUMS.items()}
    | {op: (*bounded(NONE), *bounded(W), OFF) for op, W in PRODUCTS.items()},
    "SharedINALU": {op: (*bounded(W), ON) for op, W in SUMS.items()}
    | {op: (*bounded(W), OFF) for op, W in PRODUCTS.items()},
    "NAU": {op: (W,) for op, W in SUMS.items()},
    "NMU": {"multiply": (ONE,)},
    "SNMU": {"multiply": (ONE,)},
    "NaiveNPU": {op: (W, NONE) for op, W in PRODUCTS.items()},
    "NPU": {op: (W, NONE, np.ones(2)) for op, W in PRODUCTS.items()},
    "RealNPU": {op: (W, np.ones(2)) for op, W in PRODUCTS.items()},
    "NRU": {op: (W,) for op, W in PRODUCTS.items()},
    "NMRU": {"multiply": (SAME,), "divide": (OTHER,)},
    # The softmax over one unit is 1.
    "MCFC": {"add": (NONE, ON, np.zeros(1))},
    "MulMCFC": {"multiply": (NONE, ON, np.zeros(1), np.zeros(1))},
    "NSR": {
        "less": register(-40.0, -20.0),
        "less_equal": register(-40.0, 20.0),
        "equal": register(0.0, 20.0),
        "not_equal": register(0.0, -20.0),
        "greater_equal": register(40.0, 20.0),
        "greater": register(40.0, -20.0),
    },
}
#: What else a layer needs for it: INALU's products end at exp(20) = 4.9e8 by default.
GIVEN = {
    "INALU": {"omega": 30},
    "SharedINALU": {"omega": 30},
    "NSR": {"scale": 20},
}
RANGES = {"small": (1, 10), "trained on": (10, 100), "far outside": (10**3, 10**6)}
#: Products that are multiplied out, and not through exp(log).
MULTIPLIED = {"NMU", "SNMU", "NRU", "NMRU"}
EPS32 = np.finfo("float32").eps

CASES = [(name, op) for name, ops in IDEAL.items() for op in ops]


def built(name, *columns, **kwargs):
    """A layer with a unit for each of these lists of weights."""
    layer = LAYERS[name](len(columns), **GIVEN.get(name, {}) | kwargs)
    layer.build((None, 2))
    for stored, parts in zip(layer.weights, zip(*columns, strict=True), strict=True):
        joined = np.concatenate(parts, axis=-1)
        # The relevance gate of an NPU is for all its units.
        stored.assign(joined if joined.shape == stored.shape else parts[0])
    return layer


def integers(low, high, signed=False):
    """Pairs; a tenth of them equal."""
    rng = np.random.default_rng(0)
    X = rng.integers(low, high, size=(1000, 2))
    X[::10, 1] = X[::10, 0]
    return X * rng.choice([-1, 1], X.shape) if signed else X


def bounds(name, operation, high):
    """Relative and absolute. Sums of integers below 2**24 are exact in float32; what
    the exponential returns is off by eps32 times its logarithm, if not by more."""
    if operation in LAYERS["NSR"].operations:
        return 0, 3e-9  # sigmoid(-20) in the place of 0
    if operation in SUMS:
        return 0, 0
    return EPS32 * (4 if name in MULTIPLIED else 2 * np.log(high**2)), 0


def assert_computes(layer, operation, X, rtol, atol):
    a, b = np.float64(X.T[..., None])
    expected = np.float64(getattr(np, operation)(a, b))
    for training in (False, True):
        y = layer(np.float32(X), training=training)
        np.testing.assert_allclose(
            keras.ops.convert_to_numpy(y), expected, rtol=rtol, atol=atol
        )


def test_every_operation_that_a_layer_names_has_its_weights():
    assert {n: set(ops) for n, ops in IDEAL.items()} == {
        n: set(cls.operations) for n, cls in LAYERS.items()
    }


@pytest.mark.parametrize(("name", "operation"), CASES)
def test_exact(name, operation):
    layer = built(name, IDEAL[name][operation])
    for low, high in RANGES.values():
        for signed in (False, True):
            # The sign of NALU's gate is that of the inputs.
            if not signed or layer.domain.startswith("all reals"):
                X = integers(low, high, signed)
                bound = bounds(name, operation, high)
                assert_computes(layer, operation, X, *bound)
    assert set(layer.kernels) == set(layer.targets)
    for kernel, value in layer.kernels.items():
        entries = keras.ops.convert_to_numpy(value).ravel().tolist()
        assert set(entries) <= set(layer.targets[kernel])
    assert layer.is_discrete(0)


@pytest.mark.parametrize("name", sorted(LAYERS.keys() - {"MCFC", "MulMCFC", "NSR"}))
def test_a_weight_of_an_input_that_does_not_matter_is_discrete(name):
    layer = LAYERS[name](1)
    layer.build((None, 2))
    layer.set_weights([np.zeros(weight.shape) for weight in layer.weights])
    assert not any(keras.ops.convert_to_numpy(W).any() for W in layer.kernels.values())
    assert layer.is_discrete(0)


@pytest.mark.parametrize("name", [n for n, ops in IDEAL.items() if len(ops) > 1])
def test_one_layer_computes_all_its_operations_at_once(name):
    X = integers(1, 1000)
    y = keras.ops.convert_to_numpy(built(name, *IDEAL[name].values())(np.float32(X)))
    a, b = np.float64(X.T[..., None])
    expected = [getattr(np, op)(a, b) for op in IDEAL[name]]
    np.testing.assert_allclose(y, np.hstack(expected), rtol=1e-5, atol=3e-9)


@pytest.mark.parametrize(
    ("name", "operation"),
    [
        (name, op)
        for name, op in CASES
        if LAYERS[name].domain == "all reals" and op != "divide"
    ],
)
def test_zero(name, operation):
    X = np.array([[0, 0], [0, -7], [7, 0], [-7, 0]])
    layer = built(name, IDEAL[name][operation])
    assert_computes(layer, operation, X, 0, bounds(name, operation, 10)[1])


@pytest.mark.parametrize("name", ["INALU", "SharedINALU"])
def test_a_product_of_inalu_ends_at_exp_omega(name):
    weights = IDEAL[name]["multiply"]
    X = np.array([[2e4, 2e4], [3e4, -3e4]])
    for omega in (20, 5):
        y = keras.ops.convert_to_numpy(built(name, weights, omega=omega)(X))
        expected = np.minimum(np.abs(X.prod(axis=1)), np.exp(omega)) * [1, -1]
        np.testing.assert_allclose(y[:, 0], expected, rtol=1e-5)


def test_nalu_loses_the_sign_of_a_product():
    layer = built("NALU", IDEAL["NALU"]["multiply"])
    # x G must stay negative for the gate to stay closed.
    y = keras.ops.convert_to_numpy(layer(np.array([[-3.0, 7.0], [0.0, 7.0]])))
    np.testing.assert_allclose(y, [[21], [0]], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["NaiveNPU", "NPU", "RealNPU"])
def test_powers(name):
    _, *others = IDEAL[name]["divide"]
    columns = [(np.array([[p], [q]]), *others) for p, q in ((2, 0), (0.5, 0), (1, -2))]
    X = integers(1, 1000)
    a, b = np.float64(X.T[..., None])
    y = keras.ops.convert_to_numpy(built(name, *columns)(np.float32(X)))
    expected = np.hstack([a**2, np.sqrt(a), a / b**2])
    np.testing.assert_allclose(y, expected, rtol=1e-5)


def test_an_npu_leaves_out_what_is_not_relevant():
    for name in ("NPU", "RealNPU"):
        *others, _ = IDEAL[name]["divide"]
        layer = built(name, (*others, np.array([1.0, 0.0])))
        y = keras.ops.convert_to_numpy(layer(np.array([[7.0, 0.0], [-7.0, -3.0]])))
        np.testing.assert_allclose(y, [[7], [-7]], rtol=1e-6)
