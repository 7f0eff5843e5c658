"""A formula as a Keras model."""

import keras
import numpy as np
import pytest

import keras_nalu
from keras_nalu import ArithmeticRegressor

LAWS = {
    "power law": lambda a, b, c: 0.5 * a * b**2,
    "root": lambda a, b, c: np.sqrt(a) / c,
    "line": lambda a, b, c: a + 2 * b + 3,
    "sum of products": lambda a, b, c: a * b - b * c,
    "quotient": lambda a, b, c: a / (b + c),
    "root of a sum": lambda a, b, c: np.sqrt(a**2 + 3.3 * b * c),
    "shared power": lambda a, b, c: a * (b - c) / (1 + a * b / c**2),
    "root and term": lambda a, b, c: (a + np.sqrt(a**2 + 2 * b * c)) / b,
    "constant": lambda a, b, c: 0 * a + 2.5,
}


def fitted(law, low=1.0):
    X = np.random.default_rng(0).uniform(low, 5, (300, 3))
    return X, ArithmeticRegressor().fit(X, law(*X.T))


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_it_predicts_what_the_formula_does(law):
    X, regressor = fitted(law)
    model = regressor.to_keras()
    y = regressor.predict(X)
    predicted = model.predict(X, verbose=0)
    assert predicted.shape == (300, 1)
    assert type(model).__module__.startswith("keras_nalu")  # trains as ours do
    kinds = {type(layer) for layer in model.layers[1:]}
    assert kinds <= {keras_nalu.RealNPU, keras.layers.Dense}
    np.testing.assert_allclose(predicted[:, 0], y, rtol=2e-5, atol=2e-5)


@pytest.mark.only("tensorflow", reason="JAX computes in float32 unless told otherwise")
def test_float64_is_exact():
    X, regressor = fitted(LAWS["shared power"])
    # Called, for `predict` casts its inputs to Keras' default float.
    predicted = keras.ops.convert_to_numpy(regressor.to_keras(dtype="float64")(X))
    np.testing.assert_allclose(predicted[:, 0], regressor.predict(X), rtol=1e-10)


def test_negative_inputs():
    X, regressor = fitted(lambda a, b, c: a * b**2 - 2 * c, low=-5.0)
    predicted = regressor.to_keras().predict(X, verbose=0)
    np.testing.assert_allclose(predicted[:, 0], regressor.predict(X), atol=1e-3)


def test_several_outputs():
    X = np.random.default_rng(0).uniform(1, 5, (300, 3))
    Y = np.stack([X[:, 0] / (X[:, 1] + X[:, 2]), X[:, 2] ** 2], axis=1)
    regressor = ArithmeticRegressor().fit(X, Y)
    predicted = regressor.to_keras().predict(X, verbose=0)
    np.testing.assert_allclose(predicted, Y, rtol=2e-5)


def test_another_row_of_the_table():
    X, regressor = fitted(LAWS["quotient"])
    for index in range(len(regressor.equations_)):
        predicted = regressor.to_keras(index).predict(X, verbose=0)
        wanted = regressor.predict(X, index=index)
        np.testing.assert_allclose(predicted[:, 0], wanted, rtol=1e-4, atol=1e-4)


def test_it_is_saved_and_loaded(tmp_path):
    X, regressor = fitted(LAWS["quotient"])
    model = regressor.to_keras()
    model.save(tmp_path / "law.keras")
    back = keras.saving.load_model(tmp_path / "law.keras")
    np.testing.assert_array_equal(
        back.predict(X, verbose=0), model.predict(X, verbose=0)
    )


@pytest.mark.slow
def test_it_trains_on_in_a_larger_network():
    X, regressor = fitted(LAWS["quotient"])
    inputs = keras.Input((3,))
    outputs = keras.layers.Dense(1)(regressor.to_keras()(inputs))
    network = keras_nalu.Model(inputs, outputs)
    network.compile(keras.optimizers.Adam(0.01), "mse")
    y = 3 * regressor.predict(X)[:, None]
    losses = network.fit(X, y, epochs=30, verbose=0).history["loss"]
    assert np.isfinite(losses).all()
    assert losses[-1] < 0.5 * losses[0]
