"""A trained model is read as the formula that it computes, and rounded to it."""

import builtins

import keras
import numpy as np
import pytest

import keras_nalu
from keras_nalu import NAC, NALU, NMU, NPU, discretize, formula
from keras_nalu.layers import LAYERS

POSITIVE = np.array([[1, 2], [3, 4], [5, 0.5], [8, 8]])
SIGNED = np.array([[1.0, -2.0], [-3.0, 4.0], [5.0, 0.5], [-8.0, -8.0]])
INTEGERS = np.array([[0, 0], [1, 2], [3, 4]])
COMPARED = np.array([[-5, 3], [4, 4], [5, -5]])


def made(name, *weights, **arguments):
    """A layer of one unit; weights are given by unit, in the layer's order."""
    layer = LAYERS[name](1, **arguments)
    layer.build((None, 2))
    return filled(layer, *weights)


def filled(layer, *weights):
    layer.set_weights(
        [np.reshape(w, v.shape) for w, v in zip(weights, layer.weights, strict=True)]
    )
    return layer


def hats(*w, size=20):
    """`W_hat` and `M_hat` of these effective weights."""
    return np.arctanh(np.clip(w, -1 + 1e-9, 1 - 1e-9)), np.full(len(w), size)


def nac(*w):
    return made("NAC", *hats(*w))


def nalu(*w, gate):
    return made("NALU", *hats(*w), np.broadcast_to(gate, (2,)))


def nsr(W_s, W_0, b=0.0, left=0, scale=100.0):
    V = 200 * np.eye(2) - 100
    return made("NSR", V[left], V[1 - left], W_s, W_0, b, scale=scale)


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


ONES, BOTH = (20, 20), (20, -20)
EXACT = [
    (made("NAC", *hats(1, -1)), SIGNED, "x0 - x1"),
    (made("NAU", (1, -1)), SIGNED, "x0 - x1"),
    (made("MCFC", (0, 0), 20, 0), SIGNED, "x0 + x1"),
    (made("NACMul", *hats(1, -1)), POSITIVE, "x0 / x1"),
    (made("NACMul", *hats(1, -1)), SIGNED, "abs(x0) / abs(x1)"),
    (made("NALU", *hats(1, 1), (-20, -20)), POSITIVE, "x0 * x1"),
    (made("GNALU", (40, -40), (40, 40), (40, 40)), POSITIVE, "x0 - x1"),
    (made("GNALU", (40, -40), (40, 40), (-40, -40)), POSITIVE, "x0 / x1"),
    (made("SeparateNALU", *hats(1, 1), *hats(1, -1), (-20, -20)), POSITIVE, "x0 / x1"),
    (made("SeparateNALU", *hats(1, 1), *hats(1, -1), (20, 20)), POSITIVE, "x0 + x1"),
    (made("INALU", *hats(0.5, 1), *hats(1, -1), -20), SIGNED, "x0 / x1"),
    (made("INALU", *hats(1, -1), *hats(0.3, 1), 20), SIGNED, "x0 - x1"),
    (made("SharedINALU", *hats(1, 1), -20), SIGNED, "x0 * x1"),
    (made("NMU", (1, 1)), SIGNED, "x0 * x1"),
    (made("SNMU", (1, 0)), SIGNED, "x0"),
    (made("NRU", (1, -1)), SIGNED, "x0 / x1"),
    (made("NMRU", (1, 0, 0, 1)), SIGNED, "x0 / x1"),
    (made("NMRU", (1, 1, 0, 1)), SIGNED, "x0"),
    (made("NaiveNPU", (1, -1), (0, 0)), SIGNED, "x0 / x1"),
    (made("NPU", (2, 0.7), (0, 0.3), (1, 0)), SIGNED, "x0**2"),
    (made("NPU", (1, -3), (0, 0), (1, 1)), SIGNED, "x0 / x1**3"),
    (made("RealNPU", (-1, 1), (1, 1)), SIGNED, "x1 / x0"),
    (made("MulMCFC", (0, 0), 20, 0, 0), POSITIVE, "x0 * x1"),
    (made("MulMCFC", (0, 0), 20, 0, np.log(3)), POSITIVE, "3 * x0 * x1"),
    (nsr(-40, -20), COMPARED, "x0 < x1"),
    (nsr(-40, 20), COMPARED, "x0 <= x1"),
    (nsr(0, 20), COMPARED, "x0 == x1"),
    (nsr(0, -20), COMPARED, "x0 != x1"),
    (nsr(40, 20), COMPARED, "x0 >= x1"),
    (nsr(40, -20), COMPARED, "x0 > x1"),
    (nsr(40, -20, left=1), COMPARED, "x0 < x1"),
    (nsr(1, 1, 20), COMPARED, "1"),
    (nsr(1, 1, -20), COMPARED, "0"),
]


