"""What the published code does to the stored weights after every training step."""

import math
from typing import Any

import keras

from keras_nalu import expect, ops


@keras.saving.register_keras_serializable(package="keras_nalu")
class Clip(keras.constraints.Constraint):
    """Keeps every entry of a weight between two bounds.

    `NAU` and `NRU` use `Clip(-1, 1)`, and `NMU`, `SNMU` and `NMRU` use `Clip(0, 1)`. To
    train them without it, give `kernel_constraint=keras.constraints.Constraint()`.

    Args:
        low: The lowest value.
        high: The highest value.

    Raises:
        ValueError: `low` is not below `high`.

    Example:

    >>> clip = keras_nalu.constraints.Clip(-1, 1)
    >>> print(keras.ops.convert_to_numpy(clip(np.array([-3.0, 0.5, 2.0]))))
    [-1.   0.5  1. ]
    """

    def __init__(self, low: float = -1.0, high: float = 1.0) -> None:
        self.low = _bound("low", low)
        self.high = _bound("high", high)
        if not self.low < self.high:
            raise ValueError(
                "Expected `low` to be below `high`. "
                f"Received: low={low!r}, high={high!r}. Try Clip(-1, 1)."
            )

    def __call__(self, w: Any) -> Any:
        return keras.ops.clip(ops.floating("w", w), self.low, self.high)

    def get_config(self) -> dict[str, float]:
        return {"low": self.low, "high": self.high}


def _bound(name: str, value: Any) -> float:
    if isinstance(value, float) and math.isinf(value):
        return float(value)
    return float(expect.number(name, value, "a number, or an infinity"))
