"""Rounding the weights of a model to the nearest formula."""

from typing import Any

import keras
import numpy as np

from keras_nalu import expect
from keras_nalu.formulas import calls, data, fit
from keras_nalu.layers.base import walk_layers
from keras_nalu.ops import to_numpy

#: An error above this is not taken for noise.
NOISE = 0.3


def discretize(
    model: keras.Layer, x: Any = None, y: Any = None, tolerance: float | None = None
) -> Any:
    """A copy of the model whose kernels are exactly on their targets.

    Every effective weight moves to the nearest of its targets, such as -1, 0 and 1 (the
    exponents of an NPU to the nearest multiple of 1/2, the inputs of an MCFC to one
    unit each). A gate that does not depend on the inputs moves to the nearer of 0 and
    1; with `x`, any other gate is made steeper until it is 0 or 1 on every row. Keras'
    own layers are not changed. Only `y` checks that the copy is right.

    Args:
        model: A model that `formula` supports. It is not changed.
        x: Data of the kind that the model is used on.
        y: The right answers, which the copy must give.
        tolerance: The largest mean absolute error of the copy, as a share of the mean
            magnitude of `y`, such as the noise of `y`. `None` allows rounding only,
            1e-5 in float32.

    Returns:
        The copy, compiled as the model is.

    Raises:
        TypeError: The model has layers that `formula` does not support.
        ValueError: The copy does not give `y`, the weights are not finite, or there is
            `y` without `x`.

    Example:

    >>> layer = NMU(1)
    >>> layer.build((None, 2))
    >>> layer.set_weights([np.array([[0.98], [0.04]])])
    >>> snapped = keras_nalu.discretize(layer)
    >>> print(keras.ops.convert_to_numpy(snapped.kernel))
    [[1.]
     [0.]]
    """
    graph = calls.graph(model)
    if tolerance is not None:
        tolerance = expect.not_negative("tolerance", tolerance, "0.05")
    if y is not None and x is None:
        raise ValueError("Expected the inputs `x` of the labels `y`. Received: x=None.")
    _refuse_not_finite(graph)
    rows = None if x is None else data.to_rows(x, model, graph)
    copy = _clone(model)
    snapped = calls.graph(copy)
    if rows is None:
        for layer in snapped.layers:
            _snap(layer)
        return copy
    predicted = _outputs(snapped, calls.run(snapped, rows.parts, before=_snap))
    if y is not None:
        widths = [each.shape[1] for each in predicted]
        labels = data.labels(y, rows.shape, widths)
        allowed = fit.rounding(graph) if tolerance is None else tolerance
        of_copy = fit.measure(np.hstack(predicted), labels)
        if not of_copy.worst <= allowed:
            before = np.hstack(_outputs(graph, calls.run(graph, rows.parts)))
            raise _worse(of_copy, fit.measure(before, labels))
    return copy


def _outputs(graph, values):
    return [values[index] for index in graph.outputs]


def _refuse_not_finite(graph):
    for layer in graph.layers:
        if not all(np.all(np.isfinite(weight)) for weight in layer.get_weights()):
            raise ValueError(
                f"Expected finite weights. Received: NaN or infinite weights in the "
                f"layer {layer.name!r}."
            )


def _snap(layer, rows=None):
    """Moves a layer's kernels to their targets."""
    kernels = {
        name: layer.nearest(name, to_numpy(kernel))
        for name, kernel in layer.kernels.items()
    }
    layer.snap(kernels, rows)
    for name, kernel in layer.kernels.items():
        w = to_numpy(kernel)
        if np.max(np.abs(w - layer.nearest(name, w))) > 1e-6:
            raise ValueError(
                f"Expected a layer that can reach its targets. Received: "
                f"{layer!r}, whose `{name}` is not on them after `snap`. List the "
                "weights that it is computed from in `stored`, or override `snap`."
            )


def _worse(of_copy, of_model):
    """The error for a copy that does not give the right answers."""
    index = int(of_copy.error.argmax())
    copy, model = (fit.describe(each, index) for each in (of_copy, of_model))
    if of_model.worst < of_copy.worst / 2:
        why = (
            "Train longer with the layer's sparsity penalty, or see which entries are "
            "not discrete: `formula(model, x).not_discrete`."
        )
    else:
        why = "The model does not fit `y` either. Train another seed, or other layers."
        if of_copy.worst < NOISE:
            allowed = f"{1.1 * of_copy.worst:.2g}"
            why += f" If that is the noise in `y`, pass tolerance={allowed}."
    return ValueError(
        f"The discrete model does not give `y`: {copy}; the model: {model}. {why}"
    )


def _clone(model):
    known = {type(layer).__name__: type(layer) for layer in walk_layers(model)}
    with keras.saving.custom_object_scope(known):
        copy = type(model).from_config(model.get_config())
        if not copy.built:
            copy.build_from_config(model.get_build_config())
        copy.set_weights(model.get_weights())
        for layer in walk_layers(copy):
            if isinstance(layer, keras.layers.Normalization):
                layer.finalize_state()  # refresh the tensors made from its weights
        if getattr(model, "compiled", False):
            copy.compile_from_config(model.get_compile_config())
    return copy
