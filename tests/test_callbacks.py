import keras
import numpy as np
import pytest

import keras_nalu
from keras_nalu.callbacks import EpochLine, StopWhenSolved
from keras_nalu.layers import NALU, NAU, NMU
from keras_nalu.losses import L2Loss
from keras_nalu.metrics import IsCloseAccuracy, LastBatchLoss

BACKEND = keras.backend.backend()
CLASSES = [keras.Sequential, keras_nalu.Sequential]
no_population = pytest.mark.skipif(BACKEND == "torch", reason="no population there")
# Said where there is no loop.
stepwise = pytest.mark.filterwarnings("ignore:Training step by step")


@pytest.mark.parametrize(
    "line",
    [
        "epoch 0, loss: 2732, accuracy: 0.0062",
        "epoch 7, loss: 9.714, accuracy: 0.014",
        "epoch 12, loss: 0.842, accuracy: 0.0101",
        "epoch 151, loss: 3.739e-11, accuracy: 1.0",
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
    assert lines == [f"epoch 0, loss: 1, accuracy: {c / 10000}" for c in range(10001)]


def test_without_the_metrics():
    lines = []
    EpochLine(lines.append).on_epoch_end(3, {"loss": 2.5})
    EpochLine(lines.append).on_epoch_end(4)
    assert lines == [
        "epoch 3, loss: 2.5, accuracy: nan",
        "epoch 4, loss: nan, accuracy: nan",
    ]


def test_a_line_every_some_epochs_and_of_the_last():
    lines = []
    callback = EpochLine(lines.append, every=3)
    callback.set_params({"epochs": 6})
    for epoch in range(6):
        callback.on_epoch_end(epoch, {"loss": 2.5})
    assert [line.split(",")[0] for line in lines] == ["epoch 0", "epoch 3", "epoch 5"]


@pytest.mark.parametrize("every", [0, 1.5, None])
def test_a_wrong_every_is_refused(every):
    with pytest.raises(ValueError, match=f"Received: every={every}"):
        EpochLine(every=every)


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
        f"epoch {i}, loss: {shown[i]:.4g}, accuracy: {logs['accuracy'][i]}"
        for i in (0, 1)
    ]
    assert not last or shown != logs["loss"]


_rng = np.random.default_rng(0)
X = _rng.uniform(1, 2, (64, 2)).astype("float32")
SUM = X.sum(1, keepdims=True)
HELD_OUT = X * 3, SUM * 3


def adder(cls=keras.Sequential):
    model = cls([keras.Input((2,)), NAU(1)])
    model.compile(keras.optimizers.SGD(0.05), "mse")
    return model


def numpy(variables):
    return [keras.ops.convert_to_numpy(v).copy() for v in variables]


def train(model, *callbacks, epochs=200, data=(X, SUM), **options):
    options = {"batch_size": 16, "shuffle": False, "verbose": 0} | options
    return model.fit(*data, epochs=epochs, callbacks=[*callbacks], **options)


@pytest.mark.parametrize(
    "monitor", ["val_loss", pytest.param("loss", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("cls", CLASSES, ids=["keras", "keras_nalu"])
@stepwise
def test_stops_when_solved(cls, monitor):
    stop = StopWhenSolved(monitor, threshold=1e-3)
    losses = train(adder(cls), stop, validation_data=HELD_OUT).history[monitor]
    assert stop.solved_at == len(losses) - 1 > 0
    assert losses[-1] < 1e-3
    assert min(losses[:-1]) >= 1e-3


def test_does_not_stop_unsolved():
    stop = StopWhenSolved("loss", threshold=0)
    assert len(train(adder(), stop, epochs=3).history["loss"]) == 3
    assert stop.solved_at is None


@pytest.mark.slow
def test_validated_in_between():
    stop = StopWhenSolved(threshold=1e-3, validation_freq=3)
    history = train(adder(), stop, validation_data=HELD_OUT, validation_freq=3)
    assert len(history.history["loss"]) == stop.solved_at + 1
    assert (stop.solved_at + 1) % 3 == 0


@pytest.mark.parametrize(
    ("monitor", "options"),
    [
        ("val_loss", {}),
        ("val_mse", {"validation_data": HELD_OUT}),
        ("val_mse", {"validation_data": HELD_OUT, "validation_freq": 2}),
        ("mse", {}),
    ],
)
def test_names_that_are_not_in_the_logs(monitor, options):
    frequency = options.get("validation_freq", 1)
    callback = StopWhenSolved(monitor, validation_freq=frequency)
    with pytest.raises(ValueError, match=rf"no '{monitor}' in .* There are: 'loss'"):
        train(adder(), callback, epochs=4, **options)


def population(model, size, compiled=("sgd", "mse"), **options):
    crowd = keras_nalu.Population(model, size, seed=1)
    crowd.compile(*compiled, **options)
    return crowd


@no_population
@pytest.mark.slow
def test_members_stop_as_if_alone():
    crowd = population(adder(), 4, [keras.optimizers.SGD(0.01), "mse"])
    # Near, far, further; and one that is not a number.
    starts = np.float32([[[0.9], [0.9]], [[0.5], [0.4]], [[-1], [-1]], [[np.nan]] * 2])
    crowd.weights[0].assign(starts)
    stop = StopWhenSolved(threshold=1e-3)
    history = train(crowd, stop, validation_data=HELD_OUT, epochs=500)
    assert stop.solved_at[3] == -1
    assert len({*stop.solved_at}) == 4
    assert len(history.history["loss"]) == stop.solved_at.max() + 1 < 500
    for member in range(3):
        alone = adder()
        alone.compile(keras.optimizers.SGD(0.01), "mse")
        alone.set_weights([starts[member]])
        stop_alone = StopWhenSolved(threshold=1e-3)
        train(alone, stop_alone, validation_data=HELD_OUT, epochs=500)
        assert stop.solved_at[member] == stop_alone.solved_at
        np.testing.assert_allclose(
            crowd.member(member).get_weights(), alone.get_weights(), rtol=1e-5
        )


@no_population
def test_no_member_left_to_solve():
    crowd = population(adder(), 2)
    crowd.weights[0].assign(np.full((2, 2, 1), np.nan))
    stop = StopWhenSolved("loss")
    assert len(train(crowd, stop, epochs=5).history["loss"]) == 1
    assert [*stop.solved_at] == [-1, -1]


@no_population
def test_names_that_are_not_in_a_populations_logs():
    with pytest.raises(ValueError, match=r"no 'loss_max' in .* There are: 'loss'"):
        train(population(adder(), 2), StopWhenSolved("loss_max"), epochs=1)


@pytest.mark.slow
@no_population
def test_logs_of_members_in_a_callback():
    crowd, seen = population(adder(), 3, metrics=["mae"]), []
    assert crowd.member_logs == {}
    look = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen.append(crowd.member_logs)
    )
    history = train(crowd, look, epochs=4, validation_data=HELD_OUT, validation_freq=2)
    assert [*seen[0]] == ["loss", "mae"]
    assert [*seen[1]] == ["loss", "mae", "val_loss", "val_mae"]
    for name in ("loss", "mae"):
        np.testing.assert_array_equal(
            [logs[name] for logs in seen], history.members[name]
        )


@no_population
def test_stacked_finds_the_variable():
    template = keras.Sequential([keras.Input((2,)), NMU(2), NAU(1)])
    crowd = keras_nalu.Population(template, 3)
    for variable, mine in zip(template.weights, crowd.member(1).weights, strict=True):
        stacked = crowd.stacked(variable)
        assert stacked.shape == (3, *variable.shape)
        np.testing.assert_array_equal(*numpy([mine]), numpy([stacked])[0][1])
    with pytest.raises(ValueError, match="Expected a variable of the template"):
        crowd.stacked(mine)
