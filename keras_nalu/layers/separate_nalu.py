from functools import partial
from typing import Any

import keras

from keras_nalu import lines, ops
from keras_nalu.initializers import NACUniform
from keras_nalu.layers import exact
from keras_nalu.layers.arguments import positive
from keras_nalu.layers.base import GatedLayer, effective


@keras.saving.register_keras_serializable(package="keras_nalu")
class SeparateNALU(GatedLayer):
    """A NALU whose sum and product have separate weights.

        W_add = tanh(W_hat_add) * sigmoid(M_hat_add)                             (1)
        W_mul = tanh(W_hat_mul) * sigmoid(M_hat_mul)                             (2)
        a = x W_add                                                              (3)
        m = exp(log(|x| + epsilon) W_mul)                                        (4)
        g = sigmoid(x G)                                                         (5)
        y = g * a + (1 - g) * m                                                  (6)

    Learning on one path does not change the other. It has the other limits of a `NALU`:
    products lose the sign, a gate that is open for some inputs is shut for their
    negatives, and the seed decides which path wins.

    One path may overflow although the gate chooses the other. Where a step
    overflows, the outputs and gradients that depend on it can be infinite or NaN,
    although the exact value may fit.

    Args:
        units: Size of the last axis of the outputs.
        kernel_initializer: Initializer of the four stored weights of (1) and (2),
            sampled independently.
        gate_initializer: Initializer of `G`.
        kernel_regularizer: Regularizer of the four stored weights of (1) and (2).
        gate_regularizer: Regularizer of `G`.
        kernel_constraint: Constraint of the four stored weights of (1) and (2).
        gate_constraint: Constraint of `G`.
        epsilon: Added to `|x|` before the logarithm, which is then finite at 0.
        **kwargs: `name`, `dtype` and the other arguments of any Keras layer.

    Input shape: `(..., features)`, of rank 2 or more.

    Output shape: `(..., units)`.

    Raises:
        ValueError: `units` is not a positive integer or `epsilon` not a positive
            number; the inputs are of rank 1, or their last axis is unknown or differs
            from the one it was built for.

    Example:

    >>> layer = SeparateNALU(1)
    >>> layer.build((None, 2))
    >>> layer.set_weights([np.full((2, 1), w) for w in (0, 0, 20, 20, -9)])
    >>> y = layer(np.array([[7, 2], [1000, 3]]))
    >>> print(keras.ops.convert_to_numpy(y).round(1))
    [[  14.]
     [3000.]]

    Reference: Madsen and Johansen, Neural Arithmetic Units, ICLR 2020,
    arXiv:2001.05016, "NALU (separate)".
    """

    initializer = NACUniform
    targets = {"kernel_add": (-1, 0, 1), "kernel_mul": (-1, 0, 1)}
    stored = {
        "kernel_add": ("W_hat_add", "M_hat_add"),
        "kernel_mul": ("W_hat_mul", "M_hat_mul"),
    }
    operations = ("add", "subtract", "multiply", "divide")
    domain = "positive reals"
    reference = "arXiv:2001.05016"

    def __init__(self, units: int, *, epsilon: float = 1e-7, **kwargs: Any) -> None:
        super().__init__(units, **kwargs)
        self.epsilon = positive("epsilon", epsilon)

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        self.W_hat_add = self.add_kernel("W_hat_add")
        self.M_hat_add = self.add_kernel("M_hat_add")
        self.W_hat_mul = self.add_kernel("W_hat_mul")
        self.M_hat_mul = self.add_kernel("M_hat_mul")
        self.G = self.add_gate("G", initializer="glorot_uniform")

    @effective
    def kernel_add(self) -> Any:
        """The effective weights `W_add`, of shape (in, units), in (-1, 1)."""
        return ops.nac_weight(self.W_hat_add, self.M_hat_add)

    @effective
    def kernel_mul(self) -> Any:
        """The effective weights `W_mul`, of shape (in, units), in (-1, 1)."""
        return ops.nac_weight(self.W_hat_mul, self.M_hat_mul)

    def gate(self, inputs: Any) -> Any:
        """`g` on these inputs: 1 takes the sum of (3), 0 the product of (4)."""
        return keras.ops.sigmoid(ops.linear(self.cast(inputs), self.G))

    def call(self, inputs: Any, training: bool = False) -> Any:
        x = self.start(inputs, training)
        a = ops.linear(x, self.kernel_add)
        m = ops.log_space_product(x, self.kernel_mul, self.epsilon)
        g = self.gate(x)
        y = g * a + (1 - g) * m
        return self.cast(y)

    def read(self, unit: Any) -> str:
        a = partial(lines.linear, name="kernel_add")
        m = partial(lines.log_space_product, name="kernel_mul")
        return lines.mix(unit, a, m, self.G)

    def snap(self, kernels: dict[str, Any], rows: Any = None) -> None:
        super().snap(kernels)
        exact.steepen(self.G, rows)
