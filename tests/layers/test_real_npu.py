import math

import numpy as np
from oracles.conformance import Conformance
from oracles.conformance.facts import integers, numpy
from oracles.gradients import slopes

from keras_nalu import RealNPU


class TestRealNPU(Conformance):
    layer = RealNPU
    ideal = {
        "multiply": [np.array([[1.0], [1.0]]), np.ones(2)],
        "divide": [np.array([[1.0], [-1.0]]), np.ones(2)],
    }
    second = {"epsilon": 0.5}
    defaults = {"epsilon": 2.0**-23}
    gates = ("g",)
    shapes = {"relevance": (3,)}
    finite = 0, 1e4
    modules = ("real_npu",)
    begins = {"W_re": ("glorot",), "g": ("constant", 0.5)}
    exactly = [([(-1, 1), (1, 1)], "signed", "x1 / x0")]
    rounded = [([(1, 1), (0.5, 0)], "positive", "0.5 * x0 + 0.5")]
    near = [(0.9, -1.2), (0.8, 0.9)], "x0 / x1"

    @staticmethod
    def equation(ops, x, W_re, g, epsilon=2**-23):
        c = g + ops.stop_gradient(ops.clip(g, 0, 1) - g)
        log_r = ops.log(c * (ops.abs(x) + epsilon) + (1 - c))
        k = math.pi * c * ops.cast(x < 0, "float32")
        return ops.exp(ops.matmul(log_r, W_re)) * ops.cos(ops.matmul(k, W_re))

    def test_powers(self):
        _, *others = self.ideal["divide"]
        pairs = (2, 0), (0.5, 0), (1, -2)
        columns = [(np.array([[p], [q]]), *others) for p, q in pairs]
        X = integers(1, 1000)
        a, b = np.float64(X.T[..., None])
        y = numpy(self.built(*columns)(np.float32(X)))
        expected = np.hstack([a**2, np.sqrt(a), a / b**2])
        np.testing.assert_allclose(y, expected, rtol=1e-5)

    def test_slope_of_the_magnitude_is_zero_at_zero(self):
        _, gradients = slopes(self.drawn()[0], [[0, 0, 0, 0]])
        assert (gradients["x"] == 0).all()

    def test_what_is_not_relevant_is_left_out(self):
        *others, _ = self.ideal["divide"]
        layer = self.built((*others, np.array([1.0, 0.0])))
        y = numpy(layer(np.array([[7.0, 0.0], [-7.0, -3.0]])))
        np.testing.assert_allclose(y, [[7], [-7]], rtol=1e-6)

    def test_relevance_lets_the_gradient_through(self):
        *others, _ = self.ideal["multiply"]
        y, gradients = slopes(self.made(*others, (-2, 3)), [[3, 5]])
        other_y, expected = slopes(self.made(*others, (0, 1)), [[3, 5]])
        np.testing.assert_allclose(y, 5, rtol=1e-6)
        np.testing.assert_array_equal(y, other_y)
        np.testing.assert_array_equal(gradients["g"], expected["g"])
        np.testing.assert_allclose(gradients["g"], [10, 4], rtol=1e-5)