@pytest.mark.parametrize(
    ("layer", "X", "text"), EXACT, ids=[f"{type(e[0]).__name__} {e[2]}" for e in EXACT]
)
def test_exact(layer, X, text):
    read = formula(layer, X)
    assert (str(read), read.lines) == (f"y = {text}", [f"y = {text}"])
    assert read.exact
    assert read.not_discrete == []
    # NSR's 0 is a small probability, of which 0 is far in relation to itself.
    assert read.error < 1e-4 or text == "0"


def test_every_layer_is_read_exactly_and_not():
    assert {type(case[0]).__name__ for case in EXACT} == set(LAYERS)
    assert {type(case[0]).__name__ for case in ROUNDED} == set(LAYERS)


HALF = np.arctanh(0.5)
ROUNDED = [
    (nac(0.5, -1), SIGNED, "0.5 * x0 - x1"),
    (made("NAU", (0.5, 0.25)), SIGNED, "0.5 * x0 + 0.25 * x1"),
    (made("MCFC", (0, 0), 0, 0), SIGNED, "0.5 * x0 + 0.5 * x1"),
    (made("NACMul", *hats(0.5, -0.25)), POSITIVE, "x0**0.5 / x1**0.25"),
    (made("NACMul", *hats(0.5, 1)), SIGNED, "abs(x0)**0.5 * abs(x1)"),
    (nalu(0.5, 1, gate=-20), POSITIVE, "x0**0.5 * x1"),
    (
        made("GNALU", (HALF / 0.4812118, 40), (40, 40), (-40, -40)),
        POSITIVE,
        "x0**0.5 * x1",
    ),
    (
        made("SeparateNALU", *hats(1, 1), *hats(1, 0.5), (-20, -20)),
        POSITIVE,
        "x0 * x1**0.5",
    ),
    (
        made("INALU", *hats(1, 1), *hats(0.5, 1), -20),
        SIGNED,
        "abs(x0)**0.5 * (0.5 * sign(x0) + 0.5) * x1",
    ),
    (
        made("SharedINALU", *hats(1, 1), 0),
        SIGNED,
        "0.5 * (x0 + x1) + 0.5 * (x0 * x1)",
    ),
    (made("NMU", (0.93, 1)), SIGNED, "(0.93 * x0 + 0.07) * x1"),
    (made("SNMU", (0.5, 0)), SIGNED, "0.5 * x0 + 0.5"),
    (
        made("NRU", (0.5, -1)),
        SIGNED,
        "(0.5 * sign(x0) * abs(x0)**0.5 + 0.5) / x1",
    ),
    (made("NRU", (-0.5, 1)), POSITIVE, "(0.5 / x0**0.5 + 0.5) * x1"),
    (
        made("NMRU", (0.5, 0, 0, 1)),
        SIGNED,
        "(0.5 * abs(x0) + 0.5) * cos(0.5 * (pi * (x0 < 0))) / x1",
    ),
    (made("NMRU", (0, 0, 0.5, 1)), POSITIVE, "(0.5 / x0 + 0.5) / x1"),
    (made("NaiveNPU", (0.5, 1), (0, 0)), POSITIVE, "x0**0.5 * x1"),
    (
        made("NaiveNPU", (0.5, 1), (0, 0)),
        SIGNED,
        "abs(x0)**0.5 * x1 * cos(0.5 * (pi * (x0 < 0)))",
    ),
    (
        made("NPU", (1, 1), (0.25, 0), (1, 0.5)),
        POSITIVE,
        "x0 * (0.5 * x1 + 0.5) * cos(0.25 * log(x0))",
    ),
    (
        made("NPU", (1, 1), (0.5, 0), (1, 1)),
        SIGNED,
        "abs(x0) * exp(-0.5 * (pi * (x0 < 0))) * x1 "
        "* cos(0.5 * log(abs(x0)) + pi * (x0 < 0))",
    ),
    (made("RealNPU", (1, 1), (0.5, 0)), POSITIVE, "0.5 * x0 + 0.5"),
    (made("MulMCFC", (0, 0), 0, 0, 0), POSITIVE, "x0**0.5 * x1**0.5"),
    (
        made("NSR", (0, 0), (0, 100), 2, 1, 0.5, scale=2.0),
        SIGNED,
        "sigmoid(0.5 + 2 * tanh(2 * (0.5 * x0 - 0.5 * x1)) "
        "+ (1 - 2 * tanh(2 * (0.5 * x0 - 0.5 * x1))**2))",
    ),
]


