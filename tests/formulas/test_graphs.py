"""Functional models, nested and shared layers, and Keras' own layers are read."""

import keras
import numpy as np
import pytest

import keras_nalu
from keras_nalu import NAC, NAU, NMU, discretize, formula
from keras_nalu.formulas.text import CONSTANTS, FUNCTIONS
from keras_nalu.layers import LAYERS

X = np.random.default_rng(0).uniform(1, 4, (50, 3)).astype("float32")


def evaluated(read, X):
    """What the lines are, by Python and NumPy alone."""
    names = {f"x{i}": np.float64(column) for i, column in enumerate(X.T)}
    values = FUNCTIONS | CONSTANTS | names
    for line in read.lines:
        name, text = line.split(" = ", 1)
        with np.errstate(all="ignore"):
            values[name] = eval(text, {}, values) + np.zeros(len(X))
    return np.stack([values[name] for name in read.outputs], axis=-1)


def predicted(model, X):
    made = model(X)
    parts = made if isinstance(made, list) else [made]
    parts = [np.float64(keras.ops.convert_to_numpy(part)) for part in parts]
    return np.concatenate(parts, axis=-1)


def drawn(layer, x, random):
    """The layer, called, of random weights that keep outputs in reach."""
    y = layer(x)
    weights = [random.uniform(0.2, 0.9, w.shape) for w in layer.weights]
    layer.set_weights([np.round(w, 3) for w in weights])
    return y


def random_layer(x, random):
    """A random layer on a tensor."""
    units = int(random.integers(1, 4))
    width = x.shape[-1]
    draw = random.integers(7)
    if draw < 4:
        return drawn(LAYERS[random.choice(sorted(LAYERS))](units), x, random)
    if draw == 4:
        activation = random.choice(["linear", "relu", "tanh", "sigmoid"])
        return drawn(keras.layers.Dense(units, activation), x, random)
    if draw == 5:
        scale = random.uniform(0.3, 2, width).tolist()
        return keras.layers.Rescaling(scale, random.uniform(0, 1))(x)
    mean, variance = random.uniform(-3, 0, width), random.uniform(1, 2, width)
    return keras.layers.Normalization(mean=mean, variance=variance)(x)


def random_model(seed):
    """Two branches of random layers, merged, and one more output."""
    random = np.random.default_rng(seed)
    x = keras.Input((3,))
    a, b = random_layer(x, random), random_layer(x[:, 1:], random)
    a, b = a[:, :1], b[:, :1]
    merge = random.choice(["Add", "Subtract", "Multiply", "Average", "Concatenate"])
    merged = getattr(keras.layers, merge)()([a, b])
    return keras.Model(x, [random_layer(merged, random), a * 2 + b / 3])


@pytest.mark.parametrize("seed", range(30))
def test_the_text_gives_what_the_model_predicts(seed):
    model = random_model(seed)
    read = formula(model, X, tolerance=0)
    expected = predicted(model, X)
    finite = np.isfinite(expected).all(axis=-1)
    assert finite.sum() > 10
    size = np.abs(expected[finite]).max(axis=0)
    off = np.abs(evaluated(read, X)[finite] - expected[finite]) / size
    assert off.max() < 1e-4, read.text


def test_constants_have_the_digits_of_their_dtype():
    cases = {
        "float16": "0.3333 * x0 + 2.719",
        "float32": "0.3333333 * x0 + 2.718282",
        "float64": "0.333333333333333 * x0 + 2.71828182845905",
    }
    if keras.backend.backend() == "jax":
        del cases["float64"]  # which JAX does not have unless told otherwise
    for dtype, said in cases.items():
        layer = keras.layers.Dense(1, dtype=dtype)
        layer.build((None, 3))
        layer.set_weights([np.array([[1 / 3], [0], [0]]), np.array([np.e])])
        assert str(formula(layer, X)) == f"y = {said}"
    layer = keras.layers.Dense(1)
    layer.build((None, 3))
    layer.set_weights([np.array([[0.49999997], [-1e-30], [1]]), np.zeros(1)])
    assert str(formula(layer, X)) == "y = 0.5 * x0 + x2 - 1e-30 * x1"


