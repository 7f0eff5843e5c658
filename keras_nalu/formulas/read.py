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
    """The formula that a trained model of arithmetic layers computes on such data.

    The model may have learned another law than that of the data. With `y`, the text
    says where the formula is off by more than rounding.

    If every weight is near one of its targets, such as -1, 0 and 1 (for exponents of an
    NPU, multiples of 1/2), the targets are written: `y = x0 * x1`. Else the weights are
    written, in the digits that their dtype carries, and `not_discrete` lists those that
    are not near a target.

    A gate that depends on the inputs chooses one path if it is on the same side of 1/2
    on every row, and near 0 or 1 on average. Else both paths are written, mixed by the
    gate.

    Args:
        model: An arithmetic layer, or a `Sequential` or functional model of these,
            `Dense`, `Activation`, `Rescaling`, `Normalization`, `Concatenate`, `Add`,
            `Subtract`, `Multiply`, `Average`, + - * / ** and slices of columns. Nested
            models and members of a population are also read.
        x: Data of shape (..., features), of the kind that the model is used on: its
            range and signs decide which equation is written. For several inputs a list
            of arrays, or a dictionary by name.
        y: The right answers, of shape (..., outputs), or (...) for one output.
        names: Names of the features. `None` takes the columns of a data frame, in
            backticks if they are not identifiers, or else `x0`, `x1` and so on.
        tolerance: The largest distance of a weight, or of a mean gate, to its target.

    Returns:
        A `Formula`: `str` gives its text, `.model_error` its error against the model,
        `.data_error` and `.r2` those against `y`, `.expressions` SymPy's expressions.

    Raises:
        TypeError: The model has other layers.
        ValueError: `x` has no rows; `x` or `y` has entries that are not finite; `y` has
            another shape; `names` are not as many as the features, not identifiers,
            not distinct, or have a meaning in formulas; or the formula has about a
            thousand terms.

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
