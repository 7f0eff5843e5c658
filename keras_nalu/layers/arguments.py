"""The arguments of the layers' constructors: how they are checked, joined with those of
the parents, and seeded."""

import functools
import inspect
import warnings
from collections.abc import Callable
from typing import Any, TypeAlias

import keras

from keras_nalu import expect

#: Keras takes the object, its class, its name or its config.
Initializer: TypeAlias = str | dict[str, Any] | Callable[..., Any] | None
Regularizer: TypeAlias = str | dict[str, Any] | Callable[..., Any] | None
Constraint: TypeAlias = str | dict[str, Any] | Callable[..., Any] | None


def positive(name: str, value: Any) -> float:
    """A number above 0, as a Python float."""
    return float(expect.positive(name, value))


#: The module of Keras that has them, and an example for the error message.
_PARTS: dict[str, Any] = {
    "initializer": (keras.initializers, "'glorot_uniform'"),
    "regularizer": (keras.regularizers, "'l2'"),
    "constraint": (keras.constraints, "'non_neg'"),
}


def part(name: str, value: Any) -> Any:
    """Keras' initializer, regularizer or constraint for an argument of a constructor.
    Keras' error would not name the argument."""
    word = name.rpartition("_")[2]
    kind, instead = _PARTS[word]
    try:
        part = kind.get(value)
    except Exception as error:
        part = error
    if part is not None and not callable(part):
        expected = f"a Keras {word}, its name or its config, or None"
        reason = part if isinstance(part, Exception) else None
        raise expect.invalid(name, value, expected, instead) from reason
    return part


def reseeded(initializer: Any, index: int) -> Any:
    """A copy of the initializer that is independent for the `index`-th weight.

    A Keras initializer returns the same values when it is called twice, seeded or not,
    so `W_hat` would equal `M_hat`. A `SeedGenerator` has a state and needs no copy.
    """
    config = initializer.get_config() if hasattr(initializer, "get_config") else {}
    if "seed" not in config or isinstance(config["seed"], dict):
        return initializer
    if config["seed"] is not None:
        config["seed"] = (config["seed"] + index) % 2**32
    return initializer.from_config(config)


def signature(cls: type, base: type) -> inspect.Signature:
    """All arguments of a constructor: those of its parents from `base` on, then those
    that it adds."""
    kinds = inspect.Parameter
    named = {}
    for parent in reversed(cls.__mro__[: cls.__mro__.index(base) + 1]):
        added = dict(inspect.signature(parent.__init__).parameters)
        named = {k: p for k, p in named.items() if k not in added} | added
    variadic = kinds.VAR_POSITIONAL, kinds.VAR_KEYWORD
    named = [p for p in named.values() if p.kind not in variadic and p.name != "self"]
    named.append(kinds("kwargs", kinds.VAR_KEYWORD))
    return inspect.Signature(sorted(named, key=lambda p: p.kind))


class ClassOnly:
    """An attribute of a class but not of its instances: `inspect.signature(layer)` is
    that of calling the layer."""

    def __init__(self, value):
        self.value = value

    def __get__(self, layer, cls):
        if layer is not None:
            raise AttributeError("A layer has no `__signature__`; its class has.")
        return self.value


@functools.cache
def warn_of_half(dtype: str) -> None:
    """Warns once for all layers; every time if warnings are errors."""
    warnings.warn(
        f"The dtype policy {dtype!r} stores weights in half precision: the small steps "
        f"of training are lost in it. Use 'mixed_{dtype}', which stores float32, by "
        f"`keras.config.set_dtype_policy('mixed_{dtype}')`.",
        stacklevel=2,
    )
