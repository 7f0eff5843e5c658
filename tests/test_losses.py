import json

import keras
import numpy as np
import pytest

from keras_nalu.layers import NAC
from keras_nalu.losses import L2Loss

RNG = np.random.default_rng(0)
TRUE, PRED = RNG.normal(size=(2, 6, 3)).astype("float32")
STEPS_TRUE, STEPS_PRED = RNG.normal(size=(2, 4, 5, 3)).astype("float32")


@pytest.mark.parametrize("shape", [(6,), (6, 1), (6, 3), (4, 5, 3), (2, 3, 4, 5)])
def test_is_l2_loss(shape):
    y_true, y_pred = RNG.normal(size=(2, *shape)).astype("float32")
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        expected = float(tf.nn.l2_loss(y_pred - y_true))
    else:
        expected = ((y_pred - y_true) ** 2).sum() / 2
    assert float(L2Loss()(y_true, y_pred)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("weights", [(6,), (6, 1)])
def test_sample_weights(weights):
    w = np.arange(6.0)
    expected = (w[:, None] * (PRED - TRUE) ** 2).sum() / 2
    loss = L2Loss()(TRUE, PRED, sample_weight=w.reshape(weights))
    assert float(loss) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("weights", [(4, 5), (4, 5, 1), (4, 1)])
def test_temporal_weights(weights):
    w = RNG.uniform(size=weights)
    squares = (STEPS_PRED - STEPS_TRUE) ** 2
    by_step = w.reshape(4, -1, 1)
    loss = L2Loss()(STEPS_TRUE, STEPS_PRED, sample_weight=w)
    assert float(loss) == pytest.approx((by_step * squares).sum() / 2, rel=1e-6)


@pytest.mark.parametrize(("true", "pred"), [((6,), (6, 1)), ((6, 1), (6,))])
def test_an_axis_of_length_one_does_not_broadcast(true, pred):
    y_true, y_pred = RNG.normal(size=(2, 6)).astype("float32")
    expected = ((y_pred - y_true) ** 2).sum() / 2
    loss = L2Loss()(y_true.reshape(true), y_pred.reshape(pred))
    assert float(loss) == pytest.approx(expected, rel=1e-6)
    weighted = L2Loss()(y_true.reshape(true), y_pred.reshape(pred), np.arange(6.0))
    expected = (np.arange(6) * (y_pred - y_true) ** 2).sum() / 2
    assert float(weighted) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("true", "pred"), [((2, 3), (2, 3, 1)), ((2, 3, 1), (2, 3))])
def test_nor_does_one_of_steps(true, pred):
    y_true, y_pred = RNG.normal(size=(2, 6)).astype("float32")
    loss = L2Loss()(y_true.reshape(true), y_pred.reshape(pred))
    expected = ((y_pred - y_true) ** 2).sum() / 2
    assert float(loss) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("labels", [(6,), (6, 1)])
@pytest.mark.parametrize("outputs", [(6,), (6, 1)])
def test_in_fit(labels, outputs):
    inputs = keras.Input((3,))
    y = NAC(1, kernel_initializer="ones")(inputs)
    model = keras.Model(inputs, y[:, 0] if outputs == (6,) else y)
    model.compile(keras.optimizers.SGD(0.0), L2Loss())
    Y = TRUE[:, 0]
    logs = model.fit(PRED, Y.reshape(labels), 6, verbose=0).history
    squares = (np.reshape(model.predict(PRED, verbose=0), 6) - Y) ** 2
    assert logs["loss"] == [pytest.approx(squares.sum() / 2, rel=1e-5)]


@pytest.mark.parametrize(
    ("true", "pred"),
    [
        ((6, 3), (6, 1)),
        ((6, 1), (6, 3)),
        ((6,), (6, 3)),
        ((6, 3), (6,)),
        ((3, 6), (6, 3)),
        ((5, 1), (6, 1)),
        ((6,), (6, 1, 1)),
        ((1,), (6, 1)),
    ],
)
def test_other_shapes_raise(true, pred):
    text = rf"the same shape.*y_pred.shape=\({pred[0]}.*Reshape the labels to"
    with pytest.raises(ValueError, match=text):
        L2Loss()(np.ones(true), np.ones(pred))


def test_shape_error_reaches_the_user_of_fit():
    model = keras.Sequential([keras.Input((3,)), NAC(1)])
    model.compile("sgd", L2Loss())
    with pytest.raises(ValueError, match="Labels and predictions must have the same"):
        model.fit(PRED, TRUE, verbose=0)


@pytest.mark.parametrize(
    ("reduction", "reduce"),
    [
        ("sum", np.sum),
        ("mean", np.mean),
        ("sum_over_batch_size", np.mean),
        ("mean_with_sample_weight", np.mean),
        ("none", np.asarray),
        (None, np.asarray),
    ],
)
def test_reductions(reduction, reduce):
    expected = reduce(((PRED - TRUE) ** 2).sum(axis=1) / 2)
    loss = L2Loss(reduction)(TRUE, PRED)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(loss), expected, rtol=1e-6)


def test_unknown_reduction():
    with pytest.raises(ValueError, match="Invalid value for argument `reduction`"):
        L2Loss(reduction="max")


@pytest.mark.parametrize("dtype", ["float16", "int32", "float64"])
def test_computes_in_float32_whatever_comes(dtype):
    y_true, y_pred = np.array([[0], [1]], dtype), np.array([[600], [0]], dtype)
    loss = L2Loss()(y_true, y_pred)
    assert keras.backend.standardize_dtype(loss.dtype) == "float32"
    assert float(loss) == 180000.5


def test_masked_steps_do_not_count():
    steps = np.array([[[1.0], [2], [0]], [[3], [0], [0]]], "float32")
    model = keras.Sequential(
        [
            keras.Input((3, 1)),
            keras.layers.Masking(),
            NAC(1, kernel_initializer="ones"),
        ]
    )
    model.compile("sgd", L2Loss())
    y = model.predict(steps, verbose=0)
    expected = (((y - 1) ** 2) * (steps != 0)).sum() / 2
    loss = model.evaluate(steps, np.ones_like(steps), verbose=0)
    assert loss == pytest.approx(expected, rel=1e-6)


def test_config_round_trip():
    loss = L2Loss(reduction="mean", name="mine", dtype="float16")
    config = json.loads(json.dumps(keras.losses.serialize(loss)))
    assert config["registered_name"] == "keras_nalu>L2Loss"
    copy = keras.losses.deserialize(config)
    assert copy.get_config() == loss.get_config()
    assert (copy.reduction, copy.name, copy.dtype) == ("mean", "mine", "float16")


def test_defaults():
    loss = L2Loss()
    assert (loss.reduction, loss.name, loss.dtype) == ("sum", "l2_loss", "float32")
