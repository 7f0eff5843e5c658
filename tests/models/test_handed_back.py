"""What people do to Keras' models, on ours and on plain Keras: both must end alike.

From public reports on Keras. That a call is left to Keras is no reason to differ.
"""

import threading

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_nalu
from keras_nalu import NAU

BACKEND = keras.backend.backend()
CLASSES = {keras_nalu.Sequential: keras.Sequential, keras_nalu.Model: keras.Model}
FIT = {"batch_size": 8, "shuffle": False, "verbose": 0}
QUIET = {"shuffle": False, "verbose": 0}

pytestmark = [
    pytest.mark.filterwarnings("ignore:Training step by step, as Keras does"),
    pytest.mark.skipif(BACKEND == "torch", reason="all is Keras' own there"),
]
tensorflow = pytest.mark.only("tensorflow", reason="steps of TensorFlow")
slow = pytest.mark.slow

X = np.random.default_rng(0).uniform(1, 3, (48, 2)).astype("float32")
Y = X.sum(axis=1, keepdims=True)


def assert_alike(run, cls=keras_nalu.Sequential, rtol=1e-4):
    """`run(cls)` of ours and of Keras' class, from the same seeds."""
    found = []
    for each in (cls, CLASSES[cls]):
        keras.utils.set_random_seed(1)
        found.append(keras.tree.flatten(run(each)))
    assert len(found[0]) == len(found[1]) > 0
    for ours, right in zip(*found, strict=True):
        np.testing.assert_allclose(ours, right, rtol, 1e-5)


def line(cls, optimizer=None, **compiled):
    model = cls([keras.Input((2,)), layers.Dense(2, name="base"), NAU(1, name="head")])
    optimizer = keras.optimizers.SGD(0.01) if optimizer is None else optimizer
    model.compile(optimizer, "mse", **asked(cls) | compiled)
    return model


#: The loop where it is expected to pay.
AUTO = {keras_nalu.Sequential: {"steps_per_execution": "auto"}, keras.Sequential: {}}


def asked(cls):
    """The loop, however short the training is."""
    return {"steps_per_execution": 100} if issubclass(cls, keras_nalu.Model) else {}


# Batches of many shapes ---------------------------------------------------------------

LENGTHS = 3, 5, 5, 2, 7, 3


class Buckets(keras.utils.PyDataset):
    def __len__(self):
        return len(LENGTHS)

    def __getitem__(self, index):
        length = LENGTHS[index]
        x = np.arange(4 * length, dtype="float32").reshape(4, length, 1)
        return x / 10, np.full((4, 1), 2.0, "float32")


def padded():
    import tensorflow as tf

    sequences = [np.arange(n, dtype="float32")[:, None] for n in LENGTHS]
    spec = tf.TensorSpec((None, 1)), tf.TensorSpec((1,))
    data = tf.data.Dataset.from_generator(
        lambda: ((s, np.float32([1.0])) for s in sequences), output_signature=spec
    )
    return data.padded_batch(2)


@pytest.mark.parametrize("data", [Buckets, pytest.param(padded, marks=slow)])
@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_batches_of_many_lengths(data):
    def run(cls):
        parts = NAU(1, kernel_initializer="ones"), layers.GlobalAveragePooling1D()
        model = cls([keras.Input((None, 1)), *parts])
        model.compile(keras.optimizers.SGD(0.05), "mse", **asked(cls))
        logs = model.fit(data(), verbose=0, shuffle=False, validation_data=data())
        return logs.history, model.evaluate(data(), verbose=0), model.get_weights()

    assert_alike(run)


class Points(keras.utils.PyDataset):
    """Few points on an edge and many within: parts of one batch with their own rows."""

    def __len__(self):
        return 6

    def __getitem__(self, index):
        inner = np.arange(160, dtype="float32").reshape(80, 2) + 160 * index
        edge = np.zeros((10, 2), "float32")
        return {"edge": edge, "inner": inner}, np.zeros((10, 1), "float32")


def test_parts_of_a_batch_with_their_own_rows():
    def run(cls):
        class Net(cls):
            def __init__(self):
                super().__init__()
                self.n = NAU(1, kernel_initializer="ones")

            def call(self, x):
                return self.n(x["edge"])

            def compute_loss(
                self, x=None, y=None, y_pred=None, sample_weight=None, training=True
            ):
                return ops.mean(self.n(x["inner"]))

        model = Net()
        model.compile("sgd")
        return model.evaluate(Points(), verbose=0)

    assert_alike(run, keras_nalu.Model)


