import keras
import numpy as np
from oracles.conformance import Conformance
from oracles.conformance.facts import numpy
from oracles.gradients import slopes

from keras_nalu import MCFC, MulMCFC, discretize

BEGINS = {"gate_w": ("unit",), "gate_b": ("constant", 0), "r": ("orthogonal",)}


class Mass(Conformance):
    """What both layers of the file promise."""

    gates = "gate_w", "gate_b"

    def of_two(self):
        """A unit of two inputs."""
        more = [[0.3]] if self.free else []
        return self.made((0.7, -3), [0.4], [0.1], *more)

    def test_mass_for_a_single_unit(self):
        y, gradients = slopes(self.of_two(), [[2, 3]])
        o = 1 / (1 + np.exp(-0.5))
        expected = np.exp(np.log(6) * o + 0.3) if self.free else 5 * o
        np.testing.assert_allclose(y, expected, rtol=1e-6)
        np.testing.assert_allclose(gradients["r"], 0, atol=1e-6)
        assert (np.abs(gradients["gate_w"]) > 0.1).all()

    def test_mass_is_conserved(self):
        layer, _ = self.drawn()
        layer.gate_w.assign(np.full(3, 99.0))
        np.testing.assert_allclose(numpy(layer.kernel).sum(axis=1), 1, rtol=1e-6)

    def test_where_it_is_square_it_begins_with_the_identity(self):
        square, single = self.layer(3), self.layer(1)
        square.build((None, 3))
        single.build((None, 2))
        np.testing.assert_array_equal(numpy(square.r), np.eye(3))
        assert np.abs(numpy(single.gate_w)) == np.float32(1)
        np.testing.assert_allclose(np.linalg.norm(numpy(single.r)), 1, rtol=1e-6)

    def test_mass_goes_where_it_is_kept_back(self):
        layer = self.layer(2)
        layer.build((None, 2))
        weights = [5 * np.eye(2), np.array([9, -9]), np.zeros(2), np.zeros(2)]
        layer.set_weights(weights[: len(layer.weights)])
        kernel = keras.ops.convert_to_numpy(discretize(layer).kernel)
        np.testing.assert_allclose(kernel, [[1, 0], [0, 0]], atol=1e-6)


class TestMCFC(Mass):
    layer = MCFC
    # The softmax over one unit is 1.
    ideal = {"add": [np.zeros((2, 1)), np.array([100.0]), np.zeros(1)]}
    bounded = True
    modules = ("mcfc",)
    begins = BEGINS
    exactly = [([(0, 0), 20, 0], "signed", "x0 + x1")]
    rounded = [([(0, 0), 0, 0], "signed", "0.5 * x0 + 0.5 * x1")]
    near = [(0, 0), 0.9, 0.1], "x0 + x1"

    @staticmethod
    def equation(ops, x, r, gate_w, gate_b):
        W = ops.sigmoid(gate_w + gate_b) * ops.softmax(r, axis=-1)
        return ops.matmul(x, W)


class TestMulMCFC(Mass):
    layer = MulMCFC
    ideal = {
        "multiply": [np.zeros((2, 1)), np.array([100.0]), np.zeros(1), np.zeros(1)]
    }
    free = ("bias",)
    bears_zero = bears_negative = False
    finite = 1e-20, 1e4
    modules = ("mulmcfc",)
    begins = BEGINS | {"bias": ("constant", 0)}
    exactly = [
        ([(0, 0), 20, 0, 0], "positive", "x0 * x1"),
        ([(0, 0), 20, 0, np.log(3)], "positive", "3 * x0 * x1"),
    ]
    rounded = [([(0, 0), 0, 0, 0], "positive", "x0**0.5 * x1**0.5")]
    near = [(0, 0), 0.9, 0.1, 0], "x0 * x1"

    @staticmethod
    def equation(ops, x, r, gate_w, gate_b, bias):
        W = ops.sigmoid(gate_w + gate_b) * ops.softmax(r, axis=-1)
        return ops.exp(ops.matmul(ops.log(x), W) + bias)
