import copy
import itertools
import json
import pickle
from contextlib import nullcontext

import keras
import numpy as np
import pytest

import keras_nalu
from keras_nalu.benchmarks.reinitialize import BatchLossDeviation
from keras_nalu.layers import NAC, NAU, NMU, SparsityError
from keras_nalu.losses import L2Loss
from keras_nalu.metrics import (
    IsCloseAccuracy,
    LastBatchLoss,
    is_close,
)

BACKEND = keras.backend.backend()
SLOW = pytest.mark.slow
GRID = np.float32(
    """0 -0 1e-30 5e-5 1e-4 2e-4 -1e-4 0.99985 1 1.00005 1.0003 -1 10 -10 100 110 111.5
    1e4 10000.9 10001.2 1e30 1.00005e30 -1e30 3e38 -3e38 inf -inf nan""".split()
)
PAIRS = np.array(list(itertools.product(GRID, GRID)))
TOLERANCES = [(1e-4, 1e-4), (0, 0), (0, 1e-4), (0.1, 0), (1.5, 0), (1e-2, 20)]


@pytest.mark.parametrize(("rtol", "atol"), TOLERANCES)
def test_is_numpy_isclose(rtol, atol):
    y_true, y_pred = PAIRS.T[..., None]
    with np.errstate(all="ignore"):
        expected = np.isclose(y_true, y_pred, rtol, atol)
    ours = keras.ops.convert_to_numpy(is_close(y_true, y_pred, rtol, atol))
    wrong = PAIRS[(ours != expected)[:, 0]]
    assert not wrong.size, wrong
    metric = IsCloseAccuracy(rtol, atol)
    assert float(metric(y_true, y_pred)) == pytest.approx(expected.mean(), rel=1e-6)


def test_tolerance_scales_with_the_prediction():
    assert np.isclose(100, 111, rtol=0.1, atol=0)
    assert not np.isclose(111, 100, rtol=0.1, atol=0)
    assert float(IsCloseAccuracy(0.1, 0)([[100.0]], [[111.0]])) == 1
    assert float(IsCloseAccuracy(0.1, 0)([[111.0]], [[100.0]])) == 0


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8", "bool", "float16"])
def test_labels_of_any_dtype(dtype):
    y_true = np.array([[1], [0], [1]], dtype)
    assert float(IsCloseAccuracy()(y_true, [[1.0], [1], [1]])) == pytest.approx(2 / 3)


def test_half_precision_predictions_are_compared_in_float32():
    y_pred = keras.ops.cast([[1.0], [0.0]], "float16")
    assert float(IsCloseAccuracy()([[1.00005], [5e-5]], y_pred)) == 1
    assert float(IsCloseAccuracy()([[1.0003], [2e-4]], y_pred)) == 0


@pytest.mark.parametrize("true", [(6,), (6, 1)])
@pytest.mark.parametrize("pred", [(6,), (6, 1)])
@pytest.mark.parametrize("weights", [None, (6,), (6, 1)])
def test_one_dimension_and_sample_weights(true, pred, weights):
    y_true, y_pred = np.arange(6.0), np.array([0.0, 1, 9, 3, 9, 9])
    w = None if weights is None else np.array([1.0, 2, 3, 4, 5, 6])
    metric = IsCloseAccuracy()
    metric.update_state(
        y_true.reshape(true),
        y_pred.reshape(pred),
        sample_weight=None if w is None else w.reshape(weights),
    )
    expected = np.average(y_true == y_pred, weights=w)
    assert float(metric.result()) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("shape", [(4,), (4, 1), (4, 3), (4, 3, 2), (2, 2, 3, 2)])
def test_any_rank_batch_after_batch(shape):
    metric, hits = IsCloseAccuracy(), []
    for _ in range(3):
        y_true, y_pred = np.random.default_rng(len(hits)).integers(2, size=(2, *shape))
        metric.update_state(y_true, y_pred)
        hits.append(y_true == y_pred)
        assert float(metric.result()) == pytest.approx(np.mean(hits), rel=1e-6)
    metric.reset_state()
    assert float(metric.result()) == 0
    assert float(metric([[1.0]], [[1.0]])) == 1


