"""How weights begin, by the papers; and the constraint that keeps them."""

import json

import keras
import numpy as np
import pytest

from keras_nalu.constraints import Clip
from keras_nalu.initializers import (
    NACUniform,
    NAUUniform,
    NMUUniform,
    Orthogonal,
    UnitVector,
)
from keras_nalu.layers import LAYERS

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


# The layers' own.

FEATURES, UNITS = 80, 60
GLOROT = np.sqrt(6 / (FEATURES + UNITS))
NAC = "uniform", -NACUniform().radius(80, 60), NACUniform().radius(80, 60)
NOTEBOOK = "truncated", 0, 0.02
HALF = "constant", 0.5
NPU_ALL = {"W_re": ("uniform", -GLOROT, GLOROT), "g": HALF}
MASS = {"gate_w": ("unit",), "gate_b": ("constant", 0), "r": ("orthogonal",)}
NSR_SD = np.sqrt(2 / (FEATURES + UNITS))
#: Uniform: low and high. Normal, truncated: mean and standard deviation.
BEGIN = {
    "NAC": dict.fromkeys(("W_hat", "M_hat"), NOTEBOOK),
    "NACMul": {"W_hat": NAC, "M_hat": NAC},
    "NALU": dict.fromkeys(("W_hat", "M_hat", "G"), NOTEBOOK),
    "SeparateNALU": dict.fromkeys(("W_hat_add", "M_hat_add"), NAC)
    | dict.fromkeys(("W_hat_mul", "M_hat_mul"), NAC)
    | {"G": ("uniform", -GLOROT, GLOROT)},
    "GNALU": {"W_hat": NAC, "M_hat": NAC, "G": ("uniform", -GLOROT, GLOROT)},
    "INALU": dict.fromkeys(("W_a_hat", "W_m_hat"), ("normal", 1, 0.1))
    | dict.fromkeys(("M_a_hat", "M_m_hat"), ("normal", -1, 0.1))
    | {"g": ("normal", 0, 0.1)},
    "SharedINALU": {
        "W_hat": ("normal", 1, 0.1),
        "M_hat": ("normal", -1, 0.1),
        "g": ("normal", 0, 0.1),
    },
    "NAU": {"W": ("uniform", -GLOROT, GLOROT)},
    "NMU": {"W": ("uniform", 0.25, 0.75)},
    "SNMU": {"W": ("uniform", 0.25, 0.75)},
    "NaiveNPU": {"W_re": NPU_ALL["W_re"], "W_im": ("constant", 0)},
    "NPU": NPU_ALL | {"W_im": ("constant", 0)},
    "RealNPU": NPU_ALL,
    "NRU": {"W": ("uniform", -GLOROT, GLOROT)},
    "NMRU": {"W": ("uniform", 0.25, 0.75)},
    "MCFC": MASS,
    "MulMCFC": MASS | {"bias": ("constant", 0)},
    "NSR": {
        "V_1": ("truncated", 0, NSR_SD),
        "V_2": ("truncated", 0, NSR_SD),
        "W_s": ("truncated", 0, np.sqrt(2 / (1 + UNITS))),
        "W_0": ("truncated", 0, np.sqrt(2 / (1 + UNITS))),
        "b": ("constant", 0),
    },
}


def built(name, features=FEATURES, units=UNITS):
    layer = LAYERS[name](units)
    layer.build((None, features))
    return {v.name: numpy(v).astype("float64") for v in layer.trainable_variables}


def assert_uniform(w, low, high):
    assert low <= w.min() < low + 0.1 * (high - low)
    assert high - 0.1 * (high - low) < w.max() <= high
    sd = (high - low) / np.sqrt(12)
    assert w.mean() == pytest.approx((low + high) / 2, abs=5 * sd / np.sqrt(w.size))
    assert w.std() == pytest.approx(sd, rel=0.05)


def assert_normal(w, mean, sd):
    error = sd / np.sqrt(w.size)
    assert w.mean() == pytest.approx(mean, abs=5 * error)
    assert w.std() == pytest.approx(sd, abs=5 * error)