def test_layers_of_keras():
    layers = keras.layers
    cases = [
        (layers.Dense(1, "relu"), "relu(x0 + x1 + x2)"),
        (layers.Dense(1, "exponential", use_bias=False), "exp(x0 + x1 + x2)"),
    ]
    for layer, said in cases:
        layer.build((None, 3))
        layer.set_weights(
            [np.ones(w.shape) * (w.ndim > 1) for w in layer.get_weights()]
        )
        assert str(formula(layer, X)) == f"y = {said}"
    model = keras.Sequential(
        [
            keras.Input((3,)),
            layers.Identity(),
            layers.Dropout(0.5),
            layers.Flatten(),
            layers.Rescaling(0.5, offset=-1),
            layers.Normalization(mean=[1, 2, 0], variance=[4, 4, 1]),
            layers.Activation("tanh"),
        ]
    )
    assert formula(model, X).lines == [
        "y0 = tanh((0.5 * x0 - 1 - 1) / 2)",
        "y1 = tanh((0.5 * x1 - 1 - 2) / 2)",
        "y2 = tanh(0.5 * x2 - 1)",
    ]
    back = layers.Normalization(mean=1.0, variance=4.0, invert=True, axis=None)
    back.build((None, 3))
    assert formula(back, X).lines[0] == "y0 = 2 * x0 + 1"


def test_shared_layers_nested_models_and_several_outputs():
    x = keras.Input((3,), name="in")
    first = NAU(3)
    inner = keras.Model(x, first(x))
    twice = inner(inner(x))
    model = keras.Model({"in": x}, {"a": NMU(1)(twice), "b": first(twice[:, :])})
    first.set_weights([np.array([[0, 1, 0], [1, 0, 1], [0, 0, 1]])])
    read = formula(model, {"in": X})
    np.testing.assert_allclose(
        evaluated(read, X)[:, 1:],
        keras.ops.convert_to_numpy(first(X @ np.linalg.matrix_power(first.W, 2))),
        rtol=1e-5,
    )


def test_an_output_that_is_another_or_an_input():
    x = keras.Input((2,))
    total = NAC(1)(x)
    model = keras.Model(x, [keras.layers.Concatenate()([total, x]), total])
    model.layers[1].set_weights([np.full((2, 1), 20)] * 2)
    read = formula(model, X[:, :2])
    assert read.outputs == ["y0", "y1", "y2", "y3"]
    assert read.lines == ["y0 = x0 + x1", "y1 = x0", "y2 = x1", "y3 = y0"]


def test_several_inputs():
    a, b = keras.Input((1,), name="a"), keras.Input((2,), name="b")
    model = keras.Model([a, b], 2 * a**2 / b[..., 1:] - b[..., :1])
    parts = [X[:, :1], X[:, 1:]]
    for given in (parts, {"b": parts[1], "a": parts[0]}):
        read = formula(model, given)
        assert str(read) == "y = 2 * x0**2 / x2 - x1"
        assert read.error < 1e-5
    pandas = pytest.importorskip("pandas")
    frames = (
        pandas.DataFrame(parts[0], columns=["m"]),
        pandas.DataFrame(parts[1], columns=["v", "r"]),
    )
    assert str(formula(model, list(frames))) == "y = 2 * m**2 / r - v"
    with pytest.raises(ValueError, match="a list of 2 arrays"):
        formula(model, X)
    with pytest.raises(ValueError, match=r"same rows.*\(50, 1\), \(49, 2\)"):
        formula(model, [X[:, :1], X[1:, 1:]])
    with pytest.raises(ValueError, match=r"for the inputs \['a', 'b'\]"):
        formula(model, {"c": X})


