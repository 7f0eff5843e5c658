"""With the ideal weights written in, a layer computes its operations exactly."""

import keras
import numpy as np
import pytest

from keras_nalu.datasets import OPERATIONS
from keras_nalu.layers import LAYERS

# tanh(20) * sigmoid(20) is 1 in float32; +20 and -20 open and close the gate.
PLUS, MINUS = np.array([[20.0], [20.0]]), np.array([[20.0], [-20.0]])
ONE, OPEN, CLOSED = PLUS, PLUS, -PLUS
#: By layer and operation: the stored weights, in the layer's order.
IDEAL = {
    "NAC": {"add": (PLUS, ONE), "subtract": (MINUS, ONE)},
    "NALU": {
        "add": (PLUS, ONE, OPEN),
        "subtract": (MINUS, ONE, OPEN),
        "multiply": (PLUS, ONE, CLOSED),
        "divide": (MINUS, ONE, CLOSED),
    },
}
#: Sums of integers below 2**24 are exact in float32. A product goes through
#: exp(log): its relative error is a few eps32 = 1.2e-7 times its logarithm, below 28.
BOUND = {"add": 0, "subtract": 0, "multiply": 1e-5, "divide": 1e-5}
RANGES = {"small": (1, 10), "trained on": (10, 100), "far outside": (1e3, 1e6)}

CASES = [(name, op) for name, ops in IDEAL.items() for op in ops]


def test_every_operation_that_a_layer_names_has_its_weights():
    assert {n: set(ops) for n, ops in IDEAL.items()} == {
        n: set(cls.operations) for n, cls in LAYERS.items()
    }


@pytest.mark.parametrize("span", RANGES.values(), ids=RANGES)
@pytest.mark.parametrize(("name", "operation"), CASES)
def test_exact(name, operation, span):
    X = np.random.default_rng(0).integers(*span, size=(1000, 2)).astype("float32")
    layer = LAYERS[name](1)
    layer.build(X.shape)
    layer.set_weights(IDEAL[name][operation])
    expected = OPERATIONS[operation](X[:, :1], X[:, 1:])
    y = keras.ops.convert_to_numpy(layer(X))
    np.testing.assert_allclose(y, expected, rtol=BOUND[operation], atol=0)
    kernel = keras.ops.convert_to_numpy(layer.kernel)
    assert set(kernel.ravel().tolist()) <= set(layer.targets)


@pytest.mark.parametrize("name", LAYERS)
def test_one_layer_computes_all_its_operations_at_once(name):
    X = np.random.default_rng(0).integers(1, 1000, size=(100, 2)).astype("float32")
    columns = IDEAL[name].values()
    layer = LAYERS[name](len(columns))
    layer.build(X.shape)
    layer.set_weights([np.hstack(w) for w in zip(*columns, strict=True)])
    expected = [OPERATIONS[op](X[:, :1], X[:, 1:]) for op in IDEAL[name]]
    y = keras.ops.convert_to_numpy(layer(X))
    np.testing.assert_allclose(y, np.hstack(expected), rtol=1e-5, atol=0)


@pytest.mark.parametrize("operation", ["add", "subtract"])
def test_nac_is_exact_on_negative_numbers_and_zero(operation):
    X = np.random.default_rng(0).integers(-(10**6), 10**6, size=(1000, 2))
    X[:2] = [[0, 0], [0, -7]]
    layer = LAYERS["NAC"](1)
    layer.build(X.shape)
    layer.set_weights(IDEAL["NAC"][operation])
    expected = OPERATIONS[operation](X[:, :1], X[:, 1:])
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(layer(X)), expected)


def test_nalu_loses_the_sign_of_a_product():
    layer = LAYERS["NALU"](1)
    layer.build((None, 2))
    layer.set_weights(IDEAL["NALU"]["multiply"])
    # x G must stay negative for the gate to stay closed.
    y = keras.ops.convert_to_numpy(layer(np.array([[-3.0, 7.0], [0.0, 7.0]])))
    np.testing.assert_allclose(y, [[21], [0]], rtol=1e-5, atol=1e-6)
