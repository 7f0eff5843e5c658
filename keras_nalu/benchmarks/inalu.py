"""Training of the iNALU, by its authors and in the benchmark of Mistry et al.

The numbers are those of the authors' published code, except the optimizer. The iNALUs
and the NALU that they are compared with are trained in the same way:

- Adam at 0.001 with clipping, which updates kernels and gates in turn and adds steps
  along the penalty: `INALUAdam`, in a `PenalizedPopulation`. Their script has RMSProp
  at 0.01, but their tables come from Adam: with it the script repeats their losses and
  counts, with RMSProp it solves more;
- new weights every ten epochs if the training is stuck: `INALUReinitialize`;
- 64,000 rows in batches of 64, in the same order in each of 100 epochs.

Two things differ from their code:

- It checks whether the training is stuck after each of the 1,000 batches of every tenth
  epoch; here this is done once, before the first.
- It records the loss of a penalized batch after the penalty's step on the kernels; here
  it is the loss before the batch. Only losses below 1 differ, and only that check uses
  them.

Reference: Schlör, Ring and Hotho, iNALU: Improved Neural Arithmetic Logic Unit, 2020,
arXiv:2003.07629; published code for TensorFlow 1.8.
"""

import math

import keras
import numpy as np
from keras import ops
from keras.initializers import RandomNormal

from keras_nalu import INALU, NALU, LastBatchLoss, Population, SharedINALU
from keras_nalu.benchmarks.reinitialize import BatchLossDeviation, INALUReinitialize
from keras_nalu.regularizers import INALUPenalty


@keras.saving.register_keras_serializable(package="keras_nalu")
class NALUBesideINALU(NALU):
    """A NALU with the initial weights of the iNALUs that it is compared with."""

    def add_kernel(self, name, shape=None, initializer=None):
        mean = 1.0 if name == "W_hat" else -1.0
        return super().add_kernel(name, shape, RandomNormal(mean, 0.1))

    def add_gate(self, name, shape=None, initializer=None):
        return super().add_gate(name, shape, RandomNormal(0.0, 0.1))


#: "INALU" has separate weights for sum and product ("iw"), "SharedINALU" the same ones
#: ("sw"); "NALU" is the paper's "NALU (m)". All initialize W_hat from N(1, 0.1), M_hat
#: from N(-1, 0.1) and gates from N(0, 0.1).
MODULES = {"INALU": INALU, "SharedINALU": SharedINALU, "NALU": NALUBesideINALU}


@keras.saving.register_keras_serializable(package="keras_nalu")
class PenalizedPopulation(Population):
    """A population that passes every member's loss of the batch to its `INALUAdam`.

    The loss is the mean squared error. The logs have `last_batch_loss`, from before the
    update, and `batch_loss_deviation`, which `INALUReinitialize` needs.
    """

    def compile(self, optimizer, loss="mse", *, metrics=None, **kwargs):
        mse = keras.losses.MeanSquaredError()
        added = {
            metric.name: metric
            for metric in (LastBatchLoss(mse), BatchLossDeviation(mse))
        }
        # A loaded population passes them in `metrics`.
        given = {getattr(metric, "name", metric): metric for metric in metrics or []}
        super().compile(optimizer, loss, metrics=[*(added | given).values()], **kwargs)

    def _run(self, data, training):
        logs = super()._run(data, training)
        if training:
            losses = logs["last_batch_loss"]
            self.optimizer.penalize(self.trainable_variables, losses)
        return logs


