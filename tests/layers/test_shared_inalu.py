import numpy as np
import pytest
from oracles.conformance import Conformance
from oracles.conformance.facts import assert_near, hats, numpy
from oracles.exact import EPS32
from oracles.gradients import differentiate, slopes
from oracles.vectors import vectors

from keras_nalu import SharedINALU

ONE, MINUS = np.full((2, 1), 20.0), np.array([[20.0], [-20.0]])
ON, OFF = np.array([100.0]), np.array([-100.0])
#: Of more than one unit, whose signs the authors' code confuses.
SCRAMBLED = "inalu_tf_shared_4"


class TestSharedINALU(Conformance):
    layer = SharedINALU
    ideal = {
        "add": [ONE, ONE, ON],
        "subtract": [MINUS, ONE, ON],
        "multiply": [ONE, ONE, OFF],
        "divide": [MINUS, ONE, OFF],
    }
    given = {"omega": 30}  # Products end at exp(20) = 4.9e8 by default.
    second = {"epsilon": 0.5, "omega": 0.1}
    defaults = {"epsilon": 1e-7, "omega": 20}
    gates = ("g",)
    bounded = True
    modules = ("inalu_tf_shared",)
    begins = {
        "W_hat": ("normal", 1, 0.1),
        "M_hat": ("normal", -1, 0.1),
        "g": ("normal", 0, 0.1),
    }
    exactly = [([*hats(1, 1), -20], "signed", "x0 * x1")]
    rounded = [([*hats(1, 1), 0], "signed", "0.5 * (x0 + x1) + 0.5 * (x0 * x1)")]
    near = [(1.2, 1.2), (1.2, 1.2), 0.4], "x0 + x1"

    @staticmethod
    def equation(ops, x, W_hat, M_hat, g, epsilon=1e-7, omega=20.0, scrambled=False):
        W = ops.tanh(W_hat) * ops.sigmoid(M_hat)
        a = ops.matmul(x, W)
        log = ops.log(ops.maximum(ops.abs(x), epsilon))
        m = ops.exp(ops.minimum(ops.matmul(log, W), omega))
        A = ops.abs(W)
        if scrambled:  # As in the authors' code.
            A = ops.reshape(A, A.shape[::-1]).T
        s = ops.prod(A * ops.expand_dims(ops.sign(x), -1) + (1 - A), axis=-2)
        g = ops.sigmoid(g)
        return g * a + (1 - g) * m * s

    @pytest.mark.parametrize("omega", [20, 5])
    def test_a_product_ends_at_exp_omega(self, omega):
        X = np.array([[2e4, 2e4], [3e4, -3e4]])
        y = numpy(self.built(self.ideal["multiply"], omega=omega)(X))
        expected = np.minimum(np.abs(X.prod(axis=1)), np.exp(omega)) * [1, -1]
        np.testing.assert_allclose(y[:, 0], expected, rtol=1e-5)

    def test_slope_of_the_sign_is_zero(self):
        layer, _ = self.drawn()
        layer.g.assign(np.full(3, -1e9))  # The product alone.
        y, gradients = slopes(layer, np.zeros((1, 4)))
        assert (gradients["x"] == 0).all()
        # A sign of 0 leaves 1 - |W|, which is not the sign of anything.
        W = numpy([*layer.kernels.values()][-1])
        m = np.exp(np.minimum(np.log(1e-7) * W.sum(0), 20))
        np.testing.assert_allclose(y[0], m * np.prod(1 - np.abs(W), axis=0), rtol=1e-5)

    def test_signs_of_the_authors_are_of_other_weights(self):
        data, meta = vectors(SCRAMBLED)
        assert meta["sign_scrambled"]
        for name, (value, _) in self.exact_of(SCRAMBLED, scrambled=True).items():
            assert_near(value, data["y" if name == "y" else f"d_{name}"], 1e-10, name)
        x, c = np.float32(data["x"]), np.float32(data["c"])
        y, _ = differentiate(self.of_the_authors(SCRAMBLED), x, c)
        value, error = self.exact_of(SCRAMBLED)["y"]
        assert (np.abs(numpy(y) - value) <= EPS32 * error).all()
        assert np.abs(value - data["y"]).max() > 0.01
