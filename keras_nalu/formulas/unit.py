"""One unit of a layer while its line is written."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from keras_nalu import ops
from keras_nalu.lines import rounded

#: What is nearer to its target than that is not written with its digits.
STRICT = 1e-3


@dataclasses.dataclass
class Unit:
    """One unit while it is read: what a layer's `read` may ask, and what it tells.

    Args:
        layer: The layer.
        index: Which of its units.
        width: How many units it has.
        kernels: Its effective weights by name, as arrays.
        tolerance: How far a weight may be from its target.
        inputs: The inputs' names.
        signed: Which of the inputs are negative on some row.
        zeros: Which of them are zero on some row.
        rows: The inputs.
        output: The unit's name.
        lines: What it is made of, by name, before itself.
        not_discrete: Weights that are not near their targets, and their values.
        conditions: For which inputs its line holds.
        divisors: By which inputs it divides.
        mixed: Whether it is a mixture of two paths.
    """

    layer: Any
    index: int
    width: int
    kernels: dict
    tolerance: float
    inputs: list
    signed: np.ndarray
    zeros: np.ndarray
    rows: np.ndarray
    output: str
    lines: dict = dataclasses.field(default_factory=dict)
    not_discrete: dict = dataclasses.field(default_factory=dict)
    conditions: list = dataclasses.field(default_factory=list)
    divisors: set = dataclasses.field(default_factory=set)
    mixed: bool = False

    def magnitude(self, i: int) -> str:
        """The magnitude of the `i`-th input."""
        return f"abs({self.inputs[i]})" if self.signed[i] else self.inputs[i]

    def weights(
        self, name: str = "kernel", columns: Any = None, acts: Any = True
    ) -> np.ndarray:
        """The kernel's part that is the unit's: targets if all are near.

        Entries where `acts` is false may be anything.
        """
        kernel = self.kernels[name]
        one = columns is None
        columns = [self.index] if one else columns
        w = kernel[:, columns] if kernel.ndim > 1 else kernel[:, None]
        targets = self.layer.nearest(name, w)
        acts = np.broadcast_to(acts, len(w))[:, None]
        for i, j in np.argwhere(~(np.abs(w - targets) <= self.tolerance) & acts):
            place = (int(i), int(columns[j])) if kernel.ndim > 1 else (int(i),)
            self.tell(name, place, w[i, j])
        limit = min(STRICT, self.tolerance) if self.mixed else self.tolerance
        if np.any(acts & ~(np.abs(w - targets) <= limit)):
            targets = np.vectorize(self.rounded, otypes=[float])(w)
        return targets[:, 0] if one else targets

    def powers(self, name: str = "kernel") -> np.ndarray:
        """The weights, where negative ones divide."""
        weights = self.weights(name)
        self.divisors |= {*np.flatnonzero(weights < 0)}
        return weights

    def rounded(self, value: Any) -> float:
        """The value in the digits that the layer's weights carry."""
        return rounded(value, self.layer.variable_dtype)

    def gates(self) -> np.ndarray:
        """The layer's gate on every row: 1 takes the sum, 0 the product."""
        # A row of zeros says nothing: it leaves a gate without a bias at one half.
        some = np.any(self.rows != 0, axis=-1)
        rows = self.rows[some] if some.any() else self.rows
        # One that does not depend on the inputs has no axis of rows.
        return np.atleast_2d(ops.to_numpy(self.layer.gate(rows)))[:, self.index]

    def tell(self, name: str, place: tuple[int, ...], value: float) -> None:
        """A weight, or what it leads to, is not near its target."""
        self.not_discrete[self.layer.name, name, place] = float(value)

    def notes(self) -> Iterator[str]:
        """For which inputs its lines hold."""
        for condition in self.conditions:
            yield f"{self.output}: {condition}"
        for i in sorted(self.divisors):
            if self.zeros[i]:
                yield f"{self.output}: where {self.inputs[i]} is not 0"
