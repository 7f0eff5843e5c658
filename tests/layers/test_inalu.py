import numpy as np
from oracles.conformance.facts import hats, numpy
from oracles.families import INALUs

from keras_nalu import INALU

ONE, NONE, MINUS = np.full((2, 1), 20.0), np.zeros((2, 1)), np.array([[20.0], [-20.0]])
ON, OFF = np.array([100.0]), np.array([-100.0])


class TestINALU(INALUs):
    layer = INALU
    ideal = {
        "add": [ONE, ONE, NONE, ONE, ON],
        "subtract": [MINUS, ONE, NONE, ONE, ON],
        "multiply": [NONE, ONE, ONE, ONE, OFF],
        "divide": [NONE, ONE, MINUS, ONE, OFF],
    }
    modules = ("inalu_torch", "inalu_tf_indep")
    begins = {
        **dict.fromkeys(("W_a_hat", "W_m_hat"), ("normal", 1, 0.1)),
        **dict.fromkeys(("M_a_hat", "M_m_hat"), ("normal", -1, 0.1)),
        "g": ("normal", 0, 0.1),
    }
    exactly = [
        ([*hats(0.5, 1), *hats(1, -1), -20], "signed", "x0 / x1"),
        ([*hats(1, -1), *hats(0.3, 1), 20], "signed", "x0 - x1"),
    ]
    rounded = [
        (
            [*hats(1, 1), *hats(0.5, 1), -20],
            "signed",
            "abs(x0)**0.5 * (0.5 * sign(x0) + 0.5) * x1",
        )
    ]
    near = [(0, 0), (0, 0), (1.2, 1.2), (1.2, 1.2), -0.4], "x0 * x1"

    @classmethod
    def equation(
        cls,
        ops,
        x,
        W_a_hat,
        M_a_hat,
        W_m_hat,
        M_m_hat,
        g,
        epsilon=1e-7,
        omega=20.0,
        scrambled=False,
    ):
        W_a = ops.tanh(W_a_hat) * ops.sigmoid(M_a_hat)
        W_m = ops.tanh(W_m_hat) * ops.sigmoid(M_m_hat)
        return cls.mixed(ops, x, W_a, W_m, g, epsilon, omega, scrambled)

    def test_the_greater_of_magnitude_and_epsilon(self):
        layer = self.layer(1, epsilon=0.5)
        layer.build((None, 1))
        layer.set_weights([np.array([[9.0]])] * 4 + [np.array([-99.0])])
        W = np.tanh(9) / (1 + np.exp(-9))
        y = numpy(layer(np.float32([[1.0], [0.5], [0.25], [-2]])))[:, 0]
        np.testing.assert_allclose(y[:3], [1, 0.5**W, 0.5**W], rtol=1e-6)
        np.testing.assert_allclose(y[3], -(2**W) * (2 * W - 1), rtol=1e-6)
