"""The calls of a model, and of the models nested in it, in the order of its graph."""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_nalu import expect
from keras_nalu.formulas import others
from keras_nalu.layers.base import ArithmeticLayer
from keras_nalu.ops import to_numpy

CHUNK = 65536


@dataclasses.dataclass(frozen=True)
class Call:
    """A call; its value has the same index as the call.

    Args:
        layer: A layer or an operation of Keras; `None` for an input of the model, a
            number for a constant, a slice for a choice of columns.
        inputs: The indices of its inputs.
    """

    layer: Any
    inputs: list[int]


@dataclasses.dataclass(frozen=True)
class Graph:
    """The calls of a model in topological order, its inputs first.

    Args:
        calls: The inputs and the calls.
        outputs: The indices of the model's outputs.
    """

    calls: list[Call]
    outputs: list[int]

    def check_rank(self, rank: int) -> None:
        """Raises TypeError if a layer mixes more than the last axis of such data."""
        for call in self.calls:
            others.check_rank(call.layer, rank)

    @property
    def layers(self) -> list[ArithmeticLayer]:
        """The arithmetic layers, each once."""
        layers = {id(call.layer): call.layer for call in self.calls}
        return [each for each in layers.values() if isinstance(each, ArithmeticLayer)]

    @property
    def inputs(self) -> int:
        """The number of the model's inputs."""
        return sum(call.layer is None for call in self.calls)

    def features(self, model: Any, index: int) -> int | None:
        """The number of columns of this input, or None if it is unknown."""
        if getattr(model, "inputs", None):
            return model.inputs[index].shape[-1]
        specs = [call.layer.input_spec for call in self.calls if index in call.inputs]
        known = (spec.axes.get(-1) for spec in specs if getattr(spec, "axes", None))
        return next(known, None)


def graph(model: Any) -> Graph:
    """The `Graph` of a model; raises TypeError for a layer that is not supported."""
    inputs = getattr(model, "inputs", None) or [None]
    calls = [Call(None, []) for _ in inputs]
    outputs = _follow(model, [*range(len(calls))], calls)
    return Graph(calls, outputs)


def run(
    graph: Graph,
    inputs: list[np.ndarray],
    before: Callable[[Any, np.ndarray], None] = lambda layer, rows: None,
) -> list[np.ndarray]:
    """The value of every call on the rows, (rows, features) each.

    Args:
        graph: The calls.
        inputs: The rows of every input of the model.
        before: Called with every arithmetic layer and its rows before the layer is.
    """
    values = list(inputs)
    for call in graph.calls[len(inputs) :]:
        came = [values[index] for index in call.inputs]
        if isinstance(call.layer, ArithmeticLayer):
            before(call.layer, came[0])
        values.append(_call(call.layer, came, len(inputs[0])))
    return values


def _call(layer, came, rows):
    if isinstance(layer, slice):
        return came[0][:, layer]
    if isinstance(layer, keras.layers.Flatten):
        return came[0]
    if isinstance(layer, float):
        return np.full((rows, 1), layer)
    if isinstance(layer, keras.layers.Concatenate):
        return np.concatenate(came, axis=-1)
    chunks = []
    for start in range(0, rows, CHUNK):
        parts = [part[start : start + CHUNK] for part in came]
        merges = isinstance(layer, keras.Layer) and len(parts) > 1
        made = to_numpy(layer(parts) if merges else layer(*parts))
        chunks.append(made.reshape(len(parts[0]), -1))
    return np.concatenate(chunks)


def _follow(part, inputs, calls):
    """Appends the calls of a model, a layer or an operation; returns its outputs."""
    if isinstance(part, keras.Sequential):
        for layer in part.layers:
            inputs = _follow(layer, inputs, calls)
        return inputs
    if isinstance(part, keras.Model) and hasattr(part, "operations"):
        return _functional(part, inputs, calls)
    if others.passes_on(part):
        return inputs
    if not (isinstance(part, ArithmeticLayer | slice) or others.reads(part)):
        raise unreadable(part)
    is_layer = isinstance(part, keras.Layer)
    if is_layer and not part.built:  # pyright: ignore[reportAttributeAccessIssue]
        raise ValueError(
            f"Expected a model that is built. Received: {part!r}, which has no weights "
            "yet. Call the model on data once, or begin it with `keras.Input`."
        )
    calls.append(Call(part, inputs))
    return [len(calls) - 1]


def unreadable(model: Any) -> TypeError:
    """The error for a layer that is not supported."""
    return TypeError(
        "Expected an arithmetic layer, or a Sequential or functional model of "
        f"arithmetic layers and {others.NAMES}. Received: model={expect.text(model)}. "
        "Read its arithmetic layers one by one, each with its own inputs: "
        "`formula(layer, inputs)`; of a population read a member: "
        "`population.best(x, y)`."
    )


def _functional(model, inputs, calls):
    """Appends the calls of a functional model, from its config: Keras has no other
    public form of the graph."""
    config = model.get_config()
    nodes = {part["name"]: part["inbound_nodes"] for part in config["layers"]}
    parts = {part.name: part for part in model.operations}
    known = dict(zip(_histories(config["input_layers"]), inputs, strict=True))

    def value(history):
        if history not in known:
            name, node, _ = history
            arguments = nodes[name][node]
            part = parts[name]
            if arguments["kwargs"].get("training"):
                raise TypeError(
                    "Expected layers that are called for prediction. Received: the "
                    f"layer {name!r}, which the model calls with training=True."
                )
            for each, made in enumerate(apply(part, arguments)):
                known[name, node, each] = made
        return known[history]

    def apply(part, arguments):
        arguments = [*others.arguments(part, arguments)]
        key = next((each for each in arguments if isinstance(each, slice)), None)
        came = []
        for each in arguments:
            if isinstance(each, dict):
                came.append(value(tuple(each["config"]["keras_history"])))
            elif isinstance(each, float):
                calls.append(Call(each, []))
                came.append(len(calls) - 1)
        return _follow(part if key is None else key, came, calls)

    return [value(history) for history in _histories(config["output_layers"])]


def _histories(structure):
    """The (layer's name, index of the call, index of the output) in a config."""
    flat = keras.tree.flatten(structure)
    return [*zip(flat[::3], flat[1::3], flat[2::3], strict=True)]