@pytest.mark.parametrize("name", LAYERS)
def test_layers_begin_as_in_the_papers(name):
    weights = built(name)
    assert {*weights} == {*BEGIN[name]}
    for weight, (kind, *numbers) in BEGIN[name].items():
        w = weights[weight]
        if kind == "uniform":
            assert_uniform(w, *numbers)
        elif kind == "normal":
            assert_normal(w, *numbers)
            if w.size > 1000:  # Not cut off.
                assert np.abs(w - numbers[0]).max() > 3 * numbers[1]
        elif kind == "constant":
            np.testing.assert_array_equal(w, numbers[0])
        elif kind == "unit":
            assert np.linalg.norm(w) == pytest.approx(1, rel=1e-5)
            assert w.std() > 0.05
        elif kind == "orthogonal":
            np.testing.assert_allclose(w.T @ w, np.eye(UNITS), atol=1e-5)
        else:
            assert_truncated(w, *numbers, scaled=name == "NSR")


def assert_truncated(w, mean, sd, scaled):
    """Cut at 2 sd; Glorot's is widened first, so that the deviation is `sd`."""
    share = 0.87962566
    deviation, limit = (sd, 2 * sd / share) if scaled else (sd * share, 2 * sd)
    # On PyTorch Keras gives up after four draws: one in 200,000 is outside.
    assert np.mean(np.abs(w - mean) > limit * (1 + 1e-6)) < 1e-3
    assert np.abs(w - mean).max() > 0.8 * limit
    assert w.mean() == pytest.approx(mean, abs=5 * deviation / np.sqrt(w.size))
    assert w.std() == pytest.approx(deviation, abs=5 * deviation / np.sqrt(w.size))


def test_nac_of_two_inputs_begins_saturated():
    draws = np.stack([numpy(NACUniform(seed)((2, 1))) for seed in range(300)])
    assert_uniform(draws, -9.4714, 9.4715)


@pytest.mark.parametrize("name", ["MCFC", "MulMCFC"])
def test_square_mass_begins_with_the_identity(name):
    np.testing.assert_array_equal(built(name, 3, 3)["r"], np.eye(3))
    single = built(name, 2, 1)
    assert np.abs(single["gate_w"]) == pytest.approx(1)
    assert np.linalg.norm(single["r"]) == pytest.approx(1)


def test_reciprocals_of_nmru_have_weights():
    assert built("NMRU", 5, 3)["W"].shape == (10, 3)


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


#: Kept between these after every step of the optimizer.
BOUNDS = {"NAU": -1, "NRU": -1, "NMU": 0, "SNMU": 0, "NMRU": 0}


@pytest.mark.parametrize("name", LAYERS)
def test_steps_keep_the_bounds(name):
    layer = LAYERS[name](2)
    model = keras.Sequential([keras.Input((3,)), layer])
    model.compile(keras.optimizers.SGD(1e6), "mse")
    x = np.random.default_rng(0).uniform(0.5, 2, (8, 3)).astype("float32")
    model.train_on_batch(x, np.full((8, 2), 3.0))
    for weight in layer.trainable_variables:
        w = numpy(weight)
        if name in BOUNDS:
            assert BOUNDS[name] <= w.min() <= w.max() <= 1
            assert np.isin(w, [BOUNDS[name], 1]).any()
        else:
            assert weight.constraint is None


def test_no_constraint():
    none = keras.constraints.Constraint()
    layer = LAYERS["NAU"](1, kernel_constraint=none)
    model = keras.Sequential([keras.Input((1,)), layer])
    model.compile(keras.optimizers.SGD(1.0), "mse")
    layer.W.assign([[0.0]])
    model.train_on_batch(np.ones((1, 1)), np.full((1, 1), 3.0))
    assert numpy(layer.W) == pytest.approx(6)


def test_a_kernels_initializer_is_not_a_vectors():
    text = r"is for kernels, of shape \(inputs, units\). Received: shape=\(3,\)"
    with pytest.raises(ValueError, match=text):
        NAUUniform()((3,))
