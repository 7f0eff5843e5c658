from functools import partial
from typing import Any

import keras
from keras.initializers import RandomNormal

from keras_nalu import lines, ops
from keras_nalu.layers import exact
from keras_nalu.layers.arguments import positive
from keras_nalu.layers.base import GatedLayer, effective


@keras.saving.register_keras_serializable(package="keras_nalu")
class SharedINALU(GatedLayer):
    """Improved NALU whose sum and product share their weights.

        W = tanh(W_hat) * sigmoid(M_hat)                                         (1)
        a = x W                                                                  (2)
        m = exp(min(log(max(|x|, epsilon)) W, omega))                            (3)
        s = prod_i (sign(x_i) |W_i| + 1 - |W_i|)                                 (4)
        y = sigmoid(g) * a + (1 - sigmoid(g)) * m * s                            (5)

    The gate does not depend on the inputs. In its authors' experiments `INALU`, whose
    paths have separate weights, succeeded more often.

    Use it for every operation on inputs of any sign. A product is at most
    `exp(omega)`, 4.9e8. The published training adds the penalty
    `keras_nalu.regularizers.INALUPenalty` once the loss is small, clips gradients to
    0.1, and samples the weights again when it is stuck, as
    `keras_nalu.benchmarks.reinitialize.INALUReinitialize` does. Division stays hard.

    Args:
        units: Size of the last axis of the outputs.
        kernel_initializer: Initializer of `W_hat` and `M_hat`, sampled independently.
        gate_initializer: Initializer of `g`.
        kernel_regularizer: Regularizer of `W_hat` and `M_hat`.
        gate_regularizer: Regularizer of `g`.
        kernel_constraint: Constraint of `W_hat` and `M_hat`.
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

    >>> layer = SharedINALU(1)
    >>> layer.build((None, 2))
    >>> layer.set_weights([*np.full((2, 2, 1), 20), np.array([-20])])
    >>> y = layer(np.array([[7, -2], [1000, 3]]))
    >>> print(keras.ops.convert_to_numpy(y).round(1))
    [[ -14.]
     [3000.]]

    Reference: Schlör, Ring and Hotho, iNALU: Improved Neural Arithmetic Logic Unit,
    2020, arXiv:2003.07629.
    """

    targets = {"kernel": (-1, 0, 1)}
    stored = {"kernel": ("W_hat", "M_hat")}
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
        self.W_hat = self.add_kernel("W_hat", initializer=RandomNormal(1.0, 0.1))
        self.M_hat = self.add_kernel("M_hat", initializer=RandomNormal(-1.0, 0.1))
        self.g = self.add_gate("g", (self.units,), RandomNormal(0.0, 0.1))

    @effective
    def kernel(self) -> Any:
        """The effective weights `W`, of shape (in, units), in (-1, 1)."""
        return ops.nac_weight(self.W_hat, self.M_hat)

    def gate(self, inputs: Any) -> Any:
        """`sigmoid(g)`, the same on all inputs: 1 takes (2), 0 takes (3, 4)."""
        return keras.ops.sigmoid(ops.widen(self.g))

    def call(self, inputs: Any, training: bool = False) -> Any:
        x = self.start(inputs, training)
        W = self.kernel
        a = ops.linear(x, W)
        m = ops.signed_product(x, W, self.epsilon, self.omega)
        g = self.gate(x)
        y = g * a + (1 - g) * m
        return self.cast(y)

    def read(self, unit: Any) -> str:
        m = partial(lines.signed_product, omega=self.omega)
        return lines.mix(unit, lines.linear, m)

    def snap(self, kernels: dict[str, Any], rows: Any = None) -> None:
        super().snap(kernels)
        exact.open_or_shut(self.g, ops.to_numpy(self.g) >= 0)
