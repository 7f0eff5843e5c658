"""Seeded arithmetic tasks."""

import math
import operator

import numpy as np

from keras_nalu import expect

#: The functions that compute the labels, by name. They take arrays and tensors.
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
    """Samples rows of two integers and the result of an operation on them.

    This is the data of the tutorial notebook. A divisor is never zero.

    Args:
        size: Number of rows.
        seed: An integer makes the data reproducible. `None` takes NumPy's global
            generator, which `keras.utils.set_random_seed` seeds.
        operation: `"add"`, `"subtract"`, `"multiply"` or `"divide"`.
        low: The smallest integer.
        high: One above the largest integer, as in `numpy.random.randint`.

    Returns:
        `X` of shape (size, 2) and `Y` of shape (size, 1), as integers; the `Y` of a
        division are floats.

    Raises:
        ValueError: a size or bound is not an integer, the size is negative, the
            operation is unknown, or the range is empty or exceeds 32 bits.

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
    # The legacy generator repeats the numbers of the notebook's `np.random.randint`.
    rng = np.random if seed is None else np.random.RandomState(seed)
    X = rng.randint(low, high, size=(size, 2))
    if skip_zero:
        X[:, 1] = rng.randint(low, high - 1, size=size)
        X[:, 1] += X[:, 1] >= 0
    return X, OPERATIONS[operation](X[:, :1], X[:, 1:])
