from typing import Any

import keras
import numpy as np
from keras import initializers

from keras_nalu import lines, ops
from keras_nalu.layers.arguments import positive
from keras_nalu.layers.base import GatedLayer, effective


@keras.saving.register_keras_serializable(package="keras_nalu")
class NPU(GatedLayer):
    """Neural Power Unit: a product of complex powers of the inputs that matter.

        c = clip(g, 0, 1)                                                        (1)
        r = c (|x| + epsilon) + 1 - c,  k = pi c [x < 0]                         (2)
        y = exp(log(r) W_re - k W_im) * cos(k W_re + log(r) W_im)                (3)

    Use it for products, quotients and powers of some of the inputs. Exponents are not
    bounded, so that it can learn `x ** 2` and roots. A fractional power of a negative
    input is the real part of a complex number. Give all weights the authors' penalty,
    `keras_nalu.regularizers.L1(StepwiseGrowth(1e-9, 1e-7))`.

    The gate passes the gradient on where it clips, as in the authors' code, so that an
    input can come back; the published PyTorch ports block the gradient there.

    An input of 0 counts as epsilon. It computes in float32 at least, whatever the dtype
    policy. Where a step overflows, the outputs and gradients that depend on it can be
    infinite or NaN, although the exact value may fit.

    Args:
        units: Size of the last axis of the outputs.
        kernel_initializer: Initializer of `W_re` and `W_im`. `None` samples the first
            and sets the second to 0.
        gate_initializer: Initializer of `g`.
        kernel_regularizer: Regularizer of `W_re` and `W_im`.
        gate_regularizer: Regularizer of `g`.
        kernel_constraint: Constraint of `W_re` and `W_im`.
        gate_constraint: Constraint of `g`.
        epsilon: Added to `|x|`, whose logarithm is then finite at 0.
        **kwargs: `name`, `dtype` and the other arguments of any Keras layer.

    Input shape: `(..., features)`, of rank 2 or more.

    Output shape: `(..., units)`.

    Raises:
        ValueError: `units` is not a positive integer or `epsilon` not a positive
            number; the inputs are of rank 1, or their last axis is unknown or differs
            from the one it was built for.

    Example:

    >>> layer = NPU(1)
    >>> layer.build((None, 2))
    >>> layer.set_weights([np.array([[1], [-1]]), np.zeros((2, 1)), np.ones(2)])
    >>> y = layer(np.array([[7, -2], [1000, 8]]))
    >>> print(keras.ops.convert_to_numpy(y).round(3))
    [[ -3.5]
     [125. ]]

    Reference: Heim, Pevný and Šmídl, Neural Power Units, NeurIPS 2020,
    arXiv:2006.01681.
    """

    initializer = "glorot_uniform"
    targets = {"kernel": (-1, 0, 1), "kernel_im": (0,), "relevance": (0, 1)}
    exponents = ("kernel",)
    stored = {"kernel": "W_re", "kernel_im": "W_im", "relevance": "g"}
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
        self.g = self.add_gate("g", (self._in,), initializers.Constant(0.5))

    @effective
    def kernel(self) -> Any:
        """The real part `W_re` of the exponents, of shape (in, units)."""
        return ops.widen(self.W_re)

    @effective
    def kernel_im(self) -> Any:
        """The imaginary part `W_im` of the exponents, of shape (in, units)."""
        return ops.widen(self.W_im)

    @effective
    def relevance(self) -> Any:
        """The gate `c`, of shape (in,): 0 ignores an input."""
        return ops.straight_through_clip(ops.widen(self.g), 0, 1)

    def call(self, inputs: Any, training: bool = False) -> Any:
        x = ops.widen(self.start(inputs, training))
        c = self.relevance
        log_r = keras.ops.log(c * (ops.magnitude(x) + self.epsilon) + (1 - c))
        k = np.pi * c * keras.ops.cast(x < 0, x.dtype)
        W_re, W_im = self.kernel, self.kernel_im
        size = keras.ops.exp(ops.matmul(log_r, W_re) - ops.matmul(k, W_im))
        turn = ops.matmul(k, W_re) + ops.matmul(log_r, W_im)
        return self.cast(size * keras.ops.cos(turn))

    def read(self, unit: Any) -> str:
        return lines.complex_powers(unit, "relevance", "kernel_im")