@pytest.mark.parametrize(
    ("layer", "X", "text"),
    ROUNDED,
    ids=[f"{type(e[0]).__name__} {e[2]}" for e in ROUNDED],
)
def test_what_is_not_discrete_is_the_equation_with_rounded_weights(layer, X, text):
    read = formula(layer, X)
    assert str(read) == f"y = {text}"
    assert not read.exact
    assert read.error < 1e-3
    for name, kernel, index, value in read.not_discrete:
        assert name == layer.name
        if kernel != "gate":
            stored = keras.ops.convert_to_numpy(layer.kernels[kernel])[index]
            assert float(stored) == pytest.approx(value)


def test_the_error_is_of_the_digits_that_are_printed():
    read = formula(made("NMU", (0.93333, 1)), POSITIVE)
    assert str(read) == "y = (0.933 * x0 + 0.067) * x1"
    ((_, *entry, value),) = read.not_discrete
    assert entry == ["kernel", (0, 0)]
    assert value == pytest.approx(0.93333)
    assert 1e-4 < read.error < 1e-3


def test_the_error_of_a_formula_that_is_near_in_its_weights_alone():
    read = formula(nalu(0.96, 1, gate=-20), POSITIVE)
    assert str(read) == "y = x0 * x1"
    assert read.error == pytest.approx(8**0.04 - 1, rel=0.01)


def test_untrained_weights_near_0_are_no_formula():
    read = formula(nac(0.0123, -0.0042), POSITIVE)
    assert str(read) == "y = 0.0123 * x0 - 0.0042 * x1"
    assert not read.exact
    assert formula(nac(0, 0), POSITIVE).exact


def test_a_gate_that_is_between_mixes():
    read = formula(nalu(1, 1, gate=(-0.5, 0.5)), POSITIVE)
    assert read.lines == [
        "gate = sigmoid(0.5 * x1 - 0.5 * x0)",
        "y = gate * (x0 + x1) + (1 - gate) * (x0 * x1)",
    ]
    assert not read.exact
    assert [entry[1:3] for entry in read.not_discrete] == [("gate", (0,))]
    assert read.holds == "y: a mixture, its gate is between 0.0953 and 0.622"
    assert read.error < 1e-5


def test_a_mixture_says_what_its_weights_are():
    read = formula(nalu(0.97, 0.5, gate=0), POSITIVE)
    assert read.lines[1] == (
        "y = gate * (0.97 * x0 + 0.5 * x1) + (1 - gate) * (x0**0.97 * x1**0.5)"
    )
    assert [entry[1:3] for entry in read.not_discrete] == [
        ("gate", (0,)),
        ("kernel", (1, 0)),
    ]


def test_a_formula_says_where_its_gate_holds():
    shut = formula(nalu(1, 1, gate=(-20, -30)), POSITIVE)
    assert shut.holds == "y: where -20 * x0 - 30 * x1 < 0, as on every row of the data"
    opened = formula(nalu(1, 1, gate=(20, 30)), POSITIVE)
    assert opened.holds == "y: where 20 * x0 + 30 * x1 > 0, as on every row of the data"
    assert formula(nac(1, 1), POSITIVE).holds == "for all inputs"


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


def test_a_comparison_that_is_not_saturated_says_so():
    read = formula(nsr(-2, -1), COMPARED)
    assert str(read) == "y = x0 < x1"
    assert not read.exact
    ((_, kernel, index, value),) = read.not_discrete
    assert (kernel, index) == ("output", (0,))
    assert value == pytest.approx(1 / (1 + np.e))


def test_registers_that_vote():
    layer = LAYERS["NSR"](1, redundancy=2, scale=100.0)
    layer.build((None, 2))
    V = 200 * np.eye(2) - 100
    filled(layer, V, V[:, ::-1], [[-40], [30]], [[-20], [-15]], [0])
    read = formula(layer, COMPARED)
    assert (str(read), read.exact) == ("y = x0 < x1", True)


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
    assert formula(model, SIGNED, long).lines == [
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
    assert str(formula(nac(1, -1), SIGNED, ["length", "width"])) == "y = length - width"
    assert str(formula(nac(1, 1), SIGNED, ["x", "y"])) == "z = x + y"


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["a"], r"a name for each of the 2 features of `x`. Received: names=\['a'\]"),
        (["a", "b c"], "'b c', which is no identifier"),
        (["a", 1], "1, which is no identifier"),
        (["a", "if"], "'if', which means something else"),
        (["a", "exp"], "'exp', which means something else"),
        (["a", "a"], "'a' more than once"),
        (["a", "h1_0"], "'h1_0', which formulas call an output, hidden unit or gate"),
    ],
)
def test_names_that_are_refused(names, said):
    with pytest.raises(ValueError, match=said):
        formula(nac(1, 1), SIGNED, names)


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
        (np.array([[1, np.nan]]), "Received: NaN or infinite entries in `x`"),
        (np.array([[1, np.inf]]), "Received: NaN or infinite entries in `x`"),
    ],
)
def test_data_that_is_refused(X, said):
    with pytest.raises(ValueError, match=said):
        formula(nac(1, 1), X)


