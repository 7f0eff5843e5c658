import keras
import numpy as np
import pytest

import keras_nalu
from keras_nalu.callbacks import EpochLine, INALUReinitialize, StopWhenSolved
from keras_nalu.layers import INALU, NALU, NAU, NMU
from keras_nalu.losses import L2Loss
from keras_nalu.metrics import BatchLossDeviation, IsCloseAccuracy, LastBatchLoss

BACKEND = keras.backend.backend()
CLASSES = [keras.Sequential, keras_nalu.Sequential]
no_population = pytest.mark.skipif(BACKEND == "torch", reason="no population there")
# Said where there is no loop.
stepwise = pytest.mark.filterwarnings("ignore:Training step by step")


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
@pytest.mark.parametrize("callback", [StopWhenSolved, INALUReinitialize])
def test_names_that_are_not_in_the_logs(callback, monitor, options):
    frequency = {"validation_freq": options.get("validation_freq", 1)}
    callback = callback(monitor, **frequency if callback is StopWhenSolved else {})
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


def inalu(cls=keras.Sequential, units=1):
    return cls([keras.Input((2,)), keras.layers.Dense(2), INALU(units)])


MSE = keras.losses.MeanSquaredError()
FAR = X, SUM + 100


def stuck(model, *metrics, loss=MSE):
    """Such that nothing moves but what the callback draws."""
    model.compile(keras.optimizers.SGD(0.0), loss, metrics=[*metrics])
    return model


@pytest.mark.parametrize("cls", CLASSES, ids=["keras", "keras_nalu"])
@stepwise
def test_draws_anew_where_it_is_stuck(cls):
    model = stuck(inalu(cls), BatchLossDeviation(MSE))
    dense = numpy(model.layers[0].weights)
    reinitialize, weights = INALUReinitialize(every=2, losses=12), []
    look = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: weights.append(model.layers[1].get_weights())
    )
    losses = train(model, reinitialize, look, epochs=9, data=FAR).history["loss"]
    # Four losses an epoch: twelve of them before the fourth, and again before the 8th.
    assert reinitialize.reinitialized == 2
    assert [i for i in range(1, 9) if losses[i] != losses[i - 1]] == [4, 8]
    for a, b in ((3, 4), (7, 8)):
        for old, new in zip(weights[a], weights[b], strict=True):
            assert np.all(old != new)
            assert np.all(np.abs(new) < 2)
    drawn = np.concatenate([w.ravel() for i in (4, 8) for w in weights[i]])
    assert len({*drawn}) == drawn.size
    assert np.abs(drawn).max() > 1
    for before, after in zip(dense, numpy(model.layers[0].weights), strict=True):
        np.testing.assert_array_equal(before, after)


def test_is_seeded():
    def drawn():
        model = inalu()
        keras.utils.set_random_seed(3)
        train(stuck(model), INALUReinitialize(every=1, losses=1), epochs=2, data=FAR)
        return np.concatenate([w.ravel() for w in model.layers[1].get_weights()])

    np.testing.assert_array_equal(drawn(), drawn())


@pytest.mark.parametrize(
    "options", [{"losses": 17}, {"threshold": 1e5}, {"every": 5}], ids=str
)
def test_leaves_what_is_not_due(options):
    reinitialize = INALUReinitialize(**{"every": 4, "losses": 16} | options)
    train(stuck(inalu()), reinitialize, epochs=5, data=FAR)
    assert reinitialize.reinitialized == 0


def test_leaves_what_improves():
    reinitialize = INALUReinitialize(every=2, losses=8)
    reinitialize.set_model(adder())
    reinitialize.on_train_begin()
    for epoch, loss in enumerate([100, 50, 20, 10, 5]):
        reinitialize.on_epoch_begin(epoch)
        reinitialize.on_train_batch_end(3)
        reinitialize.on_epoch_end(epoch, {"loss": loss, "batch_loss_deviation": 1.0})
    assert reinitialize.reinitialized == 0


@pytest.mark.parametrize("epochs", [4, 6, 10])
@pytest.mark.slow
def test_halves_are_those_of_the_losses(epochs):
    """The published rule, on every single loss, says what is right."""
    rng, said = np.random.default_rng(0), []
    for _ in range(200):
        losses = (
            rng.gamma(0.5, 4, (epochs, 8))
            + np.linspace(rng.uniform(0, 4), 0, epochs)[:, None]
        )
        first, second = np.split(losses.ravel(), 2)
        expected = first.mean() <= second.mean() + second.std() and second.mean() > 1
        reinitialize = INALUReinitialize(every=epochs, losses=losses.size)
        reinitialize.set_model(adder())
        reinitialize.on_train_begin()
        for epoch, batch in enumerate(losses):
            reinitialize.on_train_batch_end(7)
            logs = {"loss": batch.mean(), "batch_loss_deviation": batch.std()}
            reinitialize.on_epoch_end(epoch, logs)
        assert reinitialize._stuck()[0] == expected
        said.append(expected)
    assert 20 < sum(said) < 180


