from oracles.conformance import Conformance
from oracles.conformance.facts import hats
from oracles.gradients import slopes

from keras_nalu import NACMul


class TestNACMul(Conformance):
    layer = NACMul
    ideal = {
        "multiply": [[[20], [20]], [[20], [20]]],
        "divide": [[[20], [-20]], [[20], [20]]],
    }
    second = {"epsilon": 0.5}
    defaults = {"epsilon": 1e-7}
    finite = 0, 1e4
    modules = ("nac_mul",)
    begins = dict.fromkeys(("W_hat", "M_hat"), ("nac",))
    exactly = [
        (hats(1, -1), "positive", "x0 / x1"),
        (hats(1, -1), "signed", "abs(x0) / abs(x1)"),
    ]
    rounded = [
        (hats(0.5, -0.25), "positive", "x0**0.5 / x1**0.25"),
        (hats(0.5, 1), "signed", "abs(x0)**0.5 * abs(x1)"),
    ]
    near = [(1.2, -1.2), (1.2, 1.2)], "x0 / x1"

    @staticmethod
    def equation(ops, x, W_hat, M_hat, epsilon=1e-7):
        W = ops.tanh(W_hat) * ops.sigmoid(M_hat)
        return ops.exp(ops.matmul(ops.log(ops.abs(x) + epsilon), W))

    def test_slope_of_the_magnitude_is_zero_at_zero(self):
        _, gradients = slopes(self.drawn()[0], [[0, 0, 0, 0]])
        assert (gradients["x"] == 0).all()
