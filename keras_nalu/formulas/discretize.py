"""Rounding a model to the formula that it is near to."""

from typing import Any

import keras
import numpy as np

from keras_nalu import expect
from keras_nalu.formulas.read import chain, run, to_rows
from keras_nalu.layers.base import walk_layers
from keras_nalu.ops import to_numpy


def discretize(
    model: keras.Layer, x: Any = None, y: Any = None, tolerance: float = 1e-5
) -> Any:
    """A copy of the model whose kernels are exactly on their targets.

    Every effective weight goes to the nearest of its targets, such as -1, 0 and 1 (the
    powers of an NPU to the nearest whole number, the inputs of an MCFC to one unit
    each), and the gates that do not depend on the inputs to the nearer side. With `x`
    the others are made steeper, until they are open or shut on every row.

    Args:
        model: An arithmetic layer, or a chain of them, as for `formula`. It stays as it
            is; the copy is compiled as it is.
        x: Data as the model is used on.
        y: The right answers. With them the copy must be as good as the model.
        tolerance: How much the mean absolute error may rise, as a share of the mean
            magnitude of `y`: rounding.

    Returns:
        The copy.

    Raises:
        TypeError: the model is no chain of arithmetic layers.
        ValueError: the copy is worse than the model on `x` and `y`; its weights are not
            finite; there is `y` without `x`.

    Example:

    >>> layer = NMU(1)
    >>> layer.build((None, 2))
    >>> layer.set_weights([np.array([[0.98], [0.04]])])
    >>> snapped = keras_nalu.discretize(layer)
    >>> print(keras.ops.convert_to_numpy(snapped.kernel))
    [[1.]
     [0.]]
    """
    originals = chain(model)
    tolerance = expect.not_negative("tolerance", tolerance, "1e-5")
    if y is not None and x is None:
        raise ValueError("Expected the inputs `x` of the labels `y`. Received: x=None.")
    for layer in originals:
        if not all(np.all(np.isfinite(weight)) for weight in layer.get_weights()):
            raise ValueError(
                f"Expected finite weights. Received: NaN or infinite weights in the "
                f"layer {layer.name!r}."
            )
    copy = _clone(model)
    values = None if x is None else to_rows(x, originals[0])
    for layer in chain(copy):
        kernels = {
            name: layer.nearest(name, to_numpy(kernel))
            for name, kernel in layer.kernels.items()
        }
        layer.snap(kernels, values)
        if values is not None:
            values = run([layer], values)[-1]
        for name, kernel in layer.kernels.items():
            w = to_numpy(kernel)
            if np.max(np.abs(w - layer.nearest(name, w))) > 1e-6:
                raise ValueError(
                    f"Expected a layer that can reach its targets. Received: "
                    f"{layer!r}, whose `{name}` stays away from them. Say in its "
                    "`stored` which weights that is made of, or write its `snap`."
                )
    if y is not None:
        _refuse_if_worse(originals, values, to_rows(x, originals[0]), y, tolerance)
    return copy


def _refuse_if_worse(originals, snapped, rows, y, tolerance):
    labels = to_numpy(expect.real("y", y))
    if labels.size != snapped.size:
        raise ValueError(
            f"Expected a label for each of the {snapped.size} outputs. "
            f"Received: y.shape={labels.shape}."
        )
    labels = labels.reshape(snapped.shape)
    before = np.mean(np.abs(run(originals, rows)[-1] - labels))
    after = np.mean(np.abs(snapped - labels))
    if not after <= before + tolerance * np.mean(np.abs(labels)):
        raise ValueError(
            "The discrete model is worse than the one that was given: its mean "
            f"absolute error on `x` and `y` is {after:.3g}, not {before:.3g}. Train "
            "longer, with the layer's sparsity penalty, or look which entries are not "
            "discrete: `formula(model, x).not_discrete`."
        )


def _clone(model):
    known = {type(layer).__name__: type(layer) for layer in walk_layers(model)}
    with keras.saving.custom_object_scope(known):
        copy = type(model).from_config(model.get_config())
        if not copy.built:
            copy.build_from_config(model.get_build_config())
        copy.set_weights(model.get_weights())
        if getattr(model, "compiled", False):
            copy.compile_from_config(model.get_compile_config())
    return copy
