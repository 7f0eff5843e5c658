import numpy as np
import pytest
from oracles.conformance import Conformance
from oracles.conformance.facts import numpy
from oracles.gradients import slopes

from keras_nalu import GNALU
from keras_nalu.layers.gnalu import LN_PHI

HALF = np.arctanh(0.5) / LN_PHI


class TestGNALU(Conformance):
    layer = GNALU
    # ln(phi), 0.48, multiplies all that is squashed.
    ideal = {
        "add": [[[40], [40]], [[40], [40]], [[40], [40]]],
        "subtract": [[[40], [-40]], [[40], [40]], [[40], [40]]],
        "multiply": [[[40], [40]], [[40], [40]], [[-40], [-40]]],
        "divide": [[[40], [-40]], [[40], [40]], [[-40], [-40]]],
    }
    second = {"epsilon": 0.5}
    defaults = {"epsilon": 1e-7}
    gates = ("G",)
    finite = 0, 1e4
    modules = ("gnalu",)
    begins = {"W_hat": ("nac",), "M_hat": ("nac",), "G": ("glorot",)}
    exactly = [
        ([(40, -40), (40, 40), (40, 40)], "positive", "x0 - x1"),
        ([(40, -40), (40, 40), (-40, -40)], "positive", "x0 / x1"),
    ]
    rounded = [([(HALF, 40), (40, 40), (-40, -40)], "positive", "x0**0.5 * x1")]
    near = [(3, -3), (3, 3), (0.9, 0.1)], "x0 - x1"

    @staticmethod
    def equation(ops, x, W_hat, M_hat, G, epsilon=1e-7):
        W = ops.tanh(LN_PHI * W_hat) * ops.sigmoid(LN_PHI * M_hat)
        a = ops.matmul(x, W)
        m = ops.exp(ops.matmul(ops.log(ops.abs(x) + epsilon), W))
        g = ops.sigmoid(ops.matmul(x, LN_PHI * G))
        return g * a + (1 - g) * m

    @pytest.mark.parametrize("W_hat", [92, 200, 1e4, -200])
    def test_large_weights(self, W_hat):
        layer = self.layer(1)
        layer.build((None, 1))
        layer.set_weights([np.array([[w]]) for w in (W_hat, W_hat, 0.1)])
        y, gradients = slopes(layer, [[2.0]])
        assert np.isfinite(y).all()
        assert all(np.isfinite(gradient).all() for gradient in gradients.values())
        assert numpy(layer.kernel) == pytest.approx(1 if W_hat > 0 else 0, abs=1e-6)

    def test_the_golden_ratio_is_that_of_powers_of_phi(self):
        phi = (1 + np.sqrt(5)) / 2
        layer, x = self.drawn()
        W_hat, M_hat, G = map(np.float64, layer.get_weights())
        W = (phi ** (2 * W_hat) - 1) / (phi ** (2 * W_hat) + 1) / (1 + phi**-M_hat)
        m = phi ** (np.log(np.abs(x) + 1e-7) @ W / np.log(phi))
        g = 1 / (1 + phi ** -(x @ G))
        y = numpy(layer(np.float32(x)))
        np.testing.assert_allclose(y, g * (x @ W) + (1 - g) * m, rtol=1e-4, atol=1e-5)
