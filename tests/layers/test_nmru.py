import math

import keras
import numpy as np
import pytest
from oracles.conformance import Conformance
from oracles.conformance.facts import LEAST, numpy

from keras_nalu import NMRU


class TestNMRU(Conformance):
    layer = NMRU
    ideal = {"multiply": [[[1], [1], [0], [0]]], "divide": [[[1], [0], [0], [1]]]}
    multiplies = True
    second = {"epsilon": 0.5}
    defaults = {"epsilon": 2.0**-23}
    shapes = {"kernel": (6, 2)}
    bears_zero = False
    finite = 1e-7, 1e4
    largest = 1 / LEAST
    trains = True
    modules = ("nmru",)
    begins = {"W": ("uniform", 0.25, 0.75)}
    exactly = [
        ([(1, 0, 0, 1)], "signed", "x0 / x1"),
        ([(1, 1, 0, 1)], "signed", "x0"),
    ]
    rounded = [
        (
            [(0.5, 0, 0, 1)],
            "signed",
            "(0.5 * abs(x0) + 0.5) * cos(0.5 * (pi * (x0 < 0))) / x1",
        ),
        ([(0, 0, 0.5, 1)], "positive", "(0.5 / x0 + 0.5) / x1"),
    ]
    near = [(0.8, 0.2, 0, 0.9)], "x0 / x1"

    @staticmethod
    def equation(ops, x, W, epsilon=2**-23, training=True):
        z = ops.concatenate([x, 1 / (x + epsilon if training else x)], -1)
        turn = math.pi * ops.matmul(ops.cast(z < 0, "float32"), W)
        y = ops.prod(W * ops.expand_dims(ops.abs(z), -1) + (1 - W), axis=-2)
        return y * ops.cos(turn)

    def test_it_divides_by_the_smallest_normal_number_in_the_place_of_zero(self):
        x = np.array([[0, 3], [3, 0], [-3, 0], [0, 0]], "float32")
        product = self.built(self.ideal["multiply"])
        np.testing.assert_array_equal(numpy(product(x)), np.zeros((4, 1)))
        quotient = self.built(self.ideal["divide"])
        expected = np.array([[0], [3 / LEAST], [-3 / LEAST], [0]])
        np.testing.assert_allclose(numpy(quotient(x)), expected, rtol=1e-6)
        torch = keras.backend.backend() == "torch"
        if torch:  # where it has a sign; to the others it is 0
            less = np.array([[3, -1e-40]], "float32")
            np.testing.assert_allclose(numpy(quotient(less)), [[-3 / LEAST]], rtol=1e-6)
        assert 1 / LEAST == pytest.approx(8.5e37, rel=1e-2)
        said = "TensorFlow and JAX make 0 of the reciprocal of a number above 8.5e37."
        assert said in " ".join(NMRU.__doc__.split())
        ones = NMRU(1, kernel_initializer="ones")
        y = numpy(ones(np.float32([[-1e38]])))
        assert y == pytest.approx(1 if torch else 0)

    def of(self, W):
        layer = self.layer(np.shape(W)[-1])
        layer.build((None, 1))
        layer.W.assign(W)
        return layer

    def test_it_does_not_know_the_sign_of_its_epsilon(self):
        divides = self.of([[0], [1]])
        x = np.array([[-5e-8], [5e-8], [0]], "float32")
        eps = 2.0**-23
        y = numpy(divides(x, training=True))[:, 0]
        np.testing.assert_allclose(y, 1 / (np.float64(x[:, 0]) + eps), rtol=1e-5)
        assert y[0] > 0
        assert numpy(divides(x[:1])) == pytest.approx(-2e7)
        # The authors' are infinite.
        most = pytest.approx(1 / LEAST)
        assert numpy(divides(x[2:])) == most
        assert numpy(divides(np.array([[-eps]], "float32"), training=True)) == most

    def test_the_turn_is_that_of_its_weights(self):
        layer = self.of([[0.5, 1, 1.5, 2, 0.25], [0] * 5])
        y = numpy(layer(np.full((1, 1), -3, "float32")))[0]
        np.testing.assert_allclose(y, [0, -3, 0, 5, 1.5 * np.sqrt(0.5)], atol=1e-5)

    def test_reciprocals_have_weights(self):
        layer = self.layer(3)
        layer.build((None, 5))
        assert layer.W.shape == (10, 3)
