from typing import Any

import keras
import numpy as np

from keras_nalu import expect
from keras_nalu.layers.base import ArithmeticLayer, part, walk_layers


class EpochLine(keras.callbacks.Callback):
    """Prints the notebook's line after every epoch.

        epoch 0, loss: 2732.2294921875, accuracy: 0.0062

    `loss` is the last batch's where the model is compiled with the `LastBatchLoss`
    metric, else the epoch's mean, which is what Keras logs.

    Args:
        write: What takes the line.
    """

    def __init__(self, write=print):
        super().__init__()
        if not callable(write):
            raise expect.invalid("write", write, "a function of a line", "print")
        self.write = write

    def on_epoch_end(self, epoch, logs=None):
        logs = logs or {}
        loss = logs.get("last_batch_loss", logs.get("loss"))
        # The shortest decimal that names this float32, as Python prints it.
        accuracy = float(str(np.float32(logs.get("accuracy", np.nan))))
        self.write(f"epoch {epoch}, loss: {loss}, accuracy: {accuracy}")


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
        self.monitor = _name(monitor)
        self.threshold = expect.number("threshold", threshold, instead="1e-5")
        self.validation_freq = validation_freq
        self.solved_at: Any = None

    def on_train_begin(self, logs=None):
        self.solved_at = self._kept = None
        if _is_population(self.model):
            self.solved_at = np.full(self.model.size, -1)

    def on_epoch_end(self, epoch, logs=None):
        logs = _logs(self.model, logs)
        validated = any(name.startswith("val_") for name in logs)
        due = validated or not self.monitor.startswith("val_")
        if self.monitor not in logs and not due and self.validation_freq != 1:
            return
        solved = _read(logs, self.monitor) < self.threshold
        if _is_population(self.model):
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
                _put(variable, solved, kept[solved])


#: A seed is drawn for every weight; this one only keeps Keras from drawing its own.
_UNIFORM = keras.initializers.RandomUniform(-2, 2, seed=0)


