"""Which calls run as one loop on the device, and why the others do not.

A call of `fit` or `evaluate` is fused if all of the following holds. Keras runs every
other call.

- The backend is TensorFlow or JAX, without a debug mode that runs every operation by
  itself, and without a `tf.distribute` strategy of several replicas.
- The model is compiled without `run_eagerly=True`, `jit_compile=False` and
  `steps_per_execution=1`, `jit_compile` was not set later, and all its layers support
  XLA.
- Neither the model nor its class overrides a method of `STEPS`.
- Every layer is built, if need be by calling the model on a batch first.
- The optimizer is of Keras, or its class overrides only methods of `UPDATES`.
- The data are arrays of numbers (or pandas objects) with the same rows, a function that
  samples batches, or a `tf.data.Dataset` with a known number of batches and static
  shapes of numbers. With arrays there is no `class_weight`, `steps_per_epoch` or
  `shuffle="batch"`. The same holds for the validation data.
- If `steps_per_execution` is "auto", no callback looks at single batches.
- A chunk has more than one step, and at least `LEAST_STEPS` if its length is bounded by
  `CHUNK_FLOPS`.
- `steps_per_execution` is a number; or the loop is expected to pay. It does if it is
  compiled already, or if this call and the calls that Keras ran before have
  `PAYING_STEPS`, unless a layer is slower within a loop: convolutions on a CPU.
"""

import keras

from keras_nalu.layers.base import walk_layers
from keras_nalu.models import backends
from keras_nalu.private import profiles

#: The methods of a model that are its steps, or make them.
STEPS = (
    "compute_loss",
    "compute_loss_and_updates",
    "compute_metrics",
    "make_test_function",
    "make_train_function",
    "stateless_call",
    "stateless_compute_loss",
    "test_step",
    "train_step",
)
#: The methods that Keras asks of a new optimizer, which it may override.
UPDATES = {"build", "update_step", "get_config", "from_config"}
#: The hooks in which a callback looks at single batches.
BATCH_HOOKS = (
    "on_batch_begin",
    "on_batch_end",
    "on_train_batch_begin",
    "on_train_batch_end",
    "on_test_batch_begin",
    "on_test_batch_end",
)
#: Keras' callbacks whose batch hooks are as good once a chunk, or are off by default.
PERIODIC = keras.callbacks.ModelCheckpoint, keras.callbacks.BackupAndRestore
KNOWN = (
    *PERIODIC,
    keras.callbacks.ProgbarLogger,
    keras.callbacks.TensorBoard,
    keras.callbacks.TerminateOnNaN,
)


#: Layers that are several times slower in a loop on a CPU than in Keras' step, because
#: there XLA uses neither a convolution library nor all cores.
SLOW = (
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.DepthwiseConv1D,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv1D,
    keras.layers.SeparableConv2D,
)


def is_slow(model):
    """Whether its loop takes longer than Keras' steps."""
    slow = any(isinstance(layer, SLOW) for layer in walk_layers(model))
    return slow and not backends.current().accelerated()


def is_asked_for(model, steps):
    """Whether a user who compiled the model like this expects the loop."""
    return bool(
        model.compiled
        and not model.run_eagerly
        and model.jit_is_asked_for()
        and steps != 1
        and not keras.config.max_steps_per_epoch()
        and all(layer.supports_jit for layer in walk_layers(model))
    )


def why_not_backend(model):
    """The reason in a few words, or `None`; so are the reasons below."""
    backend = backends.current()
    if not backend.loops:
        name = keras.backend.backend()
        return f"there is no loop on the device for the {name} backend"
    if backend.spreads(model):
        return "the model is on several devices, by a strategy of TensorFlow"
    return None


def why_not_steps(model):
    """The method of a step that the model overrides."""
    cls = type(model)
    names = overridden(cls, _base(cls), STEPS) or sorted({*STEPS} & {*vars(model)})
    return f"{cls.__name__} has a `{names[0]}` of its own" if names else None


def why_not_built(model):
    for layer in walk_layers(model):
        if not layer.built:
            return f"the layer {layer.name!r} is not built before the first step"
    return None


def why_not_optimizer(optimizer):
    if optimizer is None:
        return "it is compiled without an optimizer"
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return why_not_optimizer(optimizer.inner_optimizer)
    of_keras = [*vars(keras.optimizers).values()]
    kind = next(cls for cls in type(optimizer).__mro__ if cls in of_keras)
    names = {name for name in dir(kind) if not name.startswith("__")}
    if more := overridden(type(optimizer), kind, names - UPDATES):
        return f"{type(optimizer).__name__} has a `{more[0]}` of its own"
    return None


def why_not_callbacks(callbacks):
    for callback in _each(callbacks):
        if not isinstance(callback, keras.callbacks.Callback):
            return ""  # Keras says what is wrong with it.
        if looks_at_batches(callback):
            name = type(callback).__name__
            return (
                f"{name} looks at single batches. With `steps_per_execution=100` in "
                "`compile`, it sees 100 batches as one"
            )
    return None


def overridden(cls, base, names):
    """Which of the names are defined by a class before `base` in the MRO."""
    before = cls.__mro__[: cls.__mro__.index(base)]
    return sorted({name for each in before for name in vars(each)} & {*names})


def _base(cls):
    """The nearest base class that is of Keras or of this package."""
    return next(
        each
        for each in cls.__mro__
        if each in (keras.Model, keras.Sequential) or vars(each).get("is_fused")
    )


def looks_at_batches(callback):
    known = next((kind for kind in KNOWN if isinstance(callback, kind)), None)
    if known in PERIODIC and callback.save_freq != "epoch":
        return True
    if known is keras.callbacks.TensorBoard:
        if callback.update_freq != "epoch" or profiles(callback):
            return True
    known = known or keras.callbacks.Callback
    return any(
        name in vars(callback)
        or getattr(type(callback), name) is not getattr(known, name)
        for name in BATCH_HOOKS
    )


def _each(callbacks):
    for callback in keras.tree.flatten(callbacks or []):
        if isinstance(callback, keras.callbacks.CallbackList):
            yield from _each(callback.callbacks)
        else:
            yield callback
