"""Reading a model: the calls of its graph, unit by unit, on the inputs."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np

from keras_nalu import expect
from keras_nalu.formulas import calls, data, fit, others, text
from keras_nalu.formulas.unit import STRICT, Unit
from keras_nalu.layers.base import ArithmeticLayer
from keras_nalu.lines import neat, number
from keras_nalu.ops import to_numpy

#: Weights near their targets are no formula if it is that far from the model.
FAR = 0.5


@dataclasses.dataclass(frozen=True)
class Formula:
    """What `formula` returns; printed, it is the text.

    Args:
        lines: The equations: hidden units and gates first, then the outputs.
        exact: Whether every weight that acts in them, and every gate, is within the
            tolerance of the target that is written. That says nothing of the data: a
            model that learned a wrong law can be exact.
        not_discrete: Where it is not exact, the entries that are not within the
            tolerance of a target: (layer's name, kernel's name, index, value).
        holds: For which inputs the formula holds.
        model_error: How far the formula, in the digits that it prints, is from the
            model at most: on the data, and on 1000 rows drawn within the range of its
            columns, relative to the model's output or, where that is larger, to its
            mean magnitude. Left out are rows where the model gives NaN, or with a zero
            that is divided by.
        outputs: The names of the outputs.
        data_error: With `y`, how far the formula is from it: the mean absolute error,
            as a share of the mean magnitude of `y`, of the worst output. Else `None`.
        r2: With `y`, the formula's coefficient of determination, of the worst output,
            NaN where `y` is constant. Else `None`.
        misses: Where `data_error` is more than rounding, what there is to say of it.
        symbols: The names of columns that are no names in Python, by what stands for
            them in `expressions`.
    """

    lines: list[str]
    exact: bool
    not_discrete: list[tuple[str, str, tuple[int, ...], float]]
    holds: str
    model_error: float
    outputs: list[str]
    data_error: float | None = None
    r2: float | None = None
    misses: list[str] = dataclasses.field(default_factory=list)
    symbols: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def error(self) -> float:
        """`data_error` where there was `y`, else `model_error`."""
        return self.model_error if self.data_error is None else self.data_error

    @property
    def text(self) -> str:
        """The lines as one text: valid Python, but for `sigmoid` and its like, and for
        names in backticks."""
        return "\n".join(self.lines)

    def __str__(self) -> str:
        return "\n".join([*self.lines, *(f"# {line}" for line in self.misses)])

    @property
    def expressions(self) -> list[Any]:
        """A SymPy expression of the inputs alone for every output."""
        lines = dict(line.split(" = ", 1) for line in self.lines)
        for symbol, name in self.symbols.items():
            lines = {each: t.replace(f"`{name}`", symbol) for each, t in lines.items()}
        values = text.expressions(lines, self.symbols)
        return [values[name] for name in self.outputs]


def formula(
    model: keras.Layer,
    x: Any,
    y: Any = None,
    names: Iterable[str] | None = None,
    tolerance: float = 0.05,
) -> Formula:
    """The function that a trained model of arithmetic layers computes on such data.

    It says what the model computes, not what the data say, unless it is given `y`: then
    `error` is how far it is from that, and the text says so where that is more than
    rounding.

    Where every weight that acts is near to one of its targets, such as -1, 0 and 1, it
    is taken for that: `y = x0 * x1`. Exponents of the NPUs are taken for the nearest
    multiple of 1/2. Else the layer's equation is written with its weights, and the
    formula says which are not discrete. Those weights, and the ones of a `Dense`, have
    the digits that their dtype carries.

    A gate that depends on the inputs stands for one path if it takes the same side of
    1/2 on every row, and is near 0 or 1 on average. Else both paths are written, mixed
    by the gate, and no single operation holds.

    Args:
        model: An arithmetic layer, or a `Sequential` or functional model, nested or
            not, of these, `Dense`, `Activation` (relu, sigmoid, tanh, exponential),
            `Rescaling`, `Normalization`, `Concatenate`, `Add`, `Subtract`, `Multiply`,
            `Average`, and the operators + - * / ** and slices of columns; a member of a
            population is one.
        x: Data of shape (..., features), as the model is used on: its range and its
            signs decide how the formula is written. A list of them, or a dictionary by
            name, where the model has several inputs.
        y: The right answers, of shape (..., outputs), or (...) for one output.
        names: Names of the features. `None` takes a data frame's columns, in backticks
            where they are no names in Python, and else calls them `x0`, `x1` and so on.
        tolerance: How far from its target a weight, or the mean gate, may be.

    Returns:
        A `Formula`. `str(formula(model, x, y))` is its text, `.model_error` says how
        far it is from the model and `.data_error` and `.r2` how far from `y`,
        `.expressions` are SymPy's.

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
    y misses the data: R^2 0.735, mean error 50% of the mean |y|.
    """
    reader = _Reader(model, x, y, names)
    tolerance = expect.not_negative("tolerance", tolerance, "0.05")
    try:
        found = reader.read(tolerance)
        if found.exact and not found.error <= reader.far:
            # As with untrained weights, all near 0.
            nearer = reader.read(min(STRICT, tolerance))
            found = nearer if nearer.error < found.error / 2 else found
    except RecursionError:
        raise ValueError(
            "The formula has too many terms to be written. Received: a model of "
            f"{len(reader.names)} features. Look at `layer.kernels` instead."
        ) from None
    return found


class _Reader:
    """A model, the data, and what all of its calls make of them."""

    def __init__(self, model, x, y, names):
        self.graph = calls.graph(model)
        rows = data.to_rows(x, model, self.graph)
        self.shown = data.names(names, rows)
        self.names = [*self.shown]
        self.count = len(rows.all)
        self.values = calls.run(
            self.graph, rows.split(np.vstack([rows.all, data.draw(rows.all)]))
        )
        self.widths = [value.shape[1] for value in self.values]
        self.predicted = np.hstack([self.values[i] for i in self.graph.outputs])
        self.y = self.of_model = None
        self.far = FAR
        if y is not None:
            widths = [self.widths[index] for index in self.graph.outputs]
            self.y = data.labels(y, rows.shape, widths)
            self.of_model = fit.measure(self.predicted[: self.count], self.y)
            self.rounding = fit.rounding(self.graph)
            self.far = 2 * self.of_model.worst + self.rounding

    def read(self, tolerance):
        """The `Formula` at this tolerance."""
        columns = self._columns()
        outputs, called, lines = self._called(columns)
        units = _that_act([*self._units(columns, called, tolerance)], outputs, lines)
        lines = {name: neat(t) for u in units for name, t in u.lines.items()} | lines
        return self._formula(lines, outputs, units)

    def _columns(self):
        """Of each value, where its columns come from: (value, index)."""
        columns = []
        for at, call in enumerate(self.graph.calls):
            came = [columns[index] for index in call.inputs]
            if isinstance(call.layer, slice):
                columns.append(came[0][call.layer])
            elif isinstance(call.layer, keras.layers.Concatenate):
                columns.append([column for each in came for column in each])
            elif isinstance(call.layer, keras.layers.Flatten):
                columns.append(came[0])
            else:
                columns.append([(at, i) for i in range(self.widths[at])])
        return columns

    def _called(self, columns):
        """The outputs' names, those of all columns, and lines for outputs that are
        what another one is, or an input."""
        called, depth = {}, 0
        names = iter(self.names)
        for at, (call, width) in enumerate(
            zip(self.graph.calls, self.widths, strict=True)
        ):
            own = [column for column in columns[at] if column[0] == at]
            if call.layer is None:
                called |= {column: next(names) for column in own}
            elif isinstance(call.layer, float):
                called[at, 0] = number(call.layer)
            elif own:
                depth += 1
                called |= {(at, i): f"h{depth}_{i}" for i in range(width)}
        letter = data.letter(self.names)
        returned = [c for index in self.graph.outputs for c in columns[index]]
        outputs = [f"{letter}{i}" for i in range(len(returned))]
        outputs = [letter] if len(returned) == 1 else outputs
        lines = {}
        for output, column in zip(outputs, returned, strict=True):
            if called[column].startswith("h") and called[column] not in self.names:
                called[column] = output
            else:
                lines[output] = called[column]
        return outputs, called, lines

    def _units(self, columns, called, tolerance):
        """The units of all calls, each with its line."""
        for at, (call, value) in enumerate(
            zip(self.graph.calls, self.values, strict=True)
        ):
            if (at, 0) not in called or call.layer is None or not call.inputs:
                continue
            layer, ours = call.layer, isinstance(call.layer, ArithmeticLayer)
            kernels = layer.kernels if ours else {}
            kernels = {name: to_numpy(kernel) for name, kernel in kernels.items()}
            for index in range(value.shape[1]):
                came, names = self._came(call, index, columns, called)
                unit = Unit(
                    layer=layer,
                    index=index,
                    width=value.shape[1],
                    kernels=kernels,
                    tolerance=tolerance,
                    inputs=names,
                    signed=np.any(came < 0, axis=0),
                    zeros=np.any(came == 0, axis=0),
                    rows=came[: self.count],
                    output=called[at, index],
                )
                unit.lines[unit.output] = (
                    layer.read(unit) if ours else others.read(layer, unit)
                )
                yield unit

    def _came(self, call, index, columns, called):
        """What a unit is of: the values and the names."""
        names = [[called[column] for column in columns[i]] for i in call.inputs]
        came = [self.values[i] for i in call.inputs]
        if isinstance(call.layer, ArithmeticLayer) or not others.of_columns(call.layer):
            return came[0], names[0]
        at = [index if len(each) > 1 else 0 for each in names]
        came = [each[:, i] for each, i in zip(came, at, strict=True)]
        return np.stack(came, axis=1), [
            each[i] for each, i in zip(names, at, strict=True)
        ]

    def _formula(self, lines, outputs, units):
        rows = np.hstack(self.values[: self.graph.inputs])
        values = text.values(lines, self.names, rows)
        error = text.error(lines, outputs, self.names, values, self.predicted)
        fitted = {}
        if self.y is not None:
            read = np.stack([values[name][: self.count] for name in outputs], axis=-1)
            of_formula = fit.measure(read, self.y)
            fitted = {
                "data_error": of_formula.worst,
                "r2": float(of_formula.r2.min()),
                "misses": fit.misses(outputs, of_formula, self.of_model, self.rounding),
            }
        lines, gone = text.inline(lines)
        notes = "; ".join(note for unit in units for note in unit.notes())
        for name, line in reversed(gone.items()):
            notes = text.put(name, line, notes)
        odd = {name: shown for name, shown in self.shown.items() if name != shown}
        for name, shown in odd.items():
            lines = {each: t.replace(name, shown) for each, t in lines.items()}
            notes = notes.replace(name, shown)
        not_discrete = [
            (*entry, value)
            for unit in units
            for entry, value in unit.not_discrete.items()
        ]
        return Formula(
            lines=[f"{name} = {line}" for name, line in lines.items()],
            exact=not not_discrete,
            not_discrete=not_discrete,
            holds=notes or "for all inputs",
            model_error=error,
            outputs=outputs,
            symbols={name: shown.strip("`") for name, shown in odd.items()},
            **fitted,
        )


def _that_act(units, outputs, lines):
    """Without the hidden units that nothing is made of."""
    used, kept = {*outputs, *lines.values()}, []
    for unit in reversed(units):
        if unit.output in used:
            used.update(*map(text.words, unit.lines.values()))
            kept.append(unit)
    return kept[::-1]
