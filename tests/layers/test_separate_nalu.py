import numpy as np
from oracles.conformance import Conformance
from oracles.conformance.facts import hats

from keras_nalu import SeparateNALU

ONE, NONE, MINUS = np.full((2, 1), 20.0), np.zeros((2, 1)), np.array([[20.0], [-20.0]])


class TestSeparateNALU(Conformance):
    layer = SeparateNALU
    ideal = {
        "add": [ONE, ONE, NONE, ONE, ONE],
        "subtract": [MINUS, ONE, NONE, ONE, ONE],
        "multiply": [NONE, ONE, ONE, ONE, -ONE],
        "divide": [NONE, ONE, MINUS, ONE, -ONE],
    }
    second = {"epsilon": 0.5}
    defaults = {"epsilon": 1e-7}
    gates = ("G",)
    finite = 0, 1e4
    modules = ("nalu_two_nac",)
    begins = {
        **dict.fromkeys(("W_hat_add", "M_hat_add"), ("nac",)),
        **dict.fromkeys(("W_hat_mul", "M_hat_mul"), ("nac",)),
        "G": ("glorot",),
    }
    exactly = [
        ([*hats(1, 1), *hats(1, -1), (-20, -20)], "positive", "x0 / x1"),
        ([*hats(1, 1), *hats(1, -1), (20, 20)], "positive", "x0 + x1"),
    ]
    rounded = [([*hats(1, 1), *hats(1, 0.5), (-20, -20)], "positive", "x0 * x1**0.5")]
    near = [(0, 0), (0, 0), (1.2, -1.2), (1.2, 1.2), (-0.5, -0.3)], "x0 / x1"

    @staticmethod
    def equation(ops, x, W_hat_add, M_hat_add, W_hat_mul, M_hat_mul, G, epsilon=1e-7):
        a = ops.matmul(x, ops.tanh(W_hat_add) * ops.sigmoid(M_hat_add))
        W_mul = ops.tanh(W_hat_mul) * ops.sigmoid(M_hat_mul)
        m = ops.exp(ops.matmul(ops.log(ops.abs(x) + epsilon), W_mul))
        g = ops.sigmoid(ops.matmul(x, G))
        return g * a + (1 - g) * m
