import math

import numpy as np
from oracles.families import RelevantNPUs

from keras_nalu import RealNPU


class TestRealNPU(RelevantNPUs):
    layer = RealNPU
    ideal = {
        "multiply": [np.array([[1.0], [1.0]]), np.ones(2)],
        "divide": [np.array([[1.0], [-1.0]]), np.ones(2)],
    }
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
