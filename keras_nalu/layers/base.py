"""The base of the layers, so that a layer's file is its equation and nothing else.

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
import operator
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import keras
import numpy as np
from keras import constraints, initializers

from keras_nalu import expect, ops
from keras_nalu.layers import exact
from keras_nalu.layers.arguments import (
    ClassOnly,
    Constraint,
    Initializer,
    Regularizer,
    part,
    reseeded,
    signature,
    warn_of_half,
)
from keras_nalu.regularizers import Counting, Scheduled, is_scheduled


def effective(read: Callable[[Any], Any]) -> Any:
    """A property of effective weights, which exist once the layer is built."""

    def get(layer):
        if not layer.built:
            raise AttributeError(
                f"The layer {layer.name!r} has no `{read.__name__}` before it is "
                "built. Call it on data once, or `layer.build((None, features))`."
            )
        return read(layer)

    return property(get, doc=read.__doc__)


def walk_layers(item: Any, seen: dict[int, Any] | None = None) -> Iterator[keras.Layer]:
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


class ArithmeticLayer(keras.layers.Layer):
    """Base of the arithmetic layers: constructor, weights, shapes and config.

    A subclass defines the class attributes below, `build`, which adds weights, `call`,
    which begins with `x = self.start(inputs, training)`, and `read`. It may override
    `__init__`, to add arguments, and `snap`, but no other method.

    Args:
        units: Size of the last axis of the outputs.
        kernel_initializer: Initializer of the kernels' stored weights, sampled
            independently. `None` takes the paper's, which may differ by weight.
        kernel_regularizer: Regularizer of each of the kernels' stored weights (not of
            the effective `kernel`).
        kernel_constraint: Constraint of each of the kernels' stored weights (not of
            the effective `kernel`). `None` takes the paper's, if it has one.
        **kwargs: `name`, `dtype`, `trainable`, `activity_regularizer`, as for any
            Keras layer.
    """

    #: The default initializer of every weight: a name, a class or a config. An instance
    #: would have one seed, chosen at import.
    initializer: ClassVar[Initializer] = None
    #: The default constraint of the kernels.
    constraint: ClassVar[Constraint] = None
    #: The properties that are effective weights, and the values that their entries take
    #: in a trained layer.
    targets: ClassVar[dict[str, tuple[int, ...]]] = {}
    #: The effective weights that are exponents, whose targets are multiples of 1/2.
    exponents: ClassVar[tuple[str, ...]] = ()
    #: The stored weight that an effective one equals, or the pair that makes it,
    #: `tanh(W_hat) * sigmoid(M_hat)`. Other layers override `snap`.
    stored: ClassVar[dict[str, str | tuple[str, str]]] = {}
    #: The operations that the layer can compute exactly, and for which inputs.
    operations: ClassVar[tuple[str, ...]] = ()
    domain: ClassVar[str] = ""
    #: The arXiv number or DOI of the paper that has the equation.
    reference: ClassVar[str] = ""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # For `help` and editors, because a constructor names only what it adds.
        cls.__signature__ = ClassOnly(signature(cls, ArithmeticLayer))

    def __init__(
        self,
        units: int,
        *,
        kernel_initializer: Initializer = None,
        kernel_regularizer: Regularizer = None,
        kernel_constraint: Constraint = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if self.variable_dtype in ("float16", "bfloat16"):
            warn_of_half(self.variable_dtype)
        self.units: int = expect.integer("units", units)
        self.kernel_initializer = part("kernel_initializer", kernel_initializer)
        self.kernel_regularizer = part("kernel_regularizer", kernel_regularizer)
        self.kernel_constraint = part("kernel_constraint", kernel_constraint)
        self.input_spec = keras.InputSpec(min_ndim=2)
        self.supports_masking = True
        #: Penalties whose coefficients follow a schedule.
        self.scheduled = []

    def build(self, input_shape: Any) -> None:
        try:
            *_, features = input_shape
            features = None if features is None else operator.index(features)
        except (TypeError, ValueError):
            # For several inputs Keras gives a dictionary or a list of shapes.
            raise expect.invalid(
                "input_shape", input_shape, "the shape of one input", "(None, 2)"
            ) from None
        if features is None:
            raise ValueError(
                f"The last axis of the inputs to {type(self).__name__} must have a "
                f"known size. Received: input_shape={tuple(input_shape)}. Try "
                "`keras.Input((2,))`."
            )
        self._in: int = features
        self.input_spec = keras.InputSpec(min_ndim=2, axes={-1: features})

    def add_kernel(
        self,
        name: str,
        shape: tuple[int, ...] | None = None,
        initializer: Initializer = None,
    ) -> Any:
        """A stored weight of the kernel, of shape (in, units) unless one is given."""
        return self.add_stored(
            name,
            shape,
            self.kernel_initializer or initializer,
            self.kernel_regularizer,
            self.kernel_constraint or self.constraint,
        )

    def add_stored(
        self,
        name: str,
        shape: tuple[int, ...] | None,
        initializer: Initializer,
        regularizer: Any = None,
        constraint: Any = None,
    ) -> Any:
        """A stored weight that is neither a kernel's nor a gate's."""
        # Step counters do not count, so that a schedule does not change the seeds.
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
            constraint = Counting(constraints.get(constraint), steps)
        if shape is None:
            if not hasattr(self, "_in"):
                raise TypeError(
                    f"{type(self).__name__}.build must first call "
                    "`super().build(input_shape)`, which reads the number of inputs."
                )
            shape = self._in, self.units
        # No autocast: each equation chooses what it computes in half precision.
        return self.add_weight(
            shape=shape,
            initializer=reseeded(
                initializers.get(initializer or self.initializer), index
            ),
            regularizer=regularizer,
            constraint=constraint,
            autocast=False,
            name=name,
        )

    def cast(self, x: Any) -> Any:
        """`x` as a dense tensor of the compute dtype."""
        x = expect.real("inputs", x)
        return keras.ops.convert_to_tensor(x, dtype=self.compute_dtype, sparse=False)

    def start(self, inputs: Any, training: bool) -> Any:
        """The inputs, cast; sets whether the scheduled penalties count this step."""
        for regularizer in self.scheduled:
            regularizer.due = training and self.trainable
        return self.cast(inputs)

    @property
    def kernels(self) -> dict[str, Any]:
        """The effective weights by name."""
        return {name: getattr(self, name) for name in self.targets}

    def read(self, unit: Any) -> str:
        """What a unit computes, as a line of Python: see `keras_nalu.lines`."""
        raise TypeError(
            f"Expected a layer that can be read as a formula. Received: {self!r}. Give "
            f"{type(self).__name__} a method `read(self, unit)`, such as "
            "`return keras_nalu.lines.linear(unit)`."
        )

    def nearest(self, name: str, w: np.ndarray) -> np.ndarray:
        """The nearest target of each entry of an effective weight."""
        if name in self.exponents:
            return np.round(2 * w) / 2
        targets = np.array(self.targets[name], dtype=float)
        near = targets[np.argmin(np.abs(w[..., None] - targets), axis=-1)]
        return np.where(np.isnan(w), np.nan, near)

    def snap(
        self, kernels: dict[str, np.ndarray], rows: np.ndarray | None = None
    ) -> None:
        """Sets the stored weights so that the effective weights are `kernels`.

        Args:
            kernels: Effective weights on their targets, by name.
            rows: Inputs for which a gate is to be exactly open or shut.
        """
        for name, stored in self.stored.items():
            if isinstance(stored, str):
                getattr(self, stored).assign(kernels[name])
            else:
                W_hat, M_hat = (getattr(self, each) for each in stored)
                exact.saturate(W_hat, M_hat, kernels[name])

    def sparsity_error(self) -> Any:
        """The largest distance of an effective weight from its nearest target value.

        Gates and biases do not count. An NPU may have any power, but an exponent of 2
        counts as an error of 1; `keras_nalu.formula` knows better what acts.
        """
        distances = [
            keras.ops.max(ops.distance(kernel, self.targets[name]))
            for name, kernel in self.kernels.items()
        ]
        return functools.reduce(keras.ops.maximum, distances)

    def is_discrete(self, tolerance: float = 1e-3) -> bool:
        """Whether `sparsity_error()` is at most `tolerance`."""
        return bool(
            self.sparsity_error() <= expect.not_negative("tolerance", tolerance, "1e-3")
        )

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        return (*tuple(input_shape)[:-1], self.units)

    def get_config(self) -> dict[str, Any]:
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
        units: int,
        *,
        kernel_initializer: Initializer = None,
        gate_initializer: Initializer = None,
        kernel_regularizer: Regularizer = None,
        gate_regularizer: Regularizer = None,
        kernel_constraint: Constraint = None,
        gate_constraint: Constraint = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            units,
            kernel_initializer=kernel_initializer,
            kernel_regularizer=kernel_regularizer,
            kernel_constraint=kernel_constraint,
            **kwargs,
        )
        self.gate_initializer = part("gate_initializer", gate_initializer)
        self.gate_regularizer = part("gate_regularizer", gate_regularizer)
        self.gate_constraint = part("gate_constraint", gate_constraint)

    def add_gate(
        self,
        name: str,
        shape: tuple[int, ...] | None = None,
        initializer: Initializer = None,
    ) -> Any:
        """A stored weight of the gate, of shape (in, units) unless one is given."""
        return self.add_stored(
            name,
            shape,
            self.gate_initializer or initializer,
            self.gate_regularizer,
            self.gate_constraint,
        )
