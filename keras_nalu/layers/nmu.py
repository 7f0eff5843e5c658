from typing import Any

import keras

from keras_nalu import lines, ops
from keras_nalu.constraints import Clip
from keras_nalu.initializers import NMUUniform
from keras_nalu.layers.base import ArithmeticLayer, effective


@keras.saving.register_keras_serializable(package="keras_nalu")
class NMU(ArithmeticLayer):
    """Neural Multiplication Unit: a product of the inputs that its weights choose.

        y = prod_i (W_i x_i + 1 - W_i)                                           (1)

    Use it where the answer is a product of some of the inputs, which may be any reals.
    Trained with `keras_nalu.regularizers.Sparsity(ramp, low=0)`, whose coefficient
    grows during the training, its weights end at 0 and 1. It cannot divide, add, or
    square an input, and it learns nothing from inputs near 1.

    The product is computed in float32 at least, whatever the dtype policy. Where a step
    overflows, the outputs and gradients that depend on it can be infinite or NaN,
    although the exact value may fit.

    Args:
        units: Size of the last axis of the outputs.
        kernel_initializer: Initializer of `W`.
        kernel_regularizer: Regularizer of `W`.
        kernel_constraint: Constraint of `W`, by default `Clip(0, 1)`, which acts after
            every training step.
        **kwargs: `name`, `dtype` and the other arguments of any Keras layer.

    Input shape: `(..., features)`, of rank 2 or more.

    Output shape: `(..., units)`.

    Raises:
        ValueError: `units` is not a positive integer; the inputs are of rank 1, or
            their last axis is unknown or differs from the one it was built for.

    Example:

    >>> layer = NMU(1)
    >>> layer.build((None, 3))
    >>> layer.set_weights([np.array([[1], [1], [0]])])
    >>> print(keras.ops.convert_to_numpy(layer(np.array([[7, -2, 5], [1000, 3, 0]]))))
    [[ -14.]
     [3000.]]

    Reference: Madsen and Johansen, Neural Arithmetic Units, ICLR 2020,
    arXiv:2001.05016.
    """

    initializer = NMUUniform
    constraint = Clip(0, 1)
    targets = {"kernel": (0, 1)}
    stored = {"kernel": "W"}
    operations = ("multiply",)
    domain = "all reals"
    reference = "arXiv:2001.05016"

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        self.W = self.add_kernel("W")

    @effective
    def kernel(self) -> Any:
        """The weights `W`, of shape (in, units), in [0, 1] by their constraint."""
        return ops.widen(self.W)

    def call(self, inputs: Any, training: bool = False) -> Any:
        x = self.start(inputs, training)
        y = ops.gated_product(x, self.kernel)
        return self.cast(y)

    def read(self, unit: Any) -> str:
        return lines.gated_product(unit)
