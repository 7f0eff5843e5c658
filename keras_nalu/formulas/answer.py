"""The result of `formula`."""

import dataclasses
from typing import Any

from keras_nalu.formulas import text


@dataclasses.dataclass(frozen=True)
class Formula:
    """The result of `formula`; `str` gives its text and its `misses`.

    Args:
        lines: The equations: hidden units and gates first, then the outputs.
        exact: Whether every weight and gate in the equations is within the tolerance of
            the target that is written. A model that learned a wrong law can be exact.
        not_discrete: The entries that are not within the tolerance of a target:
            (layer's name, kernel's name, index, value). Empty if `exact`.
        holds: The inputs for which the formula holds.
        model_error: The largest error of the formula, with its printed digits, against
            the model, on the data and on 1000 rows sampled within the range of its
            columns. It is relative to the model's output or, if that is larger, to its
            mean magnitude. Rows on which the model gives NaN or the formula divides by
            zero are left out.
        outputs: The names of the outputs.
        data_error: The mean absolute error of the worst output against `y`, as a share
            of the mean magnitude of `y`. `None` without `y`.
        r2: The coefficient of determination of the worst output, NaN if `y` is
            constant. `None` without `y`.
        misses: Sentences on the error, if `data_error` is more than rounding.
        symbols: {placeholder: column name} of columns whose names are not identifiers.
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
        """`data_error` if there was `y`, else `model_error`."""
        return self.model_error if self.data_error is None else self.data_error

    @property
    def text(self) -> str:
        """The lines as one text: valid Python, except names in backticks and functions
        such as `sigmoid`."""
        return "\n".join(self.lines)

    def __str__(self) -> str:
        return "\n".join([*self.lines, *(f"# {line}" for line in self.misses)])

    @property
    def expressions(self) -> list[Any]:
        """A SymPy expression of the inputs for every output."""
        lines = dict(line.split(" = ", 1) for line in self.lines)
        for symbol, name in self.symbols.items():
            lines = {each: t.replace(f"`{name}`", symbol) for each, t in lines.items()}
        values = text.expressions(lines, self.symbols)
        return [values[name] for name in self.outputs]
