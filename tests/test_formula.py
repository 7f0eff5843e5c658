import keras
import numpy as np
import pytest

from keras_nalu import NAC, NALU, read_formula

X = np.array([[0, 0], [1, 2], [3, 4]])


def nac(*columns):
    """A NAC with these effective weights, a column a unit."""
    W = np.array(columns, float).T
    layer = NAC(W.shape[1])
    layer.build((None, W.shape[0]))
    layer.set_weights([np.arctanh(W * (1 - 1e-6)), np.full(W.shape, 20.0)])
    return layer


def nalu(*columns, gate):
    W = np.array(columns, float).T
    layer = NALU(W.shape[1])
    layer.build((None, W.shape[0]))
    hats = [np.arctanh(W * (1 - 1e-6)), np.full(W.shape, 20.0)]
    layer.set_weights([*hats, np.full(W.shape, float(gate))])
    return layer


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
    assert read_formula(nac(weights), X) == [f"y = {sum_}"]
    assert read_formula(nalu(weights, gate=20), X) == [f"y = {sum_}"]
    assert read_formula(nalu(weights, gate=-20), X) == [f"y = {product}"]


def test_a_product_of_negative_inputs_is_of_their_magnitudes():
    X = np.array([[1.0, -2.0], [3.0, 4.0]])
    layer = nalu((1, 1), gate=0)
    layer.G.assign([[-20.0], [0.0]])
    assert read_formula(layer, X) == ["y = x0 * |x1|"]


def test_every_unit_has_a_line_and_hidden_units_come_first():
    model = keras.Sequential([nac((1, 1), (1, -1)), nalu((1, 1), gate=-20)])
    assert read_formula(model, X) == [
        "h1_0 = x0 + x1",
        "h1_1 = x0 - x1",
        "y = h1_0 * |h1_1|",
    ]


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        (nac((0.9, 0.5)), "W = (0.900, 0.500), gate from 1.000 to 1.000"),
        (nalu((1, 1), gate=0), "W = (1.000, 1.000), gate from 0.500 to 0.500"),
        (nalu((1, 1), gate=-0.5), "W = (1.000, 1.000), gate from 0.029 to 0.182"),
    ],
)
def test_weights_or_gates_between_have_no_formula(layer, said):
    assert read_formula(layer, X) == [f"y: no formula yet, {said}"]


def test_not_a_number_has_no_formula():
    layer = nac((1, 1))
    layer.W_hat.assign([[np.nan], [1.0]])
    assert read_formula(layer, X)[0].startswith("y: no formula yet, W = (nan,")


def test_data_of_any_rank_and_of_zeros_alone():
    assert read_formula(nac((1, 1)), np.ones((2, 3, 2))) == ["y = x0 + x1"]
    zeros = read_formula(nalu((1, 1), gate=-20), np.zeros((2, 2)))
    assert zeros == ["y: no formula yet, W = (1.000, 1.000), gate from 0.500 to 0.500"]


def test_no_rows_are_refused():
    with pytest.raises(ValueError, match=r"Received: X.shape=\(0, 2\)"):
        read_formula(nac((1, 1)), np.zeros((0, 2)))


def test_a_layer_that_is_not_arithmetic_is_refused():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    with pytest.raises(
        TypeError, match=r"Sequential of arithmetic layers alone.*Dense"
    ):
        read_formula(model, X)
