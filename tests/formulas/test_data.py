"""With the right answers a formula says whether it is the law of the data."""

import keras
import numpy as np
import pytest

import keras_nalu
from keras_nalu import NALU, NAU, NMU, RealNPU, discretize, formula

RANDOM = np.random.default_rng(0)
X = RANDOM.uniform(1, 5, (400, 2))
M, V = X.T
ENERGY = 0.5 * M * V**2


def filled(layer, *weights, features=2):
    if not layer.built:
        layer.build((None, features))
    pairs = zip(weights, layer.weights, strict=True)
    layer.set_weights(
        [
            np.broadcast_to(
                np.reshape(w, (-1, 1)) if np.ndim(w) == 1 and v.ndim == 2 else w,
                v.shape,
            )
            for w, v in pairs
        ]
    )
    return layer


def stuck():
    """What a NALU made of the kinetic energy: the product m v."""
    return filled(NALU(1), 20, 20, -20)


def law(dtype=None, factor=0.5):
    model = keras.Sequential(
        [
            keras.Input((2,), dtype=dtype),
            RealNPU(1, dtype=dtype),
            keras.layers.Dense(1, dtype=dtype),
        ]
    )
    filled(model.layers[0], [1, 2], 1)
    filled(model.layers[1], factor, 0)
    return model


def test_a_wrong_law_is_called_wrong():
    read = formula(stuck(), X, ENERGY, names=["m", "v"])
    assert read.lines == ["y = m * v"]
    assert read.text == "y = m * v"
    assert read.exact
    assert read.model_error < 1e-5
    expected = np.abs(M * V - ENERGY).mean() / ENERGY.mean()
    assert read.data_error == read.error == pytest.approx(expected)
    spread = np.sum((ENERGY - ENERGY.mean()) ** 2)
    assert read.r2 == pytest.approx(1 - np.sum((M * V - ENERGY) ** 2) / spread)
    _, figures, advice = str(read).splitlines()
    assert figures == (
        f"# y misses the data: R^2 {read.r2:.3g}, mean error {100 * expected:.3g}% of "
        "the mean |y|."
    )
    assert advice.startswith("# So does the model.")
    assert "ArithmeticRegressor" in advice


def test_a_wrong_law_is_not_made_discrete():
    layer = stuck()
    before = [w.copy() for w in layer.get_weights()]
    with pytest.raises(ValueError, match=r"does not give `y`.*does not fit `y` either"):
        discretize(layer, X, ENERGY)
    for now, then in zip(layer.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)
    assert discretize(layer, X, M * V).is_discrete(0)


def test_a_right_law_has_nothing_to_say():
    read = formula(law(), X, ENERGY, names=["m", "v"])
    assert str(read) == "y = 0.5 * m * v**2"
    assert (read.exact, read.misses) == (True, [])
    assert read.error < 1e-6
    assert read.r2 > 1 - 1e-9
    assert discretize(law(), X, ENERGY) is not None


def test_without_answers_there_is_nothing_of_them():
    read = formula(stuck(), X)
    assert (read.data_error, read.r2, read.misses) == (None, None, [])
    assert read.error == read.model_error


def test_noise_is_said_and_may_be_allowed():
    y = ENERGY * (1 + 0.03 * RANDOM.standard_normal(len(X)))
    read = formula(law(), X, y)
    assert 0.01 < read.error < 0.05
    assert read.misses[0].startswith("y misses the data: R^2 0.99")
    with pytest.raises(ValueError, match=r"noise in `y`, pass tolerance=0\.0\d"):
        discretize(law(), X, y)
    assert discretize(law(), X, y, tolerance=0.05) is not None


def test_a_model_that_fits_better_than_its_rounding_is_read_by_its_digits():
    model = filled(NAU(1), [0.97, 0.96])
    y = X @ [0.97, 0.96]
    assert str(formula(model, X)) == "y = x0 + x1"
    assert str(formula(model, X, y)) == "y = 0.97 * x0 + 0.96 * x1"
    far = filled(NMU(1), [0.9999, 0.9999])
    said = formula(far, X * 1e3, 1e6 * M * V * 0.99983).misses
    assert said[1].startswith("The model fits better (R^2 above 0.999")


def test_where_one_kernel_is_not_discrete_the_others_have_digits_too():
    layer = filled(RealNPU(1), [1, 0.7], 0.97)
    y = np.ravel(keras.ops.convert_to_numpy(layer(X)))
    assert str(formula(layer, X)) == "y = x0 * x1**0.7"
    read = formula(layer, X, y)
    assert str(read) == "y = (0.97 * x0 + 0.03) * (0.97 * x1 + 0.03)**0.7"
    assert read.error < 1e-6


def test_a_copy_keeps_what_was_adapted():
    model = keras.Sequential([keras.layers.Normalization(), NAU(1)])
    model.layers[0].adapt(X)
    model(X)
    filled(model.layers[1], [1, 1])
    y = model.predict(X, verbose=0)
    assert formula(discretize(model, X, y), X, y).error < 1e-5


