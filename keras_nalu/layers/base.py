"""What every layer of the package has in common, so that a layer's file is its
equation and nothing else.

Glossary:

| symbol         | attribute       | shape         | range                          |
|----------------|-----------------|---------------|--------------------------------|
| x              | the inputs      | (..., in)     | any                            |
| W-hat, M-hat   | `W_hat`,`M_hat` | (in, units)   | any: the stored weights        |
| W              | `W`             | (in, units)   | stored: [-1, 1] or [0, 1]      |
| W              | `kernel`        | (in, units)   | effective: near -1, 0, 1       |
| G              | `G`             | (in, units)   | any: the gate's stored weights |
| g, of NALUs    | `gate(x)`       | (..., units)  | (0, 1)                         |
| g, of iNALUs   | `g`, `gate(x)`  | (units,)      | any stored, (0, 1) effective   |
| g, of NPUs     | `g`,`relevance` | (in,)         | any stored, [0, 1] effective   |
| y              | the outputs     | (..., units)  | any                            |

An NMRU has twice the rows, an NSR `redundancy` times the columns.
"""

import functools
import inspect
import math
import warnings
from typing import Any

import keras
from keras import constraints, initializers, regularizers

from keras_nalu import expect, ops
from keras_nalu.regularizers import Scheduled, is_scheduled


def effective(read) -> Any:
    """A property of effective weights, which exist once the layer is built."""

    def get(layer):
        if not layer.built:
            raise AttributeError(
                f"The layer {layer.name!r} has no `{read.__name__}` before it is "
                "built. Call it on data once, or `layer.build((None, features))`."
            )
        return read(layer)

    return property(get, doc=read.__doc__)


def walk_layers(item, seen=None):
    """Every layer in a layer, a list or a dictionary, found by its attributes."""
    seen = {} if seen is None else seen
    if not isinstance(item, keras.Layer | dict | list | tuple) or id(item) in seen:
        return
    seen[id(item)] = item
    if isinstance(item, keras.Layer):
        yield item
        item = vars(item)
    for child in list(item.values()) if isinstance(item, dict) else item:
        yield from walk_layers(child, seen)


def positive(name, value):
    return float(expect.positive(name, value))


def part(kind, name, value):
    """Keras' initializer, regularizer or constraint for what a constructor was given;
    Keras does not say for which argument it cannot find one."""
    try:
        part = kind.get(value)
    except Exception as error:
        part = error
    if part is not None and not callable(part):
        word = name.rpartition("_")[2]
        expected = f"a Keras {word}, its name or its config, or None"
        reason = part if isinstance(part, Exception) else None
        raise expect.invalid(name, value, expected, _PARTS[word]) from reason
    return part


_PARTS = {
    "initializer": "'glorot_uniform'",
    "regularizer": "'l2'",
    "constraint": "'non_neg'",
}


def _own_draw(initializer, index):
    """An initializer that draws independently for the `index`-th weight of a layer.

    One Keras initializer called twice returns the same values, seeded or not:
    `W_hat` would equal `M_hat`. A `SeedGenerator` moves on by itself.
    """
    config = initializer.get_config() if hasattr(initializer, "get_config") else {}
    if "seed" not in config or isinstance(config["seed"], dict):
        return initializer
    if config["seed"] is not None:
        config["seed"] = (config["seed"] + index) % 2**32
    return initializer.from_config(config)


def _signature(cls):
    """All the arguments of a constructor: those of its parents, and then its own."""
    kinds = inspect.Parameter
    named = {}
    for parent in reversed(cls.__mro__[: cls.__mro__.index(ArithmeticLayer) + 1]):
        own = dict(inspect.signature(parent.__init__).parameters)
        named = {k: p for k, p in named.items() if k not in own} | own
    variadic = kinds.VAR_POSITIONAL, kinds.VAR_KEYWORD
    named = [p for p in named.values() if p.kind not in variadic and p.name != "self"]
    named.append(kinds("kwargs", kinds.VAR_KEYWORD))
    return inspect.Signature(sorted(named, key=lambda p: p.kind))


