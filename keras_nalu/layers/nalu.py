from typing import Any

import keras

from keras_nalu import lines, ops
from keras_nalu.layers import exact
from keras_nalu.layers.arguments import positive
from keras_nalu.layers.base import GatedLayer, effective


@keras.saving.register_keras_serializable(package="keras_nalu")
class NALU(GatedLayer):
    """Neural Arithmetic Logic Unit: a gate between a sum and a product of the inputs.

        W = tanh(W_hat) * sigmoid(M_hat)                                         (1)
        a = x W                                    sums and differences          (2)
        m = exp(log(|x| + epsilon) W)              products and quotients        (3)
        g = sigmoid(x G)                           the choice between them       (4)
        y = g * a + (1 - g) * m                                                  (5)

    Both paths share `W`. Use it where the answer is one sum, difference, product or
    quotient of the inputs, or a power between -1 and 1. The product path loses the
    sign of its inputs, and cannot be exact at zero when it divides. Whether training
    finds the answer depends on the seed, so compare several. The gate has no bias, so
    it is shut for the negatives of the inputs for which it is open.

    The weights start as TruncatedNormal(stddev=0.02), as in the tutorial notebook; the
    paper names no initializer. (3) and (5) compute in float32 at least, whatever the
    dtype policy: in float16 `epsilon` vanishes and products overflow.

    One path may overflow (at 3e38 in float32; the sum at 65504 under a float16 policy)
    although the gate chooses the other. Where a step overflows, the outputs and
    gradients that depend on it can be infinite or NaN, although the exact value may
    fit.

    Args:
        units: Size of the last axis of the outputs.
        kernel_initializer: Initializer of `W_hat` and `M_hat`, sampled independently.
        gate_initializer: Initializer of `G`.
        kernel_regularizer: Regularizer of `W_hat` and of `M_hat`, the stored weights.
        gate_regularizer: Regularizer of `G`.
        kernel_constraint: Constraint of `W_hat` and of `M_hat`, the stored weights.
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

    >>> layer = NALU(1)
    >>> layer.build((None, 2))
    >>> layer.set_weights([np.full((2, 1), w) for w in (20, 20, -9)])
    >>> y = layer(np.array([[7, 2], [1000, 3]]))
    >>> print(keras.ops.convert_to_numpy(y).round(1))
    [[  14.]
     [3000.]]

    Reference: Trask et al., Neural Arithmetic Logic Units, NeurIPS 2018,
    arXiv:1808.00508, section 3.
    """

    initializer = {"class_name": "TruncatedNormal", "config": {"stddev": 0.02}}
    targets = {"kernel": (-1, 0, 1)}
    stored = {"kernel": ("W_hat", "M_hat")}
    operations = ("add", "subtract", "multiply", "divide")
    domain = "positive reals"
    reference = "arXiv:1808.00508"

    def __init__(self, units: int, *, epsilon: float = 1e-7, **kwargs: Any) -> None:
        super().__init__(units, **kwargs)
        self.epsilon = positive("epsilon", epsilon)

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        self.W_hat = self.add_kernel("W_hat")
        self.M_hat = self.add_kernel("M_hat")
        self.G = self.add_gate("G")

    @effective
    def kernel(self) -> Any:
        """The effective weights `W`, of shape (in, units), in (-1, 1)."""
        return ops.nac_weight(self.W_hat, self.M_hat)

    def gate(self, inputs: Any) -> Any:
        """`g` on these inputs: 1 takes the sum of (2), 0 the product of (3)."""
        return keras.ops.sigmoid(ops.linear(self.cast(inputs), self.G))

    def call(self, inputs: Any, training: bool = False) -> Any:
        x = self.start(inputs, training)
        with keras.name_scope("nac"):
            W = self.kernel
        with keras.name_scope("add_sub"):
            a = ops.linear(x, W)
        with keras.name_scope("log_space"):
            m = ops.log_space_product(x, W, self.epsilon)
        with keras.name_scope("gate"):
            g = self.gate(x)
        with keras.name_scope("mix"):
            y = g * a + (1 - g) * m
        return self.cast(y)

    def read(self, unit: Any) -> str:
        return lines.mix(unit, lines.linear, lines.log_space_product, self.G)

    def snap(self, kernels: dict[str, Any], rows: Any = None) -> None:
        super().snap(kernels)
        exact.steepen(self.G, rows)
