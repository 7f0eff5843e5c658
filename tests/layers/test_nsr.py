import numpy as np
import pytest
from oracles.conformance import Conformance
from oracles.conformance.facts import ROWS, numpy
from oracles.exact import EPS32
from oracles.gradients import differentiate

from keras_nalu import NSR, formula

# The left register is the first input, and the right one the second.
LEFT, RIGHT = np.array([[60.0], [-60.0]]), np.array([[-60.0], [60.0]])
V = 200 * np.eye(2) - 100


def register(sign, zero):
    return [LEFT, RIGHT, np.array([[sign]]), np.array([[zero]]), np.zeros(1)]


def of(W_s, W_0, b=0.0, left=0, scale=100.0):
    """Weights of one comparison, and what the constructor is given."""
    return [V[left], V[1 - left], W_s, W_0, b, {"scale": scale}]


class TestNSR(Conformance):
    layer = NSR
    ideal = {
        "less": register(-40.0, -20.0),
        "less_equal": register(-40.0, 20.0),
        "equal": register(0.0, 20.0),
        "not_equal": register(0.0, -20.0),
        "greater_equal": register(40.0, 20.0),
        "greater": register(40.0, -20.0),
    }
    given = {"scale": 20}
    second = {"redundancy": 3, "scale": 2.0}
    defaults = {"redundancy": 1, "scale": 1}
    free = ("b",)
    bounded = True
    begins = {
        **dict.fromkeys(("V_1", "V_2", "W_s", "W_0"), ("glorot normal",)),
        "b": ("constant", 0),
    }
    exactly = [
        (of(-40, -20), "compared", "x0 < x1"),
        (of(-40, 20), "compared", "x0 <= x1"),
        (of(0, 20), "compared", "x0 == x1"),
        (of(0, -20), "compared", "x0 != x1"),
        (of(40, 20), "compared", "x0 >= x1"),
        (of(40, -20), "compared", "x0 > x1"),
        (of(40, -20, left=1), "compared", "x0 < x1"),
        (of(1, 1, 20), "compared", "1"),
        (of(1, 1, -20), "compared", "0"),
    ]
    rounded = [
        (
            [(0, 0), (0, 100), 2, 1, 0.5, {"scale": 2.0}],
            "signed",
            "sigmoid(0.5 + 2 * tanh(2 * (0.5 * x0 - 0.5 * x1)) "
            "+ (1 - 2 * tanh(2 * (0.5 * x0 - 0.5 * x1))**2))",
        )
    ]
    near = [(1.0, -1.0), (-1.0, 1.0), -40, -20, 0, {"scale": 100.0}], "x0 < x1"

    @staticmethod
    def equation(ops, x, V_1, V_2, W_s, W_0, b, scale=1.0):
        d = ops.matmul(x, ops.softmax(V_1, axis=0) - ops.softmax(V_2, axis=0))
        d = ops.reshape(d, (-1, *W_s.shape))
        sign = ops.tanh(scale * d)
        zero = 1 - 2 * ops.square(sign)
        return ops.sigmoid(b + ops.sum(sign * W_s + zero * W_0, axis=-2))

    @pytest.mark.parametrize("redundancy", [1, 3])
    @pytest.mark.parametrize("scale", [0.5, 20.0])
    def test_registers(self, redundancy, scale):
        layer, x = self.drawn(rows=6, redundancy=redundancy, scale=scale)
        assert layer.V_1.shape == (4, 3 * redundancy)
        c = np.ones((len(x), 3), "float32")
        expected = self.exact(layer, x, c)
        y, gradients = differentiate(layer, np.float32(x), c)
        for name, got in {"y": numpy(y), **gradients}.items():
            value, error = expected[name]
            assert (np.abs(got - value) <= EPS32 * error).all(), name

    @pytest.mark.parametrize("value", [0, -1, 2.5, "4", None, [2]])
    def test_wrong_redundancy(self, value):
        with pytest.raises(ValueError, match="invalid value for `redundancy`"):
            NSR(1, redundancy=value)

    def test_a_comparison_that_is_not_saturated_says_so(self):
        *weights, given = of(-2, -1)
        read = formula(self.made(*weights, **given), ROWS["compared"])
        assert str(read) == "y = x0 < x1"
        assert not read.exact
        ((_, kernel, index, value),) = read.not_discrete
        assert (kernel, index) == ("output", (0,))
        assert value == pytest.approx(1 / (1 + np.e))

    def test_registers_that_vote(self):
        layer = NSR(1, redundancy=2, scale=100.0)
        layer.build((None, 2))
        signs, zeros = np.array([[-40], [30]]), np.array([[-20], [-15]])
        layer.set_weights([V, V[:, ::-1], signs, zeros, np.zeros(1)])
        read = formula(layer, ROWS["compared"])
        assert (str(read), read.exact) == ("y = x0 < x1", True)
