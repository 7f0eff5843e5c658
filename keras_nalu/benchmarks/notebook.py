"""The notebook's experiment: a NALU learns to multiply, an MLP does not."""

import dataclasses

import keras
import numpy as np

from keras_nalu import (
    EXTRAPOLATION,
    NALU,
    IsCloseAccuracy,
    L2Loss,
    LastBatchLoss,
    Population,
    Sequential,
    formula,
    generate_dataset,
)


@dataclasses.dataclass(frozen=True)
class Notebook:
    """The settings of a run; the defaults are the notebook's."""

    operation: str = "multiply"
    size: int = 10000
    epochs: int = 200
    batch_size: int = 10
    learning_rate: float = 1e-3
    seed: int = 0

    def data(self):
        return generate_dataset(self.size, self.seed, operation=self.operation)

    def extrapolation(self):
        """Data from a range far outside the training set."""
        return generate_dataset(
            1000, self.seed, operation=self.operation, **EXTRAPOLATION
        )

    def nalu(self):
        """The notebook's network, compiled."""
        keras.utils.set_random_seed(self.seed)
        return self._compiled(_network())

    def population(self, size):
        """A population of the notebook's networks with different initial weights."""
        keras.utils.set_random_seed(self.seed)
        return self._compiled(Population(_network(), size, self.seed))

    def _compiled(self, model):
        loss = L2Loss()
        model.compile(
            keras.optimizers.Adam(self.learning_rate, epsilon=1e-8),
            loss,
            metrics=[IsCloseAccuracy(), LastBatchLoss(loss)],
        )
        return model

    def fit(self, model, callbacks):
        """Trains like the notebook's loop: on the batches in order, `epochs` times."""
        X, Y = self.data()
        return model.fit(
            X,
            Y,
            batch_size=self.batch_size,
            epochs=self.epochs,
            shuffle=False,
            verbose=0,
            callbacks=callbacks,
        )

    def mlp(self):
        """An ordinary network for comparison, trained on the same data.

        A quarter of the epochs, with larger batches and a larger rate, is enough for an
        error of one or two per cent on the training range.
        """
        keras.utils.set_random_seed(self.seed)
        dense = keras.layers.Dense
        layers = [dense(16, activation="relu"), dense(16, activation="relu"), dense(1)]
        model = Sequential([keras.Input((2,)), *layers])
        model.compile(keras.optimizers.Adam(1e-2), "mse")
        X, Y = self.data()
        model.fit(X, Y, batch_size=100, epochs=-(-self.epochs // 4), verbose=0)
        return model

    def report(self, model, mlp=True):
        """Yields lines: the formula, and the errors beside those of an MLP."""
        X, Y = self.data()
        layer = model.layers[0]
        W = keras.ops.convert_to_numpy(layer.kernel).ravel()
        gate = keras.ops.convert_to_numpy(layer.gate(X))
        far = self.extrapolation()
        yield from (
            "What it learned",
            "  W        " + "   ".join(f"x{i} {w:+.4f}" for i, w in enumerate(W)),
            f"  gate     {gate.mean():.4f} on average over the data "
            "(1 adds, 0 multiplies)",
            *_formula(layer, X),
            "",
            "Mean error, as a share of the mean answer",
            f"  {'':20}{'trained on':>16}{'far outside':>16}",
            f"  {'':20}{_span(X):>16}{_span(far[0]):>16}",
        )
        rivals = [("MLP", self.mlp)] if mlp else []
        for name, trained in [("NALU", lambda: model), *rivals]:
            network = trained()
            near_error, far_error = (
                _percent(relative_error(network, *data)) for data in ((X, Y), far)
            )
            name = f"{name}, {network.count_params()} weights"
            yield f"  {name:20}{near_error:>16}{far_error:>16}"


def _network():
    return Sequential([keras.Input((2,)), NALU(1, name="nalu")])


def _formula(layer, X):
    """Yields the lines of the formula and, if it is not exact, its error."""
    read = formula(layer, X)
    for i, line in enumerate(read.lines):
        yield f"  {'' if i else 'formula':8} {line}"
    if not read.exact:
        off = _percent(read.error)
        yield f"  {'':8} (printed digits: up to {off} off the trained model)"


def _percent(share):
    digits = {"precision": 2, "fractional": False, "trim": "-"}
    return np.format_float_positional(100 * share, **digits) + "%"


def _span(X):
    return f"{X.min()} to {X.max()}"


def relative_error(model, X, Y):
    """The mean absolute error divided by the mean absolute label, if that is not 0."""
    error = np.abs(keras.ops.convert_to_numpy(model(X)) - Y)
    return float(np.mean(error) / (np.mean(np.abs(Y)) or 1))
