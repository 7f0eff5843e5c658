"""Weights are drawn anew where the training is stuck, by the rule of the iNALU."""

import keras
import numpy as np
import pytest

import keras_nalu
from keras_nalu import INALU, NAU
from keras_nalu.benchmarks.reinitialize import BatchLossDeviation, INALUReinitialize

CLASSES = [
    pytest.param(keras.Sequential, marks=pytest.mark.slow),
    keras_nalu.Sequential,
]
no_population = pytest.mark.skipif(
    keras.backend.backend() == "torch", reason="no population there"
)
# Said where there is no loop.
stepwise = pytest.mark.filterwarnings("ignore:Training step by step")

X = np.random.default_rng(0).uniform(1, 2, (64, 2)).astype("float32")
SUM = X.sum(1, keepdims=True)


def adder():
    model = keras.Sequential([keras.Input((2,)), NAU(1)])
    model.compile(keras.optimizers.SGD(0.05), "mse")
    return model


def numpy(variables):
    return [keras.ops.convert_to_numpy(v).copy() for v in variables]


def train(model, *callbacks, epochs=200, data=(X, SUM), **options):
    options = {"batch_size": 16, "shuffle": False, "verbose": 0} | options
    return model.fit(*data, epochs=epochs, callbacks=[*callbacks], **options)


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


@pytest.mark.slow
def test_is_seeded():
    def drawn():
        model = inalu()
        keras.utils.set_random_seed(3)
        train(stuck(model), INALUReinitialize(every=1, losses=1), epochs=2, data=FAR)
        return np.concatenate([w.ravel() for w in model.layers[1].get_weights()])

    np.testing.assert_array_equal(drawn(), drawn())


@pytest.mark.parametrize(
    "options",
    [
        {"losses": 17},
        pytest.param({"threshold": 1e5}, marks=pytest.mark.slow),
        pytest.param({"every": 5}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_leaves_what_is_not_due(options):
    reinitialize = INALUReinitialize(**{"every": 4, "losses": 16} | options)
    train(stuck(inalu()), reinitialize, epochs=5, data=FAR)
    assert reinitialize.reinitialized == 0


def test_leaves_what_improves():
    reinitialize = INALUReinitialize(every=2, losses=8)
    reinitialize.set_model(adder())
    reinitialize.set_params({"steps": 4})
    reinitialize.on_train_begin()
    for epoch, loss in enumerate([100, 50, 20, 10, 5]):
        reinitialize.on_epoch_begin(epoch)
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
        reinitialize.set_params({"steps": 8})
        reinitialize.on_train_begin()
        for epoch, batch in enumerate(losses):
            logs = {"loss": batch.mean(), "batch_loss_deviation": batch.std()}
            reinitialize.on_epoch_end(epoch, logs)
        assert reinitialize._stuck()[0] == expected
        said.append(expected)
    assert 20 < sum(said) < 180


@pytest.mark.slow
def test_variant_with_initial_distributions():
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
    reinitialize = INALUReinitialize(every=1, losses=8, initializer=None)
    train(model, reinitialize, epochs=3, data=FAR)
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
    with pytest.raises(ValueError, match="`every` to be a positive integer"):
        INALUReinitialize(every=every)
