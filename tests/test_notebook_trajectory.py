"""The notebook's own TF-1 graph, live and as recorded, beside `model.fit`."""

import functools
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_nalu.callbacks import EpochLine
from keras_nalu.datasets import generate_dataset
from keras_nalu.layers import NALU
from keras_nalu.losses import L2Loss
from keras_nalu.metrics import IsCloseAccuracy, LastBatchLoss
from keras_nalu.models import Sequential

BACKEND = keras.backend.backend()
WEIGHTS = ("W_hat", "M_hat", "G")
BATCH = 10

# Source of the truth, whether the steps are fused, epochs; the slow ones are the whole
# promise.
QUICK = {
    "tensorflow": [("live", True, 1)],
    "jax": [(0, True, 60)],
    "torch": [(0, False, 3), (1, False, 3), (2, False, 3)],
}[BACKEND]
SLOW = {
    "tensorflow": [("live", False, 5), *((n, True, 60) for n in ("live", 0, 1, 2))],
    "jax": [("live", True, 60), (1, True, 60), (2, True, 60)],
    "torch": [("live", False, 3)],
}[BACKEND]


def recorded(seed):
    with np.load(Path(__file__).parent / "reference" / f"notebook_seed{seed}.npz") as z:
        truth = {name: z[name] for name in z.files}
    truth["start"] = [truth[name + "0"] for name in WEIGHTS]
    truth["X"] = truth["X"].astype("int64")
    return truth


def run_tf1(X, start, epochs):
    """The notebook's cells, but for the initial weights, which are given."""
    import tensorflow as tf

    tf1 = tf.compat.v1
    X_data, Y_data = X, np.prod(X, axis=1, keepdims=True)
    with tf.Graph().as_default(), tf1.Session() as sess:
        in_dim = tf1.placeholder(tf.float32, shape=[BATCH, 2])
        Y_true = tf1.placeholder(tf.float32, shape=[BATCH, 1])
        W_hat, M_hat, G = weights = [tf1.Variable(value) for value in start]
        W = tf.tanh(W_hat) * tf.sigmoid(M_hat)
        a = tf.matmul(in_dim, W)
        m = tf.exp(tf.matmul(tf1.log(tf.abs(in_dim) + 1e-7), W))
        g = tf.sigmoid(tf.matmul(in_dim, G))
        Y_pred = g * a + (1 - g) * m
        loss = tf.nn.l2_loss(Y_pred - Y_true)
        optimizer = tf1.train.AdamOptimizer(1e-3).minimize(loss)
        sess.run(tf1.global_variables_initializer())
        rows = []
        for _ in range(epochs):
            correct = 0
            for j in range(0, len(X_data), BATCH):
                xs, ys = X_data[j : j + BATCH], Y_data[j : j + BATCH]
                _, ys_pred, last = sess.run(
                    [optimizer, Y_pred, loss], feed_dict={in_dim: xs, Y_true: ys}
                )
                correct += np.sum(np.isclose(ys, ys_pred, atol=1e-4, rtol=1e-4))
            rows.append((correct, last, *sess.run(weights)))
    names = ("correct", "loss_last_batch", *WEIGHTS)
    columns = map(np.array, zip(*rows, strict=True))
    return dict(zip(names, columns, strict=True)) | {"X": X, "start": start}


def run_fit(X, start, epochs, fused):
    layer = NALU(1)
    cls = Sequential if fused else keras.Sequential
    model = cls([keras.Input((2,)), layer])
    layer.set_weights(start)
    loss = L2Loss()
    model.compile(
        keras.optimizers.Adam(1e-3, epsilon=1e-8),
        loss,
        metrics=[IsCloseAccuracy(), LastBatchLoss(loss)],
        # Keras' own steps go faster by the thousand on TensorFlow.
        **({} if fused or BACKEND != "tensorflow" else {"steps_per_execution": 1000}),
    )
    weights, lines = [], []
    keep = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: weights.append(layer.get_weights())
    )
    logs = model.fit(
        X,
        np.prod(X, axis=1, keepdims=True),
        batch_size=BATCH,
        epochs=epochs,
        shuffle=False,
        verbose=0,
        callbacks=[keep, EpochLine(lines.append)],
    ).history
    ours = dict(zip(WEIGHTS, map(np.array, zip(*weights, strict=True)), strict=True))
    ours["correct"] = np.array(logs["accuracy"]) * len(X)
    ours["loss_last_batch"] = np.array(logs["last_batch_loss"])
    return ours, lines


def agree(ours, truth, epochs):
    def apart(name, until=epochs):
        return np.abs(ours[name][:until] - truth[name][: min(until, epochs)])

    assert apart("correct").max() <= 20
    assert (
        apart("loss_last_batch") / (1 + truth["loss_last_batch"][:epochs])
    ).max() < (1e-4)
    assert apart("G").max() < 1e-3
    # Later float32's tanh is 1, from another value on every backend.
    assert apart("W_hat", 30).max() < 3e-3
    assert apart("M_hat", 30).max() < 3e-3


@functools.cache
def live(epochs):
    X, _ = generate_dataset(seed=3)
    layer = NALU(1)
    layer.build((None, 2))
    return run_tf1(X, layer.get_weights(), epochs)


@pytest.mark.parametrize(
    ("source", "fused", "epochs"),
    [*QUICK, *(pytest.param(*run, marks=pytest.mark.slow) for run in SLOW)],
)
@pytest.mark.only(BACKEND, reason="has other runs")
def test_fit_follows_the_notebook(source, fused, epochs):
    truth = live(epochs) if source == "live" else recorded(source)
    ours, lines = run_fit(truth["X"], truth["start"], epochs, fused)
    agree(ours, truth, epochs)
    assert len(ours["correct"]) == epochs
    if epochs == 60:
        assert ours["correct"][-1] > 9700
    assert lines[0].startswith("epoch 0, loss: ")
    accuracy = float(lines[0].rpartition("accuracy: ")[2])
    assert round(accuracy * 10000) == round(ours["correct"][0])


def test_live_graph_is_the_recorded_one():
    truth = recorded(0)
    agree(run_tf1(truth["X"], truth["start"], 1), truth, 1)
