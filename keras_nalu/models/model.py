"""Keras models whose training steps run as one loop on the device."""

import functools
from typing import Any

import keras

from keras_nalu import expect
from keras_nalu.layers import SparsityError
from keras_nalu.models import backends
from keras_nalu.models.planning import Planner, arguments
from keras_nalu.models.run import Chunks, current, running


def like(method):
    """Gives a method the signature and the documentation of Keras'."""

    def decorate(function):
        functools.update_wrapper(function, method)
        return function

    return decorate


@keras.saving.register_keras_serializable(package="keras_nalu")
class Model(keras.Model):
    """`keras.Model`, whose training steps run as one loop on the device.

    For functional models and as a base class. Everything that is said of
    `keras_nalu.Sequential` holds.

    Args:
        *args: Inputs and outputs, as for `keras.Model`.
        **kwargs: `inputs`, `outputs`, `name`, as for `keras.Model`.

    Example:

    >>> pair = keras.Input((2,))
    >>> model = keras_nalu.Model(pair, NALU(1)(NAC(2)(pair)))
    >>> model.compile("adam", "mse")
    """

    is_fused = True
    planner = Planner
    #: As `compile` was asked; Keras itself knows numbers alone.
    asked_steps = 1
    _jit: Any = None
    #: Whether there is a metric of the weights, which JAX' step does not see.
    measures_weights = False

    def __new__(cls, *args, **kwargs):
        if cls is Model and _is_functional(args, kwargs):
            return Functional.__new__(Functional, *args, **kwargs)
        return keras.Model.__new__(cls, *args, **kwargs)

    def __init__(self, *args, **kwargs):
        if _is_functional(args, kwargs) and not isinstance(self, Functional):
            # As Keras does with the bases of a subclass that is made a functional model
            # in its constructor; `Model` itself stays as it is.
            _rebase(type(self))
            Functional.__init__(self, *args, **kwargs)
        else:
            super().__init__(*args, **kwargs)

    @property
    def steps_per_execution(self):
        """The steps that Keras takes at once in this thread."""
        if run := current(self):
            return run.steps
        return 1 if self.asked_steps == "auto" else self.asked_steps

    @steps_per_execution.setter
    def steps_per_execution(self, steps):
        self.asked_steps = steps

    @like(keras.Model.compile)
    def compile(self, *args, **kwargs):
        call = arguments(keras.Model.compile, self, args, kwargs)
        steps = call.setdefault("steps_per_execution", "auto")
        if not (isinstance(steps, str) and steps == "auto"):
            expected = "'auto' or a positive integer"
            steps = expect.integer("steps_per_execution", steps, expected)
        one = 1 if steps == "auto" else steps
        super().compile(**call | {"steps_per_execution": one})
        self.asked_steps = steps
        self._jit = call.get("jit_compile", "auto"), self.jit_compile
        self.measures_weights = bool(watch(self, call))

    def jit_is_asked_for(self):
        """Whether XLA may compile the steps: `jit_compile` is not False, and was not
        set to something else after `compile`."""
        asked, resolved = self._jit
        return bool(asked) and self.jit_compile == resolved

    def get_compile_config(self):
        config = super().get_compile_config()
        if config:
            # Keras stores what "auto" means on this machine.
            config["jit_compile"], _ = self._jit
            if self.asked_steps == "auto":
                # What is not there is "auto" here and 1 in Keras.
                del config["steps_per_execution"]
        return config

    def compile_from_config(self, config):
        # Keras' own leaves a model uncompiled whose class has a `compile`.
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built and self.optimizer is not None:
            self.optimizer.build(self.trainable_variables)

    @like(keras.Model.fit)
    def fit(self, *args, **kwargs):
        call = arguments(keras.Model.fit, self, args, kwargs)
        backends.current().refuse_to_fit(self)
        run = self.planner(self).fit(call)
        with running(run), backends.current().devices().keeping(self):
            return super().fit(**(run.call if run else call))

    @like(keras.Model.evaluate)
    def evaluate(self, *args, **kwargs):
        call = arguments(keras.Model.evaluate, self, args, kwargs)
        if call.get("_use_cached_eval_dataset"):
            # The validation of `fit`, whose run has the feed.
            if run := current(self):
                run.begin_validation()
            return super().evaluate(**call)
        run = self.planner(self).evaluate(call)
        with running(run), backends.current().devices().keeping(self):
            return super().evaluate(**(run.call if run else call))

    @like(keras.Model.predict)
    def predict(self, *args, **kwargs):
        with running(None), backends.current().devices().keeping(self):
            return super().predict(*args, **kwargs)

    @like(keras.Model.predict_on_batch)
    def predict_on_batch(self, *args, **kwargs):
        with running(None):
            return super().predict_on_batch(*args, **kwargs)

    @like(keras.Model.train_on_batch)
    def train_on_batch(self, *args, **kwargs):
        with self._interrupted():
            return super().train_on_batch(*args, **kwargs)

    @like(keras.Model.test_on_batch)
    def test_on_batch(self, *args, **kwargs):
        with self._interrupted():
            return super().test_on_batch(*args, **kwargs)

    def _interrupted(self):
        """A callback's batch is no part of the run, and changes the metrics."""
        if run := current(self):
            run.results = None
        return running(None)

    def chunks(self, kind) -> Chunks | None:
        """What Keras calls to train or to test, if it was made."""
        function = self.train_function if kind == "train" else self.test_function
        return function if isinstance(function, Chunks) else None

    def make_train_function(self, force=False):
        if self.train_function is None or force:
            # Keras' own is made for the steps that were asked for, not for a run's.
            with running(None):
                super().make_train_function(force=True)
            of_keras = self.train_function
            self.train_function = Chunks(self, "train", self.train_step, of_keras)

    def make_test_function(self, force=False):
        if self.test_function is None or force:
            with running(None):
                super().make_test_function(force=True)
            of_keras = self.test_function
            self.test_function = Chunks(self, "test", self.test_step, of_keras)

    def get_metrics_result(self):
        # At the end of an epoch Keras computes anew, operation by operation, what the
        # last step has returned.
        run = current(self)
        return run.results if run and run.results else super().get_metrics_result()

    def reset_metrics(self):
        if run := current(self):
            run.results = None
        super().reset_metrics()