@slow
def test_parts_with_their_own_rows_in_a_data_set():
    import tensorflow as tf

    def run(cls):
        a, b = keras.Input((2,), name="a"), keras.Input((2,), name="b")
        outputs = {"a": NAU(1)(a), "b": NAU(1)(b)}
        model = cls({"a": a, "b": b}, outputs)
        model.compile(
            keras.optimizers.SGD(1e-3), {"a": "mse", "b": "mse"}, **asked(cls)
        )
        rows = {"a": X[:12].reshape(6, 2, 2), "b": X[:36].reshape(6, 6, 2)}
        labels = {name: x.sum(-1, keepdims=True) for name, x in rows.items()}
        data = tf.data.Dataset.from_tensor_slices((rows, labels))
        return model.fit(data, epochs=2, **QUIET).history["loss"], model.get_weights()

    assert_alike(run, keras_nalu.Model)


# The end of a fit ---------------------------------------------------------------------


def unknown(batches, size=4):
    import tensorflow as tf

    rows = slice(batches * size)
    data = tf.data.Dataset.from_tensor_slices((X[rows], Y[rows]))
    return data.filter(lambda x, y: True).batch(size)


class Put(keras.callbacks.Callback):
    def on_train_end(self, logs=None):
        zeros = [np.zeros_like(weight) for weight in self.model.get_weights()]
        self.model.set_weights(zeros)


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize("steps", [pytest.param(None, marks=slow), 3])
def test_what_a_callback_puts_at_the_end_of_a_fit_stays(steps):
    compiled = {} if steps is None else {"steps_per_execution": steps}

    def run(cls):
        model = line(cls, **compiled)
        model.fit(unknown(7), epochs=2, **QUIET, callbacks=[Put()])
        return model.get_weights()

    assert_alike(run)


@slow
@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize("steps", [None, 3])
def test_what_keras_writes_at_the_end_of_a_fit_stays(steps):
    compiled = {} if steps is None else {"steps_per_execution": steps}

    def run(cls):
        averaged = line(cls, keras.optimizers.SGD(0.05, use_ema=True), **compiled)
        averaged.fit(unknown(7), epochs=2, **QUIET)
        swap = keras.callbacks.SwapEMAWeights()
        logs = averaged.evaluate(unknown(7), verbose=0, callbacks=[swap])
        stop = keras.callbacks.EarlyStopping(
            "loss", mode="max", patience=1, restore_best_weights=True
        )
        stopped = line(cls, **compiled)
        stopped.fit(unknown(7), epochs=4, **QUIET, callbacks=[stop])
        return averaged.get_weights(), logs, stopped.get_weights()

    assert_alike(run)


# Programs that are no longer the model's ----------------------------------------------


def forced(model):
    model.make_train_function(force=True)
    model.make_test_function(force=True)


def unset(model):
    model.train_function = model.test_function = None


@slow
@pytest.mark.parametrize("how", [forced, unset])
def test_what_was_traced_is_made_anew(how):
    def run(cls):
        model = line(cls)
        model.fit(X, Y, **FIT)
        before = model.get_weights()
        model.evaluate(X, Y, 8, verbose=0)
        # On JAX Keras' own optimizer trains no fewer weights than it was built for.
        frozen = BACKEND == "tensorflow"
        model.layers[0].trainable = not frozen
        model.layers[0].activation = keras.activations.tanh
        how(model)
        model.fit(X, Y, **FIT)
        moved = [
            not np.array_equal(a, b)
            for a, b in zip(before, model.get_weights(), strict=True)
        ]
        assert moved == [not frozen, not frozen, True]
        return model.get_weights(), model.evaluate(X, Y, 8, verbose=0)

    assert_alike(run)


@slow
@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize` method")
@pytest.mark.filterwarnings("ignore:`model.quantize")
def test_quantized_it_is_evaluated_as_it_is():
    def run(cls):
        model = line(cls)
        model.evaluate(X, Y, 8, verbose=0)
        model.quantize("int8")
        return model.evaluate(X, Y, 8, verbose=0)

    assert_alike(run, rtol=1e-6)


@slow
def test_steps_per_execution_set_after_compile():
    def run(cls):
        seen, model = [], line(cls)
        model.steps_per_execution = 3
        see = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs: seen.append(batch)
        )
        model.fit(X, Y, callbacks=[see], **FIT)
        return seen, model.get_weights()

    assert_alike(run)


@pytest.mark.parametrize(
    "name", ["train_step", pytest.param("make_train_function", marks=slow)]
)
def test_a_step_that_is_put_into_an_object_is_called(name):
    def run(cls):
        model, seen = line(cls), []
        own = getattr(model, name)

        def counted(*args, **kwargs):
            seen.append(1)
            return own(*args, **kwargs)

        setattr(model, name, counted)
        model.fit(X, Y, **FIT)
        assert seen
        return model.get_weights()

    assert_alike(run)


