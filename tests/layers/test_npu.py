import math

import numpy as np
from oracles.families import RelevantNPUs

from keras_nalu import NPU


class TestNPU(RelevantNPUs):
    layer = NPU
    ideal = {
        "multiply": [np.array([[1.0], [1.0]]), np.zeros((2, 1)), np.ones(2)],
        "divide": [np.array([[1.0], [-1.0]]), np.zeros((2, 1)), np.ones(2)],
    }
    modules = ("npu",)
    begins = {"W_re": ("glorot",), "W_im": ("constant", 0), "g": ("constant", 0.5)}
    exactly = [
        ([(2, 0.7), (0, 0.3), (1, 0)], "signed", "x0**2"),
        ([(1, -3), (0, 0), (1, 1)], "signed", "x0 / x1**3"),
    ]
    rounded = [
        (
            [(1, 1), (0.25, 0), (1, 0.5)],
            "positive",
            "x0 * (0.5 * x1 + 0.5) * cos(0.25 * log(x0))",
        ),
        (
            [(1, 1), (0.5, 0), (1, 1)],
            "signed",
            "abs(x0) * exp(-0.5 * (pi * (x0 < 0))) * x1 "
            "* cos(0.5 * log(abs(x0)) + pi * (x0 < 0))",
        ),
    ]
    near = [(1.8, 0.2), (0.1, 0), (1.4, 0.2)], "x0**2"

    @staticmethod
    def equation(ops, x, W_re, W_im, g, epsilon=2**-23):
        c = g + ops.stop_gradient(ops.clip(g, 0, 1) - g)
        log_r = ops.log(c * (ops.abs(x) + epsilon) + (1 - c))
        k = math.pi * c * ops.cast(x < 0, "float32")
        turn = ops.matmul(k, W_re) + ops.matmul(log_r, W_im)
        return ops.exp(ops.matmul(log_r, W_re) - ops.matmul(k, W_im)) * ops.cos(turn)
