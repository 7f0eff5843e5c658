from typing import Any

import keras
import numpy as np

from keras_nalu import lines, ops
from keras_nalu.layers.arguments import positive
from keras_nalu.layers.base import ArithmeticLayer, effective


@keras.saving.register_keras_serializable(package="keras_nalu")
class NaiveNPU(ArithmeticLayer):
    """Naive Neural Power Unit: a product of complex powers of the inputs.

        r = |x| + epsilon,  k = pi [x < 0]                                       (1)
        y = exp(log(r) W_re - k W_im) * cos(k W_re + log(r) W_im)                (2)

    Use it for products, quotients and powers. An irrelevant input near 0 stops the
    training of all inputs, which the gate of an `NPU` prevents. Exponents are not
    bounded, so that it can learn `x ** 2` and roots. A fractional power of a negative
    input is the real part of a complex number. Give all weights the authors' penalty,
    `keras_nalu.regularizers.L1(StepwiseGrowth(1e-9, 1e-7))`.

    An input of 0 counts as epsilon. It computes in float32 at least, whatever the dtype
    policy. Where a step overflows, the outputs and gradients that depend on it can be
    infinite or NaN, although the exact value may fit.

    Args:
        units: Size of the last axis of the outputs.
        kernel_initializer: Initializer of `W_re` and `W_im`. `None` samples the first
            and sets the second to 0.
        kernel_regularizer: Regularizer of `W_re` and `W_im`.
        kernel_constraint: Constraint of `W_re` and `W_im`.
        epsilon: Added to `|x|`, whose logarithm is then finite at 0.
        **kwargs: `name`, `dtype` and the other arguments of any Keras layer.

    Input shape: `(..., features)`, of rank 2 or more.

    Output shape: `(..., units)`.

    Raises:
        ValueError: `units` is not a positive integer or `epsilon` not a positive
            number; the inputs are of rank 1, or their last axis is unknown or differs
            from the one it was built for.

    Example:

    >>> layer = NaiveNPU(1)
    >>> layer.build((None, 2))
    >>> layer.set_weights([np.array([[1], [-1]]), np.zeros((2, 1))])
    >>> y = layer(np.array([[7, -2], [1000, 8]]))
    >>> print(keras.ops.convert_to_numpy(y).round(3))
    [[ -3.5]
     [125. ]]

    Reference: Heim, Pevný and Šmídl, Neural Power Units, NeurIPS 2020,
    arXiv:2006.01681.
    """

    initializer = "glorot_uniform"
    targets = {"kernel": (-1, 0, 1), "kernel_im": (0,)}
    exponents = ("kernel",)
    stored = {"kernel": "W_re", "kernel_im": "W_im"}
    operations = ("multiply", "divide")
    domain = "all reals but 0"
    reference = "arXiv:2006.01681"

    def __init__(self, units: int, *, epsilon: float = 2**-23, **kwargs: Any) -> None:
        super().__init__(units, **kwargs)
        self.epsilon = positive("epsilon", epsilon)

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        self.W_re = self.add_kernel("W_re")
        self.W_im = self.add_kernel("W_im", initializer="zeros")

    @effective
    def kernel(self) -> Any:
        """The real part `W_re` of the exponents, of shape (in, units)."""
        return ops.widen(self.W_re)

    @effective
    def kernel_im(self) -> Any:
        """The imaginary part `W_im` of the exponents, of shape (in, units)."""
        return ops.widen(self.W_im)

    def call(self, inputs: Any, training: bool = False) -> Any:
        x = ops.widen(self.start(inputs, training))
        log_r = keras.ops.log(ops.magnitude(x) + self.epsilon)
        k = np.pi * keras.ops.cast(x < 0, x.dtype)
        W_re, W_im = self.kernel, self.kernel_im
        size = keras.ops.exp(ops.matmul(log_r, W_re) - ops.matmul(k, W_im))
        turn = ops.matmul(k, W_re) + ops.matmul(log_r, W_im)
        return self.cast(size * keras.ops.cos(turn))

    def read(self, unit: Any) -> str:
        return lines.complex_powers(unit, imaginary="kernel_im")
