import numpy as np
from oracles.conformance import Conformance
from oracles.gradients import slopes

from keras_nalu import NAU


class TestNAU(Conformance):
    layer = NAU
    ideal = {"add": [[[1], [1]]], "subtract": [[[1], [-1]]]}
    bounded = True
    modules = ("nau",)
    begins = {"W": ("glorot",)}
    exactly = [([(1, -1)], "signed", "x0 - x1")]
    rounded = [([(0.5, 0.25)], "signed", "0.5 * x0 + 0.25 * x1")]
    near = [(0.8, -0.9)], "x0 - x1"

    @staticmethod
    def equation(ops, x, W):
        return ops.matmul(x, ops.clip(W, -1, 1))

    def test_the_gradient_goes_through_at_the_bounds(self):
        layer = self.layer(1)
        layer.build((None, 5))
        layer.W.assign([[-1], [1], [1.5], [-1.5], [0.5]])
        y, gradients = slopes(layer, [[2, 3, 5, 7, 11]])
        assert y == -2 + 3 + 5 - 7 + 5.5
        np.testing.assert_array_equal(gradients["W"][:, 0], [2, 3, 0, 0, 11])
