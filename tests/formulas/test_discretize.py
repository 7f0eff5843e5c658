"""A model is rounded to the formula that it is near to."""

import keras
import numpy as np
import pytest
from oracles.conformance.facts import ROWS, filled

import keras_nalu
from keras_nalu import NAC, NALU, NAU, NMU, discretize, formula

POSITIVE = ROWS["positive"]


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
    layer = filled(NAU(1), (0.6, 0.6))
    y = 0.6 * POSITIVE.sum(axis=1)
    before = layer.get_weights()
    said = r"does not give `y`: R\^2 -0\.591, mean error 66\.7%.*Train longer.*discrete"
    with pytest.raises(ValueError, match=said):
        discretize(layer, POSITIVE, y)
    np.testing.assert_array_equal(layer.get_weights(), before)
    assert discretize(layer, POSITIVE, POSITIVE.sum(axis=1)).is_discrete()


def test_discretize_refuses_what_it_cannot_measure():
    layer = filled(NAU(1), (0.6, 0.6))
    with pytest.raises(ValueError, match="Received: x=None"):
        discretize(layer, y=[1])
    with pytest.raises(ValueError, match=r"shape \(4, 1\) or \(4,\).*\(3,\)"):
        discretize(layer, POSITIVE, np.ones(3))
    layer.W.assign([[np.nan], [1]])
    with pytest.raises(ValueError, match="NaN or infinite weights in the layer 'nau"):
        discretize(layer)
    with pytest.raises(TypeError, match="functional model of arithmetic layers"):
        discretize(keras.layers.PReLU())


def test_data_frames_and_series():
    pandas = pytest.importorskip("pandas")
    X = pandas.DataFrame(POSITIVE, columns=["a", "b"])
    for y in (X["a"] + X["b"], (X["a"] + X["b"]).to_frame()):
        snapped = discretize(filled(NAU(1), (0.9, 0.8)), X, y)
        assert str(formula(snapped, X, y)) == "y = a + b"
    with pytest.raises(ValueError, match=r"`x`, expected an array of real numbers"):
        discretize(filled(NAU(1), (0.9, 0.8)), X.astype(str), X["a"])
