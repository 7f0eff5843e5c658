from typing import Any

import keras
import numpy as np

from keras_nalu import expect
from keras_nalu.models import Population


class EpochLine(keras.callbacks.Callback):
    """Prints the notebook's line after every epoch, with four significant digits.

        epoch 0, loss: 2732, accuracy: 0.0062

    `loss` is the last batch's where the model is compiled with the `LastBatchLoss`
    metric, else the epoch's mean, which is what Keras logs.

    Args:
        write: What takes the line.
        every: Epochs between two lines; the last epoch has one, too.

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

    In a `Population` every member counts as stopped at its first solved epoch: its
    weights of then are put back at the end, as if it had trained alone. The training
    stops when all members are solved but those whose loss is not finite.

    `solved_at` is the epoch, or `None`; of a population, an array with -1 for a member
    that is not solved.

    Args:
        monitor: Name in the logs of what is compared.
        threshold: What it has to be less than.
        validation_freq: As it is given to `fit`, if it is: between the validations
            nothing that begins with "val_" is asked for.

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
                f"{', '.join(map(repr, logs))}. Try one of them as `monitor`; those of "
                "the validation need `fit(..., validation_data=...)`."
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
