"""Checks of arguments, whose errors say what came, what was expected and what to type.

Each function returns the value. NumPy's numbers become Python's, because a config is
JSON. This module loads no framework.
"""

import math
import numbers
from collections.abc import Callable
from typing import Any

import numpy as np

#: The largest float32, since the layers compute in float32.
LARGEST = float(np.finfo("float32").max)


def invalid(name: str, value: Any, expected: str, instead: Any) -> ValueError:
    """The error for a value that an argument cannot have."""
    return ValueError(
        f"Received an invalid value for `{name}`, expected {expected}. "
        f"Received: {name}={text(value)}. Try {name}={instead}."
    )


def text(value: Any) -> str:
    """The `repr` of a value in one line of at most 200 characters."""
    try:
        line = " ".join(repr(value).split())
    except Exception:
        # Python refuses to print an integer of more than 4,300 digits, for example.
        line = f"<{type(value).__name__}>"
    return line if len(line) <= 200 else f"{line[:200]}..."


def number(
    name: str,
    value: Any,
    expected: str = "a finite number",
    instead: Any = "1.0",
    holds: Callable[[Any], Any] | None = None,
) -> Any:
    """A number that is finite in float32 and for which `holds` is true."""
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        try:
            plain = float(value)
        except OverflowError:
            plain = math.inf
        if abs(plain) <= LARGEST and (holds is None or holds(value)):
            if type(value) in (int, float):
                return value
            return int(value) if isinstance(value, numbers.Integral) else plain
    raise invalid(name, value, expected, instead)


def positive(name: str, value: Any) -> Any:
    """A number that is above 0 in float32."""
    return number(name, value, "a positive number", "1.0", lambda n: np.float32(n) > 0)


def not_negative(name: str, value: Any, instead: Any = "0.0") -> Any:
    """A number of 0 or more."""
    expected = "a number of 0 or more"
    return number(name, value, expected, instead, lambda n: n >= 0)


def integer(
    name: str,
    value: Any,
    expected: str = "a positive integer",
    low: Any = 1,
    high: Any = 2**63,
    instead: Any = 1,
) -> int:
    """An integer from `low` to below `high`."""
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        if low <= value < high:
            return int(value)
    raise invalid(name, value, expected, instead)


def seed(name: str, value: Any, bits: int = 32) -> int | None:
    """An integer from 0 to below `2**bits`, or `None`."""
    if value is None:
        return None
    expected = f"None or an integer from 0 to 2**{bits} - 1"
    return integer(name, value, expected, 0, 2**bits, 0)


def flag(name: str, value: Any) -> bool:
    """True or False, also as 1 or 0."""
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, numbers.Integral) and value in (0, 1):
        return bool(value)
    raise invalid(name, value, "True or False", "True")


def kind(name: str, value: Any, kind: Any, expected: str, instead: str) -> Any:
    """A value of this type or union of types."""
    if isinstance(value, kind):
        return value
    raise invalid(name, value, expected, instead)


#: Not `|` within `real`, because PyTorch's compiler cannot read that.
_ARRAYS = np.ndarray, np.generic


def real(name: str, value: Any, instead: str = "np.array([[1.0, 2.0]])") -> Any:
    """A structure of real numbers; a data frame becomes an array. Text, dates, complex
    numbers and objects are refused."""
    if hasattr(value, "to_numpy") and hasattr(value, "index"):
        value = value.to_numpy()
    kind = getattr(value, "dtype", None)
    if kind is None or isinstance(value, _ARRAYS):
        try:
            kind = np.asarray(value).dtype
        except Exception as error:
            raise invalid(name, value, "an array of real numbers", instead) from error
        known = kind.kind in "biuf" or "float" in kind.name
    else:
        known = not any(
            word in str(kind) for word in ("string", "complex", "variant", "resource")
        )
    if not known:
        raise invalid(name, value, "an array of real numbers", instead)
    return value
