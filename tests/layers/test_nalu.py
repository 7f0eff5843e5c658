import numpy as np
import pytest
from oracles.conformance import Conformance
from oracles.conformance.facts import hats, numpy

import keras_nalu
from keras_nalu import NALU


class TestNALU(Conformance):
    layer = NALU
    ideal = {
        "add": [[[20], [20]], [[20], [20]], [[20], [20]]],
        "subtract": [[[20], [-20]], [[20], [20]], [[20], [20]]],
        "multiply": [[[20], [20]], [[20], [20]], [[-20], [-20]]],
        "divide": [[[20], [-20]], [[20], [20]], [[-20], [-20]]],
    }
    second = {"epsilon": 0.5}
    defaults = {"epsilon": 1e-7}
    gates = ("G",)
    modules = ("notebook_nalu", "nalu_tied")
    begins = dict.fromkeys(("W_hat", "M_hat", "G"), ("truncated", 0.02))
    exactly = [([*hats(1, 1), (-20, -20)], "positive", "x0 * x1")]
    rounded = [([*hats(0.5, 1), (-20, -20)], "positive", "x0**0.5 * x1")]
    near = [(1.2, 1.2), (1.2, 1.2), (-0.5, -0.3)], "x0 * x1"

    @staticmethod
    def equation(ops, x, W_hat, M_hat, G, epsilon=1e-7):
        W = ops.tanh(W_hat) * ops.sigmoid(M_hat)
        a = ops.matmul(x, W)
        m = ops.exp(ops.matmul(ops.log(ops.abs(x) + epsilon), W))
        g = ops.sigmoid(ops.matmul(x, G))
        return g * a + (1 - g) * m

    def test_it_loses_the_sign_of_a_product(self):
        # x G must stay negative for the gate to stay closed.
        layer = self.built(self.ideal["multiply"])
        y = numpy(layer(np.array([[-3.0, 7.0], [0.0, 7.0]])))
        np.testing.assert_allclose(y, [[21], [0]], rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize(
        ("weights", "expected"),
        [
            # The gate is closed on a path that overflows: 0 * inf, as it is documented.
            ((20, 20, 20), [np.nan, np.nan, 3e38]),
            ((20, 20, -20), [np.inf, np.nan, 3e38]),
            # Half open: both paths count.
            ((20, 20, 0), [np.inf, np.inf, 3e38]),
            ((-20, 20, 0), [-1e20, -np.inf, -1.5e38]),
        ],
    )
    def test_where_a_path_overflows(self, weights, expected):
        layer = self.made(*(np.full(2, w) for w in weights))
        y = numpy(layer(np.float32([[1e20, 1e20], [3e38, 3e38], [3e38, 1.0]])))[:, 0]
        np.testing.assert_allclose(y, expected, rtol=1e-4)

    def nalu(self, *w, gate):
        return self.made(*hats(*w), np.broadcast_to(gate, (2,)))

    def test_a_gate_that_is_between_mixes(self):
        layer = self.nalu(1, 1, gate=(-0.5, 0.5))
        read = keras_nalu.formula(layer, [[1, 2], [3, 4], [5, 0.5], [8, 8]])
        assert read.lines == [
            "gate = sigmoid(0.5 * x1 - 0.5 * x0)",
            "y = gate * (x0 + x1) + (1 - gate) * (x0 * x1)",
        ]
        assert not read.exact
        assert [entry[1:3] for entry in read.not_discrete] == [("gate", (0,))]
        assert read.holds == "y: a mixture, its gate is between 0.0953 and 0.622"
        assert read.error < 1e-5

    def test_a_mixture_says_what_its_weights_are(self):
        read = keras_nalu.formula(self.nalu(0.97, 0.5, gate=0), [[1, 2], [3, 4]])
        assert read.lines[1] == (
            "y = gate * (0.97 * x0 + 0.5 * x1) + (1 - gate) * (x0**0.97 * x1**0.5)"
        )
        assert [entry[1:3] for entry in read.not_discrete] == [
            ("gate", (0,)),
            ("kernel", (1, 0)),
        ]

    def test_a_formula_says_where_its_gate_holds(self):
        for sign, relation in ((-1, "<"), (1, ">")):
            layer = self.nalu(1, 1, gate=(20 * sign, 30 * sign))
            read = keras_nalu.formula(layer, [[1, 2], [3, 4]])
            weights = "20 * x0 + 30 * x1" if sign > 0 else "-20 * x0 - 30 * x1"
            text = f"y: where {weights} {relation} 0, as on every row of the data"
            assert read.holds == text
