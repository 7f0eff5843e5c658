"""Reading a model: its chain of layers, unit by unit, on the inputs."""

import dataclasses
import keyword
import re
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np

from keras_nalu import expect
from keras_nalu.formulas import text
from keras_nalu.formulas.unit import STRICT, Unit
from keras_nalu.layers.base import ArithmeticLayer
from keras_nalu.lines import neat
from keras_nalu.ops import to_numpy

#: Weights near their targets are no formula if it is that far from the model.
FAR = 0.5
DRAWS = 1000
CHUNK = 8192


@dataclasses.dataclass(frozen=True)
class Formula:
    """What `formula` returns; printed, it is the text.

    Args:
        lines: The equations: hidden units and gates first, then the outputs.
        exact: Whether every number that acts in them was taken from a weight, or a
            gate, that is within the tolerance of it. Else they are rounded.
        not_discrete: Where it is not exact, the entries that are not within the
            tolerance of a target: (layer's name, kernel's name, index, value).
        holds: For which inputs the formula holds.
        error: How far the formula, in the digits that it prints, is from the model at
            most: on the data, and on 1000 rows drawn within the range of its columns,
            relative to the model's output or, where that is larger, to its mean
            magnitude. Left out are rows where the model gives NaN, or with a zero that
            is divided by.
        outputs: The names of the outputs.
    """

    lines: list[str]
    exact: bool
    not_discrete: list[tuple[str, str, tuple[int, ...], float]]
    holds: str
    error: float
    outputs: list[str]

    @property
    def text(self) -> str:
        """The lines as one text: valid Python, but for `sigmoid` and its like."""
        return "\n".join(self.lines)

    def __str__(self) -> str:
        return self.text

    @property
    def expressions(self) -> list[Any]:
        """A SymPy expression of the inputs alone for every output."""
        values = text.expressions(dict(line.split(" = ", 1) for line in self.lines))
        return [values[name] for name in self.outputs]


def formula(
    model: keras.Layer,
    x: Any,
    names: Iterable[str] | None = None,
    tolerance: float = 0.05,
) -> Formula:
    """The function that a trained model of arithmetic layers computes on such data.

    Where every weight that acts is near to one of its targets, such as -1, 0 and 1, it
    is taken for that: `y = x0 * x1`. Else the layer's equation is written with its
    weights rounded to three digits, and the formula says which are not discrete.

    A gate that depends on the inputs stands for one path if it takes the same side of
    1/2 on every row, and is near 0 or 1 on average. Else both paths are written, mixed
    by the gate, and no single operation holds.

    Args:
        model: An arithmetic layer, or a `Sequential` or functional chain of nothing
            else; a member of a population is one.
        x: Data of shape (..., features), as the model is used on: its range and its
            signs decide how the formula is written.
        names: Names of the features. `None` calls them `x0`, `x1` and so on.
        tolerance: How far from its target a weight, or the mean gate, may be.

    Returns:
        A `Formula`. `str(formula(model, x))` is its text, `.error` says how far it is
        from the model, `.expressions` are SymPy's.

    Raises:
        TypeError: the model is no chain of arithmetic layers.
        ValueError: `x` has no rows, or entries that are not finite; `names` has another
            number of names than `x` has features, or one that is no identifier, is
            there twice or has a meaning in formulas; there are about a thousand terms.

    Example:

    >>> layer = NMU(1)
    >>> layer.build((None, 2))
    >>> layer.set_weights([np.array([[1.0], [0.99]])])
    >>> print(formula(layer, np.array([[3, 4], [-5, 6]]), names=["length", "width"]))
    y = length * width
    """
    layers = chain(model)
    rows = to_rows(x, layers[0])
    tolerance = expect.not_negative("tolerance", tolerance, "0.05")
    names = _check(names, rows.shape[-1])
    try:
        found = _read(layers, rows, names, tolerance)
        if found.exact and not found.error <= FAR:
            # As with untrained weights, all near 0.
            nearer = _read(layers, rows, names, STRICT)
            found = nearer if nearer.error < found.error / 2 else found
    except RecursionError:
        raise ValueError(
            "The formula has too many terms to be written. Received: a model of "
            f"{rows.shape[-1]} features. Look at `layer.kernels` instead."
        ) from None
    return found


def _read(layers, rows, names, tolerance):
    letter = _letter(names)
    values = run(layers, np.concatenate([rows, _draw(rows)]))
    units = []
    inputs = names
    for depth, layer in enumerate(layers, 1):
        last = depth == len(layers)
        prefix = letter if last else f"h{depth}_"
        outputs = [f"{prefix}{index}" for index in range(layer.units)]
        outputs = [letter] if last and layer.units == 1 else outputs
        kernels = {name: to_numpy(kernel) for name, kernel in layer.kernels.items()}
        came = values[depth - 1]
        for index, output in enumerate(outputs):
            unit = Unit(
                layer=layer,
                index=index,
                kernels=kernels,
                tolerance=tolerance,
                inputs=inputs,
                signed=np.any(came < 0, axis=0),
                zeros=np.any(came == 0, axis=0),
                rows=came[: len(rows)],
                output=output,
            )
            unit.lines[output] = layer.read(unit)
            units.append(unit)
        inputs = outputs
    units = _that_act(units, inputs)
    lines = {name: neat(t) for unit in units for name, t in unit.lines.items()}
    error = text.error(lines, inputs, names, values[0], values[-1])
    lines, gone = text.inline(lines)
    not_discrete = [
        (*entry, value) for unit in units for entry, value in unit.not_discrete.items()
    ]
    notes = "; ".join(note for unit in units for note in unit.notes())
    for name, line in reversed(gone.items()):
        notes = text.put(name, line, notes)
    return Formula(
        lines=[f"{name} = {line}" for name, line in lines.items()],
        exact=not not_discrete,
        not_discrete=not_discrete,
        holds=notes or "for all inputs",
        error=error,
        outputs=inputs,
    )


