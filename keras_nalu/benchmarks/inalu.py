"""How iNALU is trained: by its authors, and in the benchmark of Mistry et al.

The numbers are those of the authors' published code, but for the optimizer. The iNALUs
and the NALU beside them are trained in the same way:

- Adam at 0.001 that clips, takes kernels and gates in turn, and adds steps along the
  penalty: `INALUAdam`, in a `PenalizedPopulation`. Their script has RMSProp at 0.01;
  their tables come from Adam: with it the script repeats their losses and counts, and
  with RMSProp it solves more;
- weights drawn anew every ten epochs where the training is stuck:
  `INALUReinitialize`;
- 64,000 rows in batches of 64, the same and in the same order in each of 100 epochs.

It differs from their code in this:

- That one looks whether it is stuck after each of the 1,000 batches of every tenth
  epoch, and here it is once, before the first.
- That one remembers the loss of a penalized batch from behind the penalty's step on the
  kernels, here it is that from before the batch. Only losses below 1 are concerned, and
  only the look asks for them.

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
    """A NALU that begins as the iNALUs do that it is compared with."""

    def add_kernel(self, name, shape=None, initializer=None):
        mean = 1.0 if name == "W_hat" else -1.0
        return super().add_kernel(name, shape, RandomNormal(mean, 0.1))

    def add_gate(self, name, shape=None, initializer=None):
        return super().add_gate(name, shape, RandomNormal(0.0, 0.1))


#: "INALU" has weights of their own for sum and product ("iw"), "SharedINALU" the same
#: ("sw"); "NALU" is the paper's "NALU (m)". All begin with W_hat from N(1, 0.1), M_hat
#: from N(-1, 0.1) and gates from N(0, 0.1).
MODULES = {"INALU": INALU, "SharedINALU": SharedINALU, "NALU": NALUBesideINALU}


@keras.saving.register_keras_serializable(package="keras_nalu")
class PenalizedPopulation(Population):
    """A population that tells its `INALUAdam` every member's loss of the batch.

    The loss is the mean squared error. The logs have `last_batch_loss`, from before the
    update, and `batch_loss_deviation`, for which `INALUReinitialize` asks.
    """

    def compile(self, optimizer, loss="mse", *, metrics=None, **kwargs):
        mse = keras.losses.MeanSquaredError()
        own = {
            metric.name: metric
            for metric in (LastBatchLoss(mse), BatchLossDeviation(mse))
        }
        # Where it is loaded, they are among the given.
        given = {getattr(metric, "name", metric): metric for metric in metrics or []}
        super().compile(optimizer, loss, metrics=[*(own | given).values()], **kwargs)

    def _run(self, data, training):
        logs = super()._run(data, training)
        if training:
            losses = logs["last_batch_loss"]
            self.optimizer.penalize(self.trainable_variables, losses)
        return logs


@keras.saving.register_keras_serializable(package="keras_nalu")
class INALUAdam(keras.optimizers.Optimizer):
    """Adam that takes kernels and gates in turn, and adds steps along the penalty.

        m <- 0.9 m + 0.1 g                                                       (1)
        s <- 0.999 s + 0.001 g ** 2                                              (2)
        r <- learning_rate sqrt(1 - 0.999 ** t) / (1 - 0.9 ** t)                 (3)
        w <- w - r m / (sqrt(s) + 1e-8)                                          (4)

    `g` is the gradient of the batch's loss, each entry clipped. Of ten batches the
    first eight train the kernels, and the last two the gates; what is not trained keeps
    its `m` and `s`. `t` counts all steps, of kernels, gates and along the penalty.

    After batch number `begin`, a member whose loss of the batch was below 1, before
    that update, makes two more steps, with the same `m` and `s`: one of the kernels,
    and one of the gates. `g` is the gradient of the sum of `INALUPenalty(0.05)` over
    all weights. (That is at most 0.05, and so never clipped.) The population has to
    call `penalize`: it is a `PenalizedPopulation`. A member of it that trains on alone
    makes no such steps.

    Constraints are not applied.

    Args:
        learning_rate: A number or a schedule.
        clipvalue: The largest magnitude of an entry of the gradient.
        begin: How many batches are trained on without a penalty: 11 epochs.
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
            # In a function: Keras would take what it finds for variables of its own.
            self.trained = lambda: variables
            self.means = self.add_optimizer_variables(variables, "mean")
            self.squares = self.add_optimizer_variables(variables, "square")
            # Members count by themselves: not all are penalized.
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
        """The steps after `apply`, of the members with a loss below 1."""
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
    # In a population the name is the whole path.
    return variable.name.split("_")[-1] in ("g", "G")


@keras.saving.register_keras_serializable(package="keras_nalu")
class PortedINALU(INALU):
    """An iNALU that begins as in the benchmark of Mistry et al.

    Those are the numbers of the file of the authors' code that has the layer; their
    training scripts override them. Its penalty is off until `PenalizeByError` switches
    it on.
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
    """What Mistry et al. do between epochs, which have to be of 1,000 steps.

    Args:
        errors: A function that returns the last measured interpolation error of every
            member. It is asked at the begin of an epoch, and so the error has to be
            measured before the first step, and after every epoch.
    """
    return [PenalizeByError(errors), ReinitializeByError(errors)]


class PenalizeByError(keras.callbacks.Callback):
    """Adds the penalty to the loss of the members whose error is below 1.

    Switched for a whole epoch, and never on in the first epochs. In the published code
    it begins with step 10,001, here one step before.

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
    """Draws from the initial distributions where the error does not fall.

    The rule is that of `INALUReinitialize`. Every step counts with the error that was
    last measured before it, and there must be 5,000 of them. The published code looks
    every ten steps, here it is at the begin of every epoch.

    Args:
        errors: A function that returns the last measured error of every member.
        losses: How many steps there must be.
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
