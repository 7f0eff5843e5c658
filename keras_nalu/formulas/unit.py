"""One unit of a layer while its line is written."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from keras_nalu import ops
from keras_nalu.lines import rounded

#: A weight this near to its target is always written as the target.
STRICT = 1e-3


@dataclasses.dataclass
class Unit:
    """One unit while it is read: the facts for a layer's `read`, and its results.

    Args:
        layer: The layer.
        index: The index of the unit in the layer.
        width: The number of units of the layer.
        kernels: The layer's effective weights by name, as arrays.
        tolerance: The largest distance of a weight to its target.
        inputs: The inputs' names.
        signed: Mask of the inputs that are negative on some row.
        zeros: Mask of the inputs that are zero on some row.
        rows: The inputs' values, (rows, inputs).
        output: The unit's name.
        lines: The lines that the unit needs, by name, and its own line last.
        not_discrete: The values of the weights that are not near their targets.
        conditions: The inputs for which the line holds, in words.
        divisors: The indices of the inputs that the unit divides by.
        mixed: Whether the unit is a mixture of two paths.
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
        """The unit's weights in a kernel, or their targets if all are near.

        Entries with a false `acts` do not matter.
        """
        kernel = self.kernels[name]
        one = columns is None
        columns = [self.index] if one else columns
        w = kernel[:, columns] if kernel.ndim > 1 else kernel[:, None]
        targets = self.layer.nearest(name, w)
        acts = np.broadcast_to(acts, len(w))[:, None]
        for i, j in np.argwhere(~(np.abs(w - targets) <= self.tolerance) & acts):
            place = (int(i), int(columns[j])) if kernel.ndim > 1 else (int(i),)
            self.record(name, place, w[i, j])
        limit = min(STRICT, self.tolerance) if self.mixed else self.tolerance
        if np.any(acts & ~(np.abs(w - targets) <= limit)):
            targets = np.vectorize(self.rounded, otypes=[float])(w)
        return targets[:, 0] if one else targets

    def powers(self, name: str = "kernel") -> np.ndarray:
        """The weights as exponents: inputs with negative ones become `divisors`."""
        weights = self.weights(name)
        self.divisors |= {*np.flatnonzero(weights < 0)}
        return weights

    def rounded(self, value: Any) -> float:
        """The value in the digits that the layer's weights carry."""
        return rounded(value, self.layer.variable_dtype)

    def gates(self) -> np.ndarray:
        """The layer's gate on every row: 1 takes the sum, 0 the product."""
        # On a row of zeros a gate without a bias is one half, whatever its weights.
        some = np.any(self.rows != 0, axis=-1)
        rows = self.rows[some] if some.any() else self.rows
        # A gate that does not depend on the inputs has no axis of rows.
        return np.atleast_2d(ops.to_numpy(self.layer.gate(rows)))[:, self.index]

    def record(self, name: str, place: tuple[int, ...], value: float) -> None:
        """Records a value that is not near its target in `not_discrete`."""
        self.not_discrete[self.layer.name, name, place] = float(value)

    def notes(self) -> Iterator[str]:
        """Yields the conditions under which the lines hold."""
        for condition in self.conditions:
            yield f"{self.output}: {condition}"
        for i in sorted(self.divisors):
            if self.zeros[i]:
                yield f"{self.output}: where {self.inputs[i]} is not 0"
