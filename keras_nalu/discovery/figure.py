"""A plot of a fit: predicted against true, inside and on the outer edge."""

import numpy as np
from matplotlib.figure import Figure

from keras_nalu.discovery.discover import inner_rows


def predicted_against_true(model, X, y):
    """A figure of a fitted `ArithmeticRegressor` of one output.

    The outer tenth of the rows, which the search did not see, has another colour.

    Args:
        model: The estimator.
        X: DataFrame, (rows, features).
        y: Series, (rows,).
    """
    predicted, true = model.predict(X), np.asarray(y, float)
    inner = inner_rows(np.asarray(X, float), np.ones(len(X)))
    shown = np.isfinite(predicted)
    figure = Figure(figsize=(6, 5.4), layout="constrained", facecolor="white")
    axes = figure.subplots()
    kinds = ("inside", inner, "#1f5fa8"), ("outer tenth", ~inner, "#e07b00")
    for label, rows, colour in kinds:
        at = np.flatnonzero(rows & shown)
        if len(at):
            at = at[:: len(at) // 3000 + 1]
            axes.scatter(
                true[at], predicted[at], 12, colour, alpha=0.6, lw=0, label=label
            )
    ends = [true.min(), true.max()]
    axes.plot(ends, ends, color="black", linewidth=0.8, label="predicted = true")
    if min(ends) > 0 and ends[1] > 1000 * ends[0] and (predicted[shown] > 0).all():
        axes.set(xscale="log", yscale="log")
    axes.set(xlabel=f"{y.name}, true", ylabel=f"{y.name}, predicted")
    title = model.formula_ if len(model.formula_) < 75 else f"{model.formula_[:72]}..."
    axes.set_title(title.replace("$", r"\$"), fontsize=10)
    axes.legend()
    return figure
