"""A trained model is read as the formula that it computes."""

import builtins

import keras
import numpy as np
import pytest
from oracles.conformance.facts import ROWS, filled, hats

import keras_nalu
from keras_nalu import NAC, NMU, NPU, formula
from keras_nalu.layers import LAYERS

POSITIVE, SIGNED = ROWS["positive"], ROWS["signed"]
HALF = np.arctanh(0.5)


def made(name, *weights, **arguments):
    """A layer of one unit; weights are given by unit, in the layer's order."""
    return filled(LAYERS[name](1, **arguments), *weights)


def nac(*w):
    return made("NAC", *hats(*w))


def nalu(*w, gate):
    return made("NALU", *hats(*w), np.broadcast_to(gate, (2,)))


@pytest.mark.parametrize(
    ("weights", "sum_", "product"),
    [
        ((1, 1), "x0 + x1", "x0 * x1"),
        ((1, -1), "x0 - x1", "x0 / x1"),
        ((-1, 1), "x1 - x0", "x1 / x0"),
        ((-1, -1), "-x0 - x1", "1 / x0 / x1"),
        ((0, 1), "x1", "x1"),
        ((0, 0), "0", "1"),
        ((0.96, 1.0), "x0 + x1", "x0 * x1"),
    ],
)
def test_whole_weights_are_read_as_a_formula(weights, sum_, product):
    assert str(formula(nac(*weights), POSITIVE)) == f"y = {sum_}"
    assert str(formula(nalu(*weights, gate=20), POSITIVE)) == f"y = {sum_}"
    assert str(formula(nalu(*weights, gate=-20), POSITIVE)) == f"y = {product}"


def test_the_error_is_of_the_digits_that_are_printed():
    read = formula(made("NMU", (0.93333, 1)), POSITIVE)
    assert str(read) == "y = (0.93333 * x0 + 0.06667) * x1"
    ((_, *entry, value),) = read.not_discrete
    assert entry == ["kernel", (0, 0)]
    assert value == pytest.approx(0.93333)
    assert read.error < 1e-6


def test_the_error_of_a_formula_that_is_near_in_its_weights_alone():
    read = formula(nalu(0.96, 1, gate=-20), POSITIVE)
    assert str(read) == "y = x0 * x1"
    assert read.error == pytest.approx(8**0.04 - 1, rel=0.01)


def test_untrained_weights_near_0_are_no_formula():
    read = formula(nac(0.0123, -0.0042), POSITIVE)
    assert str(read) == "y = 0.0123 * x0 - 0.0042 * x1"
    assert not read.exact
    assert formula(nac(0, 0), POSITIVE).exact


def test_where_it_divides_by_zero_it_says_so_and_is_not_measured():
    read = formula(made("NMRU", (1, 0, 0, 1)), np.array([[1, 0], [2, 3]]))
    assert read.holds == "y: where x1 is not 0"
    assert read.error < 1e-5


def test_what_holds_is_said_of_the_inputs_and_not_of_units_that_are_gone():
    model = keras.Sequential([keras.Input((2,)), NAC(2), LAYERS["NRU"](1)])
    filled(model.layers[0], 20 * np.array([[1, 1], [1, -1]]), np.full((2, 2), 20))
    filled(model.layers[1], [[1], [-1]])
    read = formula(model, np.array([[3, 3], [2, 1]]))
    assert str(read) == "y = (x0 + x1) / (x0 - x1)"
    assert read.holds == "y: where (x0 - x1) is not 0"
    assert read.error < 1e-5


def test_a_thousand_terms_are_not_written():
    layer = LAYERS["NAU"](1)
    layer.build((None, 3000))
    with pytest.raises(ValueError, match=r"too many terms.*3000 features"):
        formula(layer, np.ones((1, 3000)))


def test_a_magnitude_is_written_where_the_data_has_negatives():
    assert str(formula(made("NACMul", *hats(1, 1)), [[1, -2], [3, 4]])) == (
        "y = x0 * abs(x1)"
    )


def test_stacks():
    sums = keras.layers.Input((2,))
    first, last = NAC(2), NMU(1)
    chain = keras.Model(sums, last(first(sums)))
    filled(first, [[20, 20], [20, -20]], np.full((2, 2), 20))
    filled(last, [[1], [1]])
    read = formula(chain, SIGNED)
    assert str(read) == "y = (x0 + x1) * (x0 - x1)"
    assert read.exact
    assert read.error < 1e-5
    nested = keras.Sequential([keras.Sequential([first]), last])
    assert str(formula(nested, SIGNED)) == str(read)
    ours = keras_nalu.Sequential([first, last])
    assert str(formula(ours, SIGNED)) == str(read)


def test_hidden_units_have_lines_where_they_are_used_often_or_long():
    first, last = NAC(3), NMU(2)
    model = keras.Sequential([keras.Input((2,)), first, last])
    filled(first, 20 * np.array([[1, 1, 0], [1, -1, 1]]), np.full((2, 3), 20))
    filled(last, [[1, 1], [0, 1], [1, 0]])
    assert formula(model, SIGNED).lines == [
        "h1_0 = x0 + x1",
        "y0 = h1_0 * x1",
        "y1 = h1_0 * (x0 - x1)",
    ]
    long = ["the_length_of_the_table_in_metres", "the_width_of_the_table_in_metres"]
    assert formula(model, SIGNED, names=long).lines == [
        f"h1_0 = {long[0]} + {long[1]}",
        f"h1_1 = {long[0]} - {long[1]}",
        f"y0 = h1_0 * {long[1]}",
        "y1 = h1_0 * h1_1",
    ]


