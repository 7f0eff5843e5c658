"""Reading a trained model as a formula."""

import keras
import numpy as np

from keras_nalu.layers.base import ArithmeticLayer


def read_formula(model, X, tolerance=0.05):
    """What a trained layer, or a `Sequential` of layers, computes on this data.

    Effective weights near -1, 0 and 1 are taken for these. A gate stands for one path
    if it takes the same side of 1/2 on every row, and is near 0 or 1 on average. A unit
    that is not there yet has no formula, and its line gives its numbers instead.

    Args:
        model: An arithmetic layer, or a `keras.Sequential` of nothing else.
        X: The data, of shape (..., features).
        tolerance: How far from a whole number a weight, or the mean gate, may be.

    Returns:
        A line for every unit, hidden ones first.

    Raises:
        TypeError: the model has a layer that is not arithmetic.
        ValueError: there are no rows.

    Example:

    >>> layer = NAC(1)
    >>> layer.build((None, 2))
    >>> layer.set_weights([np.array([[9], [-9]]), np.array([[9], [9]])])
    >>> read_formula(layer, np.array([[3, 4]]))
    ['y = x0 - x1']
    """
    layers = [model] if isinstance(model, ArithmeticLayer) else _chain(model)
    X = np.asarray(X)
    if X.size == 0:
        raise ValueError(f"Expected rows to read on. Received: X.shape={X.shape}.")
    X = X.reshape(-1, X.shape[-1])
    inputs = [f"x{i}" for i in range(X.shape[-1])]
    lines = []
    for depth, layer in enumerate(layers, 1):
        prefix = "y" if depth == len(layers) else f"h{depth}_"
        outputs = [f"{prefix}{unit}" for unit in range(layer.units)]
        if outputs == ["y0"]:
            outputs = ["y"]
        lines += _read_layer(layer, X, inputs, outputs, tolerance)
        X, inputs = keras.ops.convert_to_numpy(layer(X)), outputs
    return lines


def _chain(model):
    layers = model.layers if isinstance(model, keras.Sequential) else [model]
    for layer in layers:
        if not isinstance(layer, ArithmeticLayer):
            raise TypeError(
                "Expected an arithmetic layer, or a keras.Sequential of arithmetic "
                f"layers alone. Received: {layer!r}. Read its arithmetic layers one by "
                "one, each with its own inputs: `read_formula(layer, inputs)`."
            )
    return layers


def _read_layer(layer, X, inputs, outputs, tolerance):
    W = keras.ops.convert_to_numpy(layer.kernel)
    # A row of zeros says nothing: it leaves every gate without a bias at one half.
    rows = X[np.any(X != 0, axis=-1)] if np.any(X) else X
    if hasattr(layer, "gate"):
        gates = keras.ops.convert_to_numpy(layer.gate(rows))
    else:
        gates = np.ones((len(rows), layer.units))
    magnitudes = [
        f"|{name}|" if np.any(column < 0) else name
        for name, column in zip(inputs, X.T, strict=True)
    ]
    for output, w, g in zip(outputs, W.T, gates.T, strict=True):
        if np.all(np.abs(w - np.round(w)) <= tolerance):
            if g.min() > 0.5 and g.mean() >= 1 - tolerance:
                yield f"{output} = {_sum(w, inputs)}"
                continue
            if g.max() < 0.5 and g.mean() <= tolerance:
                yield f"{output} = {_product(w, magnitudes)}"
                continue
        weights = ", ".join(f"{value:.3f}" for value in w)
        yield (
            f"{output}: no formula yet, W = ({weights}), "
            f"gate from {g.min():.3f} to {g.max():.3f}"
        )


def _sum(w, names):
    plus, minus = _sides(w, names)
    if minus and not plus:
        return "-" + " - ".join(minus)
    return " - ".join([" + ".join(plus) or "0", *minus])


def _product(w, names):
    over, under = _sides(w, names)
    return " / ".join([" * ".join(over) or "1", *under])


def _sides(w, names):
    signs = np.round(w)
    return (
        [name for name, sign in zip(names, signs, strict=True) if sign == 1],
        [name for name, sign in zip(names, signs, strict=True) if sign == -1],
    )
