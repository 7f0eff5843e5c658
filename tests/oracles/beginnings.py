"""Checks of initial weights, for kernels of 80 inputs and 60 units."""

import numpy as np
import pytest

from keras_nalu.initializers import NACUniform

FEATURES, UNITS = 80, 60
GLOROT = np.sqrt(6 / (FEATURES + UNITS))
#: Of a normal distribution that is cut at two deviations, the deviation.
SHARE = 0.87962566


def uniform(w, low, high):
    assert low <= w.min() < low + 0.1 * (high - low)
    assert high - 0.1 * (high - low) < w.max() <= high
    sd = (high - low) / np.sqrt(12)
    assert w.mean() == pytest.approx((low + high) / 2, abs=5 * sd / np.sqrt(w.size))
    assert w.std() == pytest.approx(sd, rel=0.05)


def nac(w):
    r = NACUniform().radius(FEATURES, UNITS)
    uniform(w, -r, r)


def normal(w, mean, sd):
    error = sd / np.sqrt(w.size)
    assert w.mean() == pytest.approx(mean, abs=5 * error)
    assert w.std() == pytest.approx(sd, abs=5 * error)
    if w.size > 1000:  # Not cut off.
        assert np.abs(w - mean).max() > 3 * sd


def truncated(w, sd, share=SHARE):
    """Cut off at 2 sd, as in TensorFlow."""
    limit = 2 * sd
    # On PyTorch Keras samples four times at most: one in 200,000 is outside.
    assert np.mean(np.abs(w) > limit * (1 + 1e-6)) < 1e-3
    assert np.abs(w).max() > 0.8 * limit
    assert w.mean() == pytest.approx(0, abs=5 * sd / np.sqrt(w.size))
    assert w.std() == pytest.approx(sd * share, abs=5 * sd / np.sqrt(w.size))


def glorot_normal(w):
    """Widened first, so that the deviation is Glorot's."""
    sd = np.sqrt(2 / sum(w.shape))
    truncated(w, sd / SHARE)


def constant(w, value):
    np.testing.assert_array_equal(w, value)


def unit(w):
    assert np.linalg.norm(w) == pytest.approx(1, rel=1e-5)
    assert w.std() > 0.05


def orthogonal(w):
    np.testing.assert_allclose(w.T @ w, np.eye(UNITS), atol=1e-5)


KINDS = {
    "uniform": uniform,
    "glorot": lambda w: uniform(w, -GLOROT, GLOROT),
    "glorot normal": glorot_normal,
    "nac": nac,
    "normal": normal,
    "truncated": truncated,
    "constant": constant,
    "unit": unit,
    "orthogonal": orthogonal,
}