@keras.saving.register_keras_serializable(package="keras_nalu")
class Sequential(Model, keras.Sequential):
    """`keras.Sequential`, whose training steps run as one loop on the device.

    `compile`, `fit` and `evaluate` take what Keras' take and end with the same weights,
    logs and history; small models train a hundred times as fast. The loss, optimizer,
    metrics and callbacks are Keras', or your own.

    All is Keras' own where a call is not fused; it then trains at Keras' speed, and one
    line says why. What is fused is listed in `keras_nalu.models.fusing`, in short:
    arrays, functions that draw batches, and data sets of static shapes; models whose
    steps are Keras' own and whose layers are built; optimizers of Keras, or that
    override `update_step` alone; callbacks that look at epochs. What is fused differs
    from Keras in this:

    - `steps_per_execution` in `compile` is the length of a chunk, the steps that run
      before control comes back to Python: by default an epoch, less where that is more
      than 10^9 floating-point operations. With a number, callbacks see the begin and
      end of a chunk as one batch, as Keras documents; Ctrl-C waits for its end.
    - Compiling the loop takes as long as some 10,000 steps of Keras. A call of fewer,
      with those of the calls before it, is Keras' own, unless the loop is compiled
      already or `steps_per_execution` asks for it by a number.
    - `shuffle=True` takes its order from NumPy's global generator, once an epoch.
    - On TensorFlow the loop is compiled by XLA, also on a processor, where Keras' own
      step is not: layers such as Dropout draw other numbers of the same distribution,
      those of Keras' `jit_compile=True`; sums may differ by float rounding.
    - `fit(draw, steps_per_epoch=1000)` takes a function in place of data:
      `draw(stream)` returns one batch, drawn on the device by
      `stream.uniform(shape, low, high)`.
    - Arrays of up to 256 MiB are held on the device, larger ones go there 32 MiB at a
      time. On several devices of a `keras.distribution`, on JAX, all batches of arrays
      must be multiples of their number.

    There is no line where nobody expects the loop: with `steps_per_execution=1`,
    `jit_compile=False`, `run_eagerly=True`, a layer that XLA cannot compile or that is
    slower within a loop (convolutions on a processor), or a model so large that a chunk
    would be less than ten steps.

    Args:
        layers: List of layers.
        trainable: Whether the model's variables are trainable.
        name: Name of the model.

    Raises:
        ValueError: `steps_per_execution` is not "auto" or a positive integer; in `fit`,
            several devices whose engine does not train together, or a batch that
            they cannot share equally.

    Example:

    >>> model = keras_nalu.Sequential([keras.Input((2,)), NALU(1)])
    >>> model.compile(keras.optimizers.Adam(0.1), "mse")
    >>> X, Y = generate_dataset(seed=0)
    >>> history = model.fit(X, Y, batch_size=10, epochs=20, verbose=0)
    >>> print(formula(model, X))
    y = x0 * x1
    """

    is_fused = True

    def __init__(self, layers=None, trainable=True, name=None):
        if not isinstance(layers, list | tuple | None):
            raise expect.invalid("layers", layers, "a list of layers", "[NALU(1)]")
        super().__init__(layers=layers, trainable=trainable, name=name)


def _functional_of_keras():
    """The class of Keras' functional models, for which it has no public name."""
    # Named, so that the models of whoever imports this have the names they would have.
    x = keras.Input((), name="x")
    return type(keras.Model(x, x, name="identity"))


_KerasFunctional = _functional_of_keras()


@keras.saving.register_keras_serializable(package="keras_nalu")
class Functional(Model, _KerasFunctional):
    """What `keras_nalu.Model(inputs, outputs)` makes."""

    is_fused = True

    def __init__(self, inputs, outputs, name=None, **kwargs):
        _KerasFunctional.__init__(self, inputs, outputs, name=name, **kwargs)


def _is_functional(args, kwargs):
    """As Keras tells a model of inputs and outputs from a subclass' own arguments."""
    return len(args) == 2 or (
        "outputs" in kwargs and len(args) + ("inputs" in kwargs) == 1
    )


def _rebase(cls):
    """Puts `Functional` where `Model` was among the bases of a subclass."""
    if cls is Model:
        return Functional
    if issubclass(cls, Model):
        cls.__bases__ = tuple(map(_rebase, cls.__bases__))
    return cls


def watch(model, call):
    """The metrics of the weights that a call of `compile` is given: they look at the
    model, where they were given none."""
    given = keras.tree.flatten([call.get("metrics"), call.get("weighted_metrics")])
    metrics = [metric for metric in given if isinstance(metric, SparsityError)]
    for metric in metrics:
        if metric.watched() is None:
            metric.watch(model)
    return metrics
