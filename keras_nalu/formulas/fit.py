"""The error of predictions against the data, and sentences about it."""

import dataclasses

import keras
import numpy as np

from keras_nalu.formulas.calls import Graph

#: Relative errors that are rounding, for dtypes of fewer than six digits.
ROUNDING = {"float16": 1e-2, "bfloat16": 0.1}


@dataclasses.dataclass(frozen=True)
class Fit:
    """The errors of a model or formula against the right answers, (outputs,) each.

    Args:
        error: The mean absolute error as a share of the mean magnitude.
        r2: The coefficient of determination, NaN if `y` is constant.
        without: The number of rows without a finite prediction.
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
        # Scaled first, as squares of 1e-200 and 1e+200 under- and overflow.
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
    """The relative error that is rounding in the dtypes of the layers."""
    layers = [call.layer for call in graph.calls]
    dtypes = [each.compute_dtype for each in layers if isinstance(each, keras.Layer)]
    return max((ROUNDING.get(dtype, 0.0) for dtype in dtypes), default=0) or 1e-5


def describe(fit: Fit, index: int) -> str:
    """The errors of one output in words."""
    if fit.without[index]:
        rows = "row" if fit.without[index] == 1 else "rows"
        return f"no finite number on {fit.without[index]} {rows}"
    r2 = fit.r2[index]
    if np.isinf(fit.error[index]):
        return "it is not 0, but y is 0 on all rows"
    figures = f"mean error {100 * fit.error[index]:.3g}% of the mean |y|"
    return figures if np.isnan(r2) else f"R^2 {_r2(r2)}, {figures}"


def _r2(r2):
    """R^2 with digits enough that it never rounds to 1."""
    if r2 < 0.99:
        return f"{r2:.3g}"
    return f"{r2:.6f}" if r2 < 0.999999 else "above 0.999999"


def misses(names: list[str], fit: Fit, of_model: Fit, rounding: float) -> list[str]:
    """Sentences for a formula that misses the data: its errors, and what to do."""
    errors = [
        f"{name} misses the data: {describe(fit, index)}."
        for index, name in enumerate(names)
        if not fit.error[index] <= rounding
    ]
    if not errors:
        return []
    if of_model.worst <= rounding or of_model.worst < fit.worst / 2:
        better = describe(of_model, int(of_model.error.argmax()))
        return [
            *errors,
            f"The model fits better ({better}): its weights are not near enough to "
            "their targets. Train longer, or print its weights with tolerance=0.",
        ]
    return [
        *errors,
        "So does the model. If that is more than the noise of y, train another seed or "
        "layers that can express it, or try ArithmeticRegressor().fit(X, y).",
    ]
