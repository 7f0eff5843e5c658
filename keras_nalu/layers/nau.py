from typing import Any

import keras

from keras_nalu import lines, ops
from keras_nalu.constraints import Clip
from keras_nalu.initializers import NAUUniform
from keras_nalu.layers.base import ArithmeticLayer, effective


@keras.saving.register_keras_serializable(package="keras_nalu")
class NAU(ArithmeticLayer):
    """Neural Addition Unit: a linear map whose weights are kept between -1 and 1.

        V = clip(W, -1, 1)                                                       (1)
        y = x V                                                                  (2)

    Use it where the answer is a sum of some inputs minus a sum of others. Trained with
    `keras_nalu.regularizers.Sparsity(ramp, low=-1)`, whose coefficient grows during
    the training, its weights end at -1, 0 and 1. It cannot multiply or divide.

    Args:
        units: Size of the last axis of the outputs.
        kernel_initializer: Initializer of `W`.
        kernel_regularizer: Regularizer of `W`.
        kernel_constraint: Constraint of `W`, by default `Clip(-1, 1)`, which acts after
            every training step.
        **kwargs: `name`, `dtype` and the other arguments of any Keras layer.

    Input shape: `(..., features)`, of rank 2 or more.

    Output shape: `(..., units)`.

    Raises:
        ValueError: `units` is not a positive integer; the inputs are of rank 1, or
            their last axis is unknown or differs from the one it was built for.

    Example:

    >>> layer = NAU(1)
    >>> layer.build((None, 2))
    >>> layer.set_weights([np.array([[1], [-1]])])
    >>> print(keras.ops.convert_to_numpy(layer(np.array([[7, 2], [1000, 1]]))))
    [[  5.]
     [999.]]

    Reference: Madsen and Johansen, Neural Arithmetic Units, ICLR 2020,
    arXiv:2001.05016.
    """

    initializer = NAUUniform
    constraint = Clip(-1, 1)
    targets = {"kernel": (-1, 0, 1)}
    stored = {"kernel": "W"}
    operations = ("add", "subtract")
    domain = "all reals"
    reference = "arXiv:2001.05016"

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        self.W = self.add_kernel("W")

    @effective
    def kernel(self) -> Any:
        """The effective weights `V`, of shape (in, units), in [-1, 1]."""
        return ops.clip(self.W, -1, 1)

    def call(self, inputs: Any, training: bool = False) -> Any:
        x = self.start(inputs, training)
        y = ops.linear(x, self.kernel)
        return self.cast(y)

    def read(self, unit: Any) -> str:
        return lines.linear(unit)