def not_chains():
    x = keras.Input((2,))
    layer = NAC(2)
    yield keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]), "Dense"
    yield keras.Model(x, layer(layer(x))), "Functional"
    yield keras.Model(x, layer(x) + 1), "Functional"
    yield keras.Model(x, [layer(x), NMU(1)(x)]), "Functional"
    yield keras.layers.Dense(1), "Dense"


@pytest.mark.parametrize(("model", "named"), list(not_chains()))
def test_what_is_no_chain_is_refused(model, named):
    said = f"functional chain of arithmetic layers alone.*{named}.*`formula"
    with pytest.raises(TypeError, match=said):
        formula(model, POSITIVE)


def test_a_class_of_ones_own():
    class Mine(NMU):
        pass

    layer = Mine(1)
    layer.build((None, 2))
    filled(layer, [[1], [0.02]])
    assert str(formula(layer, SIGNED)) == "y = x0"
    assert type(discretize(layer)) is Mine

    class Other(keras_nalu.layers.base.ArithmeticLayer):
        targets = {"kernel": (0, 1)}
        kernel = np.zeros((2, 1))

        def call(self, inputs):
            return inputs[..., :1]

    layer = Other(1)
    layer.build((None, 2))
    with pytest.raises(TypeError, match="Expected a layer of `keras_nalu`"):
        formula(layer, SIGNED)


