import json

import keras
import numpy as np
import pytest

import keras_nalu
from keras_nalu import NAU, NMU, NPU, SNMU, ArithmeticCell
from keras_nalu.layers import LAYERS

BACKEND = keras.backend.backend()
rng = np.random.default_rng(0)


def rnn(layer, initial_state=None, features=1, **options):
    options = {"return_sequences": True} | options
    cell = ArithmeticCell(layer, initial_state)
    return keras.Sequential(
        [keras.Input((None, features)), keras.layers.RNN(cell, **options)]
    )


def of(layer, weights, **options):
    model = rnn(layer, **options)
    layer.set_weights([np.array(w) for w in weights])
    return model


def predict(model, x):
    return model.predict(x, verbose=0)


def steps(low, high, length, rows=8):
    return rng.uniform(low, high, (rows, length, 1)).astype("float32")


@pytest.mark.parametrize("length", [1, 10, 1000])
def test_holds_at_any_length(length):
    x = steps(-1, 1, length)
    total = of(NAU(1), [[[1], [1]]])
    np.testing.assert_allclose(predict(total, x), np.cumsum(x, 1), 1e-4, 1e-4)
    x = np.exp(steps(-0.1, 0.1, length))
    product = of(NMU(1), [[[1], [1]]])
    np.testing.assert_allclose(predict(product, x), np.cumprod(x, 1), 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("last", [True, False])
def test_learns_a_running_sum(last):
    keras.utils.set_random_seed(1)
    x = steps(-1, 1, 10, rows=256)
    model = rnn(NAU(1), return_sequences=not last)
    model.compile(keras.optimizers.Adam(0.02), "mse")
    y = x.sum(1) if last else np.cumsum(x, 1)
    model.fit(x, y, 32, epochs=20, verbose=0)
    # An error of the state's weight grows with the steps: at 1,000 of them it shows.
    held_out = steps(0, 1, 1000)
    expected = held_out.sum(1) if last else np.cumsum(held_out, 1)
    np.testing.assert_allclose(predict(model, held_out), expected, rtol=1e-4)


def test_starts_from_what_is_nothing_to_the_operation():
    for name, cls in LAYERS.items():
        start = ArithmeticCell(cls(2)).get_initial_state(batch_size=3)
        adds = bool({"add", "subtract"} & {*cls.operations})
        expected = np.full((3, 2), 0 if adds else 1)
        np.testing.assert_array_equal(
            keras.ops.convert_to_numpy(start), expected, err_msg=name
        )
    assert predict(of(NAU(1), [[[1], [1]]], initial_state=5.5), np.ones((1, 2, 1))) == (
        pytest.approx(np.array([[[6.5], [7.5]]]))
    )


def test_several_inputs_and_units():
    W = rng.uniform(-1, 1, (5, 3)).astype("float32")
    x = rng.uniform(-1, 1, (2, 4, 2)).astype("float32")
    state = np.zeros((2, 3))
    for t in range(4):
        state = np.concatenate([x[:, t], state], 1) @ W
    ours = predict(of(NAU(3), [W], features=2, return_sequences=False), x)
    np.testing.assert_allclose(ours, state, 1e-5, 1e-6)


def test_masked_steps_are_skipped():
    total = keras.Sequential(
        [
            keras.Input((None, 1)),
            keras.layers.Masking(0),
            keras.layers.RNN(ArithmeticCell(NMU(1)), return_sequences=True),
        ]
    )
    total.layers[-1].cell.layer.set_weights([np.ones((2, 1))])
    y = predict(total, np.array([[2, 0, 3], [5, 7, 0]], "float32")[..., None])
    np.testing.assert_allclose(y[..., 0], [[2, 2, 6], [5, 35, 35]])


def test_state_comes_out_and_goes_in():
    total = keras.layers.RNN(ArithmeticCell(NAU(1)), return_state=True)
    total.build((None, None, 1))
    total.set_weights([np.ones((2, 1))])
    y, state = total(np.ones((1, 3, 1)))
    more, _ = total(np.ones((1, 3, 1)), initial_state=state)
    assert keras.ops.convert_to_numpy(y) == keras.ops.convert_to_numpy(state) == 3
    assert keras.ops.convert_to_numpy(more) == 6


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_every_layer_is_a_cell(layer):
    # On JAX one that draws noise does not train.
    training = layer is not SNMU or BACKEND != "jax"
    x = np.exp(steps(-0.1, 0.1, 4, rows=3))
    model = rnn(layer(2))
    y = keras.ops.convert_to_numpy(model(x, training=training))
    assert y.shape == (3, 4, 2)
    assert np.isfinite(y).all()


def test_a_cell_that_is_called_alone_does_not_train():
    cell = ArithmeticCell(SNMU(1))
    x, state = steps(1, 2, 1)[:, 0], steps(1, 2, 1)[:, 0]
    y, _ = cell(x, [state])
    expected = cell.layer(np.concatenate([x, state], axis=-1), training=False)
    np.testing.assert_array_equal(*map(keras.ops.convert_to_numpy, (y, expected)))


def test_noise_in_a_loop():
    x = np.exp(steps(-0.1, 0.1, 4))
    model = rnn(SNMU(1))
    model.compile("adam", "mse")
    if BACKEND == "jax":
        with pytest.raises(ValueError, match=r"with noise does not train.*: SNMU\."):
            model.fit(x, x, verbose=0)
        assert predict(rnn(SNMU(1)), x).shape == x.shape
    else:
        generator = model.layers[0].cell.layer.seed_generator
        before = keras.ops.convert_to_numpy(generator.state.value).copy()
        losses = model.fit(x, x, epochs=2, verbose=0).history["loss"]
        assert np.isfinite(losses).all()
        assert np.any(keras.ops.convert_to_numpy(generator.state.value) != before)


def test_computes_in_its_policy():
    total = keras.layers.RNN(ArithmeticCell(NAU(1, dtype="mixed_bfloat16")))
    total.build((None, None, 1))
    cell = total.cell
    assert cell.compute_dtype == "bfloat16"
    y, (state,) = cell(np.ones((1, 1)), [cell.get_initial_state(1)])
    assert keras.backend.standardize_dtype(y.dtype) == "bfloat16"
    assert keras.backend.standardize_dtype(state.dtype) == "bfloat16"
    assert cell.layer.W.dtype == "float32"


def test_save_and_load(tmp_path):
    layer = NPU(2, kernel_regularizer="l1")
    model = rnn(layer, 2.5)
    x = np.exp(steps(-0.1, 0.1, 4))
    model.save(tmp_path / "cell.keras")
    loaded = keras_nalu.load_model(tmp_path / "cell.keras")
    np.testing.assert_array_equal(predict(loaded, x), predict(model, x))
    cell = loaded.layers[0].cell
    assert json.dumps(cell.get_config()) == json.dumps(
        model.layers[0].cell.get_config()
    )
    assert cell.initial_state == 2.5


def test_penalties_and_kernels_are_found():
    model = rnn(NAU(1, kernel_regularizer=keras.regularizers.L1(0.5)))
    model.layers[0].cell.layer.set_weights([np.array([[0.75], [1]])])
    assert float(keras.ops.convert_to_numpy(sum(model.losses))) == pytest.approx(0.875)
    error = keras_nalu.SparsityError(model)
    assert float(error.result()) == 0.25


@pytest.mark.parametrize("layer", ["NAU", None, NAU, keras.layers.Dense(1)])
def test_layers_that_are_refused(layer):
    with pytest.raises(ValueError, match=r"expected an arithmetic layer.*Received: la"):
        ArithmeticCell(layer)


def test_initial_states_that_are_refused():
    with pytest.raises(ValueError, match=r"a finite number or None.*='ones'"):
        ArithmeticCell(NAU(1), "ones")
