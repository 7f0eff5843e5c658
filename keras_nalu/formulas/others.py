"""Formulas of Keras' own layers and operators."""

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from keras_nalu import expect, lines, ops

#: The supported layers, for error messages.
NAMES = (
    "Dense, Activation, Rescaling, Normalization, Concatenate, Add, Subtract, "
    "Multiply, Average and the operators + - * / **"
)
#: The function in the formula for each activation.
ACTIVATIONS = {
    keras.activations.linear: "",
    keras.activations.relu: "relu",
    keras.activations.sigmoid: "sigmoid",
    keras.activations.tanh: "tanh",
    keras.activations.exponential: "exp",
}
#: Layers that do nothing in prediction.
_PASSING = (
    keras.layers.InputLayer,
    keras.layers.Identity,
    keras.layers.Dropout,
    keras.layers.GaussianNoise,
    keras.layers.GaussianDropout,
    keras.layers.ActivityRegularization,
)


def passes_on(part: Any) -> bool:
    """Whether a layer returns its inputs in prediction."""
    return type(part) in _PASSING


def reads(part: Any) -> bool:
    """Whether the layer or operation is supported."""
    if isinstance(part, keras.Layer):
        return type(part) in {*_LAYERS, keras.layers.Concatenate, keras.layers.Flatten}
    return type(part).__name__ in _OPERATORS


def check_rank(layer: Any, rank: int) -> None:
    """Raises TypeError if the layer mixes more than the last axis of such data."""
    last = {-1, rank - 1}
    if isinstance(layer, keras.layers.Concatenate):
        mixes = layer.axis not in last
    elif isinstance(layer, keras.layers.Normalization):
        mixes = not {*layer.axis} <= last
    else:
        mixes = isinstance(layer, keras.layers.Flatten) and rank > 2
    if mixes:
        raise TypeError(
            "Expected layers that act on the last axis only. Received: the layer "
            f"{layer.name!r}, for data of rank {rank}. Read the layers after it: "
            "`formula(keras.Sequential(layers), inputs)`."
        )


def of_columns(layer: Any) -> bool:
    """Whether each output column depends on the same column of the inputs only."""
    return type(layer) is not keras.layers.Dense


def read(layer: Any, unit: Any) -> str:
    """The line of a unit."""
    if type(layer) in _LAYERS:
        return _LAYERS[type(layer)](layer, unit)
    return _OPERATORS[type(layer).__name__](unit)


def arguments(part: Any, call: dict[str, Any]) -> Iterator[Any]:
    """The arguments of a call in a config: tensors as dictionaries, numbers, slices."""
    given = [*call["args"], *call["kwargs"].values()]
    if type(part).__name__ == "GetItem":
        tensor, key = given
        return iter([tensor, _columns_of(part, key)])
    return _flat(part, given)


def _flat(part, given):
    for each in given:
        if isinstance(each, list | tuple):
            yield from _flat(part, each)
        elif isinstance(each, dict) and each.get("class_name") == "__keras_tensor__":
            yield each
        elif isinstance(part, keras.Layer):
            continue  # `training`, `mask` and their like
        elif isinstance(each, int | float):
            yield float(each)
        elif each is not None:
            raise TypeError(
                "Expected operators of tensors and numbers. Received: "
                f"{expect.text(each)} in the operation {part.name!r}."
            )


def _columns_of(part, key):
    """The slice of the last axis; raises TypeError if another axis is sliced."""
    key = [
        _part_of_key(each) for each in (key if isinstance(key, list | tuple) else [key])
    ]
    *others, last = key
    whole = all(each in (slice(None), Ellipsis) for each in others)
    if not (others and whole and isinstance(last, slice)):
        raise TypeError(
            "Expected slices of columns only, such as x[..., :2]. Received: another "
            f"index in the operation {part.name!r}."
        )
    return last


def _part_of_key(each):
    kind = each.get("class_name") if isinstance(each, dict) else None
    if kind == "__slice__":
        bounds = each["config"]
        return slice(bounds["start"], bounds["stop"], bounds["step"])
    return Ellipsis if kind == "__ellipsis__" else each


