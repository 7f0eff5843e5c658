import keras
import numpy as np
import pytest

from keras_nalu.callbacks import EpochLine
from keras_nalu.layers import NALU
from keras_nalu.losses import L2Loss
from keras_nalu.metrics import IsCloseAccuracy, LastBatchLoss


@pytest.mark.parametrize(
    "line",
    [
        "epoch 0, loss: 2732.2294921875, accuracy: 0.0062",
        "epoch 7, loss: 9.71354866027832, accuracy: 0.014",
        "epoch 12, loss: 0.8419667482376099, accuracy: 0.0101",
        "epoch 151, loss: 3.7393220464476684e-11, accuracy: 1.0",
        "epoch 1, loss: 2.5, accuracy: 0.0",
        "epoch 1, loss: 2.5, accuracy: 0.0001",
    ],
)
def test_notebooks_own_lines(line, capsys):
    epoch, loss, accuracy = (part.split()[-1] for part in line.split(", "))
    logs = {  # float32 numbers, as Keras logs them
        "loss": 77.0,
        "last_batch_loss": float(np.float32(loss)),
        "accuracy": float(np.float32(accuracy)),
    }
    EpochLine().on_epoch_end(int(epoch), logs)
    assert capsys.readouterr().out == line + "\n"


def test_every_accuracy_of_10000_rows_prints_as_the_notebook_prints_it():
    lines = []
    callback = EpochLine(lines.append)
    for correct in range(10001):
        accuracy = float(np.float32(correct) / np.float32(10000))
        callback.on_epoch_end(0, {"loss": 1.0, "accuracy": accuracy})
    assert lines == [f"epoch 0, loss: 1.0, accuracy: {c / 10000}" for c in range(10001)]


def test_without_the_metrics():
    lines = []
    EpochLine(lines.append).on_epoch_end(3, {"loss": 2.5})
    EpochLine(lines.append).on_epoch_end(4)
    assert lines == [
        "epoch 3, loss: 2.5, accuracy: nan",
        "epoch 4, loss: None, accuracy: nan",
    ]


@pytest.mark.parametrize("last", [True, False])
def test_in_fit(last):
    lines, loss = [], L2Loss()
    metrics = [IsCloseAccuracy(atol=10)] + [LastBatchLoss(loss)] * last
    model = keras.Sequential([keras.Input((2,)), NALU(1)])
    model.compile("sgd", loss, metrics=metrics)
    X = np.arange(1.0, 9.0).reshape(4, 2)
    logs = model.fit(
        X, X[:, :1], 2, epochs=2, verbose=0, callbacks=[EpochLine(lines.append)]
    ).history
    shown = logs["last_batch_loss" if last else "loss"]
    assert lines == [
        f"epoch {i}, loss: {shown[i]}, accuracy: {logs['accuracy'][i]}" for i in (0, 1)
    ]
    assert not last or shown != logs["loss"]
