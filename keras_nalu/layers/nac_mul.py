from typing import Any

import keras

from keras_nalu import lines, ops
from keras_nalu.initializers import NACUniform
from keras_nalu.layers.arguments import positive
from keras_nalu.layers.base import ArithmeticLayer, effective


@keras.saving.register_keras_serializable(package="keras_nalu")
class NACMul(ArithmeticLayer):
    """Multiplicative NAC: the product path of the NALU alone.

        W = tanh(W_hat) * sigmoid(M_hat)                                         (1)
        y = exp(log(|x| + epsilon) W)                                            (2)

    Use it where the answer is a product, a quotient or a power between -1 and 1 of
    positive inputs. It loses the sign of its inputs, and a divisor near 0 makes its
    gradients explode. It computes in float32 at least, whatever the dtype policy.

    Where a step overflows, the outputs and gradients that depend on it can be infinite
    or NaN, although the exact value may fit.

    Args:
        units: Size of the last axis of the outputs.
        kernel_initializer: Initializer of `W_hat` and `M_hat`, sampled independently.
        kernel_regularizer: Regularizer of `W_hat` and `M_hat`.
        kernel_constraint: Constraint of `W_hat` and `M_hat`.
        epsilon: Added to `|x|` before the logarithm, which is then finite at 0.
        **kwargs: `name`, `dtype` and the other arguments of any Keras layer.

    Input shape: `(..., features)`, of rank 2 or more.

    Output shape: `(..., units)`.

    Raises:
        ValueError: `units` is not a positive integer or `epsilon` not a positive
            number; the inputs are of rank 1, or their last axis is unknown or differs
            from the one it was built for.

    Example:

    >>> layer = NACMul(1)
    >>> layer.build((None, 2))
    >>> layer.set_weights([np.array([[20], [-20]]), np.array([[20], [20]])])
    >>> y = layer(np.array([[7, 2], [1000, 8]]))
    >>> print(keras.ops.convert_to_numpy(y).round(3))
    [[  3.5]
     [125. ]]

    Reference: Trask et al., Neural Arithmetic Logic Units, NeurIPS 2018,
    arXiv:1808.00508; named and initialized by Madsen and Johansen, arXiv:2001.05016.
    """

    initializer = NACUniform
    targets = {"kernel": (-1, 0, 1)}
    stored = {"kernel": ("W_hat", "M_hat")}
    operations = ("multiply", "divide")
    domain = "positive reals"
    reference = "arXiv:1808.00508"

    def __init__(self, units: int, *, epsilon: float = 1e-7, **kwargs: Any) -> None:
        super().__init__(units, **kwargs)
        self.epsilon = positive("epsilon", epsilon)

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
        y = ops.log_space_product(x, self.kernel, self.epsilon)
        return self.cast(y)

    def read(self, unit: Any) -> str:
        return lines.log_space_product(unit)
