import numpy as np
from oracles.conformance.facts import hats
from oracles.families import INALUs

from keras_nalu import SharedINALU

ONE, MINUS = np.full((2, 1), 20.0), np.array([[20.0], [-20.0]])
ON, OFF = np.array([100.0]), np.array([-100.0])


class TestSharedINALU(INALUs):
    layer = SharedINALU
    ideal = {
        "add": [ONE, ONE, ON],
        "subtract": [MINUS, ONE, ON],
        "multiply": [ONE, ONE, OFF],
        "divide": [MINUS, ONE, OFF],
    }
    modules = ("inalu_tf_shared",)
    begins = {
        "W_hat": ("normal", 1, 0.1),
        "M_hat": ("normal", -1, 0.1),
        "g": ("normal", 0, 0.1),
    }
    exactly = [([*hats(1, 1), -20], "signed", "x0 * x1")]
    rounded = [([*hats(1, 1), 0], "signed", "0.5 * (x0 + x1) + 0.5 * (x0 * x1)")]
    near = [(1.2, 1.2), (1.2, 1.2), 0.4], "x0 + x1"

    @classmethod
    def equation(
        cls, ops, x, W_hat, M_hat, g, epsilon=1e-7, omega=20.0, scrambled=False
    ):
        W = ops.tanh(W_hat) * ops.sigmoid(M_hat)
        return cls.mixed(ops, x, W, W, g, epsilon, omega, scrambled)