def test_variant_with_validation_errors_and_initial_distributions():
    keras.utils.set_random_seed(0)
    model = stuck(
        keras.Sequential(
            [
                keras.Input((2,)),
                INALU(
                    50, kernel_initializer=keras.initializers.RandomNormal(3, seed=1)
                ),
                keras.layers.Dense(1),
            ]
        )
    )
    before = model.layers[0].get_weights()
    reinitialize = INALUReinitialize("val_loss", 1, losses=8, initializer=None)
    train(model, reinitialize, epochs=3, validation_data=FAR)
    assert reinitialize.reinitialized == 1
    after = model.layers[0].get_weights()
    for old, new in zip(before[:4], after[:4], strict=True):
        assert np.all(old != new)
        assert new.mean() == pytest.approx(3, abs=0.05)
    assert np.all(before[4] != after[4])
    assert after[4].std() == pytest.approx(0.1, rel=0.5)


def test_scheduled_penalties_go_on():
    ramp = keras_nalu.regularizers.LinearRamp(1.0, 0, 10)
    layer = INALU(1, kernel_regularizer=keras_nalu.regularizers.Sparsity(ramp))
    model = stuck(keras.Sequential([keras.Input((2,)), layer]))
    train(model, INALUReinitialize(every=1, losses=4), epochs=3, data=FAR)
    steps = [int(w) for w in numpy(layer.non_trainable_weights)]
    assert steps == [12] * 4


@pytest.mark.slow
@no_population
@pytest.mark.parametrize("initializer", ["random_normal", None])
def test_only_the_members_that_are_stuck(initializer):
    crowd = keras_nalu.Population(inalu(), 4, seed=1)
    own = np.stack([SUM, SUM + 100, SUM + 200, np.full_like(SUM, np.nan)])
    stuck(crowd, BatchLossDeviation(MSE))
    # Members 0 and 3 are not stuck: small losses, and none that is a number.
    x = np.stack([X] * 4)
    start = numpy(crowd.weights)
    reinitialize = INALUReinitialize(
        every=2, losses=8, threshold=500, initializer=initializer
    )
    train(crowd, reinitialize, epochs=3, data=(x, own))
    assert [*reinitialize.reinitialized] == [0, 1, 1, 0]
    arithmetic = {id(crowd.stacked(w)) for w in crowd.template.layers[1].weights}
    assert len(arithmetic) == 5
    for old, variable in zip(start, crowd.weights, strict=True):
        new = numpy([variable])[0]
        np.testing.assert_array_equal(old[0], new[0])
        assert np.isnan(new[3]).all()
        if id(variable) in arithmetic:
            assert np.all(old[1:3] != new[1:3])
            assert np.all(new[1] != new[2])
        else:
            np.testing.assert_array_equal(old[:3], new[:3])


@pytest.mark.slow
@no_population
def test_members_go_on_from_what_was_drawn():
    """The step takes the new weights: the loss is that of the member alone."""
    crowd = keras_nalu.Population(inalu(), 2, seed=1)
    sgd, metrics = keras.optimizers.SGD(1e-6), [BatchLossDeviation(MSE)]
    crowd.compile(sgd, "mse", metrics=metrics)
    reinitialize = INALUReinitialize(every=2, losses=8)
    weights = []
    look = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: weights.append(numpy(crowd.weights))
    )
    history = train(crowd, reinitialize, look, epochs=3, data=FAR)
    assert [*reinitialize.reinitialized] == [1, 1]
    alone = inalu()
    alone.compile(keras.optimizers.SGD(1e-6), "mse")
    for variable, values in zip(alone.weights, weights[2], strict=True):
        variable.assign(values[1])
    losses = train(alone, epochs=1, data=FAR).history["loss"]
    np.testing.assert_allclose(history.members["loss"][2, 1], losses[0], rtol=1e-5)


@pytest.mark.parametrize("every", [0, -1, 2.5])
def test_intervals_that_are_refused(every):
    with pytest.raises(ValueError, match="expected a positive integer"):
        INALUReinitialize(every=every)