def test_masked_steps_do_not_count():
    steps = np.array([[[1.0], [2], [0]], [[3], [0], [0]]], "float32")
    model = keras.Sequential(
        [
            keras.Input((3, 1)),
            keras.layers.Masking(),
            NAC(1, kernel_initializer=keras.initializers.Constant(20)),
        ]
    )
    model.compile("sgd", L2Loss(), weighted_metrics=[IsCloseAccuracy()])
    labels = steps + (steps == 2)
    logs = model.evaluate(
        steps, labels, sample_weight=np.ones((2, 3)), verbose=0, return_dict=True
    )
    assert logs["accuracy"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    "arguments", [{"rtol": -1}, {"atol": -1e-9}, {"rtol": float("nan")}]
)
def test_wrong_tolerances(arguments):
    with pytest.raises(
        ValueError, match=r"a number of 0 or more. Received: .tol=.*Try"
    ):
        IsCloseAccuracy(**arguments)


@pytest.mark.parametrize(
    ("true", "pred"), [((6, 3), (6, 1)), ((6,), (6, 3)), ((5,), (6, 1)), ((6, 1), ())]
)
def test_other_shapes_raise(true, pred):
    with pytest.raises(ValueError, match=r"the same shape.*Reshape the labels to"):
        IsCloseAccuracy()(np.ones(true), np.ones(pred))


@pytest.mark.parametrize(
    "metric",
    [
        IsCloseAccuracy(),
        IsCloseAccuracy(1e-2, 1e-3, name="mine", dtype="float16"),
        LastBatchLoss(L2Loss()),
        LastBatchLoss(L2Loss("mean", name="inner"), name="mine", dtype="float16"),
        LastBatchLoss(keras.losses.MeanAbsoluteError("sum")),
        BatchLossDeviation(L2Loss(), name="mine", dtype="float16"),
    ],
    ids=lambda metric: f"{type(metric).__name__}-{metric.name}",
)
def test_config_round_trips(metric):
    config = json.loads(json.dumps(keras.metrics.serialize(metric)))
    assert config["registered_name"] == f"keras_nalu>{type(metric).__name__}"
    copy = keras.metrics.deserialize(config)
    assert copy.get_config() == metric.get_config()
    assert (copy.name, copy.dtype) == (metric.name, metric.dtype)
    y = np.array([[1.0], [2]]), np.array([[1.005], [4]])
    assert float(copy(*y)) == float(metric(*y))


@pytest.mark.parametrize("loss", ["mse", None, len])
@pytest.mark.parametrize("metric", [LastBatchLoss, BatchLossDeviation])
def test_losses_that_are_not_objects(metric, loss):
    with pytest.raises(ValueError, match=r"expected a loss object.*Received: loss="):
        metric(loss)


# Mode, jit_compile, steps_per_execution; PyTorch takes one step at a time.
MODES = [("plain", False, 1), ("jit", True, 1), ("steps", False, 4), ("both", True, 4)]


@pytest.mark.parametrize(
    ("jit", "steps"),
    [
        pytest.param(jit, steps, id=name, marks=SLOW if steps > 1 or jit else ())
        for name, jit, steps in MODES[: 1 if BACKEND == "torch" else None]
    ],
)
def test_losses_of_batches_in_fit(jit, steps):
    X = np.random.default_rng(0).uniform(1, 2, (10, 2)).astype("float32")
    Y, w = X[:, :1] - X[:, 1:], np.arange(10.0)
    layer, loss = NAC(1), L2Loss()
    model = keras.Sequential([keras.Input((2,)), layer])
    start = layer.get_weights()

    def by_hand(batches):
        """The loss of every batch, from before its own update."""
        layer.set_weights(start)
        model.compile(keras.optimizers.SGD(0.1), loss)
        for rows in batches:
            errors = model.predict_on_batch(X[rows]) - Y[rows]
            yield (errors**2).sum() / 2, (w[rows, None] * errors**2).sum() / 2
            model.train_on_batch(X[rows], Y[rows], sample_weight=w[rows])

    # Three batches of three rows, and one of one row; twice.
    batches = [slice(i, i + 3) for i in (0, 3, 6, 9)]
    losses = list(by_hand(batches * 2))
    layer.set_weights(start)
    model.compile(
        keras.optimizers.SGD(0.1),
        loss,
        metrics=[LastBatchLoss(loss), BatchLossDeviation(loss)],
        weighted_metrics=[LastBatchLoss(loss, name="weighted")],
        jit_compile=jit,
        steps_per_execution=steps,
    )
    logs = model.fit(
        X, Y, 3, epochs=2, shuffle=False, sample_weight=w, verbose=0
    ).history
    ours = [logs["last_batch_loss"], logs["weighted"]]
    np.testing.assert_allclose(np.transpose(ours), losses[3::4], rtol=1e-5)
    deviations = [np.std([loss for loss, _ in losses[i : i + 4]]) for i in (0, 4)]
    np.testing.assert_allclose(logs["batch_loss_deviation"], deviations, rtol=1e-4)


