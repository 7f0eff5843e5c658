"""The data of `formula`: rows, the names of their columns, and labels."""

import dataclasses
import keyword
import re
import unicodedata
from typing import Any

import keras
import numpy as np

from keras_nalu import expect
from keras_nalu.formulas import text
from keras_nalu.formulas.calls import Graph
from keras_nalu.ops import to_numpy

SAMPLES = 1000


@dataclasses.dataclass(frozen=True)
class Rows:
    """The inputs of a model as rows of columns.

    Args:
        parts: The rows of every input of the model, (rows, features) each.
        shape: The axes of the data except the last.
        columns: The column names of the data, or `None`.
    """

    parts: list[np.ndarray]
    shape: tuple[int, ...]
    columns: list[str] | None

    @property
    def all(self) -> np.ndarray:
        """The columns of all inputs."""
        return self.parts[0] if len(self.parts) == 1 else np.hstack(self.parts)

    def split(self, rows: np.ndarray) -> list[np.ndarray]:
        """Other rows of all columns, by input."""
        ends = np.cumsum([part.shape[1] for part in self.parts])
        return np.split(rows, ends[:-1], axis=1)


def to_rows(x: Any, model: keras.Layer, graph: Graph) -> Rows:
    """The data as `Rows`, checked against the model's inputs."""
    given = _by_input(x, model, graph.inputs)
    columns = [name for part in given for name in _columns(part)]
    arrays = [to_numpy(expect.real("x", part)) for part in given]
    if len(arrays) > 1:
        arrays = [each[:, None] if each.ndim == 1 else each for each in arrays]
    shape = arrays[0].shape[:-1]
    for index, array in enumerate(arrays):
        _check(array, graph.features(model, index))
        if array.shape[:-1] != shape:
            shapes = [each.shape for each in arrays]
            raise ValueError(
                "Expected the same rows for all inputs. Received: `x` of the shapes "
                f"{', '.join(map(str, shapes))}."
            )
    graph.check_rank(max(arrays[0].ndim, 2))
    parts = [array.reshape(-1, array.shape[-1]) for array in arrays]
    known = len(columns) == sum(part.shape[1] for part in parts)
    return Rows(parts, shape, columns if known else None)


def _by_input(x, model, inputs):
    if inputs == 1 and not isinstance(x, dict):
        return [x]
    if isinstance(x, dict):
        names = _input_names(model)
        if names and {*x} == {*names}:
            return [x[name] for name in names]
        raise ValueError(
            "Expected the data of the model's inputs by name. Received: "
            f"x={expect.text(x)}, for the inputs {names}. Try an array."
        )
    if isinstance(x, list | tuple) and len(x) == inputs:
        return [*x]
    raise ValueError(
        f"Expected a list of {inputs} arrays, one for each input of the model. "
        f"Received: x={expect.text(x)}."
    )


def _input_names(model):
    inputs = getattr(model, "inputs", None) or []
    if inputs and isinstance(model.input, dict):
        names = {id(tensor): name for name, tensor in model.input.items()}
        return [names[id(tensor)] for tensor in inputs]
    return [tensor.name for tensor in inputs]


def _columns(part):
    """The column names of a data frame, or the name of a series."""
    names = getattr(part, "columns", None)
    if names is None:
        return [part.name] if isinstance(getattr(part, "name", None), str) else []
    names = [*names]
    return names if all(isinstance(name, str) for name in names) else []


def _check(x, features):
    if x.size == 0 or x.ndim == 0:
        raise ValueError(
            f"Expected one row of data or more. Received: x.shape={x.shape}. "
            "Try x=np.array([[1.0, 2.0]])."
        )
    if not np.all(np.abs(x) <= expect.LARGEST):
        raise ValueError(
            "Expected numbers that float32 holds. Received: entries of `x` that are "
            "NaN, infinite or larger. Leave these rows out."
        )
    if features not in (None, x.shape[-1]):
        raise ValueError(
            f"Expected data with {features} features, as the model was built. "
            f"Received: x.shape={x.shape}. Reshape `x` to (..., {features})."
        )


def sample(rows: np.ndarray) -> np.ndarray:
    """Random rows within the range of the columns; whole numbers in whole columns."""
    # By column, as NumPy takes ten times as long to reduce many short rows.
    columns = [*rows.T]
    low, high = (np.array([f(c) for c in columns]) for f in (np.min, np.max))
    random = np.random.default_rng(0)
    sampled = low + (high - low) * random.random((SAMPLES, len(low)))
    whole = np.array([np.all(c == np.round(c)) for c in columns])
    sampled = np.where(whole, np.round(sampled), sampled)
    # Rows nearer to 0 than the data would test reciprocals that the data does not have.
    nearest = np.array([np.abs(c).min() for c in columns])
    return sampled[np.all(np.abs(sampled) >= nearest, axis=1)]