def test_sympy_expressions():
    sympy = pytest.importorskip("sympy")
    x0, x1 = sympy.symbols("x0 x1")
    cases = [
        (nac(1, -1), POSITIVE, x0 - x1),
        (made("NMU", (0.5, 1)), SIGNED, (0.5 * x0 + 0.5) * x1),
        (made("NACMul", *hats(1, -1)), SIGNED, abs(x0) / abs(x1)),
        (made("NPU", (2, 0), (0, 0), (1, 0)), SIGNED, x0**2),
        (nsr(0, 20), COMPARED, sympy.Piecewise((1, sympy.Eq(x0, x1)), (0, True))),
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
    read = formula(model, SIGNED, ["a", "b"])
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


#: Near to an answer, and far from their targets for `exact`.
NEAR = [
    (made("NAC", (1.2, -1.2), (1.2, 1.2)), "x0 - x1"),
    (made("NAU", (0.8, -0.9)), "x0 - x1"),
    (made("MCFC", (0, 0), 0.9, 0.1), "x0 + x1"),
    (made("NACMul", (1.2, -1.2), (1.2, 1.2)), "x0 / x1"),
    (made("NALU", (1.2, 1.2), (1.2, 1.2), (-0.5, -0.3)), "x0 * x1"),
    (made("GNALU", (3, -3), (3, 3), (0.9, 0.1)), "x0 - x1"),
    (
        made("SeparateNALU", (0, 0), (0, 0), (1.2, -1.2), (1.2, 1.2), (-0.5, -0.3)),
        "x0 / x1",
    ),
    (made("INALU", (0, 0), (0, 0), (1.2, 1.2), (1.2, 1.2), -0.4), "x0 * x1"),
    (made("SharedINALU", (1.2, 1.2), (1.2, 1.2), 0.4), "x0 + x1"),
    (made("NMU", (0.8, 0.9)), "x0 * x1"),
    (made("SNMU", (0.8, 0.3)), "x0"),
    (made("NRU", (0.8, -0.9)), "x0 / x1"),
    (made("NMRU", (0.8, 0.2, 0, 0.9)), "x0 / x1"),
    (made("NaiveNPU", (0.9, -1.2), (0.1, -0.1)), "x0 / x1"),
    (made("NPU", (1.8, 0.2), (0.1, 0), (1.4, 0.2)), "x0**2"),
    (made("RealNPU", (0.9, -1.2), (0.8, 0.9)), "x0 / x1"),
    (made("MulMCFC", (0, 0), 0.9, 0.1, 0), "x0 * x1"),
    (
        made("NSR", (1.0, -1.0), (-1.0, 1.0), -40, -20, 0, scale=100.0),
        "x0 < x1",
    ),
]


@pytest.mark.parametrize(
    ("layer", "text"), NEAR, ids=[type(layer).__name__ for layer, _ in NEAR]
)
def test_discretize(layer, text):
    assert type(layer).__name__ in LAYERS
    X = INTEGERS[1:]
    before = layer.get_weights()
    assert not formula(layer, X).exact
    snapped = discretize(layer, X)
    read = formula(snapped, X, tolerance=1e-6)
    assert (str(read), read.exact) == (f"y = {text}", True)
    assert read.error < 1e-5
    for old, new in zip(before, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    if text != "x0**2":
        assert snapped.is_discrete(1e-6)


def test_every_layer_is_made_discrete():
    assert [type(layer).__name__ for layer, _ in NEAR] != []
    assert {type(layer).__name__ for layer, _ in NEAR} == set(LAYERS)


def test_mass_goes_where_it_is_kept_back():
    layer = LAYERS["MCFC"](2)
    layer.build((None, 2))
    filled(layer, [[5, 0], [0, 5]], [9, -9], [0, 0])
    snapped = discretize(layer)
    kernel = keras.ops.convert_to_numpy(snapped.kernel)
    np.testing.assert_allclose(kernel, [[1, 0], [0, 0]], atol=1e-6)


@pytest.mark.filterwarnings("ignore:Training step by step")
def test_a_model_stays_compiled_and_can_go_on():
    model = keras_nalu.Sequential([keras.Input((2,)), NAC(2), NMU(1)])
    model.compile(keras.optimizers.SGD(0.5), keras_nalu.L2Loss())
    snapped = discretize(model)
    assert type(snapped) is type(model)
    assert snapped is not model
    assert float(snapped.optimizer.learning_rate) == 0.5
    assert isinstance(snapped.loss, keras_nalu.L2Loss)
    assert [layer.name for layer in snapped.layers] == [
        layer.name for layer in model.layers
    ]
    assert np.isfinite(snapped.evaluate(POSITIVE, POSITIVE[:, :1], verbose=0))


def test_a_model_without_an_input_layer():
    model = keras.Sequential([NAC(1)])
    model(POSITIVE)
    filled(model.layers[0], [[2.0], [2.0]], [[9.0], [9.0]])
    assert str(formula(discretize(model), POSITIVE)) == "y = x0 + x1"


def test_the_gate_of_a_later_layer_is_made_steep_on_what_comes_there():
    model = keras.Sequential([keras.Input((2,)), NAC(2), NALU(1)])
    filled(model.layers[0], 3 * np.eye(2), np.full((2, 2), 3))
    filled(model.layers[1], np.full((2, 1), 3), np.full((2, 1), 3), [[-1], [0.1]])
    X = np.array([[3.0, 1.0], [8.0, 2.0]])
    snapped = discretize(model, X, X[:, 0] * X[:, 1])
    assert str(formula(snapped, X)) == "y = x0 * x1"
    gate = keras.ops.convert_to_numpy(snapped.layers[1].gate(X))
    assert gate.max() < 1e-12


def test_discretize_refuses_what_is_worse():
    layer = made("NAU", (0.6, 0.6))
    y = 0.6 * POSITIVE.sum(axis=1)
    with pytest.raises(ValueError, match=r"is worse.* is 3\.15, not [\d.e-]+\."):
        discretize(layer, POSITIVE, y)
    assert discretize(layer, POSITIVE, POSITIVE.sum(axis=1)).is_discrete()


def test_discretize_refuses_what_it_cannot_measure():
    layer = made("NAU", (0.6, 0.6))
    with pytest.raises(ValueError, match="Received: x=None"):
        discretize(layer, y=[1])
    with pytest.raises(ValueError, match=r"each of the 4 outputs.*\(3,\)"):
        discretize(layer, POSITIVE, np.ones(3))
    layer.W.assign([[np.nan], [1]])
    with pytest.raises(ValueError, match="NaN or infinite weights in the layer 'nau"):
        discretize(layer)
    with pytest.raises(TypeError, match="functional chain of arithmetic layers"):
        discretize(keras.layers.Dense(1))


def test_a_member_of_a_population():
    if keras.backend.backend() == "torch":
        pytest.skip("trains no populations")
    template = keras.Sequential([keras.Input((2,)), NPU(1)])
    population = keras_nalu.Population(template, 2, seed=0)
    assert formula(population.member(0), POSITIVE).error < 0.05
    with pytest.raises(TypeError, match=r"`population\.best\(x, y\)`"):
        formula(population, POSITIVE)