def test_shapes_and_kinds_of_answers():
    pandas = pytest.importorskip("pandas")
    whole = np.arange(1, 9).reshape(4, 2)
    y = whole.prod(axis=1)
    layer = filled(NMU(1), [1, 1])
    for given in (
        y,
        y[:, None],
        y.tolist(),
        pandas.Series(y, [9, 8, 7, 6]),
        pandas.DataFrame({"law": y}),
        y.astype("float16"),
        y.astype("uint8"),
    ):
        assert formula(layer, whole, given).error < 1e-6
    time = whole.reshape(2, 2, 2)
    for given in (y.reshape(2, 2), y.reshape(2, 2, 1)):
        assert formula(layer, time, given).error < 1e-6
        assert discretize(layer, time, given) is not None


@pytest.mark.parametrize(
    ("y", "said"),
    [
        (ENERGY[:-1], r"shape \(400, 1\) or \(400,\)\. Received: y.shape=\(399,\)"),
        (ENERGY[None], r"Received: y.shape=\(1, 400\)"),
        (np.where(M > 3, ENERGY, np.nan), "NaN or infinite entries in `y`"),
        (np.where(M > 3, ENERGY, np.inf), "NaN or infinite entries in `y`"),
        (["m", "v"], "names go to `names`"),
    ],
)
def test_answers_that_are_refused(y, said):
    for read in (formula, discretize):
        with pytest.raises(ValueError, match=said):
            read(stuck(), X, y)


def test_several_outputs_are_told_apart():
    model = filled(NAU(2), np.array([[1, 1], [1, -1]]))
    Y = np.stack([M + V, 2 * M], axis=1)
    read = formula(model, X, Y)
    assert read.lines == ["y0 = x0 + x1", "y1 = x0 - x1"]
    (_, misses) = (read.misses[1:], read.misses[0])
    assert misses.startswith("y1 misses the data: R^2 ")
    with pytest.raises(ValueError, match=r"\(400, 2\)"):
        formula(model, X, Y.T)
    x = keras.Input((2,))
    two = keras.Model(x, [filled(NMU(1), [1, 1])(x), filled(NMU(1), [1, 0])(x)])
    assert formula(two, X, [M * V, M]).misses == []
    assert formula(two, X, np.stack([M * V, M], 1)).misses == []


def test_constant_answers():
    read = formula(stuck(), X, np.full(len(X), 2.0))
    assert np.isnan(read.r2)
    assert read.misses[0].startswith("y misses the data: mean error ")
    same = filled(NMU(1), [0, 0])
    assert formula(same, X, np.ones(len(X))).misses == []
    zero = formula(same, X, np.zeros(len(X)))
    assert zero.error == np.inf
    assert zero.misses[0] == "y misses the data: it is not 0, but y is 0 on all rows."
    assert formula(filled(NAU(1), [0, 0]), X, np.zeros(len(X))).error == 0


def test_answers_of_any_unit():
    for unit in (1e-30, 1e30):
        model = law(factor=0.5 * unit)
        read = formula(model, X, unit * ENERGY)
        assert read.misses == []
        assert read.r2 == pytest.approx(1)


def test_rows_without_a_number_are_counted():
    layer = filled(RealNPU(1), [1, -1], 1)
    read = formula(layer, [[1, 2], [3, 0], [4, 2]], [0.5, 1e6, 2])
    assert read.misses[0] == "y misses the data: no finite number on 1 row."


@pytest.mark.parametrize("dtype", ["float16", "float64"])
@pytest.mark.filterwarnings("ignore:.*float16")
def test_other_precisions(dtype):
    if dtype == "float64" and keras.backend.backend() == "jax":
        pytest.skip("JAX computes in float32 unless told otherwise")
    read = formula(law(dtype), X, ENERGY)
    assert read.lines == ["y = 0.5 * x0 * x1**2"]
    assert read.misses == []
    y = keras.ops.convert_to_numpy(law(dtype)(X.astype(dtype)))
    assert formula(law(dtype), X, y).misses == []
    assert discretize(law(dtype), X, ENERGY) is not None


def test_columns_with_any_names():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=["mass (kg)", "if"])
    read = formula(law(), frame, ENERGY)
    assert str(read) == "y = 0.5 * `mass (kg)` * `if`**2"
    for names, said in (
        (["y", "y1"], "z = 0.5 * y * y1**2"),
        (["y", "z"], "output = 0.5 * y * z**2"),
        (["m\u00b5", "h1_0"], "y = 0.5 * m\u03bc * `h1_0`**2"),
        ([2, 3], "y = 0.5 * x0 * x1**2"),
    ):
        frame.columns = names
        assert str(formula(law(), frame)) == said
    frame.columns = ["a", "a"]
    with pytest.raises(ValueError, match="'a' more than once"):
        formula(law(), frame)
    sympy = pytest.importorskip("sympy")
    mass, other = sympy.symbols("mass\\ (kg) if")
    (expression,) = read.expressions
    assert expression == 0.5 * mass * other**2


def test_a_population_member_against_data():
    if keras.backend.backend() == "torch":
        pytest.skip("trains no populations")
    template = keras.Sequential([keras.Input((2,)), keras_nalu.NPU(1)])
    population = keras_nalu.Population(template, 2, seed=0)
    assert formula(population.member(0), X, ENERGY).data_error > 0.01