def labels(y: Any, shape: tuple[int, ...], widths: list[int]) -> np.ndarray:
    """The right answers, (rows, outputs).

    Args:
        y: An array, or one for each output of the model.
        shape: The axes of the inputs except the last.
        widths: The number of columns of each output of the model.
    """
    several = len(widths) > 1 and isinstance(y, dict | list | tuple)
    parts = [*y.values()] if several and isinstance(y, dict) else y
    parts = [*parts] if several and len(parts) == len(widths) else [y]
    widths = widths if len(parts) > 1 else [sum(widths)]
    arrays = [
        to_numpy(expect.real("y", part, "np.array([3.0]); names go to `names`"))
        for part in parts
    ]
    columns = []
    for array, width in zip(arrays, widths, strict=True):
        fits = [(*shape, width)] + ([shape] if width == 1 else [])
        if array.shape not in fits:
            raise ValueError(
                f"Expected a label for each row of `x` and each of the {width} "
                f"outputs: `y` of the shape {' or '.join(map(str, fits))}. "
                f"Received: y.shape={array.shape}."
            )
        columns.append(array.reshape(-1, width))
    if not all(np.all(np.isfinite(column)) for column in columns):
        raise ValueError(
            "Expected finite labels. Received: NaN or infinite entries in `y`. Leave "
            "these rows out of `x` and `y`."
        )
    return np.hstack(columns)


def letter(names: list[str]) -> str:
    """The letter of the outputs' names: one that no input has."""
    taken = [each for each in "yz" if _any_is(rf"{each}\d*", names)]
    return next((each for each in "yz" if each not in taken), "output")


def _any_is(pattern, names):
    return any(re.fullmatch(pattern, name) for name in names)


def names(given: Any, rows: Rows) -> dict[str, str]:
    """{name in lines of Python: name for the user} of every column.

    They differ if the name of a data frame's column is not an identifier or has another
    meaning in formulas: the user sees that name in backticks.
    """
    features = rows.all.shape[1]
    if given is not None:
        checked = _checked(given, features)
        return dict(zip(checked, checked, strict=True))
    if rows.columns is None:
        return {f"x{i}": f"x{i}" for i in range(features)}
    _refuse_twice(rows.columns)
    plain = [unicodedata.normalize("NFKC", name) for name in rows.columns]
    return {
        f"column_{i}_" if _problem(name, plain) else name: (
            f"`{' '.join(shown.replace('`', ' ').split())}`"
            if _problem(name, plain)
            else name
        )
        for i, (name, shown) in enumerate(zip(plain, rows.columns, strict=True))
    }


def _problem(name, names):
    """Why the name cannot stand in a line of Python, or `None`."""
    generated = rf"{letter(names)}\d*|h\d+_\d+|gate(\d+_)?\d*"
    if not isinstance(name, str) or not name.isidentifier() or "·" in name:
        return f"{name!r}, which is not an identifier"
    if keyword.iskeyword(name) or name in {*text.FUNCTIONS, *text.CONSTANTS}:
        return f"{name!r}, which means something else in formulas"
    if re.fullmatch(generated, name):
        return f"{name!r}, which formulas use for an output, hidden unit or gate"
    return None


def _refuse_twice(names):
    for name in names:
        if names.count(name) > 1:
            raise _refused(f"{name!r} more than once")


def _refused(problem):
    return ValueError(
        f"Expected names of the features, such as 'length'. Received: {problem}. "
        "Without `names`, the columns of a data frame may have any names."
    )


def _checked(given, features):
    try:
        # An iterable, as `X.columns` of a data frame is not a list.
        names = None if isinstance(given, str | bytes | dict | set) else [*given]
    except TypeError:
        names = None
    if names is None:
        raise expect.invalid("names", given, "a list of names", "['length', 'width']")
    if all(isinstance(name, str) for name in names):
        names = [unicodedata.normalize("NFKC", name) for name in names]
        problems = [_problem(name, names) for name in names]
    else:
        problems = [
            f"{n!r}, which is not an identifier" for n in names if n is not str(n)
        ]
    for problem in filter(None, problems):
        raise _refused(problem)
    _refuse_twice(names)
    if len(names) != features:
        raise ValueError(
            f"Expected a name for each of the {features} features of `x`. "
            f"Received: names={names}."
        )
    return names