def test_hidden_units_that_nothing_is_made_of_are_left_out():
    first = NAC(2)
    model = keras.Sequential([keras.Input((2,)), first, NMU(1)])
    filled(first, [[20, HALF], [20, 20]], np.full((2, 2), 20))
    filled(model.layers[1], [[1], [0]])
    read = formula(model, SIGNED)
    assert read.lines == ["y = x0 + x1"]
    assert read.exact


def test_names():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(SIGNED, columns=["length", "width"])
    for names in (frame.columns, frame.columns.to_numpy(), ("length", "width")):
        read = formula(nac(1, -1), frame, names=names)
        assert str(read) == "y = length - width"
    assert str(formula(nac(1, -1), frame)) == "y = length - width"
    assert str(formula(nac(1, 1), SIGNED, names=["x", "y"])) == "z = x + y"


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["a"], r"a name for each of the 2 features of `x`. Received: names=\['a'\]"),
        (["a", "b c"], "'b c', which is not an identifier"),
        (["a", 1], "1, which is not an identifier"),
        (["a", "if"], "'if', which means something else"),
        (["a", "exp"], "'exp', which means something else"),
        (["a", "a"], "'a' more than once"),
        (["a", "h1_0"], "'h1_0', which formulas use for an output, hidden unit"),
    ],
)
def test_names_that_are_refused(names, said):
    with pytest.raises(ValueError, match=said):
        formula(nac(1, 1), SIGNED, names=names)


def test_not_a_number_is_told():
    layer = nac(1, 1)
    layer.W_hat.assign([[np.nan], [1.0]])
    read = formula(layer, POSITIVE)
    assert str(read).startswith("y = nan * x0 + ")
    assert not read.exact
    assert np.isnan(read.not_discrete[0][3])
    assert np.isnan(read.error)


def test_data_of_any_rank_and_of_zeros_alone():
    assert str(formula(nac(1, 1), np.ones((2, 3, 2)))) == "y = x0 + x1"
    zeros = formula(nalu(1, 1, gate=-20), np.zeros((2, 2)))
    assert zeros.lines[1] == "y = gate * (x0 + x1) + (1 - gate) * (x0 * x1)"


@pytest.mark.parametrize(
    ("X", "said"),
    [
        (np.zeros((0, 2)), r"Received: x.shape=\(0, 2\)"),
        (np.array([[1, np.nan]]), "entries of `x` that are NaN, infinite"),
        (np.array([[1, np.inf]]), "entries of `x` that are NaN, infinite"),
    ],
)
def test_data_that_is_refused(X, said):
    with pytest.raises(ValueError, match=said):
        formula(nac(1, 1), X)


def nsr():
    """Whether two inputs are equal."""
    V = 200 * np.eye(2) - 100
    return made("NSR", V[0], V[1], 0, 20, 0, scale=100.0)


def test_sympy_expressions():
    sympy = pytest.importorskip("sympy")
    x0, x1 = sympy.symbols("x0 x1")
    cases = [
        (nac(1, -1), POSITIVE, x0 - x1),
        (made("NMU", (0.5, 1)), SIGNED, (0.5 * x0 + 0.5) * x1),
        (made("NACMul", *hats(1, -1)), SIGNED, abs(x0) / abs(x1)),
        (made("NPU", (2, 0), (0, 0), (1, 0)), SIGNED, x0**2),
        (
            nsr(),
            [[-5, 3], [4, 4], [5, -5]],
            sympy.Piecewise((1, sympy.Eq(x0, x1)), (0, True)),
        ),
    ]
    for layer, X, expected in cases:
        assert formula(layer, X).expressions == [expected]
    gate = 1 / (1 + sympy.exp(-x0))
    (mixed,) = formula(nalu(1, 0, gate=(1, 0)), SIGNED).expressions
    assert sympy.simplify(mixed - gate * x0 - (1 - gate) * abs(x0)) == 0


def test_sympy_expressions_of_a_stack_are_of_the_inputs_alone():
    sympy = pytest.importorskip("sympy")
    a, b = sympy.symbols("a b")
    model = keras.Sequential([keras.Input((2,)), NAC(2), NMU(2)])
    filled(model.layers[0], 20 * np.array([[1, 1], [1, -1]]), np.full((2, 2), 20))
    filled(model.layers[1], [[1, 0], [1, 1]])
    read = formula(model, SIGNED, names=["a", "b"])
    assert read.expressions == [(a + b) * (a - b), a - b]


def test_sympy_that_is_missing(monkeypatch):
    read = formula(nac(1, 1), POSITIVE)
    load = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "sympy":
            raise ImportError("No module named 'sympy'")
        return load(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"pip install \"keras-nalu\[formula\]\""):
        _ = read.expressions


def test_a_member_of_a_population():
    if keras.backend.backend() == "torch":
        pytest.skip("trains no populations")
    template = keras.Sequential([keras.Input((2,)), NPU(1)])
    population = keras_nalu.Population(template, 2, seed=0)
    assert formula(population.member(0), POSITIVE).error < 0.05
    with pytest.raises(TypeError, match=r"`population\.best\(x, y\)`"):
        formula(population, POSITIVE)
