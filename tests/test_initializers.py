"""How weights begin, by the papers; and the constraint that keeps them."""

import json

import keras
import numpy as np
import pytest
from oracles import beginnings

from keras_nalu import NAU
from keras_nalu.constraints import Clip
from keras_nalu.initializers import (
    NACUniform,
    NAUUniform,
    NMUUniform,
    Orthogonal,
    UnitVector,
)

numpy = keras.ops.convert_to_numpy
OWN = [NACUniform, NAUUniform, NMUUniform, Orthogonal, UnitVector]
each_own = pytest.mark.parametrize("cls", OWN, ids=lambda cls: cls.__name__)


@pytest.mark.parametrize(
    ("shape", "r"),
    [
        ((1, 1), 9.4714),
        ((2, 1), 9.4714),
        ((2, 2), 9.4714),
        ((4, 1), 9.4714),
        ((4, 2), 5.43),
        ((10, 1), 2.2605),
        ((1, 10), 2.2605),
        ((100, 2), 0.5039),
    ],
)
def test_nac_radius(shape, r):
    assert NACUniform().radius(*shape) == pytest.approx(r, rel=1e-3)


@pytest.mark.parametrize("shape", [(4, 2), (10, 1), (100, 2), (300, 300)])
def test_nac_keeps_the_variance(shape):
    """Of tanh(W_hat) sigmoid(M_hat), as the equation has it: that of Glorot's."""
    r = NACUniform().radius(*shape)
    assert 0 < r < 9
    rng = np.random.default_rng(0)
    W_hat, M_hat = rng.uniform(-r, r, (2, 1_000_000))
    # The equation takes the sigmoid's second moment to be (r - tanh(r / 2)) / (2 r).
    second = np.mean(np.tanh(W_hat) ** 2) * np.mean(1 / (1 + np.exp(-M_hat)) ** 2)
    assert second == pytest.approx(2 / sum(shape), rel=0.01)


@pytest.mark.parametrize(
    ("shape", "r"),
    [((2, 1), 0.5), ((20, 4), 0.5), ((25, 1), np.sqrt(6 / 26)), ((100, 50), 0.2)],
)
def test_nau_radius(shape, r):
    assert NAUUniform().radius(*shape) == pytest.approx(r)


@pytest.mark.parametrize("n", [1, 2, 30])
def test_unit_vector(n):
    draws = np.stack([numpy(UnitVector(seed)((n,))) for seed in range(200)])
    np.testing.assert_allclose(np.linalg.norm(draws, axis=1), 1, rtol=1e-5)
    assert np.abs(draws.mean(axis=0)).max() < 0.25
    assert (draws < 0).any(axis=0).all()
    assert (draws > 0).any(axis=0).all()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_orthogonal(dtype):
    w = numpy(keras.ops.cast(Orthogonal(gain=2)((9, 4), dtype), "float32"))
    bound = 1e-5 if dtype == "float32" else 0.05
    np.testing.assert_allclose(w.T @ w, 4 * np.eye(4), atol=bound)


SHAPE = {UnitVector: (60,)}


@each_own
def test_seeds(cls):
    shape = SHAPE.get(cls, (20, 3))
    first, again = numpy(cls(seed=3)(shape)), numpy(cls(seed=3)(shape))
    np.testing.assert_array_equal(first, again)
    assert (first != numpy(cls(seed=4)(shape))).any()
    assert (numpy(cls()(shape)) != numpy(cls()(shape))).any()


@each_own
def test_config_round_trip(cls):
    shape = SHAPE.get(cls, (20, 3))
    config = json.loads(json.dumps(keras.initializers.serialize(cls(seed=3))))
    again = keras.initializers.get(config)
    assert type(again) is cls
    assert again.get_config() == cls(seed=3).get_config()
    assert again.get_config()["seed"] == 3
    np.testing.assert_array_equal(numpy(again(shape)), numpy(cls(seed=3)(shape)))


@each_own
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_dtype(cls, dtype):
    w = cls()(SHAPE.get(cls, (20, 3)), dtype=dtype)
    assert keras.backend.standardize_dtype(w.dtype) == dtype


def test_nac_of_two_inputs_begins_saturated():
    draws = np.stack([numpy(NACUniform(seed)((2, 1))) for seed in range(300)])
    beginnings.uniform(draws, -9.4714, 9.4715)


# Constraints.


@pytest.mark.parametrize(("low", "high"), [(-1, 1), (0, 1), (-0.5, 2), (-np.inf, 3)])
def test_clip(low, high):
    w = np.array([-5, -1, -0.2, 0, 0.7, 1, 4], "float32")
    clip = Clip(low, high)
    np.testing.assert_array_equal(numpy(clip(w)), np.clip(w, low, high))
    again = keras.constraints.get(keras.constraints.serialize(clip))
    assert type(again) is Clip
    assert again.get_config() == {"low": low, "high": high}
    assert Clip().get_config() == {"low": -1, "high": 1}


@pytest.mark.parametrize(("low", "high"), [(1, 1), (2, 1), (0, -np.inf)])
def test_clip_errors(low, high):
    with pytest.raises(ValueError, match=rf"`low` to be below.*low={low}, high={high}"):
        Clip(low, high)


def test_no_constraint():
    none = keras.constraints.Constraint()
    layer = NAU(1, kernel_constraint=none)
    model = keras.Sequential([keras.Input((1,)), layer])
    model.compile(keras.optimizers.SGD(1.0), "mse")
    layer.W.assign([[0.0]])
    model.train_on_batch(np.ones((1, 1)), np.full((1, 1), 3.0))
    assert numpy(layer.W) == pytest.approx(6)


def test_a_kernels_initializer_is_not_a_vectors():
    text = r"is for kernels, of shape \(inputs, units\). Received: shape=\(3,\)"
    with pytest.raises(ValueError, match=text):
        NAUUniform()((3,))
