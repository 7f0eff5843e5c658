from typing import Any

import keras
import numpy as np

from keras_nalu import expect
from keras_nalu.models import Population


class EpochLine(keras.callbacks.Callback):
    """Prints a line after every epoch, with four significant digits.

        epoch 0, loss: 2732, accuracy: 0.0062

    `loss` is that of the last batch if the model has the `LastBatchLoss` metric, else
    the mean over the epoch, as Keras logs it.

    Args:
        write: A function that takes the line.
        every: Epochs between two lines; the last epoch always has one.

    Raises:
        ValueError: `write` cannot be called; `every` is not a positive integer.
    """

    def __init__(self, write=print, every=1):
        super().__init__()
        if not callable(write):
            raise expect.invalid("write", write, "a function of a line", "print")
        self.write = write
        self.every = expect.integer("every", every)

    def on_epoch_end(self, epoch, logs=None):
        if epoch % self.every and epoch + 1 != self.params["epochs"]:
            return
        logs = logs or {}
        loss = logs.get("last_batch_loss", logs.get("loss", np.nan))
        accuracy = float(f"{logs.get('accuracy', np.nan):.4g}")  # 1.0, not 1
        self.write(f"epoch {epoch}, loss: {loss:.4g}, accuracy: {accuracy}")


class StopWhenSolved(keras.callbacks.Callback):
    """Stops the training at the end of the epoch in which the model solves the task.

    A member of a `Population` counts as stopped at its first solved epoch. At the end
    it gets back its weights of that epoch, as if it had trained alone. The training
    stops when every member has solved the task or has a loss that is not finite.

    `solved_at` is the epoch, or `None`; for a population it is an array, with -1 for
    the members that have not solved the task.

    Args:
        monitor: Name in the logs of the value to compare.
        threshold: The task is solved when the value is less than this.
        validation_freq: The `validation_freq` of `fit`; epochs without a validation
            need no value whose name begins with "val_".

    Raises:
        ValueError: `monitor` is not in the logs of an epoch.

    Example:

    >>> stop = keras_nalu.StopWhenSolved(threshold=1e-3)
    >>> model = keras_nalu.Sequential([keras.Input((2,)), NAU(1)])
    >>> model.compile(keras.optimizers.Adam(0.01), "mse")
    >>> X = np.random.default_rng(0).uniform(1, 2, (64, 2))
    >>> data = X, X.sum(1, keepdims=True)
    >>> history = model.fit(
    ...     *data, epochs=1000, validation_data=data, callbacks=[stop], verbose=0
    ... )
    >>> print(len(history.history["loss"]) == stop.solved_at + 1 < 1000)
    True
    """

    def __init__(self, monitor="val_loss", threshold=1e-5, validation_freq=1):
        super().__init__()
        in_logs = "a name in the logs", "'loss'"
        self.monitor = expect.kind("monitor", monitor, str, *in_logs)
        self.threshold = expect.number("threshold", threshold, instead="1e-5")
        self.validation_freq = validation_freq
        self.solved_at: Any = None

    def on_train_begin(self, logs=None):
        self.solved_at = self._kept = None
        if isinstance(self.model, Population):
            self.solved_at = np.full(self.model.size, -1)

    def on_epoch_end(self, epoch, logs=None):
        population = isinstance(self.model, Population)
        logs = self.model.member_logs if population else logs or {}
        validated = any(name.startswith("val_") for name in logs)
        due = validated or not self.monitor.startswith("val_")
        if self.monitor not in logs and not due and self.validation_freq != 1:
            return
        if self.monitor not in logs:
            raise ValueError(
                f"There is no {self.monitor!r} in the logs of this epoch. There are: "
                f"{', '.join(map(repr, logs))}. Try one of them as `monitor`. Names "
                "with 'val_' need `fit(..., validation_data=...)`."
            )
        solved = logs[self.monitor] < self.threshold
        if population:
            self._keep(solved & (self.solved_at < 0), epoch)
            open_ = np.isfinite(logs["loss"]) & (self.solved_at < 0)
            self.model.stop_training |= not open_.any()
        elif solved:
            self.solved_at = epoch
            self.model.stop_training = True

    def _keep(self, members, epoch):
        weights = [keras.ops.convert_to_numpy(w) for w in self.model.weights]
        if self._kept is None:
            self._kept = [w.copy() for w in weights]
        for kept, weight in zip(self._kept, weights, strict=True):
            kept[members] = weight[members]
        self.solved_at[members] = epoch

    def on_train_end(self, logs=None):
        if self._kept is not None:
            solved = self.solved_at >= 0
            for kept, variable in zip(self._kept, self.model.weights, strict=True):
                stacked = keras.ops.convert_to_numpy(variable).copy()
                stacked[solved] = kept[solved]
                variable.assign(stacked)
