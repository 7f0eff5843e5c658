"""How far numbers are from the data's."""

import dataclasses

import keras
import numpy as np

from keras_nalu.formulas.calls import Graph

#: The share of the mean magnitude that is rounding: six digits, or that of the dtype.
ROUNDING = {"float16": 1e-2, "bfloat16": 0.1}


@dataclasses.dataclass(frozen=True)
class Fit:
    """How far the outputs of a model or formula are from the right answers.

    Args:
        error: By output the mean absolute error, as a share of the mean magnitude.
        r2: By output the coefficient of determination, NaN where `y` is constant.
        without: By output on how many rows there is no finite number.
    """

    error: np.ndarray
    r2: np.ndarray
    without: np.ndarray

    @property
    def worst(self) -> float:
        """The largest error of an output."""
        return float(self.error.max())


def measure(values: np.ndarray, y: np.ndarray) -> Fit:
    """The fit of values, (rows, outputs), to the right answers."""
    without = np.sum(~np.isfinite(values), axis=0)
    with np.errstate(all="ignore"):
        # Divided first: squares of 1e-200 and 1e+200 are no numbers.
        size = np.abs(y).max(axis=0)
        size = np.where(size > 0, size, 1)
        y, off = y / size, (values - y) / size
        error = np.abs(off).mean(axis=0) / np.abs(y).mean(axis=0)
        spread = np.sum((y - y.mean(axis=0)) ** 2, axis=0)
        r2 = 1 - np.sum(off**2, axis=0) / spread
    error = np.where(np.all(off == 0, axis=0), 0, error)
    constant = np.ptp(y, axis=0) == 0
    return Fit(
        error=np.where(without > 0, np.inf, error),
        r2=np.where(constant, np.nan, np.where(without > 0, -np.inf, r2)),
        without=without,
    )


def rounding(graph: Graph) -> float:
    """What share is rounding, in the dtypes that the layers compute in."""
    layers = [call.layer for call in graph.calls]
    dtypes = [each.compute_dtype for each in layers if isinstance(each, keras.Layer)]
    return max((ROUNDING.get(dtype, 0.0) for dtype in dtypes), default=0) or 1e-5


def told(fit: Fit, index: int) -> str:
    """The figures of an output."""
    if fit.without[index]:
        rows = "row" if fit.without[index] == 1 else "rows"
        return f"no finite number on {fit.without[index]} {rows}"
    r2 = fit.r2[index]
    if np.isinf(fit.error[index]):
        return "it is not 0, as y is on all rows"
    figures = f"mean error {100 * fit.error[index]:.3g}% of the mean |y|"
    return figures if np.isnan(r2) else f"R^2 {_r2(r2)}, {figures}"


def _r2(r2):
    """Never 1 where it is not."""
    if r2 < 0.99:
        return f"{r2:.3g}"
    return f"{r2:.6f}" if r2 < 0.999999 else "above 0.999999"


def misses(names: list[str], fit: Fit, of_model: Fit, rounding: float) -> list[str]:
    """What a formula that is not what the data say has to tell, and what to do."""
    told_of = [
        f"{name} misses the data: {told(fit, index)}."
        for index, name in enumerate(names)
        if not fit.error[index] <= rounding
    ]
    if not told_of:
        return []
    if of_model.worst <= rounding or of_model.worst < fit.worst / 2:
        return [
            *told_of,
            f"The model fits better ({told(of_model, int(of_model.error.argmax()))}): "
            "its weights are not near enough to their targets. Train longer, or read "
            "its digits: tolerance=0.",
        ]
    return [
        *told_of,
        "So does the model. If that is more than the noise of y, take another seed, or "
        "layers that can express it; ArithmeticRegressor().fit(X, y) looks for a "
        "formula by itself.",
    ]
