import keras
import numpy as np
import pytest
from oracles.conformance import Conformance
from oracles.conformance.facts import numpy

from keras_nalu import NRU


class TestNRU(Conformance):
    layer = NRU
    ideal = {"multiply": [[[1], [1]]], "divide": [[[1], [-1]]]}
    multiplies = True
    bears_zero = False
    finite = 1e-7, 1e4
    trains = True
    modules = ("nru",)
    begins = {"W": ("glorot",)}
    exactly = [([(1, -1)], "signed", "x0 / x1")]
    rounded = [
        ([(0.5, -1)], "signed", "(0.5 * sign(x0) * abs(x0)**0.5 + 0.5) / x1"),
        ([(-0.5, 1)], "positive", "(0.5 / x0**0.5 + 0.5) * x1"),
    ]
    near = [(0.8, -0.9)], "x0 / x1"

    @staticmethod
    def equation(ops, x, W, training=True):
        A = ops.square(ops.tanh(1000 * W)) if training else ops.abs(W)
        x = ops.expand_dims(x, -1)
        powers = ops.sign(x) * ops.power(ops.abs(x), W)
        return ops.prod(powers * A + (1 - A), axis=-2)

    def may_be_nan(self, name, row, training):
        said = "On JAX the gradients of `W` in training are NaN also for inputs near"
        assert said in " ".join(NRU.__doc__.split())
        jax = keras.backend.backend() == "jax"
        return jax and training and name == "W" and np.max(np.abs(row)) > 1e37

    def test_the_gate_is_open_in_training(self):
        layer, x = self.layer(4), np.full((1, 1), 4, "float32")
        layer.build(x.shape)
        W = np.array([0.5, -0.5, 0.0, 0.001])
        layer.W.assign(W[None])
        A = np.tanh([500, 500, 0, 1]) ** 2
        trained, told = numpy(layer(x, training=True))[0], numpy(layer(x))[0]
        np.testing.assert_allclose(trained, 4**W * A + 1 - A, rtol=1e-6)
        A = np.abs(W)
        np.testing.assert_allclose(told, 4**W * A + 1 - A, rtol=1e-6)
        assert np.abs(trained - told).max() > 0.4

    def test_what_a_constraint_keeps_is_not_clipped_in_the_forward_pass(self):
        y = numpy(self.made((2, 0))(np.array([[5.0, 1.0]], "float32")))
        assert y == pytest.approx(49, rel=1e-6)
