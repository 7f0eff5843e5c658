import keras
import numpy as np
import pytest
from oracles.conformance import Conformance
from oracles.conformance.facts import numpy
from oracles.gradients import slopes

from keras_nalu import SNMU


def of(W, **given):
    layer = SNMU(np.shape(W)[-1], **given)
    layer.build((None, len(W)))
    layer.W.assign(W)
    return layer


class TestSNMU(Conformance):
    layer = SNMU
    ideal = {"multiply": [[[1], [1]]]}
    multiplies = True
    second = {"noise_range": (2, 3), "seed": 5}
    defaults = {"noise_range": (1, 5)}
    finite = 0, 1e4
    modules = ("snmu_eval", "snmu_train")
    begins = {"W": ("uniform", 0.25, 0.75)}
    exactly = [([(1, 0)], "signed", "x0")]
    rounded = [([(0.5, 0)], "signed", "0.5 * x0 + 0.5")]
    near = [(0.8, 0.3)], "x0"

    @staticmethod
    def equation(ops, x, W, noise=None):
        def product(x):
            return ops.prod(W * ops.expand_dims(x, -1) + (1 - W), axis=-2)

        return product(x) if noise is None else product(x * noise) / product(noise)

    def test_noise_cancels_for_discrete_weights_alone(self):
        layer = of([[1, 0, 0.5], [0, 0, 1], [1, 0, 0.5]], seed=0)
        x = np.array([[2, 3, -5], [-7, 11, 0.5]], "float32")
        given = x.copy()
        noisy, told = numpy(layer(x, training=True)), numpy(layer(x))
        np.testing.assert_array_equal(x, given)
        np.testing.assert_allclose(noisy[:, :2], told[:, :2], rtol=1e-5)
        assert (np.abs(noisy[:, 2] / told[:, 2] - 1) > 1e-3).all()
        assert (numpy(layer(x, training=True)) != noisy).any()

    @pytest.mark.parametrize("noise_range", [(1, 5), (0.1, 0.5), "batch"])
    def test_noise_is_uniform_in_its_range(self, noise_range):
        layer = of([[1.0]], noise_range=noise_range)
        x = np.random.default_rng(0).normal(0, 2, (5000, 1)).astype("float32")
        high = 1 + 1 / np.std(x, ddof=1)
        low, high = (1, high) if noise_range == "batch" else noise_range
        n = (numpy(layer.noise(keras.ops.convert_to_tensor(x))) - low) / (high - low)
        assert n.shape == x.shape
        assert 0 <= n.min() < 0.002
        assert 0.998 < n.max() < 1 + 1e-5
        assert n.mean() == pytest.approx(0.5, abs=0.02)
        assert n.std() == pytest.approx(1 / np.sqrt(12), abs=0.01)

    def test_noise_of_a_small_batch(self):
        """Its deviation is divided by one less than there are entries."""
        x = np.array([[1], [3]], "float32")
        unit = of([[1.0]], noise_range=(0, 1), seed=0)
        layer = of([[1.0]], noise_range="batch", seed=0)
        share, n = (numpy(each.noise(each.cast(x))) for each in (unit, layer))
        np.testing.assert_allclose(n, 1 + share / np.std([1, 3], ddof=1), rtol=1e-6)

    def test_gradient_of_a_product_with_zeros(self):
        y, gradients = slopes(of([[1], [1], [1]]), [[0, 3, 5], [0, 0, 7]])
        np.testing.assert_array_equal(y[:, 0], [0, 0])
        np.testing.assert_array_equal(gradients["x"], [[15, 0, 0], [0, 0, 0]])

    @pytest.mark.parametrize("value", [(2, 1), (1, 1), (1,), (1, 2, 3), 5, "all", None])
    def test_wrong_noise_range(self, value):
        with pytest.raises(ValueError, match=r"`noise_range`, expected two numbers"):
            SNMU(1, noise_range=value)