class _OfClass:
    """An attribute of a class that its instances lack: `inspect.signature` of a layer
    is that of calling it."""

    def __init__(self, value):
        self.value = value

    def __get__(self, layer, cls):
        if layer is not None:
            raise AttributeError("A layer has no `__signature__`; its class has.")
        return self.value


@functools.cache
def _warn_of_half(dtype):
    """Once, whatever the layer; each time where a warning is an error."""
    warnings.warn(
        f"The dtype policy {dtype!r} stores weights in half precision: the small steps "
        f"of training are lost in it. Use 'mixed_{dtype}', which stores float32, by "
        f"`keras.config.set_dtype_policy('mixed_{dtype}')`.",
        stacklevel=2,
    )


class ArithmeticLayer(keras.layers.Layer):
    """Base of the arithmetic layers: constructor, weights, shapes and config.

    A subclass states facts, weights and `call`, and never overrides a concrete method
    but `__init__`, to add arguments, and `build`, to add weights. A `call` begins with
    `x = self.start(inputs, training)`.

    Args:
        units: Size of the last axis of the outputs.
        kernel_initializer: Initializer of the kernels' stored weights, drawn
            independently. `None` takes the paper's, which may differ by weight.
        kernel_regularizer: Regularizer of each of the kernels' stored weights (not of
            the effective `kernel`).
        kernel_constraint: Constraint of each of the kernels' stored weights (not of
            the effective `kernel`). `None` takes the paper's, if it has one.
        **kwargs: `name`, `dtype`, `trainable`, `activity_regularizer`, as for any
            Keras layer.
    """

    #: The initializer of every weight for which none was given: a name, a class or a
    #: config, never an instance, whose seed would be drawn once, at import.
    initializer = None
    #: The constraint of the kernels, if none was given.
    constraint = None
    #: The properties that give effective weights, and the values that their entries
    #: take in a trained layer.
    targets = {}
    #: What the layer can compute exactly, and for which inputs.
    operations = ()
    domain = ""
    #: Where the equation stands.
    reference = ""

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        # What `help` and editors show: a constructor names its own arguments alone.
        cls.__signature__ = _OfClass(_signature(cls))

    def __init__(
        self,
        units,
        *,
        kernel_initializer=None,
        kernel_regularizer=None,
        kernel_constraint=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if self.variable_dtype in ("float16", "bfloat16"):
            _warn_of_half(self.variable_dtype)
        self.units = expect.integer("units", units)
        self.kernel_initializer = part(
            initializers, "kernel_initializer", kernel_initializer
        )
        self.kernel_regularizer = part(
            regularizers, "kernel_regularizer", kernel_regularizer
        )
        self.kernel_constraint = part(
            constraints, "kernel_constraint", kernel_constraint
        )
        self.input_spec = keras.InputSpec(min_ndim=2)
        self.supports_masking = True
        #: The penalties whose coefficients follow a schedule.
        self.scheduled = []

    def build(self, input_shape):
        if not isinstance(input_shape, tuple | list) or len(input_shape) < 2:
            # Of several inputs a layer would get a dictionary, or a list of shapes.
            raise expect.invalid(
                "input_shape", input_shape, "the shape of one input", "(None, 2)"
            )
        if input_shape[-1] is None:
            raise ValueError(
                f"The last axis of the inputs to {type(self).__name__} must have a "
                f"known size. Received: input_shape={tuple(input_shape)}. Give it: "
                "`keras.Input((features,))`."
            )
        self._in = expect.integer(
            "input_shape[-1]", input_shape[-1], "a size", low=0, instead=2
        )
        self.input_spec = keras.InputSpec(min_ndim=2, axes={-1: self._in})

    def add_kernel(self, name, shape=None, initializer=None):
        """A stored weight of the kernel, of shape (in, units) where none is given."""
        return self._add(
            name,
            shape,
            self.kernel_initializer or initializer,
            self.kernel_regularizer,
            self.kernel_constraint or self.constraint,
        )

    def _add(self, name, shape, initializer, regularizer=None, constraint=None):
        # A weight draws the same with and without a schedule.
        index = len(self.weights) - len(self.scheduled)
        if is_scheduled(regularizer):
            steps = self.add_weight(
                shape=(),
                initializer="zeros",
                dtype="int32",
                trainable=False,
                name=f"{name}_steps",
            )
            regularizer = Scheduled(regularizer, steps)
            self.scheduled.append(regularizer)
        shape = (self._in, self.units) if shape is None else shape
        expect.fits("units", self.units, math.prod(shape))
        # No autocast: the equations choose what half precision can bear.
        return self.add_weight(
            shape=shape,
            initializer=_own_draw(
                initializers.get(initializer or self.initializer), index
            ),
            regularizer=regularizer,
            constraint=constraint,
            autocast=False,
            name=name,
        )

    def cast(self, x):
        """`x`, integers and sparse tensors too, as a dense tensor to compute with."""
        expect.real("inputs", x)
        return keras.ops.convert_to_tensor(x, dtype=self.compute_dtype, sparse=False)

    def start(self, inputs, training):
        """The inputs, cast; a training step counts for what follows a schedule."""
        for regularizer in self.scheduled:
            regularizer.due = training and self.trainable
        return self.cast(inputs)

    @property
    def kernels(self):
        """The effective weights by name."""
        return {name: getattr(self, name) for name in self.targets}

    def sparsity_error(self):
        """How far the worst entry of the kernels is from its nearest target value.

        Of the effective weights alone, not of gates and biases; of an NPU, whose powers
        may be any, an exponent of 2 counts as an error of 1. `keras_nalu.formula` knows
        better what acts.
        """
        distances = [
            keras.ops.max(ops.distance(kernel, self.targets[name]))
            for name, kernel in self.kernels.items()
        ]
        return functools.reduce(keras.ops.maximum, distances)

    def is_discrete(self, tolerance=1e-3):
        """Whether every entry of the kernels is that near: see `sparsity_error`."""
        return bool(
            self.sparsity_error() <= expect.not_negative("tolerance", tolerance, "1e-3")
        )

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.units)

    def get_config(self):
        """Every constructor argument, read from the attribute of the same name."""
        config = super().get_config()
        *names, _ = type(self).__signature__.parameters
        for name in names:
            value = getattr(self, name)
            config[name] = keras.saving.serialize_keras_object(value)
        return config


