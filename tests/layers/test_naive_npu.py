import math

import numpy as np
from oracles.conformance.facts import numpy
from oracles.families import NPUs
from oracles.gradients import differentiate

from keras_nalu import NPU, NaiveNPU


class TestNaiveNPU(NPUs):
    layer = NaiveNPU
    ideal = {
        "multiply": [np.array([[1.0], [1.0]]), np.zeros((2, 1))],
        "divide": [np.array([[1.0], [-1.0]]), np.zeros((2, 1))],
    }
    begins = {"W_re": ("glorot",), "W_im": ("constant", 0)}
    exactly = [
        ([(1, -1), (0, 0)], "signed", "x0 / x1"),
        ([(-0.5, 1), (0, 0)], "positive", "x1 / x0**0.5"),
    ]
    rounded = [
        ([(0.3, 1), (0, 0)], "positive", "x0**0.3 * x1"),
        (
            [(0.3, 1), (0, 0)],
            "signed",
            "abs(x0)**0.3 * x1 * cos(0.3 * (pi * (x0 < 0)))",
        ),
    ]
    near = [(0.9, -1.2), (0.1, -0.1)], "x0 / x1"

    @staticmethod
    def equation(ops, x, W_re, W_im, epsilon=2**-23):
        log_r = ops.log(ops.abs(x) + epsilon)
        k = math.pi * ops.cast(x < 0, "float32")
        turn = ops.matmul(k, W_re) + ops.matmul(log_r, W_im)
        return ops.exp(ops.matmul(log_r, W_re) - ops.matmul(k, W_im)) * ops.cos(turn)

    def test_it_is_an_npu_whose_inputs_all_matter(self):
        naive, x = self.drawn()
        layer = NPU(3)
        layer.build(x.shape)
        layer.set_weights([*naive.get_weights(), np.ones(4)])
        c = np.ones((len(x), 3), "float32")
        y, gradients = differentiate(naive, np.float32(x), c)
        other_y, others = differentiate(layer, np.float32(x), c)
        np.testing.assert_allclose(numpy(y), numpy(other_y), rtol=1e-5)
        for name, gradient in gradients.items():
            np.testing.assert_allclose(gradient, others[name], rtol=1e-4, atol=1e-5)