# Calls within calls -------------------------------------------------------------------

HOOKS = (
    "on_train_begin",
    "on_epoch_begin",
    "on_epoch_end",
    "on_test_end",
    "on_train_end",
)


def test_a_batch_of_a_callback():
    def run(cls):
        model, seen = line(cls), []

        def batch(*args):
            seen.append(model.train_on_batch(100 * X[:8], Y[:8]))
            seen.append(model.test_on_batch(X[:5], Y[:5]))

        callback = keras.callbacks.Callback()
        for hook in HOOKS:
            setattr(callback, hook, batch)
        model.compile(keras.optimizers.SGD(1e-6), "mse", **asked(cls))
        model.evaluate(X, Y, 8, verbose=0)
        batch()
        logs = model.fit(
            X, Y, epochs=2, validation_data=(X, Y), callbacks=[callback], **FIT
        )
        batch()
        seen.append(model.evaluate(X, Y, 8, verbose=0))
        return seen, logs.history, int(model.optimizer.iterations), model.get_weights()

    assert_alike(run)


@slow
def test_a_fit_within_a_fit():
    def run(cls):
        model = line(cls)
        again = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: model.fit(X[:16], Y[:16], **FIT)
        )
        model.fit(X, Y, epochs=2, callbacks=[again], **FIT)
        return model.get_weights(), int(model.optimizer.iterations)

    assert_alike(run)


@slow
@pytest.mark.only("tensorflow", reason="on JAX Keras' own fails")
def test_another_thread_predicts_meanwhile():
    model, done = line(keras_nalu.Sequential), threading.Event()
    model.predict(X, 8, verbose=0)
    model.fit(X, Y, **FIT)
    before = int(model.optimizer.iterations)
    errors = []

    def predict():
        while not done.is_set():
            try:
                model.predict(X, 4, verbose=0)
            except Exception as error:
                errors.append(error)
                return

    thread = threading.Thread(target=predict)
    thread.start()
    try:
        model.fit(X, Y, epochs=200, **FIT)
    finally:
        done.set()
        thread.join()
    assert not errors
    assert int(model.optimizer.iterations) - before == 200 * 6
    assert model.steps_per_execution == 100


# Subclasses ---------------------------------------------------------------------------


def network(cls):
    class Net(cls):
        def __init__(self, hidden, units):
            super().__init__()
            self.a, self.b = layers.Dense(hidden), NAU(units)

        def call(self, x):
            return self.b(self.a(x))

    return Net


def wrapped(cls):
    class Wrapped(cls):
        def __init__(self, units=1):
            x = keras.Input((2,))
            super().__init__(inputs=x, outputs=NAU(units)(x))

    return Wrapped


def trained(model):
    model.compile(keras.optimizers.SGD(0.01), "mse", **asked(type(model)))
    return model.fit(X, Y, **FIT).history["loss"]


def test_classes_stay_as_they_are():
    def run(cls):
        x = keras.Input((2,))
        bases = cls.__bases__
        net = network(cls)
        assert isinstance(cls(x, NAU(1)(x)), cls)
        models = net(4, 1), wrapped(cls)()
        losses = [trained(model) for model in models]
        for model in models:
            assert isinstance(model, cls)
            assert cls is keras.Model or model.train_function.loops
        assert cls.__bases__ == bases
        # A class from before, with a call of its own and two arguments by position.
        return losses, net(3, 1)(X[:2]).shape, cls(x, NAU(1)(x))(X[:2]).shape

    assert_alike(run, keras_nalu.Model)
    assert issubclass(keras_nalu.Sequential, keras_nalu.Model)
    assert issubclass(keras_nalu.Population, keras_nalu.Model)


@slow
def test_a_step_is_given_what_keras_gives_it():
    seen = {}

    def run(cls):
        class Own(cls):
            def __init__(self):
                super().__init__()
                self.n = NAU(2)

            def call(self, x):
                return self.n(x)

            def compute_loss(
                self, x=None, y=None, y_pred=None, sample_weight=None, training=True
            ):
                return ops.mean(y_pred**2)

            def train_step(self, *args):
                seen[cls] = type(args[-1])
                return super().train_step(*args)

        model = Own()
        model.compile("sgd")
        return model.fit(X, **FIT).history

    assert_alike(run, keras_nalu.Model)
    assert seen[keras_nalu.Model] is seen[keras.Model]


