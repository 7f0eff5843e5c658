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
    """Gives a method the signature and the docstring of Keras' `method`."""

    def decorate(function):
        functools.update_wrapper(function, method)
        return function

    return decorate


@keras.saving.register_keras_serializable(package="keras_nalu")
class Model(keras.Model):
    """`keras.Model`, whose training steps run as one loop on the device.

    Use it for functional models and as a base class. `keras_nalu.Sequential` says how
    it differs from Keras.

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
    #: The `steps_per_execution` of `compile`; Keras does not know "auto".
    asked_steps = 1
    _jit: Any = None
    #: Whether a metric depends on the weights, which a step on JAX does not see.
    measures_weights = False

    def __new__(cls, *args, **kwargs):
        if cls is Model and _is_functional(args, kwargs):
            return Functional.__new__(Functional, *args, **kwargs)
        return keras.Model.__new__(cls, *args, **kwargs)

    def __init__(self, *args, **kwargs):
        if _is_functional(args, kwargs) and not isinstance(self, Functional):
            # A subclass whose constructor makes it a functional model gets `Functional`
            # as a base, as Keras does it. `Model` itself stays as it is.
            _rebase(type(self))
            Functional.__init__(self, *args, **kwargs)
        else:
            super().__init__(*args, **kwargs)

    @property
    def steps_per_execution(self):
        """The number of steps that Keras takes at once in this thread."""
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
        changed after `compile`."""
        asked, resolved = self._jit
        return bool(asked) and self.jit_compile == resolved

    def get_compile_config(self):
        config = super().get_compile_config()
        if config:
            # Keras would store what "auto" means on this machine.
            config["jit_compile"], _ = self._jit
            if self.asked_steps == "auto":
                # A missing value means "auto" here and 1 in Keras.
                del config["steps_per_execution"]
        return config

    def compile_from_config(self, config):
        # Keras does not compile a loaded model whose class overrides `compile`.
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
            # This is the validation of `fit`, whose run has the feed.
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
        """Leaves the run for the batch of a callback, which changes the metrics."""
        if run := current(self):
            run.results = None
        return running(None)

    def chunks(self, kind) -> Chunks | None:
        """The function that Keras calls to train or to test, if it was made."""
        function = self.train_function if kind == "train" else self.test_function
        return function if isinstance(function, Chunks) else None

    def make_train_function(self, force=False):
        if self.train_function is None or force:
            # Keras' function is to take the steps of `compile`, not those of a run.
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
        # At the end of an epoch Keras would compute again, operation by operation, what
        # the last step has returned.
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

    A call that is not fused is run by Keras, and a warning says why. The conditions are
    listed in `keras_nalu.models.fusing`. In short, these are fused: arrays, functions
    that sample batches, and data sets of static shapes; models with Keras' steps whose
    layers are built; optimizers of Keras, or that override only `update_step`; and
    callbacks that look at epochs. A fused call differs from Keras:

    - `steps_per_execution` in `compile` is the length of a chunk, the steps that run
      before control returns to Python. By default it is an epoch, or less if that is
      more than 10^9 floating-point operations. If it is a number, callbacks see a chunk
      as one batch, as Keras documents. Ctrl-C waits for the end of a chunk.
    - Compiling the loop takes as long as some 5,000 steps of Keras. Until the calls of
      a model have taken so many, Keras runs them, unless the loop is compiled already
      or `steps_per_execution` is a number.
    - `shuffle=True` takes its order from NumPy's global generator, once an epoch.
    - On TensorFlow XLA compiles the loop, also on a CPU, where it does not compile
      Keras' step. Layers such as Dropout then sample other numbers of the same
      distribution, those of `jit_compile=True`; sums may differ by float rounding.
    - `fit(sample, steps_per_epoch=1000)` takes a function instead of data:
      `sample(stream)` returns one batch, sampled on the device by
      `stream.uniform(shape, low, high)`.
    - Arrays of up to 256 MiB are held on the device, larger ones go there 32 MiB at a
      time. On JAX with a `keras.distribution` of several devices, every batch of arrays
      must be a multiple of their number.

    There is no warning where nobody expects the loop: with `steps_per_execution=1`,
    `jit_compile=False`, `run_eagerly=True`, a layer that XLA cannot compile or that is
    slower within a loop (convolutions on a CPU), or a model so large that a chunk would
    have less than ten steps.

    Args:
        layers: List of layers.
        trainable: Whether the model's variables are trainable.
        name: Name of the model.

    Raises:
        ValueError: `steps_per_execution` is not "auto" or a positive integer; in `fit`,
            Keras would train each of several devices by itself, or a batch cannot be
            cut into equal parts for them.

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
    """The class of Keras' functional models, which has no public name."""
    # With names, so that this does not advance the counters of automatic names.
    x = keras.Input((), name="x")
    return type(keras.Model(x, x, name="identity"))


_KerasFunctional = _functional_of_keras()


@keras.saving.register_keras_serializable(package="keras_nalu")
class Functional(Model, _KerasFunctional):
    """The class of `keras_nalu.Model(inputs, outputs)`."""

    is_fused = True

    def __init__(self, inputs, outputs, name=None, **kwargs):
        _KerasFunctional.__init__(self, inputs, outputs, name=name, **kwargs)


def _is_functional(args, kwargs):
    """Whether the arguments are inputs and outputs, decided as Keras does."""
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
    """The `SparsityError` metrics of a call of `compile`, which look at the model from
    now on, unless they were given one."""
    given = keras.tree.flatten([call.get("metrics"), call.get("weighted_metrics")])
    metrics = [metric for metric in given if isinstance(metric, SparsityError)]
    for metric in metrics:
        if metric.watched() is None:
            metric.watch(model)
    return metrics
