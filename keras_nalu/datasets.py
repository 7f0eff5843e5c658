"""Seeded arithmetic tasks."""

import math
import operator

import numpy as np

from keras_nalu import expect

#: By name: what the labels are, of arrays and of tensors.
OPERATIONS = {
    "add": operator.add,
    "subtract": operator.sub,
    "multiply": operator.mul,
    "divide": operator.truediv,
}
COMPARISONS = {
    "less": operator.lt,
    "less_equal": operator.le,
    "equal": operator.eq,
    "not_equal": operator.ne,
    "greater_equal": operator.ge,
    "greater": operator.gt,
}

#: A range far from the notebook's 0..8: `generate_dataset(1000, **EXTRAPOLATION)`.
EXTRAPOLATION = {"low": 100, "high": 1000}


def generate_dataset(
    size: int = 10000,
    seed: int | None = None,
    *,
    operation: str = "multiply",
    low: int = 0,
    high: int = 9,
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of two integers and the result of an operation on them: the notebook's.

    A divisor is never zero.

    Args:
        size: Number of rows.
        seed: An integer makes the data reproducible. Without one it comes from
            NumPy's global generator, which `keras.utils.set_random_seed` seeds.
        operation: `"add"`, `"subtract"`, `"multiply"` or `"divide"`.
        low: The smallest integer.
        high: One above the largest integer, as in `numpy.random.randint`.

    Returns:
        `X` of shape (size, 2) and `Y` of shape (size, 1); integers, but for the floats
        that a division gives.

    Raises:
        ValueError: a size or bound that is not an integer, a negative size, an unknown
            operation, an empty range, or one so large that its products do not fit 64
            bits.

    Example:

    >>> X, Y = generate_dataset(3, seed=0)
    >>> print(X.tolist(), Y.tolist())
    [[5, 0], [3, 3], [7, 3]] [[0], [9], [21]]
    """
    size = expect.integer("size", size, "an integer of 0 or more", 0, math.inf, 10_000)
    low = expect.integer("low", low, "an integer", -math.inf, math.inf, 0)
    high = expect.integer("high", high, "an integer", -math.inf, math.inf, 9)
    seed = expect.seed("seed", seed)
    if not isinstance(operation, str) or operation not in OPERATIONS:
        known = f"one of {', '.join(map(repr, OPERATIONS))}"
        raise expect.invalid("operation", operation, known, "'multiply'")
    skip_zero = operation == "divide" and low <= 0 < high
    if not -(2**31) <= low < high - skip_zero <= 2**31:
        raise ValueError(
            "Expected low < high, between -2**31 and 2**31, with more than zero to "
            f"divide by. Received: low={expect.text(low)}, high={expect.text(high)}. "
            "Try low=0, high=9."
        )
    # The legacy generator draws what the notebook's `np.random.randint` drew.
    rng = np.random if seed is None else np.random.RandomState(seed)
    X = rng.randint(low, high, size=(size, 2))
    if skip_zero:
        X[:, 1] = rng.randint(low, high - 1, size=size)
        X[:, 1] += X[:, 1] >= 0
    return X, OPERATIONS[operation](X[:, :1], X[:, 1:])