@slow
@tensorflow
@pytest.mark.filterwarnings("ignore:`build.*was called on layer")
def test_weights_that_the_first_training_step_makes():
    def run(cls):
        class Net(cls):
            def __init__(self):
                super().__init__()
                self.a, self.aux = NAU(1), NAU(1)

            def call(self, x, training=False):
                y = self.a(x)
                return y + 0.1 * self.aux(x) if training else y

        model = Net()
        model(X[:2])
        return trained(model), trained(model), model.get_weights()

    assert_alike(run, keras_nalu.Model)


@tensorflow
def test_an_optimizer_and_a_train_function_of_ones_own():
    import tensorflow as tf

    def run(cls):
        seen = []

        class Own(cls):
            def make_train_function(self, force=False):
                def function(iterator):
                    seen.append(1)
                    return self.train_step(next(iterator))

                self.train_function = function

            def train_step(self, data):
                x, y = data
                with tf.GradientTape() as tape:
                    loss = ops.mean((self(x) - y) ** 2)
                weights = self.trainable_weights
                optimizer.apply(tape.gradient(loss, weights), weights)
                return {"l": loss}

        optimizer = keras.optimizers.SGD(0.01)
        model = Own([keras.Input((2,)), NAU(1)])
        model.compile(optimizer=None)
        return model.fit(X, Y, epochs=2, **FIT).history["l"], len(seen)

    assert_alike(run)


class Backwards(keras.optimizers.SGD):
    """Does something outside of `update_step`."""

    def apply(self, grads, trainable_variables=None):
        return super().apply([-grad for grad in grads], trainable_variables)


class Halved(keras.optimizers.SGD):
    """Does what Keras asks of an optimizer."""

    def update_step(self, gradient, variable, learning_rate):
        super().update_step(gradient, variable, learning_rate / 2)


@pytest.mark.parametrize(
    ("optimizer", "fused"),
    [pytest.param(Backwards, False, marks=slow), (Halved, True)],
)
def test_optimizers_of_ones_own(optimizer, fused):
    def run(cls):
        model = line(cls, optimizer(1e-3))
        losses = model.fit(X, Y, epochs=2, **FIT).history["loss"]
        if cls is keras_nalu.Sequential:
            assert bool(model.train_function.loops) == fused
        return losses, model.get_weights()

    assert_alike(run)


# Configurations -----------------------------------------------------------------------


@slow
def test_keras_reads_how_it_was_compiled():
    def run(cls):
        model = line(cls)
        copy = keras.Sequential.from_config(model.get_config())
        copy.compile_from_config(model.get_compile_config())
        copy.set_weights(model.get_weights())
        return copy.fit(X, Y, **FIT).history["loss"]

    assert_alike(run)


@slow
def test_in_keras_wrapper_for_scikit_learn():
    pytest.importorskip("sklearn")

    def run(cls):
        wrapper = keras.wrappers.SKLearnRegressor(line(cls), fit_kwargs=FIT)
        return wrapper.fit(X, Y[:, 0]).predict(X)

    assert_alike(run)


@slow
def test_callbacks_that_look_at_batches_see_each():
    def run(cls):
        seen, model = [], line(cls, **AUTO[cls])

        class Looks(keras.callbacks.Callback):
            def on_train_batch_end(self, batch, logs=None):
                seen.append(batch)

            def on_test_batch_end(self, batch, logs=None):
                seen.append(-batch)

        model.fit(X, Y, validation_data=(X, Y), callbacks=[Looks()], **FIT)
        return seen, model.get_weights()

    assert_alike(run)


def test_the_line_names_the_caller_and_the_reason():
    model = line(keras_nalu.Sequential)
    with pytest.warns(UserWarning, match="^Training step by step") as caught:
        model.fit(X, Y, class_weight={0: 1.0}, **FIT)
    assert {warning.filename for warning in caught} == {__file__}
    assert "it weighs classes" in str(caught[0].message)


def test_of_other_rows_only_keras_speaks(recwarn):
    with pytest.raises(ValueError, match="same number of samples"):
        line(keras_nalu.Sequential).fit(X, Y[:5], **FIT)
    assert not recwarn


@pytest.mark.parametrize("wrong", [keras.callbacks.TerminateOnNaN, "csv"])
def test_what_is_no_callback_is_left_to_keras(wrong):
    said = []
    for cls in (keras.Sequential, keras_nalu.Sequential):
        with pytest.raises((AttributeError, TypeError)) as caught:
            line(cls, **AUTO[cls]).fit(X, Y, callbacks=[wrong], **FIT)
        said.append(str(caught.value))
    assert said[0] == said[1]
