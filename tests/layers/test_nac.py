import numpy as np
import pytest
from oracles.conformance import Conformance
from oracles.conformance.facts import hats, numpy

from keras_nalu import NAC


class TestNAC(Conformance):
    layer = NAC
    ideal = {
        "add": [[[20], [20]], [[20], [20]]],
        "subtract": [[[20], [-20]], [[20], [20]]],
    }
    bounded = True
    modules = ("notebook_nac", "nac")
    begins = dict.fromkeys(("W_hat", "M_hat"), ("truncated", 0.02))
    exactly = [(hats(1, -1), "signed", "x0 - x1")]
    rounded = [(hats(0.5, -1), "signed", "0.5 * x0 - x1")]
    near = [(1.2, -1.2), (1.2, 1.2)], "x0 - x1"

    @staticmethod
    def equation(ops, x, W_hat, M_hat):
        return ops.matmul(x, ops.tanh(W_hat) * ops.sigmoid(M_hat))

    @pytest.mark.parametrize("sign", [1, -1])
    def test_overflows_to_infinity(self, sign):
        layer = self.built([[[20 * sign], [20 * sign]], [[20], [20]]])
        y = numpy(layer(np.float32([[1e20, 1e20], [3e38, 3e38], [3e38, 1.0]])))[:, 0]
        np.testing.assert_allclose(y, sign * np.array([2e20, np.inf, 3e38]), rtol=1e-6)