def _that_act(units, outputs):
    """Without the hidden units that nothing is made of."""
    used, kept = set(outputs), []
    for unit in reversed(units):
        if unit.output in used:
            used.update(*map(text.words, unit.lines.values()))
            kept.append(unit)
    return kept[::-1]


def chain(model: Any) -> list[ArithmeticLayer]:
    """The arithmetic layers that the model calls one after the other."""
    if isinstance(model, ArithmeticLayer):
        return [model]
    if isinstance(model, keras.Sequential):
        parts = model.layers
    elif hasattr(model, "operations") and len(model.inputs) == len(model.outputs) == 1:
        # Unary layers, called once each, on the way to one output: a chain.
        calls = [len(part["inbound_nodes"]) for part in model.get_config()["layers"]]
        parts = model.operations[1:] if calls[1:] == [1] * (len(calls) - 1) else [model]
    else:
        parts = [model]
    if parts == [model] or not all(isinstance(part, keras.Layer) for part in parts):
        raise TypeError(
            "Expected an arithmetic layer, or a Sequential or functional chain of "
            f"arithmetic layers alone. Received: model={expect.told(model)}. Read its "
            "arithmetic layers one by one, each with its own inputs: `formula(layer, "
            "inputs)`; of a population read a member: `population.best(x, y)`."
        )
    return [layer for part in parts for layer in chain(part)]


def to_rows(x: Any, layer: ArithmeticLayer) -> np.ndarray:
    """The data as rows of what the first layer takes."""
    x = to_numpy(expect.real("x", x))
    if x.size == 0 or x.ndim == 0:
        raise ValueError(
            f"Expected rows to read on. Received: x.shape={x.shape}. "
            "Try x=np.array([[1.0, 2.0]])."
        )
    if not np.all(np.abs(x) <= expect.LARGEST):
        raise ValueError(
            "Expected numbers that float32 holds. Received: NaN or infinite entries in "
            "`x`, or larger ones. Leave these rows out."
        )
    features = layer.input_spec.axes.get(-1, x.shape[-1])
    if x.shape[-1] != features:
        raise ValueError(
            f"Expected data with {features} features, for which the layer "
            f"{layer.name!r} was built. Received: x.shape={x.shape}. "
            f"Reshape `x` to (..., {features})."
        )
    return x.reshape(-1, x.shape[-1])


def _letter(names):
    """What the outputs are called."""
    return "z" if "y" in names else "y"


def _check(given, features):
    names = [f"x{i}" for i in range(features)] if given is None else given
    try:
        # Of a data frame, too: `X.columns`.
        names = None if isinstance(names, str | bytes | dict | set) else [*names]
    except TypeError:
        names = None
    if names is None:
        raise expect.invalid("names", given, "a list of names", "['length', 'width']")
    generated = rf"{_letter(names)}\d*|h\d+_\d+|gate(\d+_)?\d*"
    reserved = {*text.FUNCTIONS, *text.CONSTANTS}
    for name in names:
        if not isinstance(name, str) or not name.isidentifier():
            problem = f"{name!r}, which is no identifier"
        elif keyword.iskeyword(name) or name in reserved:
            problem = f"{name!r}, which means something else in formulas"
        elif re.fullmatch(generated, name):
            problem = f"{name!r}, which formulas call an output, hidden unit or gate"
        elif names.count(name) > 1:
            problem = f"{name!r} more than once"
        else:
            continue
        raise ValueError(
            f"Expected names of the features, such as 'length'. Received: {problem}."
        )
    if len(names) != features:
        raise ValueError(
            f"Expected a name for each of the {features} features of `x`. "
            f"Received: names={names}."
        )
    return names


def _draw(rows):
    """Rows within the range of the columns: whole numbers where these are whole."""
    low, high = rows.min(axis=0), rows.max(axis=0)
    random = np.random.default_rng(0)
    drawn = low + (high - low) * random.random((DRAWS, len(low)))
    whole = np.all(rows == np.round(rows), axis=0)
    drawn = np.where(whole, np.round(drawn), drawn)
    # Reciprocals are not tried nearer to 0 than the data goes.
    return drawn[np.all(np.abs(drawn) >= np.abs(rows).min(axis=0), axis=1)]


def run(layers: list[ArithmeticLayer], rows: np.ndarray) -> list[np.ndarray]:
    """The rows, and what every layer makes of them."""
    values = [rows]
    for layer in layers:
        chunks = np.split(values[-1], range(CHUNK, len(rows), CHUNK))
        values.append(np.concatenate([to_numpy(layer(chunk)) for chunk in chunks]))
    return values
