from typing import Any

import keras

from keras_nalu import lines, ops
from keras_nalu.layers.base import ArithmeticLayer, effective


@keras.saving.register_keras_serializable(package="keras_nalu")
class NAC(ArithmeticLayer):
    """Neural Accumulator: a linear map whose weights are biased towards -1, 0 and 1.

        W = tanh(W_hat) * sigmoid(M_hat)                                         (1)
        a = x W                                                                  (2)

    Use it where the answer is a sum of some inputs minus a sum of others; it stays
    right far outside the range of the training. It cannot scale, multiply or divide,
    and has no bias.

    The weights start as TruncatedNormal(stddev=0.02), as in the tutorial notebook; the
    paper names no initializer.

    Args:
        units: Size of the last axis of the outputs.
        kernel_initializer: Initializer of `W_hat` and `M_hat`, sampled independently.
        kernel_regularizer: Regularizer of `W_hat` and of `M_hat`, the stored weights.
        kernel_constraint: Constraint of `W_hat` and of `M_hat`, the stored weights.
        **kwargs: `name`, `dtype` and the other arguments of any Keras layer.

    Input shape: `(..., features)`, of rank 2 or more.

    Output shape: `(..., units)`.

    Raises:
        ValueError: `units` is not a positive integer; the inputs are of rank 1, or
            their last axis is unknown or differs from the one it was built for.

    Example:

    >>> layer = NAC(1)
    >>> layer.build((None, 2))
    >>> layer.set_weights([np.array([[20], [-20]]), np.array([[20], [20]])])
    >>> print(keras.ops.convert_to_numpy(layer(np.array([[7, 2], [1000, 1]]))))
    [[  5.]
     [999.]]

    Reference: Trask et al., Neural Arithmetic Logic Units, NeurIPS 2018,
    arXiv:1808.00508, section 3.
    """

    initializer = {"class_name": "TruncatedNormal", "config": {"stddev": 0.02}}
    targets = {"kernel": (-1, 0, 1)}
    stored = {"kernel": ("W_hat", "M_hat")}
    operations = ("add", "subtract")
    domain = "all reals"
    reference = "arXiv:1808.00508"

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        self.W_hat = self.add_kernel("W_hat")
        self.M_hat = self.add_kernel("M_hat")

    @effective
    def kernel(self) -> Any:
        """The effective weights `W`, of shape (in, units), in (-1, 1)."""
        return ops.nac_weight(self.W_hat, self.M_hat)

    def call(self, inputs: Any, training: bool = False) -> Any:
        x = self.start(inputs, training)
        with keras.name_scope("nac"):
            W = self.kernel
        with keras.name_scope("add_sub"):
            a = ops.linear(x, W)
        return self.cast(a)

    def read(self, unit: Any) -> str:
        return lines.linear(unit)