def test_last_batch_loss_does_not_count_penalties_and_forgets():
    loss = L2Loss()
    model = keras.Sequential([keras.Input((2,)), NAC(1, kernel_regularizer="l2")])
    metric = LastBatchLoss(loss)
    model.compile(keras.optimizers.SGD(0.0), loss, metrics=[metric])
    X = np.ones((2, 2), "float32")
    logs = model.train_on_batch(X, X[:, :1], return_dict=True)
    errors = model.predict_on_batch(X) - 1
    assert logs["last_batch_loss"] == pytest.approx((errors**2).sum() / 2, rel=1e-6)
    assert logs["loss"] > logs["last_batch_loss"]
    metric.reset_state()
    assert float(metric.result()) == 0


def test_deviation_of_large_losses_that_are_close():
    metric = BatchLossDeviation(keras.losses.MeanSquaredError())
    losses = np.float32(1e6) + np.arange(100.0)
    for loss in losses:
        metric.update_state(np.zeros((1, 1)), np.full((1, 1), np.sqrt(loss)))
    assert float(metric.result()) == pytest.approx(np.std(losses), rel=0.01)
    metric.reset_state()
    assert float(metric.result()) == 0


# Sums, so that the weights move.
X = np.random.default_rng(0).uniform(1, 2, (32, 3)).astype("float32")
DATA = X, X[:, :2].sum(1, keepdims=True)
CLASSES = [keras.Sequential, keras_nalu.Sequential]


class Watch(keras.callbacks.Callback):
    """What the metric should say, from the weights themselves."""

    def __init__(self, *layers):
        super().__init__()
        self.layers, self.errors, self.chunks = layers, [], []

    def on_train_batch_end(self, batch, logs=None):
        self.chunks.append(logs["sparsity_error"])

    def on_epoch_end(self, epoch, logs=None):
        self.errors.append(worst(self.layers))


def worst(layers):
    return max(
        float(np.min([np.abs(w - t) for t in layer.targets["kernel"]], 0).max())
        for layer in layers
        for w in [keras.ops.convert_to_numpy(layer.kernel)]
    )


def pair(cls, built=True):
    return cls([keras.Input((3,))] * built + [NAC(2), NMU(1)])


def compiled(model, *metrics, **options):
    model.compile(keras.optimizers.Adam(0.1), "mse", metrics=[*metrics], **options)
    return model


@SLOW
@pytest.mark.parametrize("built", [True, False], ids=["built", "unbuilt"])
@pytest.mark.parametrize("cls", CLASSES, ids=["keras", "keras_nalu"])
# Said once a class, where there is no loop.
@pytest.mark.filterwarnings("ignore:Training step by step")
def test_sparsity_error_in_fit(cls, built):
    model = pair(cls, built)
    compiled(model, SparsityError(model if cls is keras.Sequential else None))
    watch = Watch(*model.layers)
    logs = model.fit(
        *DATA, 8, epochs=3, verbose=0, callbacks=[watch], validation_data=DATA
    ).history
    np.testing.assert_allclose(logs["sparsity_error"], watch.errors, rtol=1e-6)
    assert logs["val_sparsity_error"] == logs["sparsity_error"]
    assert len({*watch.errors}) == 3
    told = model.evaluate(*DATA, verbose=0, return_dict=True)
    assert told["sparsity_error"] == pytest.approx(watch.errors[-1], rel=1e-6)
    # `watch` looks at each batch. On JAX a step does not see the weights.
    if BACKEND == "jax":
        assert np.isnan(watch.chunks).all()
    else:
        last = len(watch.chunks) // 3
        np.testing.assert_allclose(
            watch.chunks[last - 1 :: last], watch.errors, rtol=1e-6
        )


