"""Values of every kind for arguments, and checks of the errors for them.

Every generated case is one value of one argument, or one set of data. NumPy, an
equation or a rule for the argument gives the expected result. `pytest -n auto
tests/test_inputs.py --hypothesis-profile nightly` tries 600 cases of each; conftest.py
has the number of each profile.
"""

import contextlib
import decimal
import fractions
import json
import math
import re

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

BACKEND = keras.backend.backend()


LARGEST = float(np.finfo("float32").max)


#: Of tests whose cases take more than some milliseconds.
SOME = settings(max_examples=max(1, settings().max_examples // 4))


FEWER = settings(max_examples=max(1, settings().max_examples // 20))


FEW = settings(max_examples=max(1, settings().max_examples // 200))


# Values of every kind.


class Thing:
    def __repr__(self):
        return "<thing>"


class Unspeakable:
    def __repr__(self):
        raise RuntimeError


TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=6)


REALS = st.one_of(
    st.integers(-3, 12),
    st.integers(),
    st.floats(-3, 3),
    st.floats(),
    st.sampled_from(
        [
            *(2**31, 2**32 - 1, 2**32, 2**40, 2**63, 10**30, 10**400, -(10**5000)),
            *(np.int64(3), np.uint8(5), np.float32(0.5), np.float64(2), np.float16(1)),
            *(fractions.Fraction(1, 3), 1e-45, 5e-324, 1e38, LARGEST, 2 * LARGEST),
        ]
    ),
)


ODD = st.one_of(
    TEXT,
    st.binary(max_size=4),
    st.complex_numbers(),
    st.sampled_from(
        [
            *(None, True, False, np.True_, Thing(), Unspeakable(), object, len, Thing),
            *(decimal.Decimal("0.5"), range(3), slice(1, 2), np.datetime64("2020")),
            *(np.array(3), np.array([1, 2]), np.array([]), np.array("a"), Ellipsis),
            np.array([None, 1], object),
        ]
    ),
    st.lists(st.one_of(st.integers(-2, 3), st.floats(), TEXT, st.none()), max_size=3),
    st.tuples(st.integers(-2, 3), st.floats()),
    st.dictionaries(TEXT, st.integers(), max_size=2),
    st.sets(st.integers(), max_size=2),
)


ANYTHING = st.one_of(REALS, ODD)


# Data.

FLOATS = st.one_of(
    st.floats(-3, 3, width=32),
    st.floats(width=32),
    st.sampled_from([0.0, -0.0, 1.0, -1.0, 1e-45, 1e-38, 1e30, 3e38, np.inf, np.nan]),
)


MODERATE = st.one_of(
    st.floats(-1e4, 1e4, width=32), st.sampled_from([0.0, 1.0, np.inf, -np.inf, np.nan])
)


DTYPES = "float16 float32 float64 int8 int32 int64 uint8 uint64 bool".split()


#: What is no array of real numbers, in the place of one.
NO_NUMBERS = st.one_of(
    TEXT,
    st.sampled_from(
        [
            *(None, Thing(), object, len, {"a": [1.0]}, {1.0}, b"x", Ellipsis),
            *(np.array([["a", "b"]]), np.array([["2020", "2021"]], "datetime64[D]")),
            *(np.array([[None, 1]], object), np.array([[1j, 2]]), 1j, [[1j, 2]]),
            *([[1.0, 2.0], [3.0]], [["a", 1.0]], [[None, 1.0]], [Thing()]),
        ]
    ),
)


def cases(limit=None, **strategies):
    """`hypothesis.given`, with a limit if the cases take long."""
    return lambda test: (limit or (lambda f: f))(given(**strategies)(test))


@contextlib.contextmanager
def refused(*names):
    """The error names one of these, what was received, and what to do."""
    with pytest.raises((ValueError, TypeError)) as caught:
        yield
    text = str(caught.value)
    assert any(re.search(rf"\b{name}\b", text) for name in names), text
    assert re.search(r"[Rr]eceived", text), text
    assert re.search(r"[Ee]xpected|must|needs|Try|instance of", text), text
    assert len(text) < 1000, text


@contextlib.contextmanager
def answered_or_refused():
    """An error of Keras itself has a message."""
    said = "at length, as no error was"
    try:
        yield
    except (ValueError, TypeError) as error:
        said = str(error)
    assert len(said) > 15, said


def is_number(value):
    kinds = int, float, np.integer, np.floating, fractions.Fraction
    if not isinstance(value, kinds) or isinstance(value, bool):
        return False
    try:
        return abs(float(value)) <= LARGEST
    except OverflowError:
        return False


def is_integer(value):
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def is_seed(value):
    return value is None or (is_integer(value) and 0 <= value < 2**32)


def is_positive(value):
    return is_number(value) and np.float32(value) > 0


def is_flag(value):
    return isinstance(value, bool | np.bool_) or (is_integer(value) and value in (0, 1))


def at_least(low):
    return lambda value: is_number(value) and value >= low


def count(low=1, high=2**63):
    return lambda value: is_integer(value) and low <= value < high


def never(value):
    return False


def kept(thing, name, value):
    """The argument is in the config, which survives JSON and makes an equal object."""
    config = json.loads(json.dumps(thing.get_config()))
    if isinstance(value, np.generic | fractions.Fraction):
        value = int(value) if is_integer(value) else float(value)
    value = list(value) if isinstance(value, tuple) else value
    # A layer stores the nearest float.
    assert config[name] == value or config[name] == float(value)
    assert type(thing).from_config(config).get_config() == thing.get_config()


def make(cls, **given):
    return lambda **more: cls(**given | more)


def arrays(shape, elements=FLOATS):
    return st.lists(elements, min_size=math.prod(shape), max_size=math.prod(shape)).map(
        lambda values: np.array(values, "float32").reshape(shape)
    )


def shapes(rank=3, most=3):
    return st.lists(st.integers(0, most), min_size=0, max_size=rank).map(tuple)
