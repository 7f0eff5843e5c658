"""New weights for a training that is stuck: the recipe of the iNALU's paper."""

import keras
import numpy as np

from keras_nalu import LastBatchLoss, Population
from keras_nalu.layers import LAYERS

#: Every weight gets another seed; this one only keeps Keras from sampling one.
_UNIFORM = keras.initializers.RandomUniform(-2, 2, seed=0)


@keras.saving.register_keras_serializable(package="keras_nalu")
class BatchLossDeviation(LastBatchLoss):
    """The standard deviation of the batches' losses in the epoch.

    Keras' logs hold their mean; `INALUReinitialize` needs both. Penalties that layers
    add are left out, and a smaller last batch counts as much as the others.

    Args:
        loss: The loss object that the model is compiled with.
        name: Name of the metric in the logs.
        dtype: Dtype of the result.

    Raises:
        ValueError: `loss` is not a loss object.

    Example:

    >>> from keras_nalu.benchmarks.reinitialize import BatchLossDeviation
    >>> metric = BatchLossDeviation(L2Loss())
    >>> metric.update_state(np.array([[1.0]]), np.array([[3.0]]))
    >>> metric.update_state(np.array([[1.0]]), np.array([[1.0]]))
    >>> print(float(metric.result()))
    1.0
    """

    def __init__(self, loss, name="batch_loss_deviation", dtype=None):
        super().__init__(loss, name, dtype)
        self.batches = self.add_variable((), initializer="zeros", name="batches")
        self.mean = self.add_variable((), initializer="zeros", name="mean")
        self.squares = self.add_variable((), initializer="zeros", name="squares")

    def update_state(self, y_true, y_pred, sample_weight=None):
        super().update_state(y_true, y_pred, sample_weight)
        # Welford's algorithm, as a difference of large sums would lose digits.
        ahead = self.value - self.mean
        self.batches.assign_add(1)
        self.mean.assign_add(ahead / self.batches)
        self.squares.assign_add(ahead * (self.value - self.mean))

    def result(self):
        return keras.ops.sqrt(self.squares / keras.ops.maximum(self.batches, 1))


class INALUReinitialize(keras.callbacks.Callback):
    """Initializes the weights again if the training is stuck, as iNALU is trained.

    Before every tenth epoch it checks the losses of all batches since the last
    initialization. The weights are sampled from U(-2, 2) if there are at least 10,000
    losses, and

        mean(first half) <= mean(second half) + std(second half)                 (1)
        mean(second half) > 1                                                    (2)

    The authors check after every batch of that epoch, this once before its first.

    (1) is computed from the mean and the deviation of each epoch. For the deviation,
    compile the model with the `BatchLossDeviation` metric; without it, the deviation of
    the epochs' means is taken, which is smaller. The mean is the epoch's `loss`, which
    includes penalties and weighs a smaller last batch by its rows. An epoch in the
    middle counts in both halves.

    The trainable weights of the arithmetic layers are initialized, the optimizer is not
    changed. The members of a `Population` are checked one by one. `reinitialized` is
    the number of initializations, (members,) for a population.
    `keras.utils.set_random_seed` seeds them.

    Args:
        every: Epochs between two checks.
        losses: The smallest number of losses for a check.
        threshold: The number in (2).
        initializer: The initializer; its seed is ignored. `None` takes each layer's.

    Raises:
        ValueError: `every` is not a positive integer.

    Example:

    >>> from keras_nalu.benchmarks.reinitialize import *
    >>> model = keras_nalu.Sequential([keras.Input((2,)), INALU(1)])
    >>> metrics = [BatchLossDeviation(keras.losses.MeanSquaredError())]
    >>> rmsprop = keras.optimizers.RMSprop(0.01, clipvalue=0.1)
    >>> model.compile(rmsprop, "mse", metrics=metrics)
    >>> X = np.random.default_rng(0).uniform(-3, 3, (640, 2))
    >>> reinitialize = INALUReinitialize()
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
        every=10,
        losses=10_000,
        threshold=1.0,
        initializer=_UNIFORM,
    ):
        super().__init__()
        if not isinstance(every, int) or every < 1:
            raise ValueError(
                f"Expected `every` to be a positive integer. Received: every={every!r}."
            )
        self.every = every
        self.losses = losses
        self.threshold = threshold
        self.initializer = keras.initializers.get(initializer)

    def on_train_begin(self, logs=None):
        self._is_population = isinstance(self.model, Population)
        self._members = self.model.size if self._is_population else 1
        self._count = np.zeros(self._members, int)
        # For every epoch and member: the number, mean and deviation of batch losses.
        self._epochs = np.zeros((3, 0, self._members))

    @property
    def reinitialized(self):
        return self._count.copy() if self._is_population else int(self._count[0])

    def on_epoch_end(self, epoch, logs=None):
        logs = self.model.member_logs if self._is_population else logs or {}
        losses = logs["loss"], logs.get("batch_loss_deviation", 0.0)
        row = [np.resize(a, self._members) for a in (self.params["steps"], *losses)]
        self._epochs = np.append(self._epochs, np.array(row)[:, None], axis=1)

    def on_epoch_begin(self, epoch, logs=None):
        if epoch > 0 and epoch % self.every == 0:
            stuck = self._stuck()
            if stuck.any():
                self._initialize(stuck)
                self._count += stuck
                self._epochs[:, :, stuck] = 0

    def _stuck(self):
        batches, means, deviations = self._epochs
        total = batches.sum(0)
        before = np.cumsum(batches, 0) - batches
        first = np.clip(total // 2 - before, 0, batches)
        second = batches - first
        # The losses of a member that diverged are NaN, so it is not stuck.
        with np.errstate(all="ignore"):
            mean_1 = (first * means).sum(0) / first.sum(0)
            mean_2 = (second * means).sum(0) / second.sum(0)
            squares = deviations**2 + (means - mean_2) ** 2
            std_2 = np.sqrt((second * squares).sum(0) / second.sum(0))
            stuck = (mean_1 <= mean_2 + std_2) & (mean_2 > self.threshold)
        return stuck & (total >= self.losses)

    def _initialize(self, stuck):
        model = self.model.template if self._is_population else self.model
        for layer in model.layers:
            if not isinstance(layer, tuple(LAYERS.values())):
                continue
            fresh = [self._values(layer) for _ in range(stuck.sum())]
            for variable, values in zip(
                layer.trainable_weights, zip(*fresh, strict=True), strict=True
            ):
                if self._is_population:
                    stacked = self.model.stacked(variable)
                    weights = keras.ops.convert_to_numpy(stacked).copy()
                    weights[stuck] = np.stack(values)
                    stacked.assign(weights)
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


def _reseeded(initializer):
    config = initializer.get_config()
    if "seed" not in config:
        return initializer
    # NumPy's global generator, as `keras.utils.set_random_seed` seeds it.
    seed = np.random.randint(2**31)  # noqa: NPY002
    return initializer.from_config({**config, "seed": seed})


def _unseeded(config):
    """A layer's config without the seeds of its initializers, for new values."""
    config = dict(config)
    for name, value in config.items():
        if name.endswith("_initializer") and isinstance(value, dict):
            inner = value["config"]
            if "seed" in inner:
                config[name] = {**value, "config": {**inner, "seed": None}}
    return config