@pytest.mark.parametrize(
    "options", [pytest.param({"jit_compile": False}, marks=SLOW), {"run_eagerly": True}]
)
def test_sparsity_error_uncompiled(options):
    model = pair(keras.Sequential)
    compiled(model, SparsityError(model), **options)
    logs = model.fit(*DATA, 8, verbose=0).history
    assert logs["sparsity_error"] == pytest.approx([worst(model.layers)], rel=1e-6)


@SLOW
@pytest.mark.filterwarnings("ignore:Training step by step")
def test_sparsity_error_of_one_layer(tmp_path):
    model = pair(keras_nalu.Sequential)
    first, second = model.layers
    by_name = SparsityError(first.name, name="first")
    compiled(model, by_name, SparsityError(second, name="second"))
    logs = model.fit(*DATA, 8, verbose=0).history
    errors = {"first": worst([first]), "second": worst([second])}
    assert {name: logs[name][0] for name in errors} == pytest.approx(errors)
    assert errors["first"] != errors["second"]
    model.save(tmp_path / "model.keras")
    loaded = keras_nalu.load_model(tmp_path / "model.keras")
    told = loaded.evaluate(*DATA, verbose=0, return_dict=True)
    assert {name: told[name] for name in errors} == pytest.approx(errors)


@SLOW
@pytest.mark.filterwarnings("ignore:Training step by step")
def test_sparsity_error_of_an_output():
    x = keras.Input((3,))
    outputs = {"a": NAC(1, name="a")(x), "b": NMU(1, name="b")(x)}
    model = keras_nalu.Model(x, outputs)
    y = {"a": DATA[1], "b": DATA[1]}
    model.compile("adam", loss="mse", metrics={"b": [SparsityError()]})
    logs = model.fit(DATA[0], y, 8, verbose=0).history
    error = worst([model.get_layer("a"), model.get_layer("b")])
    assert logs["b_sparsity_error"] == pytest.approx([error], rel=1e-6)


@pytest.mark.filterwarnings("ignore:Training step by step")
def test_sparsity_error_goes_where_a_model_goes(tmp_path):
    model = compiled(pair(keras_nalu.Sequential), SparsityError())
    model.fit(*DATA, 8, verbose=0)
    model.save(tmp_path / "model.keras")
    for again in (
        keras_nalu.load_model(tmp_path / "model.keras"),
        compiled(type(model).from_config(model.get_config()), SparsityError()),
    ):
        again.layers[1].set_weights([np.full((2, 1), 0.5)])
        again.layers[0].set_weights([np.full((3, 2), 20.0)] * 2)
        told = again.evaluate(*DATA, verbose=0, return_dict=True)
        assert told["sparsity_error"] == 0.5


@pytest.mark.parametrize("known", [pytest.param(True, marks=SLOW), False])
def test_sparsity_error_of_a_copy_of_keras_model_says_what_to_do(known, tmp_path):
    model = pair(keras.Sequential)
    compiled(model, SparsityError(model if known else None))
    told = r"knows no model, and is NaN.*SparsityError\(model\)"
    with nullcontext() if known else pytest.warns(UserWarning, match=told):
        model.fit(*DATA, verbose=0)
    model.save(tmp_path / "model.keras")
    for again in (
        keras_nalu.load_model(tmp_path / "model.keras"),
        pickle.loads(pickle.dumps(model)),
        copy.deepcopy(model),
    ):
        with pytest.warns(UserWarning, match=told):
            logs = again.evaluate(*DATA, verbose=0, return_dict=True)
        assert np.isnan(logs["sparsity_error"])
        compiled(again, SparsityError(again))
        logs = again.evaluate(*DATA, verbose=0, return_dict=True)
        assert logs["sparsity_error"] == pytest.approx(worst(model.layers))


@pytest.mark.parametrize(
    ("model", "layer", "text"),
    [
        (keras.layers.Dense(1), None, "found no arithmetic layer in .* It has: none."),
        (NAU(1, name="sum"), "product", "layer 'product' in 'sum'. It has: sum."),
    ],
)
def test_sparsity_error_without_such_a_layer(model, layer, text):
    model.build((None, 2))
    metric = SparsityError(layer)
    metric.watch(model)
    with pytest.raises(ValueError, match=text):
        metric.result()


@pytest.mark.parametrize("layer", [3, NAU, [NAU(1)]])
def test_sparsity_error_wants_a_layer(layer):
    with pytest.raises(ValueError, match=r"expected a layer, a model.*Received: layer"):
        SparsityError(layer)