def _column(array, unit):
    """The entry for the unit's column of an array that broadcasts over columns."""
    array = np.ravel(array)
    if len(array) not in (1, unit.width):
        raise TypeError(
            f"Expected a number for each of the {unit.width} columns. "
            f"Received: {len(array)} in the layer {unit.layer.name!r}."
        )
    return array[unit.index if len(array) > 1 else 0]


def _plus(terms, weights, offset):
    """The line of a weighted sum plus a constant."""
    number, sign = [lines.number(abs(offset))], [float(np.sign(offset))]
    return lines.sum_([*weights, *sign], [*terms, *number])


def _activated(activation, layer, line):
    if activation not in ACTIVATIONS:
        known = ", ".join(each.__name__ for each in ACTIVATIONS)
        raise TypeError(
            f"Expected one of the activations {known}. Received: "
            f"{expect.text(activation)} in the layer {layer.name!r}. Read only the "
            "layers before it: `formula(keras.Sequential(layers), X)`."
        )
    return f"{ACTIVATIONS[activation]}({line})"


def _dense(layer, unit):
    if layer.quantization_mode is not None:
        raise TypeError(
            "Expected weights that are not quantized. Received: the layer "
            f"{layer.name!r} in {layer.quantization_mode}. Call `formula` before "
            "`quantize`."
        )
    kernel = ops.to_numpy(layer.kernel)[:, unit.index]
    weights = [lines.digits(w, layer.variable_dtype) for w in kernel]
    bias = ops.to_numpy(layer.bias)[unit.index] if layer.use_bias else 0.0
    line = _plus(unit.inputs, weights, lines.digits(bias, layer.variable_dtype))
    return _activated(layer.activation, layer, line)


def _activation(layer, unit):
    return _activated(layer.activation, layer, unit.inputs[0])


def _rescaling(layer, unit):
    scale, offset = (
        lines.digits(_column(part, unit), layer.compute_dtype)
        for part in (layer.scale, layer.offset)
    )
    return _plus(unit.inputs, [scale], offset)


def _normalization(layer, unit):
    mean, variance = (
        _column(ops.to_numpy(part), unit) for part in (layer.mean, layer.variance)
    )
    mean = lines.digits(mean, layer.compute_dtype)
    deviation = max(np.sqrt(variance), keras.config.epsilon())
    deviation = lines.digits(deviation, layer.compute_dtype)
    if layer.invert:
        return _plus(unit.inputs, [deviation], mean)
    centred = _plus(unit.inputs, [1], -mean)
    return lines.product([(centred, 1), (lines.number(deviation), -(deviation != 1))])


def _add(unit):
    return lines.sum_(np.ones(len(unit.inputs)), unit.inputs)


def _subtract(unit):
    return lines.sum_([1, -1], unit.inputs)


def _multiply(unit):
    return lines.product((name, 1) for name in unit.inputs)


def _average(unit):
    return f"({_add(unit)}) / {len(unit.inputs)}"


def _divide(unit):
    unit.divisors.add(1)
    return lines.product(zip(unit.inputs, [1, -1], strict=True))


def _power(unit):
    return "({})**({})".format(*unit.inputs)


_OPERATORS: dict[str, Callable[[Any], str]] = {
    "Add": _add,
    "Subtract": _subtract,
    "Multiply": _multiply,
    "Divide": _divide,
    "TrueDivide": _divide,
    "Power": _power,
    "Negative": lambda unit: f"-({unit.inputs[0]})",
    "Square": lambda unit: f"({unit.inputs[0]})**2",
    "Sqrt": lambda unit: f"({unit.inputs[0]})**0.5",
}
_LAYERS: dict[type, Callable[[Any, Any], str]] = {
    keras.layers.Dense: _dense,
    keras.layers.Activation: _activation,
    keras.layers.Rescaling: _rescaling,
    keras.layers.Normalization: _normalization,
    keras.layers.Add: lambda layer, unit: _add(unit),
    keras.layers.Subtract: lambda layer, unit: _subtract(unit),
    keras.layers.Multiply: lambda layer, unit: _multiply(unit),
    keras.layers.Average: lambda layer, unit: _average(unit),
}
