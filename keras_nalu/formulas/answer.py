"""What reading a model gives."""

import dataclasses
from typing import Any

from keras_nalu.formulas import text


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
