"""Tests that the layers of one paper share, beside the suite of every layer."""

import numpy as np
import pytest
from oracles.conformance import Conformance
from oracles.conformance.facts import assert_near, integers, numpy
from oracles.exact import EPS32
from oracles.gradients import differentiate, slopes
from oracles.vectors import SCRAMBLED, files_of, vectors


class NPUs(Conformance):
    """Powers of magnitudes, and a factor of cos(pi w) for a negative input."""

    second = {"epsilon": 0.5}
    defaults = {"epsilon": 2.0**-23}
    finite = 0, 1e4

    def test_powers(self):
        _, *others = self.ideal["divide"]
        pairs = (2, 0), (0.5, 0), (1, -2)
        columns = [(np.array([[p], [q]]), *others) for p, q in pairs]
        X = integers(1, 1000)
        a, b = np.float64(X.T[..., None])
        y = numpy(self.built(*columns)(np.float32(X)))
        expected = np.hstack([a**2, np.sqrt(a), a / b**2])
        np.testing.assert_allclose(y, expected, rtol=1e-5)

    def test_slope_of_the_magnitude_is_zero_at_zero(self):
        _, gradients = slopes(self.drawn()[0], [[0, 0, 0, 0]])
        assert (gradients["x"] == 0).all()


class RelevantNPUs(NPUs):
    """With a gate that selects the inputs."""

    gates = ("g",)
    shapes = {"relevance": (3,)}

    def test_what_is_not_relevant_is_left_out(self):
        *others, _ = self.ideal["divide"]
        layer = self.built((*others, np.array([1.0, 0.0])))
        y = numpy(layer(np.array([[7.0, 0.0], [-7.0, -3.0]])))
        np.testing.assert_allclose(y, [[7], [-7]], rtol=1e-6)

    def test_relevance_lets_the_gradient_through(self):
        *others, _ = self.ideal["multiply"]
        y, gradients = slopes(self.made(*others, (-2, 3)), [[3, 5]])
        other_y, expected = slopes(self.made(*others, (0, 1)), [[3, 5]])
        np.testing.assert_allclose(y, 5, rtol=1e-6)
        np.testing.assert_array_equal(y, other_y)
        np.testing.assert_array_equal(gradients["g"], expected["g"])
        np.testing.assert_allclose(gradients["g"], [10, 4], rtol=1e-5)


class INALUs(Conformance):
    """A bounded product with a sign, and a gate that does not depend on the inputs."""

    given = {"omega": 30}  # Products end at exp(20) = 4.9e8 by default.
    second = {"epsilon": 0.5, "omega": 0.1}
    defaults = {"epsilon": 1e-7, "omega": 20}
    gates = ("g",)
    bounded = True

    @staticmethod
    def mixed(ops, x, W_a, W_m, g, epsilon, omega, scrambled):
        """The equation with the effective weights of the two paths."""
        log = ops.log(ops.maximum(ops.abs(x), epsilon))
        m = ops.exp(ops.minimum(ops.matmul(log, W_m), omega))
        A = ops.abs(W_m)
        if scrambled:  # As in the authors' code.
            A = ops.reshape(A, A.shape[::-1]).T
        s = ops.prod(A * ops.expand_dims(ops.sign(x), -1) + (1 - A), axis=-2)
        g = ops.sigmoid(g)
        return g * ops.matmul(x, W_a) + (1 - g) * m * s

    @pytest.mark.parametrize("omega", [20, 5])
    def test_a_product_ends_at_exp_omega(self, omega):
        X = np.array([[2e4, 2e4], [3e4, -3e4]])
        y = numpy(self.built(self.ideal["multiply"], omega=omega)(X))
        expected = np.minimum(np.abs(X.prod(axis=1)), np.exp(omega)) * [1, -1]
        np.testing.assert_allclose(y[:, 0], expected, rtol=1e-5)

    def test_slope_of_the_sign_is_zero(self):
        layer, _ = self.drawn()
        layer.g.assign(np.full(3, -1e9))  # Only the product.
        y, gradients = slopes(layer, np.zeros((1, 4)))
        assert (gradients["x"] == 0).all()
        # The sign of 0 is 0, which makes a factor 1 - |W|.
        W = numpy([*layer.kernels.values()][-1])
        m = np.exp(np.minimum(np.log(1e-7) * W.sum(0), 20))
        np.testing.assert_allclose(y[0], m * np.prod(1 - np.abs(W), axis=0), rtol=1e-5)

    def test_signs_of_the_authors_are_of_other_weights(self):
        """The published code confuses the signs of several units."""
        (file,) = SCRAMBLED & {*files_of(self.modules)}
        data, meta = vectors(file)
        assert meta["sign_scrambled"]
        for name, (value, _) in self.exact_of(file, scrambled=True).items():
            assert_near(value, data["y" if name == "y" else f"d_{name}"], 1e-10, name)
        x, c = np.float32(data["x"]), np.float32(data["c"])
        y, _ = differentiate(self.of_the_authors(file), x, c)
        value, error = self.exact_of(file)["y"]
        assert (np.abs(numpy(y) - value) <= EPS32 * error).all()
        assert np.abs(value - data["y"]).max() > 0.01