@keras.saving.register_keras_serializable(package="keras_nalu")
class INALUAdam(keras.optimizers.Optimizer):
    """Adam that updates kernels and gates in turn, and adds steps along the penalty.

        m <- 0.9 m + 0.1 g                                                       (1)
        s <- 0.999 s + 0.001 g ** 2                                              (2)
        r <- learning_rate sqrt(1 - 0.999 ** t) / (1 - 0.9 ** t)                 (3)
        w <- w - r m / (sqrt(s) + 1e-8)                                          (4)

    `g` is the gradient of the batch's loss, each entry clipped. Of ten batches the
    first eight train the kernels, and the last two the gates; the others keep their `m`
    and `s`. `t` counts all steps, of kernels, gates and along the penalty.

    After batch number `begin`, a member whose loss of the batch was below 1 before the
    update makes two more steps with the same `m` and `s`: one of the kernels, and one
    of the gates. Their `g` is the gradient of the sum of `INALUPenalty(0.05)` over all
    weights. A `PenalizedPopulation` calls `penalize` for these steps; a member that is
    trained alone does not make them.

    Constraints are not applied.

    Args:
        learning_rate: A number or a schedule.
        clipvalue: The largest magnitude of an entry of the gradient.
        begin: The number of batches without a penalty, 11 epochs.
        name: Name of the optimizer.
    """

    elementwise = True

    def __init__(
        self, learning_rate=0.001, clipvalue=0.1, begin=11_000, name="inalu_adam"
    ):
        super().__init__(learning_rate=learning_rate, clipvalue=clipvalue, name=name)
        self.begin = begin

    def build(self, variables):
        if not self.built:
            super().build(variables)
            # In a function, as Keras would track a list as optimizer variables.
            self.trained = lambda: variables
            self.means = self.add_optimizer_variables(variables, "mean")
            self.squares = self.add_optimizer_variables(variables, "square")
            # Per member, as not all are penalized.
            self.counts = self.add_optimizer_variables(variables, "count")

    def apply(self, grads, trainable_variables=None):
        if trainable_variables is not None:
            self.build(list(trainable_variables))
        gates = self.iterations % 10 >= 8
        for i, (w, g) in enumerate(zip(self.trained(), grads, strict=True)):
            due = gates if _is_gate(w) else ops.logical_not(gates)
            self.counts[i].assign_add(ops.ones(w.shape, w.dtype))
            g = ops.clip(g, -self.clipvalue, self.clipvalue)
            self._move(i, w, self.counts[i], g, due)
        self.iterations.assign_add(1)

    def penalize(self, variables, losses):
        """Makes the penalty's steps of the members with a loss below 1."""
        below = ops.logical_and(self.iterations > self.begin, losses < 1)
        for i, w in enumerate(variables):
            slope = 0.05 / math.prod(w.shape[1:])
            g = ops.where(ops.abs(w) < 20, -slope * ops.sign(w), 0.0)
            due = ops.reshape(below, (-1, *[1] * (len(w.shape) - 1)))
            t = ops.convert_to_tensor(self.counts[i])
            self._move(i, w, t + (2 if _is_gate(w) else 1), g, due)
            self.counts[i].assign(ops.where(due, t + 2, t))

    def _move(self, i, weight, t, g, due):
        w, m, s, t = map(
            ops.convert_to_tensor, (weight, self.means[i], self.squares[i], t)
        )
        mean = 0.9 * m + 0.1 * g
        square = 0.999 * s + 0.001 * ops.square(g)
        rate = self.learning_rate * ops.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        moved = w - rate * mean / (ops.sqrt(square) + 1e-8)
        weight.assign(ops.where(due, moved, w))
        self.means[i].assign(ops.where(due, mean, m))
        self.squares[i].assign(ops.where(due, square, s))

    def get_config(self):
        config = super().get_config()
        names = ("learning_rate", "clipvalue", "name")
        return {name: config[name] for name in names} | {"begin": self.begin}


def _is_gate(variable):
    # The name of a population's variable is a whole path.
    return variable.name.split("_")[-1] in ("g", "G")


@keras.saving.register_keras_serializable(package="keras_nalu")
class PortedINALU(INALU):
    """An iNALU with the initial weights of the benchmark of Mistry et al.

    They are the defaults of the authors' layer, which their training scripts override.
    The penalty is off until `PenalizeByError` switches it on.
    """

    def add_kernel(self, name, shape=None, initializer=None):
        mean = 0.88 if name.startswith("W") else 0.5
        return super().add_kernel(name, shape, RandomNormal(mean, 0.2))

    def add_gate(self, name, shape=None, initializer=None):
        return super().add_gate(name, shape, RandomNormal(0.0, 0.2))

    def build(self, input_shape):
        super().build(input_shape)
        self.is_penalized = self.add_weight(
            shape=(), initializer="zeros", trainable=False, name="is_penalized"
        )

    def call(self, inputs, training=False):
        if training:
            penalties = map(INALUPenalty(0.05), self.trainable_weights)
            self.add_loss(self.is_penalized * sum(penalties))
        return super().call(inputs, training)


def port_callbacks(errors):
    """The callbacks of Mistry et al., for epochs of 1,000 steps.

    Args:
        errors: A function that returns the last measured interpolation error of every
            member, (members,). It is called at the start of each epoch, so measure the
            error before the first step and after every epoch.
    """
    return [PenalizeByError(errors), ReinitializeByError(errors)]


class PenalizeByError(keras.callbacks.Callback):
    """Adds the penalty to the loss of the members whose error is below 1.

    It is switched for whole epochs, from epoch `begin` on. The published code starts at
    step 10,001, this one step earlier.

    Args:
        errors: A function that returns the last measured error of every member.
        begin: The first epoch with a penalty.
    """

    def __init__(self, errors, begin=10):
        super().__init__()
        self.errors = errors
        self.begin = begin

    def on_epoch_begin(self, epoch, logs=None):
        on = (np.asarray(self.errors()) < 1) & (epoch >= self.begin)
        (layer,) = self.model.template.layers
        self.model.stacked(layer.is_penalized).assign(on)


class ReinitializeByError(INALUReinitialize):
    """Initializes the weights again if the error does not fall.

    The rule is that of `INALUReinitialize`, with the last measured error in place of
    each step's loss. It is checked at the start of every epoch; the published code
    checks every ten steps.

    Args:
        errors: A function that returns the last measured error of every member.
        losses: The number of steps before the first check.
        **kwargs: `threshold`, as for `INALUReinitialize`.
    """

    def __init__(self, errors, losses=5000, **kwargs):
        super().__init__(every=1, losses=losses, initializer=None, **kwargs)
        self.errors = errors

    def on_epoch_begin(self, epoch, logs=None):
        super().on_epoch_begin(epoch, logs)
        self._error = np.asarray(self.errors())

    def on_epoch_end(self, epoch, logs=None):
        steps = np.full(self._members, self.params["steps"])
        row = np.array([steps, self._error, np.zeros(self._members)])
        self._epochs = np.append(self._epochs, row[:, None], axis=1)