class GatedLayer(ArithmeticLayer):
    """Base of the layers that have a gate beside their kernels.

    Args:
        units: Size of the last axis of the outputs.
        kernel_initializer: Initializer of the kernels' stored weights.
        gate_initializer: Initializer of the gate's stored weights. `None` takes the
            paper's.
        kernel_regularizer: Regularizer of each of the kernels' stored weights.
        gate_regularizer: Regularizer of each of the gate's stored weights.
        kernel_constraint: Constraint of each of the kernels' stored weights.
        gate_constraint: Constraint of each of the gate's stored weights.
        **kwargs: `name`, `dtype` and the other arguments of any Keras layer.
    """

    def __init__(
        self,
        units,
        *,
        kernel_initializer=None,
        gate_initializer=None,
        kernel_regularizer=None,
        gate_regularizer=None,
        kernel_constraint=None,
        gate_constraint=None,
        **kwargs,
    ):
        super().__init__(
            units,
            kernel_initializer=kernel_initializer,
            kernel_regularizer=kernel_regularizer,
            kernel_constraint=kernel_constraint,
            **kwargs,
        )
        self.gate_initializer = part(initializers, "gate_initializer", gate_initializer)
        self.gate_regularizer = part(regularizers, "gate_regularizer", gate_regularizer)
        self.gate_constraint = part(constraints, "gate_constraint", gate_constraint)

    def add_gate(self, name, shape=None, initializer=None):
        """A stored weight of the gate, of shape (in, units) where none is given."""
        return self._add(
            name,
            shape,
            self.gate_initializer or initializer,
            self.gate_regularizer,
            self.gate_constraint,
        )
