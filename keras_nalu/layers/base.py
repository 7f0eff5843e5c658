"""What every layer of the package has in common, so that a layer's file is its
equation and nothing else.

Glossary:

| symbol         | attribute       | shape         | range                          |
|----------------|-----------------|---------------|--------------------------------|
| x              | the inputs      | (..., in)     | any                            |
| W-hat, M-hat   | `W_hat`,`M_hat` | (in, units)   | any: the stored weights        |
| W              | `kernel`        | (in, units)   | effective: near -1, 0, 1       |
| G              | `G`             | (in, units)   | any: the gate's stored weights |
| g              | `gate(x)`       | (..., units)  | (0, 1)                         |
| y              | the outputs     | (..., units)  | any                            |

Every weight may have a leading member axis, `(members, in, units)`: the equations
broadcast over it.
"""

import inspect
import numbers

import keras
import numpy as np
from keras import constraints, initializers, regularizers


def effective(read):
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
    """`value`, if it is a positive finite number, in float32 too."""
    if not isinstance(value, numbers.Real) or not 0 < np.float32(value) < np.inf:
        raise ValueError(
            f"Received an invalid value for `{name}`, expected a positive number. "
            f"Received: {name}={value!r}"
        )
    return float(value)


def _own_draw(initializer, index):
    """An initializer that draws independently for the `index`-th weight of a layer.

    One Keras initializer called twice returns the same values, seeded or not:
    `W_hat` would equal `M_hat`. A `SeedGenerator` moves on by itself.
    """
    config = initializer.get_config() if hasattr(initializer, "get_config") else {}
    if "seed" not in config or isinstance(config["seed"], dict):
        return initializer
    if config["seed"] is not None:
        config["seed"] += index
    return initializer.from_config(config)


class ArithmeticLayer(keras.layers.Layer):
    """Base of the arithmetic layers: constructor, weights, shapes and config.

    A subclass states facts, weights and `call`, and never overrides a concrete method
    but `__init__`, to add arguments, and `build`, to add weights.

    Args:
        units: Size of the last axis of the outputs.
        kernel_initializer: Initializer of the kernels' stored weights, drawn
            independently. `None` takes the layer's own `initializer`.
        kernel_regularizer: Regularizer of each of the kernels' stored weights (not of
            the effective `kernel`).
        kernel_constraint: Constraint of each of the kernels' stored weights (not of
            the effective `kernel`).
        **kwargs: `name`, `dtype`, `trainable`, `activity_regularizer`, as for any
            Keras layer.
    """

    #: The initializer of every weight for which none was given: a name, a class or a
    #: config, never an instance, whose seed would be drawn once, at import.
    initializer = None
    #: The values that the entries of a trained kernel take.
    targets = ()
    #: What the layer can compute exactly, and for which inputs.
    operations = ()
    domain = ""
    #: Where the equation stands.
    reference = ""
    #: The names of the properties that give effective weights.
    effective_weights = ("kernel",)

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
        if (
            not isinstance(units, numbers.Integral)
            or isinstance(units, bool)
            or units < 1
        ):
            raise ValueError(
                "Received an invalid value for `units`, expected a positive integer. "
                f"Received: units={units!r}"
            )
        self.units = int(units)
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.kernel_regularizer = regularizers.get(kernel_regularizer)
        self.kernel_constraint = constraints.get(kernel_constraint)
        self.input_spec = keras.InputSpec(min_ndim=2)
        self.supports_masking = True

    def build(self, input_shape):
        if input_shape[-1] is None:
            raise ValueError(
                f"The last axis of the inputs to {type(self).__name__} must have a "
                f"known size. Received: input_shape={tuple(input_shape)}. Give it: "
                "`keras.Input((features,))`."
            )
        self._in = input_shape[-1]
        self.input_spec = keras.InputSpec(min_ndim=2, axes={-1: self._in})

    def add_kernel(self, name):
        """A stored weight of the kernel, of shape (in, units)."""
        return self._add(
            name,
            self.kernel_initializer,
            self.kernel_regularizer,
            self.kernel_constraint,
        )

    def add_gate(self, name):
        """A stored weight of the gate, of shape (in, units)."""
        return self._add(
            name, self.gate_initializer, self.gate_regularizer, self.gate_constraint
        )

    def _add(self, name, initializer, regularizer, constraint):
        # No autocast: the equations choose what half precision can bear.
        return self.add_weight(
            shape=(self._in, self.units),
            initializer=_own_draw(
                initializer or initializers.get(self.initializer), len(self.weights)
            ),
            regularizer=regularizer,
            constraint=constraint,
            autocast=False,
            name=name,
        )

    def cast(self, x):
        """`x`, integers and sparse tensors too, as a dense tensor to compute with."""
        return keras.ops.convert_to_tensor(x, dtype=self.compute_dtype, sparse=False)

    @property
    def kernels(self):
        """The effective weights by name."""
        return {name: getattr(self, name) for name in self.effective_weights}

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.units)

    def get_config(self):
        """Every constructor argument, read from the attribute of the same name."""
        config = super().get_config()
        classes = type(self).__mro__
        for cls in classes[: classes.index(ArithmeticLayer) + 1]:
            for name, parameter in inspect.signature(cls.__init__).parameters.items():
                variadic = parameter.kind in (
                    parameter.VAR_POSITIONAL,
                    parameter.VAR_KEYWORD,
                )
                if name != "self" and not variadic:
                    value = getattr(self, name)
                    config[name] = keras.saving.serialize_keras_object(value)
        return config
