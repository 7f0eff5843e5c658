"""Rounding a model to the formula that it is near to."""

from typing import Any

import keras
import numpy as np

from keras_nalu import expect
from keras_nalu.formulas import calls, data, fit
from keras_nalu.layers.base import walk_layers
from keras_nalu.ops import to_numpy

#: A larger error than that nobody takes for noise.
NOISE = 0.3


def discretize(
    model: keras.Layer, x: Any = None, y: Any = None, tolerance: float | None = None
) -> Any:
    """A copy of the model whose kernels are exactly on their targets.

    Every effective weight goes to the nearest of its targets, such as -1, 0 and 1 (the
    exponents of an NPU to the nearest multiple of 1/2, the inputs of an MCFC to one
    unit each), and the gates that do not depend on the inputs to the nearer side. With
    `x` the others are made steeper, until they are open or shut on every row. Layers of
    Keras stay as they are. Without `y` nothing says that the copy is right.

    Args:
        model: A model that `formula` reads. It stays as it is.
        x: Data as the model is used on.
        y: The right answers. The copy must give them.
        tolerance: How large the copy's mean absolute error may be, as a share of the
            mean magnitude of `y`: its noise. `None` is rounding, 1e-5 in float32.

    Returns:
        The copy, compiled as the model is.

    Raises:
        TypeError: the model has layers that `formula` does not read.
        ValueError: the copy does not give `y`; the weights are not finite; there is `y`
            without `x`.

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
    """Sets a layer's kernels to their targets."""
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
                f"{layer!r}, whose `{name}` stays away from them. Say in its "
                "`stored` which weights that is made of, or write its `snap`."
            )


def _worse(of_copy, of_model):
    """The error for a copy that does not give the right answers."""
    index = int(of_copy.error.argmax())
    told, before = (fit.told(each, index) for each in (of_copy, of_model))
    if of_model.worst < of_copy.worst / 2:
        why = (
            "Train longer, with the layer's sparsity penalty, or look which entries "
            "are not discrete: `formula(model, x).not_discrete`."
        )
    else:
        why = (
            "The model itself has not found `y`, so its nearest formula has not: train "
            "another seed, or other layers."
        )
        if of_copy.worst < NOISE:
            allowed = f"{1.1 * of_copy.worst:.2g}"
            why += f" If that is the noise in `y`, say so: tolerance={allowed}."
    return ValueError(
        f"The discrete model does not give `y`: {told}; the model: {before}. {why}"
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
                layer.finalize_state()  # it computes with copies of its weights
        if getattr(model, "compiled", False):
            copy.compile_from_config(model.get_compile_config())
    return copy
