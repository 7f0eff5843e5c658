import math
from typing import Any

import keras

from keras_nalu import lines, ops
from keras_nalu.initializers import NACUniform
from keras_nalu.layers import exact
from keras_nalu.layers.arguments import positive
from keras_nalu.layers.base import GatedLayer, effective

LN_PHI = math.log((1 + math.sqrt(5)) / 2)


@keras.saving.register_keras_serializable(package="keras_nalu")
class GNALU(GatedLayer):
    """Golden ratio NALU: a NALU with the golden ratio instead of e.

        W = tanh(W_hat ln(phi)) * sigmoid(M_hat ln(phi)),  phi = (1 + sqrt(5)) / 2 (1)
        a = x W                                                                  (2)
        m = phi ** (log_phi(|x| + epsilon) W) = exp(log(|x| + epsilon) W)        (3)
        g = sigmoid(x G ln(phi))                                                 (4)
        y = g * a + (1 - g) * m                                                  (5)

    As `ln(phi) = 0.48`, the weights and the gate have half of NALU's slope; the product
    is the same. The published form of (1), a quotient of powers of phi, is NaN for
    large `W_hat`; this form is not.

    It has the limits of a `NALU`: products lose the sign, a gate that is open for some
    inputs is shut for their negatives, and the seed decides which path wins.

    One path may overflow although the gate chooses the other. Where a step
    overflows, the outputs and gradients that depend on it can be infinite or NaN,
    although the exact value may fit.

    Args:
        units: Size of the last axis of the outputs.
        kernel_initializer: Initializer of `W_hat` and `M_hat`, sampled independently.
        gate_initializer: Initializer of `G`.
        kernel_regularizer: Regularizer of `W_hat` and `M_hat`.
        gate_regularizer: Regularizer of `G`.
        kernel_constraint: Constraint of `W_hat` and `M_hat`.
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

    >>> layer = GNALU(1)
    >>> layer.build((None, 2))
    >>> layer.set_weights([np.full((2, 1), w) for w in (40, 40, -18)])
    >>> y = layer(np.array([[7, 2], [1000, 3]]))
    >>> print(keras.ops.convert_to_numpy(y).round(1))
    [[  14.]
     [3000.]]

    Reference: Rana, Malhi and Främling, Exploring Numerical Calculations with CalcNet,
    ICTAI 2019, doi:10.1109/ICTAI.2019.00192.
    """

    initializer = NACUniform
    targets = {"kernel": (-1, 0, 1)}
    stored = {"kernel": ("W_hat", "M_hat")}
    operations = ("add", "subtract", "multiply", "divide")
    domain = "positive reals"
    reference = "doi:10.1109/ICTAI.2019.00192"

    def __init__(self, units: int, *, epsilon: float = 1e-7, **kwargs: Any) -> None:
        super().__init__(units, **kwargs)
        self.epsilon = positive("epsilon", epsilon)

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        self.W_hat = self.add_kernel("W_hat")
        self.M_hat = self.add_kernel("M_hat")
        self.G = self.add_gate("G", initializer="glorot_uniform")

    @effective
    def kernel(self) -> Any:
        """The effective weights `W`, of shape (in, units), in (-1, 1)."""
        return ops.nac_weight(LN_PHI * self.W_hat, LN_PHI * self.M_hat)

    def gate(self, inputs: Any) -> Any:
        """`g` on these inputs: 1 takes the sum of (2), 0 the product of (3)."""
        return keras.ops.sigmoid(ops.linear(self.cast(inputs), LN_PHI * self.G))

    def call(self, inputs: Any, training: bool = False) -> Any:
        x = self.start(inputs, training)
        W = self.kernel
        a = ops.linear(x, W)
        m = ops.log_space_product(x, W, self.epsilon)
        g = self.gate(x)
        y = g * a + (1 - g) * m
        return self.cast(y)

    def read(self, unit: Any) -> str:
        G = LN_PHI * self.G
        return lines.mix(unit, lines.linear, lines.log_space_product, G)

    def snap(self, kernels: dict[str, Any], rows: Any = None) -> None:
        super().snap(kernels)
        exact.steepen(self.G, rows, slope=LN_PHI)