class INALUReinitialize(keras.callbacks.Callback):
    """Draws the weights anew where the training is stuck, as iNALU is trained.

    Before every tenth epoch it looks at the losses of all batches since the weights
    were drawn. They are drawn from U(-2, 2) where there are 10,000 losses at least, and

        mean(first half) <= mean(second half) + std(second half)                 (1)
        mean(second half) > 1                                                    (2)

    The authors look after every batch of that epoch; here it is before its first.

    (1) follows from the mean and the deviation over each epoch. For the deviation,
    compile the model with the `BatchLossDeviation` metric; without, it is that of the
    epochs' means, which is smaller. The mean is the epoch's `loss`: with its penalties,
    if there are any, and by rows, should the last batch be smaller. An epoch that the
    middle cuts counts in both halves alike.

    It draws what is trained in the arithmetic layers, and leaves the optimizer as it
    is. In a `Population` it looks at every member by itself. `reinitialized` counts how
    often it has drawn; of a population, an array. Seeded by
    `keras.utils.set_random_seed`.

    nalm-benchmark's variant compares validation errors, measured every 1,000 steps,
    when there are 5,000, and draws from each layer's initial distribution:

    ```python
    INALUReinitialize("val_loss", every=1, losses=5000, initializer=None)
    model.fit(draw, steps_per_epoch=1000, ...)
    ```

    Args:
        monitor: Name in the logs of the loss; a batch of a validated epoch counts with
            its epoch's.
        every: Epochs between two looks.
        losses: How many losses there must be.
        threshold: The number in (2).
        initializer: What draws, whatever its own seed. `None` takes each layer's.

    Raises:
        ValueError: `monitor` is not in the logs of an epoch; `every` is not a positive
            integer.

    Example:

    >>> model = keras_nalu.Sequential([keras.Input((2,)), INALU(1)])
    >>> metrics = [keras_nalu.BatchLossDeviation(keras.losses.MeanSquaredError())]
    >>> rmsprop = keras.optimizers.RMSprop(0.01, clipvalue=0.1)
    >>> model.compile(rmsprop, "mse", metrics=metrics)
    >>> X = np.random.default_rng(0).uniform(-3, 3, (640, 2))
    >>> reinitialize = keras_nalu.INALUReinitialize()
    >>> history = model.fit(
    ...     X, X[:, :1] * X[:, 1:], 64, epochs=11, callbacks=[reinitialize], verbose=0
    ... )
    >>> print(reinitialize.reinitialized)
    0

    Reference: Schlör, Ring and Hotho, iNALU: Improved Neural Arithmetic Logic Unit,
    2020, arXiv:2003.07629; the numbers are those of their published code.
    """

    def __init__(
        self,
        monitor="loss",
        every=10,
        losses=10_000,
        threshold=1.0,
        initializer=_UNIFORM,
    ):
        super().__init__()
        self.monitor = _name(monitor)
        self.every = expect.integer("every", every, instead=10)
        self.losses = expect.integer("losses", losses, instead=10_000)
        self.threshold = expect.number("threshold", threshold)
        self.initializer = part(keras.initializers, "initializer", initializer)

    def on_train_begin(self, logs=None):
        self._members = self.model.size if _is_population(self.model) else 1
        self._count = np.zeros(self._members, int)
        # Of every epoch and member: batches, mean and deviation of their losses.
        self._epochs = np.zeros((3, 0, self._members))
        self._batches = 0

    @property
    def reinitialized(self):
        return self._count.copy() if _is_population(self.model) else int(self._count[0])

    def on_train_batch_end(self, batch, logs=None):
        self._batches = batch + 1

    def on_epoch_end(self, epoch, logs=None):
        logs = _logs(self.model, logs)
        mean, deviation = _read(logs, self.monitor), 0.0
        if self.monitor == "loss":
            deviation = logs.get("batch_loss_deviation", 0.0)
        row = [np.resize(a, self._members) for a in (self._batches, mean, deviation)]
        self._epochs = np.append(self._epochs, np.array(row)[:, None], axis=1)

    def on_epoch_begin(self, epoch, logs=None):
        if epoch > 0 and epoch % self.every == 0:
            stuck = self._stuck()
            if stuck.any():
                self._draw(stuck)
                self._count += stuck
                self._epochs[:, :, stuck] = 0

    def _stuck(self):
        batches, means, deviations = self._epochs
        total = batches.sum(0)
        before = np.cumsum(batches, 0) - batches
        first = np.clip(total // 2 - before, 0, batches)
        second = batches - first
        # A member that diverged is not a number, and not stuck.
        with np.errstate(all="ignore"):
            mean_1 = (first * means).sum(0) / first.sum(0)
            mean_2 = (second * means).sum(0) / second.sum(0)
            squares = deviations**2 + (means - mean_2) ** 2
            std_2 = np.sqrt((second * squares).sum(0) / second.sum(0))
            stuck = (mean_1 <= mean_2 + std_2) & (mean_2 > self.threshold)
        return stuck & (total >= self.losses)

    def _draw(self, stuck):
        template = getattr(self.model, "template", self.model)
        for layer in walk_layers(template):
            if not isinstance(layer, ArithmeticLayer):
                continue
            drawn = [self._values(layer) for _ in range(stuck.sum())]
            for variable, values in zip(
                layer.trainable_weights, zip(*drawn, strict=True), strict=True
            ):
                if _is_population(self.model):
                    _put(self.model.stacked(variable), stuck, np.stack(values))
                else:
                    variable.assign(values[0])

    def _values(self, layer):
        if self.initializer is None:
            fresh = type(layer).from_config(_unseeded(layer.get_config()))
            fresh.build_from_config(layer.get_build_config())
            weights = fresh.trainable_weights
        else:
            weights = [
                _reseeded(self.initializer)(w.shape, dtype=w.dtype)
                for w in layer.trainable_weights
            ]
        return [keras.ops.convert_to_numpy(w) for w in weights]


def _name(monitor):
    return expect.kind("monitor", monitor, str, "a name in the logs", "'loss'")


def _is_population(model):
    return hasattr(model, "member_logs")


def _logs(model, logs):
    return model.member_logs if _is_population(model) else logs or {}


def _read(logs, name):
    if name not in logs:
        raise ValueError(
            f"There is no {name!r} in the logs of this epoch. There are: "
            f"{', '.join(map(repr, logs))}. Try one of them as `monitor`; those of the "
            "validation need `fit(..., validation_data=...)`."
        )
    return logs[name]


def _put(variable, members, values):
    stacked = keras.ops.convert_to_numpy(variable).copy()
    stacked[members] = values
    variable.assign(stacked)


def _reseeded(initializer):
    config = initializer.get_config()
    if "seed" not in config:
        return initializer
    # From the generator that `keras.utils.set_random_seed` seeds.
    seed = np.random.randint(2**31)  # noqa: NPY002
    return initializer.from_config({**config, "seed": seed})


def _unseeded(config):
    """A layer's config, such that its initializers draw what no other has drawn."""
    config = dict(config)
    for name, value in config.items():
        if name.endswith("_initializer") and isinstance(value, dict):
            inner = value["config"]
            if "seed" in inner:
                config[name] = {**value, "config": {**inner, "seed": None}}
    return config
