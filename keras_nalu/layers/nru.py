from typing import Any

import keras

from keras_nalu import lines, ops
from keras_nalu.constraints import Clip
from keras_nalu.initializers import NAUUniform
from keras_nalu.layers.base import ArithmeticLayer, effective


@keras.saving.register_keras_serializable(package="keras_nalu")
class NRU(ArithmeticLayer):
    """Neural Reciprocal Unit: a product of inputs and of reciprocals of inputs.

        A = tanh(1000 W) ** 2    in training, |W| else                           (1)
        y = prod_i (sign(x_i) |x_i| ** W_i A_i + 1 - A_i)                        (2)

    Use it where the answer is a product or quotient of some of the inputs, of any sign.
    Trained with `keras_nalu.regularizers.Sparsity(ramp, low=-1)`, its weights end at
    -1, 0 and 1. In training every input acts whose weight is more than some thousandths
    from 0; that takes a high learning rate. The authors use Adam with a rate of 1 for
    two inputs, and of 1e-3 for ten.

    The inputs must not be 0, where the outputs and gradients are infinity or NaN. The
    product is computed in float32 at least.

    Where a step overflows, the outputs and gradients that depend on it can be infinite
    or NaN, although the exact value may fit. On JAX the gradients of `W` in training
    are NaN also for inputs near 1e38.

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

    >>> layer = NRU(1)
    >>> layer.build((None, 2))
    >>> layer.set_weights([np.array([[1], [-1]])])
    >>> print(keras.ops.convert_to_numpy(layer(np.array([[7, 2], [-1000, 8]]))))
    [[   3.5]
     [-125. ]]

    Reference: Mistry et al., Learning Division with Neural Arithmetic Logic Modules,
    2021, arXiv:2110.05177; published code for the training form of (1).
    """

    initializer = NAUUniform
    constraint = Clip(-1, 1)
    targets = {"kernel": (-1, 0, 1)}
    stored = {"kernel": "W"}
    operations = ("multiply", "divide")
    domain = "all reals but 0"
    reference = "arXiv:2110.05177"

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        self.W = self.add_kernel("W")

    @effective
    def kernel(self) -> Any:
        """The weights `W`, of shape (in, units), in [-1, 1] by their constraint."""
        return ops.widen(self.W)

    def call(self, inputs: Any, training: bool = False) -> Any:
        x = self.start(inputs, training)
        W = self.kernel
        A = keras.ops.square(keras.ops.tanh(1000 * W)) if training else ops.magnitude(W)
        y = ops.gated_powers(x, W, A)
        return self.cast(y)

    def read(self, unit: Any) -> str:
        factors = []
        for i, w in enumerate(unit.powers()):
            if w in (-1, 0, 1):
                factors.append((unit.inputs[i], w))
            else:
                sign = (f"sign({unit.inputs[i]})", float(unit.signed[i]))
                power = unit.magnitude(i), w
                factors.append((lines.faded(abs(w), sign, power), 1))
        return lines.product(factors)
