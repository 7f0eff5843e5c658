import numpy as np
import pytest
from oracles.conformance import Conformance
from oracles.conformance.facts import numpy
from oracles.gradients import slopes

from keras_nalu import NMU


class TestNMU(Conformance):
    layer = NMU
    ideal = {"multiply": [[[1], [1]]]}
    multiplies = True
    finite = 0, 1e4
    modules = ("nmu",)
    begins = {"W": ("uniform", 0.25, 0.75)}
    exactly = [([(1, 1)], "signed", "x0 * x1")]
    rounded = [([(0.93, 1)], "signed", "(0.93 * x0 + 0.07) * x1")]
    near = [(0.8, 0.9)], "x0 * x1"

    @staticmethod
    def equation(ops, x, W):
        return ops.prod(W * ops.expand_dims(x, -1) + (1 - W), axis=-2)

    def test_gradient_of_a_product_with_zeros(self):
        layer = self.layer(1, kernel_initializer="ones")
        layer.build((None, 3))
        y, gradients = slopes(layer, [[0, 3, 5], [0, 0, 7], [0, 0, 0]])
        np.testing.assert_array_equal(y[:, 0], [0, 0, 0])
        expected = [[15, 0, 0], [0, 0, 0], [0, 0, 0]]
        np.testing.assert_array_equal(gradients["x"], expected)
        # (0 - 1) 3 * 5; of the factors of a row without others.
        np.testing.assert_array_equal(gradients["W"][:, 0], [-15, 0, 0])

    def test_a_factor_that_is_zero(self):
        y, gradients = slopes(self.made((0.5, 0.5)), [[-1, 3]])
        assert y == 0
        np.testing.assert_array_equal(gradients["x"], [[1, 0]])
        np.testing.assert_array_equal(gradients["W"], [[-4], [0]])

    def test_what_a_constraint_keeps_is_not_clipped_in_the_forward_pass(self):
        y = numpy(self.made((3, 1))(np.array([[5.0, 1.0]], "float32")))
        assert y == pytest.approx(13, rel=1e-6)

    def test_a_product_of_which_a_part_overflows(self):
        layer = self.layer(1, kernel_initializer="ones")
        y = numpy(layer(np.float32([[1e30, 1e30, 1e-30], [1e30, 1e30, 0]])))[:, 0]
        assert np.isinf(y[0])
        assert np.isnan(y[1])
