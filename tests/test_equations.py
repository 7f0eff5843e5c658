"""Against what the authors' own code computed, and against scalar loops."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_nalu.layers import LAYERS

BACKEND = keras.backend.backend()
REFERENCE = Path(__file__).parent / "reference"
#: The authors' module -> our layer.
FAMILIES = {
    "notebook_nac": "NAC",
    "nac": "NAC",
    "notebook_nalu": "NALU",
    "nalu_tied": "NALU",
}
FILES = sorted(p.stem for p in REFERENCE.glob("*.npz") if "_seed" not in p.stem)
EPS32 = np.finfo("float32").eps


def tanh(z):
    return np.tanh(np.float64(z))


def sigmoid(z):
    return 1 / (1 + np.exp(-np.float64(z)))


def nac(x, W_hat, M_hat):
    rows, (features, units) = len(x), W_hat.shape
    a = np.zeros((rows, units))
    for b in range(rows):
        for o in range(units):
            for i in range(features):
                a[b, o] += x[b, i] * tanh(W_hat[i, o]) * sigmoid(M_hat[i, o])
    return a


def nalu(x, W_hat, M_hat, G, epsilon=1e-7):
    rows, (features, units) = len(x), W_hat.shape
    a, y = nac(x, W_hat, M_hat), np.zeros((rows, units))
    for b in range(rows):
        for o in range(units):
            m, gate = np.float64(1), np.float64(0)
            for i in range(features):
                W = tanh(W_hat[i, o]) * sigmoid(M_hat[i, o])
                m *= (abs(np.float64(x[b, i])) + epsilon) ** W
                gate += x[b, i] * G[i, o]
            y[b, o] = sigmoid(gate) * a[b, o] + sigmoid(-gate) * m
    return y


LOOPS = {"NAC": nac, "NALU": nalu}


def magnitudes(x, c, W_hat, M_hat, G=None, epsilon=1e-7):
    """The sums that the equations form, and their gradients, with |.| on each term.

    A float32 result cannot be nearer to the exact one than eps32 times these: they
    count what cancels, and the logarithm whose error the exponential takes up.
    """
    x, c = np.abs(x), np.abs(c)
    T, S = np.abs(np.tanh(W_hat)), sigmoid(M_hat)
    a, g, m, d_m, d_g = x @ (T * S), 1, 0, 0, 0
    d_gate = np.zeros_like(a)
    if G is not None:
        log, gate = np.abs(np.log(x + epsilon)), sigmoid(x @ np.abs(G))
        m = np.exp(np.log(x + epsilon) @ (np.tanh(W_hat) * S))
        m = m * (1 + log @ (T * S))
        d_m, g, d_g = c * m, 1, gate
        d_gate = c * (a + m)
    d_W = x.T @ (c * g) + (log.T @ d_m if G is not None else 0)
    d_x = (c * g) @ (T * S).T
    if G is not None:
        d_x += (d_m @ (T * S).T) / (x + epsilon) + d_gate @ np.abs(G).T
    sums = {"y": g * a + m, "x": d_x, "W_hat": d_W * S, "M_hat": d_W * T * S}
    return sums | ({"G": x.T @ (d_gate * d_g)} if G is not None else {})


def vectors(file):
    with np.load(REFERENCE / f"{file}.npz") as z:
        data = {name: z[name] for name in z.files}
    meta = json.loads(str(data["meta"]))
    return data, meta


def built(data, meta, dtype):
    cls = LAYERS[FAMILIES[meta["module"]]]
    epsilon = {"epsilon": meta["eps"]} if "G" in data else {}
    layer = cls(data["y"].shape[-1], dtype=dtype, **epsilon)
    layer.build(data["x"].shape)
    layer.set_weights([data[w.name] for w in layer.weights])
    return layer


def test_every_vector_is_used():
    assert {vectors(file)[1]["module"] for file in FILES} == set(FAMILIES)
    assert set(FAMILIES.values()) == set(LAYERS) == set(LOOPS)
    assert len(FILES) == 24


@pytest.mark.parametrize("file", FILES)
def test_loops_are_what_the_authors_compute(file):
    data, meta = vectors(file)
    weights = [np.float64(data[name]) for name in meta["params"]]
    y = LOOPS[FAMILIES[meta["module"]]](np.float64(data["x"]), *weights)
    bound = 1e-10 if meta["dtype"] == "float64" else 1e-5
    assert (np.abs(y - data["y"]) / (1 + np.abs(y))).max() < bound


@pytest.mark.skipif(BACKEND != "tensorflow", reason="keeps no float64")
@pytest.mark.parametrize("file", [f for f in FILES if not f.endswith("_f32")])
def test_float64(file, differentiate):
    data, meta = vectors(file)
    layer = built(data, meta, "float64")
    y, gradients = differentiate(layer, data["x"], data["c"])
    assert y.dtype == "float64"
    for name, value in {"y": np.array(y), **gradients}.items():
        expected = data["y" if name == "y" else f"d_{name}"]
        error = np.abs(value - expected) / (1 + np.abs(expected))
        assert error.max() < 1e-10, name


@pytest.mark.parametrize("file", FILES)
def test_float32(file, differentiate):
    """Within 4 eps32 times the summed magnitudes; the worst measured is 1.6."""
    data, meta = vectors(file)
    layer = built(data, meta, "float32")
    x, c = np.float32(data["x"]), np.float32(data["c"])
    y, gradients = differentiate(layer, x, c)
    sums = magnitudes(data["x"], data["c"], *(data[n] for n in meta["params"]))
    for name, value in {"y": keras.ops.convert_to_numpy(y), **gradients}.items():
        expected = data["y" if name == "y" else f"d_{name}"]
        assert (np.abs(value - expected) <= 4 * EPS32 * sums[name]).all(), name


def draw(name, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.choice([-1, 1], (50, 4)) * 10 ** rng.uniform(-3, 1, (50, 4))
    x[0] = 0
    count = 2 if name == "NAC" else 3
    return x, [rng.normal(size=(4, 3)) for _ in range(count)]


# Half precision rounds x, x G and y, each by half an eps; the rest is float32's.
@pytest.mark.parametrize(
    ("policy", "eps"),
    [("float32", EPS32), ("mixed_float16", 2**-10), ("mixed_bfloat16", 2**-7)],
)
@pytest.mark.parametrize("name", LAYERS)
def test_against_scalar_loops(name, policy, eps):
    x, weights = draw(name)
    layer = LAYERS[name](3, dtype=policy)
    layer.build(x.shape)
    layer.set_weights(weights)
    y = layer(x.astype("float32"))
    assert keras.backend.standardize_dtype(y.dtype) == layer.compute_dtype
    y = keras.ops.convert_to_numpy(keras.ops.cast(y, "float32"))
    expected = LOOPS[name](x, *weights)
    # |y| of the sums, and what a gate that is wrong by eps |x G| mixes in.
    sums = magnitudes(x, np.ones_like(expected), *weights)["y"]
    if name == "NALU":
        sums = sums * (1 + np.abs(x) @ np.abs(weights[2]) / 4)
    assert (np.abs(y - expected) <= 4 * eps * sums).all()


@pytest.mark.parametrize("epsilon", [1e-7, 1e-3, 0.5])
def test_epsilon_is_added_to_the_magnitude(epsilon):
    x, weights = draw("NALU")
    layer = LAYERS["NALU"](3, epsilon=epsilon)
    layer.build(x.shape)
    layer.set_weights(weights)
    y = keras.ops.convert_to_numpy(layer(x))
    expected = nalu(x, *weights, epsilon=epsilon)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


HUGE = np.array([[1e20, 1e20], [3e38, 3e38], [3e38, 1.0]], "float32")


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ((20, 20), [2e20, np.inf, 3e38]),
        ((-20, 20), [-2e20, -np.inf, -3e38]),
    ],
)
def test_nac_overflows_to_infinity(weights, expected):
    layer = LAYERS["NAC"](1)
    layer.build((None, 2))
    layer.set_weights([np.full((2, 1), w) for w in weights])
    y = keras.ops.convert_to_numpy(layer(HUGE))[:, 0]
    np.testing.assert_allclose(y, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        # The gate is closed on a path that overflows: 0 * inf, as the docstring says.
        ((20, 20, 20), [np.nan, np.nan, 3e38]),
        ((20, 20, -20), [np.inf, np.nan, 3e38]),
        # Half open: both paths count.
        ((20, 20, 0), [np.inf, np.inf, 3e38]),
        ((-20, 20, 0), [-1e20, -np.inf, -1.5e38]),
    ],
)
def test_nalu_where_a_path_overflows(weights, expected):
    layer = LAYERS["NALU"](1)
    layer.build((None, 2))
    layer.set_weights([np.full((2, 1), w) for w in weights])
    y = keras.ops.convert_to_numpy(layer(HUGE))[:, 0]
    np.testing.assert_allclose(y, expected, rtol=1e-4)
    assert "NaN" in LAYERS["NALU"].__doc__
