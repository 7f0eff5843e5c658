from functools import partial
from typing import Any

import keras
from keras.initializers import RandomNormal

from keras_nalu import lines, ops
from keras_nalu.layers import exact
from keras_nalu.layers.arguments import positive
from keras_nalu.layers.base import GatedLayer, effective


@keras.saving.register_keras_serializable(package="keras_nalu")
class INALU(GatedLayer):
    """Improved NALU: with signs, bounds, and separate weights for sum and product.

        W_a = tanh(W_a_hat) * sigmoid(M_a_hat)                                   (1)
        W_m = tanh(W_m_hat) * sigmoid(M_m_hat)                                   (2)
        a = x W_a                                                                (3)
        m = exp(min(log(max(|x|, epsilon)) W_m, omega))                          (4)
        s = prod_i (sign(x_i) |W_m_i| + 1 - |W_m_i|)                             (5)
        y = sigmoid(g) * a + (1 - sigmoid(g)) * m * s                            (6)

    The gate does not depend on the inputs.

    Use it for every operation on inputs of any sign. A product is at most
    `exp(omega)`, 4.9e8. The published training adds the penalty
    `keras_nalu.regularizers.INALUPenalty` once the loss is small, clips gradients to
    0.1, and samples the weights again when it is stuck, as
    `keras_nalu.benchmarks.reinitialize.INALUReinitialize` does. Division stays hard.

    For more than one unit the authors' code orders the weights of (5) differently by
    mistake; this layer follows the paper.

    Args:
        units: Size of the last axis of the outputs.
        kernel_initializer: Initializer of the four stored weights of (1) and (2),
            sampled independently.
        gate_initializer: Initializer of `g`.
        kernel_regularizer: Regularizer of the four stored weights of (1) and (2).
        gate_regularizer: Regularizer of `g`.
        kernel_constraint: Constraint of the four stored weights of (1) and (2).
        gate_constraint: Constraint of `g`.
        epsilon: The smallest magnitude whose logarithm is taken.
        omega: The largest exponent, so that products end at `exp(omega)`.
        **kwargs: `name`, `dtype` and the other arguments of any Keras layer.

    Input shape: `(..., features)`, of rank 2 or more.

    Output shape: `(..., units)`.

    Raises:
        ValueError: `units` is not a positive integer or `epsilon` or `omega` not a
            positive number; the inputs are of rank 1, or their last axis is unknown or
            differs from the one it was built for.

    Example:

    >>> layer = INALU(1)
    >>> layer.build((None, 2))
    >>> layer.set_weights([*np.full((4, 2, 1), 20), np.array([-20])])
    >>> y = layer(np.array([[7, -2], [1000, 3]]))
    >>> print(keras.ops.convert_to_numpy(y).round(1))
    [[ -14.]
     [3000.]]

    Reference: Schlör, Ring and Hotho, iNALU: Improved Neural Arithmetic Logic Unit,
    2020, arXiv:2003.07629.
    """

    targets = {"kernel_add": (-1, 0, 1), "kernel_mul": (-1, 0, 1)}
    stored = {
        "kernel_add": ("W_a_hat", "M_a_hat"),
        "kernel_mul": ("W_m_hat", "M_m_hat"),
    }
    operations = ("add", "subtract", "multiply", "divide")
    domain = "all reals"
    reference = "arXiv:2003.07629"

    def __init__(
        self, units: int, *, epsilon: float = 1e-7, omega: float = 20.0, **kwargs: Any
    ) -> None:
        super().__init__(units, **kwargs)
        self.epsilon = positive("epsilon", epsilon)
        self.omega = positive("omega", omega)

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        W, M = RandomNormal(1.0, 0.1), RandomNormal(-1.0, 0.1)
        self.W_a_hat = self.add_kernel("W_a_hat", initializer=W)
        self.M_a_hat = self.add_kernel("M_a_hat", initializer=M)
        self.W_m_hat = self.add_kernel("W_m_hat", initializer=W)
        self.M_m_hat = self.add_kernel("M_m_hat", initializer=M)
        self.g = self.add_gate("g", (self.units,), RandomNormal(0.0, 0.1))

    @effective
    def kernel_add(self) -> Any:
        """The effective weights `W_a`, of shape (in, units), in (-1, 1)."""
        return ops.nac_weight(self.W_a_hat, self.M_a_hat)

    @effective
    def kernel_mul(self) -> Any:
        """The effective weights `W_m`, of shape (in, units), in (-1, 1)."""
        return ops.nac_weight(self.W_m_hat, self.M_m_hat)

    def gate(self, inputs: Any) -> Any:
        """`sigmoid(g)`, the same on all inputs: 1 takes (3), 0 takes (4, 5)."""
        return keras.ops.sigmoid(ops.widen(self.g))

    def call(self, inputs: Any, training: bool = False) -> Any:
        x = self.start(inputs, training)
        a = ops.linear(x, self.kernel_add)
        m = ops.signed_product(x, self.kernel_mul, self.epsilon, self.omega)
        g = self.gate(x)
        y = g * a + (1 - g) * m
        return self.cast(y)

    def read(self, unit: Any) -> str:
        a = partial(lines.linear, name="kernel_add")
        m = partial(lines.signed_product, omega=self.omega, name="kernel_mul")
        return lines.mix(unit, a, m)

    def snap(self, kernels: dict[str, Any], rows: Any = None) -> None:
        super().snap(kernels)
        exact.open_or_shut(self.g, ops.to_numpy(self.g) >= 0)
