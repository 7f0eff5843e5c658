"""A trained model as a formula."""

from collections.abc import Iterable
from typing import Any

import keras

from keras_nalu import expect
from keras_nalu.formulas.answer import Formula
from keras_nalu.formulas.reader import Reader


def formula(
    model: keras.Layer,
    x: Any,
    y: Any = None,
    names: Iterable[str] | None = None,
    tolerance: float = 0.05,
) -> Formula:
    """The function that a trained model of arithmetic layers computes on such data.

    It says what the model computes, which need not be what the data say: give it `y`,
    and the text says so where it is off by more than rounding.

    Where every weight that acts is near to one of its targets, such as -1, 0 and 1 (of
    an NPU's exponents, the multiples of 1/2), it is taken for that: `y = x0 * x1`. Else
    the layer's equation is written with its weights, in the digits that their dtype
    carries, and the formula says which are not discrete.

    A gate that depends on the inputs stands for one path if it takes the same side of
    1/2 on every row, and is near 0 or 1 on average. Else both paths are written, mixed
    by the gate, and no single operation holds.

    Args:
        model: An arithmetic layer, or a `Sequential` or functional model of these,
            `Dense`, `Activation`, `Rescaling`, `Normalization`, `Concatenate`, `Add`,
            `Subtract`, `Multiply`, `Average`, + - * / ** and slices of columns; nested
            models and members of a population too.
        x: Data of shape (..., features), as the model is used on: its range and its
            signs decide how the formula is written. A list of them, or a dictionary by
            name, where the model has several inputs.
        y: The right answers, of shape (..., outputs), or (...) for one output.
        names: Names of the features. `None` takes a data frame's columns, in backticks
            where they are no names in Python, and else calls them `x0`, `x1` and so on.
        tolerance: How far from its target a weight, or the mean gate, may be.

    Returns:
        A `Formula`. `str` of it is its text, `.model_error` says how far it is from the
        model, `.data_error` and `.r2` how far from `y`; `.expressions` are SymPy's.

    Raises:
        TypeError: the model has other layers.
        ValueError: `x` has no rows, or entries that are not finite; `y` has another
            shape, or such entries; `names` has another number of names than `x` has
            features, or one that is no identifier, is there twice or has a meaning in
            formulas; there are about a thousand terms.

    Example:

    >>> layer = NMU(1)
    >>> layer.build((None, 2))
    >>> layer.set_weights([np.array([[1.0], [0.99]])])
    >>> X = np.array([[3, 4], [-5, 6]])
    >>> print(formula(layer, X, names=["length", "width"]))
    y = length * width
    >>> print(*formula(layer, X, [24, -60]).misses[:1])
    y misses the data: R^2 0.704, mean error 50% of the mean |y|.
    """
    tolerance = expect.not_negative("tolerance", tolerance, "0.05")
    return Reader(model, x, y, names).best(tolerance)
