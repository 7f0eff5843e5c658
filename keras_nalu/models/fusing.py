"""Which calls run as one loop on the device, and why the others do not.

A call of `fit` or `evaluate` is fused if all of this is so; every other call is Keras'
own, at Keras' speed.

- The backend is TensorFlow or JAX, without a debug mode that runs every operation by
  itself, and without a `tf.distribute` strategy of several replicas.
- The model is compiled, with `jit_compile` as `compile` left it and not False, neither
  to run eagerly nor with `steps_per_execution=1`, and XLA may compile all its layers.
- The model's steps are Keras' own: no class of it, and not the object itself, has a
  method of `STEPS` of its own.
- Every layer is built, if need be by calling the model on a batch first.
- The optimizer is Keras' own, or its class overrides no more than `UPDATES`.
- The data are arrays of numbers with the same rows (tables of pandas, too), a function
  that draws batches, or a `tf.data.Dataset` of a known number of batches whose elements
  are numbers of static shapes. With arrays there is no `class_weight`, no
  `steps_per_epoch` and no `shuffle="batch"`. What validates is of these kinds, too.
- Where `steps_per_execution` is "auto", no callback looks at single batches.
- A chunk is more than one step.
- `steps_per_execution` is a number, or the loop is expected to pay: it is compiled, or
  the call, with those that Keras trained before, has `PAYING_STEPS`; and there is no
  layer that XLA computes more slowly than Keras' own step, such as convolutions on a
  processor by TensorFlow.
"""

import keras

from keras_nalu.layers.base import walk_layers
from keras_nalu.models import backends
from keras_nalu.private import profiles

#: The methods of a model that a step consists of, or that make it.
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
#: What a class of optimizers may override: what Keras asks of one.
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
#: Keras' callbacks that use these hooks to show how far the epoch is, to see a loss
#: that is not a number and stays so, or only where they are asked to.
PERIODIC = keras.callbacks.ModelCheckpoint, keras.callbacks.BackupAndRestore
KNOWN = (
    *PERIODIC,
    keras.callbacks.ProgbarLogger,
    keras.callbacks.TensorBoard,
    keras.callbacks.TerminateOnNaN,
)


def is_asked_for(model, steps):
    """Whether a person who compiled the model so expects the loop."""
    return bool(
        model.compiled
        and not model.run_eagerly
        and model.jit_is_asked_for()
        and steps != 1
        and not keras.config.max_steps_per_epoch()
        and all(layer.supports_jit for layer in walk_layers(model))
    )


def why_not_backend(model):
    """In a few words; `None` where nothing speaks against it."""
    backend = backends.current()
    if not backend.loops:
        name = keras.backend.backend()
        return f"there is no loop on the device for the {name} backend"
    if backend.spreads(model):
        return "the model is on several devices, by a strategy of TensorFlow"
    return None


def why_not_steps(model):
    """What of the model's steps is not Keras' own."""
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
        if looks_at_batches(callback):
            name = type(callback).__name__
            return (
                f"{name} looks at single batches. With `steps_per_execution=100` in "
                "`compile`, say, it sees a hundred as one"
            )
    return None


def overridden(cls, base, names):
    """Which of the names a class before `base` in the order of methods has."""
    before = cls.__mro__[: cls.__mro__.index(base)]
    return sorted({name for each in before for name in vars(each)} & {*names})


def _base(cls):
    """The nearest class of Keras' or of this package."""
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
