"""Reading a model: the calls of its graph, unit by unit, with their values."""

from typing import Any

import keras
import numpy as np

from keras_nalu.formulas import calls, data, fit, others, text
from keras_nalu.formulas.answer import Formula
from keras_nalu.formulas.unit import STRICT, Unit
from keras_nalu.layers.base import ArithmeticLayer
from keras_nalu.lines import neat, number
from keras_nalu.ops import to_numpy

#: Targets are not written if that makes the formula so far from the model.
FAR = 0.5


class Reader:
    """A model, the data, and the values of all of its calls."""

    def __init__(self, model, x, y, names):
        self.graph = calls.graph(model)
        rows = data.to_rows(x, model, self.graph)
        self.shown = data.names(names, rows)
        self.names = [*self.shown]
        self.count = len(rows.all)
        self.values = calls.run(
            self.graph, rows.split(np.vstack([rows.all, data.sample(rows.all)]))
        )
        self.widths = [value.shape[1] for value in self.values]
        # By column, as NumPy takes ten times as long to reduce many short rows.
        by_column = [[*value.T] for value in self.values]
        self.signed = [[np.any(each < 0) for each in value] for value in by_column]
        self.zeros = [[np.any(each == 0) for each in value] for value in by_column]
        self.predicted = np.hstack([self.values[i] for i in self.graph.outputs])
        self.y: Any = None
        self.of_model: Any = None
        self.far = FAR
        if y is not None:
            widths = [self.widths[index] for index in self.graph.outputs]
            self.y = data.labels(y, rows.shape, widths)
            self.of_model = fit.measure(self.predicted[: self.count], self.y)
            self.rounding = fit.rounding(self.graph)
            self.far = 1.1 * self.of_model.worst + self.rounding

    def best(self, tolerance):
        """The `Formula` at this tolerance, or at a smaller one if that is far off."""
        try:
            found = self.read(tolerance)
            # For example, untrained weights are all near the target 0.
            if not found.error <= self.far and (found.exact or self.y is not None):
                nearer = self.read(min(STRICT, tolerance))
                enough = found.error / 2 if self.y is None else self.far
                found = nearer if nearer.error < enough else found
        except RecursionError:
            raise ValueError(
                "The formula has too many terms. Received: a model of "
                f"{len(self.names)} features. Look at `layer.kernels` instead."
            ) from None
        return found

    def read(self, tolerance):
        """The `Formula` at this tolerance."""
        columns = self._columns()
        outputs, called, lines = self._called(columns)
        units = _that_act([*self._units(columns, called, tolerance)], outputs, lines)
        lines = {name: neat(t) for u in units for name, t in u.lines.items()} | lines
        return self._formula(lines, outputs, units)

    def _columns(self):
        """For each value, the (value, index) that each of its columns comes from."""
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
        """The names of the outputs and of all columns, and lines for outputs that equal
        an input or another output."""
        called, depth = {}, 0
        names = iter(self.names)
        for at, (call, width) in enumerate(
            zip(self.graph.calls, self.widths, strict=True)
        ):
            new = [column for column in columns[at] if column[0] == at]
            if call.layer is None:
                called |= {column: next(names) for column in new}
            elif isinstance(call.layer, float):
                called[at, 0] = number(call.layer)
            elif new:
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
        """Yields the units of all calls, each with its line."""
        for at, (call, value) in enumerate(
            zip(self.graph.calls, self.values, strict=True)
        ):
            if (at, 0) not in called or call.layer is None or not call.inputs:
                continue
            layer, ours = call.layer, isinstance(call.layer, ArithmeticLayer)
            kernels = layer.kernels if ours else {}
            kernels = {name: to_numpy(kernel) for name, kernel in kernels.items()}
            for index in range(value.shape[1]):
                places = self._places(call, index)
                unit = Unit(
                    layer=layer,
                    index=index,
                    width=value.shape[1],
                    kernels=kernels,
                    tolerance=tolerance,
                    inputs=[called[columns[i][column]] for i, column in places],
                    signed=np.array([self.signed[i][column] for i, column in places]),
                    zeros=np.array([self.zeros[i][column] for i, column in places]),
                    rows=self.values[call.inputs[0]][: self.count],
                    output=called[at, index],
                )
                unit.lines[unit.output] = (
                    layer.read(unit) if ours else others.read(layer, unit)
                )
                yield unit

    def _places(self, call, index):
        """The (value, column) of each input of a unit."""
        if isinstance(call.layer, ArithmeticLayer) or not others.of_columns(call.layer):
            (value,) = call.inputs
            return [(value, column) for column in range(self.widths[value])]
        return [(i, index if self.widths[i] > 1 else 0) for i in call.inputs]

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
            lines = {each: text.show(name, shown, t) for each, t in lines.items()}
            notes = text.show(name, shown, notes)
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
    """The units without the hidden ones that no output depends on."""
    used, kept = {*outputs, *lines.values()}, []
    for unit in reversed(units):
        if unit.output in used:
            used.update(*map(text.words, unit.lines.values()))
            kept.append(unit)
    return kept[::-1]