def refused():
    x, time = keras.Input((3,)), keras.Input((2, 3))
    layers = keras.layers
    yield keras.Model(x, layers.PReLU()(x)), "PReLU"
    yield keras.Model(x, layers.Dense(2, "softmax")(x)), "softmax.*in the layer"
    yield keras.Model(x, NMU(1)(x, training=True)), "training=True"
    yield keras.Model(x, keras.ops.sin(x)), "name=sin"
    yield keras.Model(x, NMU(1)(x)[:, 0]), "slices of columns"
    yield keras.Model(time, NMU(1)(layers.Flatten()(time))), "'flatten.*rank 3"
    yield keras.Model(time, layers.Concatenate(1)([time, time])), "'concat.*rank 3"
    yield object(), "object"


@pytest.mark.parametrize(("model", "said"), list(refused()))
def test_what_is_not_read_is_refused(model, said):
    time = isinstance(model, keras.Model) and len(model.input.shape) == 3
    with pytest.raises(TypeError, match=rf"(?s)Expected .*{said}"):
        formula(model, np.ones((4, 2, 3)) if time else X)


def test_a_model_that_is_not_built():
    with pytest.raises(ValueError, match="Call the model on data once"):
        formula(keras.Sequential([NMU(1)]), X)


@pytest.mark.parametrize("name", ["NaiveNPU", "RealNPU", "NPU"])
def test_halves_and_larger_powers_are_discrete(name):
    layer = LAYERS[name](1)
    layer.build((None, 3))
    layer.set_weights(
        [np.array([[-0.49], [2.51], [3.0]])]
        + [np.zeros(w.shape) for w in layer.weights[1:]]
    )
    if name != "NaiveNPU":
        layer.g.assign(np.ones(3))
    read = formula(layer, X)
    assert str(read) == "y = x1**2.5 * x2**3 / x0**0.5"
    assert read.exact
    snapped = discretize(layer, X, X[:, 1] ** 2.5 * X[:, 2] ** 3 / X[:, 0] ** 0.5)
    assert formula(snapped, X).model_error < 1e-5
    assert not formula(layer, X, tolerance=0.001).exact


def test_what_a_regressor_made_reads_as_its_formula():
    pytest.importorskip("sklearn")
    sympy = pytest.importorskip("sympy")
    laws = [
        lambda a, b, c: 0.5 * a * b**2,
        lambda a, b, c: a / (b + c),
        lambda a, b, c: np.sqrt(a**2 + 3.3 * b * c),
    ]
    for law in laws:
        y = law(*np.float64(X).T)
        regressor = keras_nalu.ArithmeticRegressor().fit(np.float64(X), y)
        read = formula(regressor.to_keras(), X, y)
        assert read.exact
        assert (read.misses, read.error) == ([], pytest.approx(0, abs=1e-6))
        (expression,) = read.expressions
        difference = expression.subs(0.5, sympy.Rational(1, 2)) - regressor.sympy()
        values = dict(zip(sympy.symbols("x0 x1 x2"), X[0].tolist(), strict=True))
        assert abs(difference.subs(values)) < 1e-4


def test_constants_of_one_product_are_one():
    model = keras.Sequential(
        [keras.Input((3,)), NMU(1), keras.layers.Rescaling(0.5), keras.layers.Dense(1)]
    )
    model.layers[0].set_weights([np.ones((3, 1))])
    for factor, said in ((2, ""), (3, "1.5 * ")):
        model.layers[2].set_weights([np.array([[factor]]), np.zeros(1)])
        assert str(formula(model, X)) == f"y = {said}x0 * x1 * x2"


def test_a_shared_gate_is_steep_on_all_its_rows():
    x = keras.Input((2,))
    layer = keras_nalu.NALU(2)
    model = keras.Model(x, layer(layer(x)))
    layer.set_weights([3 * np.eye(2)] * 2 + [np.full((2, 2), -0.1)])
    snapped = discretize(model, X[:, :2])
    layer = snapped.layers[1]
    for rows in (X[:, :2], layer(X[:, :2])):
        assert np.max(keras.ops.convert_to_numpy(layer.gate(rows))) < 1e-6
