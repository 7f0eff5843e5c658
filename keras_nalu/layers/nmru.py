from typing import Any

import keras
import numpy as np

from keras_nalu import lines, ops
from keras_nalu.constraints import Clip
from keras_nalu.initializers import NMUUniform
from keras_nalu.layers.arguments import positive
from keras_nalu.layers.base import ArithmeticLayer, effective


@keras.saving.register_keras_serializable(package="keras_nalu")
class NMRU(ArithmeticLayer):
    """Neural Multiplicative Reciprocal Unit: an NMU of inputs and their reciprocals.

        z = [x, 1 / (x + epsilon)]    in training, [x, 1 / x] else               (1)
        y = prod_i (W_i |z_i| + 1 - W_i) * cos(pi sum_i W_i [z_i < 0])           (2)

    Use it where the answer is a product or quotient of some of the inputs, of any sign;
    its authors found that it learns to divide more often than the other modules.
    Trained with `keras_nalu.regularizers.Sparsity(ramp, low=0)`, its weights end at 0
    and 1.

    A divisor nearer to 0 than the smallest normal number counts as that number: 1 / 0
    is 8.5e37 in float32. In the authors' code it is infinite, which gives NaN even if
    its weight is 0 (0 * inf). In training an input from -epsilon to 0 has a positive
    reciprocal. TensorFlow and JAX make 0 of the reciprocal of a number above 8.5e37.
    The product is computed in float32 at least, whatever the dtype policy.

    Where a step overflows, the outputs and gradients that depend on it can be infinite
    or NaN, although the exact value may fit.

    Args:
        units: Size of the last axis of the outputs.
        kernel_initializer: Initializer of `W`, of shape (2 in, units): the first rows
            act on the inputs, the others on the reciprocals.
        kernel_regularizer: Regularizer of `W`.
        kernel_constraint: Constraint of `W`, by default `Clip(0, 1)`, which acts after
            every training step.
        epsilon: Added to the inputs before their reciprocals, in training.
        **kwargs: `name`, `dtype` and the other arguments of any Keras layer.

    Input shape: `(..., features)`, of rank 2 or more.

    Output shape: `(..., units)`.

    Raises:
        ValueError: `units` is not a positive integer or `epsilon` not a positive
            number; the inputs are of rank 1, or their last axis is unknown or differs
            from the one it was built for.

    Example:

    >>> layer = NMRU(1)
    >>> layer.build((None, 2))
    >>> layer.set_weights([np.array([[1], [0], [0], [1]])])
    >>> print(keras.ops.convert_to_numpy(layer(np.array([[7, -2], [1000, 8]]))))
    [[ -3.5]
     [125. ]]

    Reference: Mistry et al., Learning Division with Neural Arithmetic Logic Modules,
    2021, arXiv:2110.05177.
    """

    initializer = NMUUniform
    constraint = Clip(0, 1)
    targets = {"kernel": (0, 1)}
    stored = {"kernel": "W"}
    operations = ("multiply", "divide")
    domain = "all reals but 0"
    reference = "arXiv:2110.05177"

    def __init__(self, units: int, *, epsilon: float = 2**-23, **kwargs: Any) -> None:
        super().__init__(units, **kwargs)
        self.epsilon = positive("epsilon", epsilon)

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        self.W = self.add_kernel("W", shape=(2 * self._in, self.units))

    @effective
    def kernel(self) -> Any:
        """The weights `W`, of shape (2 in, units), in [0, 1] by their constraint."""
        return ops.widen(self.W)

    def call(self, inputs: Any, training: bool = False) -> Any:
        x = ops.widen(self.start(inputs, training))
        W = self.kernel
        divisors = away_from_zero(x + self.epsilon if training else x)
        z = keras.ops.concatenate([x, 1 / divisors], -1)
        turns = ops.matmul(keras.ops.cast(z < 0, z.dtype), W)
        y = ops.gated_product(ops.magnitude(z), W) * keras.ops.cos(np.pi * turns)
        return self.cast(y)

    def read(self, unit: Any) -> str:
        factors, turns = [], []
        for i, (w, v) in enumerate(np.reshape(unit.weights(), (2, -1)).T):
            if v != 0:
                unit.divisors.add(i)
            if w == v == 1:
                continue
            for weight, sign in ((w, 1), (v, -1)):
                if weight in (0, 1):
                    factors.append((unit.inputs[i], sign * weight))
                    continue
                power = unit.magnitude(i), sign
                factors.append((lines.faded(weight, power), 1))
                if unit.signed[i]:
                    turns.append((weight, lines.half_turn(unit.inputs[i])))
        return lines.product([*factors, *lines.turn(turns)])


def away_from_zero(x):
    tiny = float(np.finfo(keras.backend.standardize_dtype(x.dtype)).tiny)
    nearest = keras.ops.where(x < 0, -tiny, tiny)
    return keras.ops.where(ops.magnitude(x) < tiny, nearest, x)
