from typing import Any

import keras
import numpy as np

from keras_nalu import expect, lines, ops
from keras_nalu.layers import exact
from keras_nalu.layers.arguments import positive
from keras_nalu.layers.base import ArithmeticLayer, effective


@keras.saving.register_keras_serializable(package="keras_nalu")
class NSR(ArithmeticLayer):
    """Neural Status Register: a comparison of two of its inputs.

        d = x softmax(V_1) - x softmax(V_2)                                      (1)
        sign = tanh(scale d)                                                     (2)
        zero = 1 - 2 tanh(scale d) ** 2                                          (3)
        y = sigmoid(b + sum_r (sign_r W_s_r + zero_r W_0_r))                     (4)

    The softmax runs over the inputs, the sum over the registers of a unit. Use it where
    the answer is whether one input is less than, equal to or greater than another; `y`
    is near 1 if it is. It cannot distinguish inputs that differ by less than
    `1 / scale`, and those that differ by much more leave no gradient: scale the data.

    The paper's second output, `1 - y`, is left to the user. It computes in float32 at
    least.

    Args:
        units: Size of the last axis of the outputs.
        kernel_initializer: Initializer of `V_1`, `V_2`, `W_s` and `W_0`, sampled
            independently; `b` starts at 0.
        kernel_regularizer: Regularizer of the same weights.
        kernel_constraint: Constraint of the same weights.
        redundancy: Registers of a unit; with more, training succeeds more often.
        scale: Factor of the difference of the inputs.
        **kwargs: `name`, `dtype` and the other arguments of any Keras layer.

    Input shape: `(..., features)`, of rank 2 or more.

    Output shape: `(..., units)`.

    Raises:
        ValueError: `units` or `redundancy` is not a positive integer or `scale` not a
            positive number; the inputs are of rank 1, or their last axis is unknown or
            differs from the one it was built for.

    Example:

    >>> layer = NSR(1, scale=20)
    >>> layer.build((None, 2))
    >>> V_1, V_2 = np.array([[50], [-50]]), np.array([[-50], [50]])
    >>> W_s, W_0, b = np.array([[-40]]), np.array([[-20]]), np.array([0])
    >>> layer.set_weights([V_1, V_2, W_s, W_0, b])
    >>> y = layer(np.array([[1, 2], [2, 2], [1000, 3]]))
    >>> print(keras.ops.convert_to_numpy(y).round(3))  # x0 < x1
    [[1.]
     [0.]
     [0.]]

    Reference: Faber and Wattenhofer, Neural Status Registers, ICML 2023,
    arXiv:2004.07085.
    """

    initializer = "glorot_normal"
    targets = {"kernel_1": (0, 1), "kernel_2": (0, 1)}
    operations = (
        "less",
        "less_equal",
        "equal",
        "not_equal",
        "greater_equal",
        "greater",
    )
    domain = "all reals"
    reference = "arXiv:2004.07085"

    def __init__(
        self, units: int, *, redundancy: int = 1, scale: float = 1.0, **kwargs: Any
    ) -> None:
        super().__init__(units, **kwargs)
        self.redundancy: int = expect.integer("redundancy", redundancy)
        self.scale = positive("scale", scale)

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        registers = self.redundancy * self.units
        self.V_1 = self.add_kernel("V_1", (self._in, registers))
        self.V_2 = self.add_kernel("V_2", (self._in, registers))
        self.W_s = self.add_kernel("W_s", (self.redundancy, self.units))
        self.W_0 = self.add_kernel("W_0", (self.redundancy, self.units))
        self.b = self.add_stored("b", (self.units,), "zeros")

    @effective
    def kernel_1(self) -> Any:
        """The softmax of `V_1`, of shape (in, redundancy * units), in (0, 1)."""
        return ops.softmax(self.V_1, axis=0)

    @effective
    def kernel_2(self) -> Any:
        """The softmax of `V_2`, of shape (in, redundancy * units), in (0, 1)."""
        return ops.softmax(self.V_2, axis=0)

    def call(self, inputs: Any, training: bool = False) -> Any:
        x = ops.widen(self.start(inputs, training))
        d = ops.matmul(x, self.kernel_1) - ops.matmul(x, self.kernel_2)
        d = keras.ops.reshape(d, (*keras.ops.shape(d)[:-1], *self.W_s.shape))
        sign = keras.ops.tanh(self.scale * d)
        zero = 1 - 2 * keras.ops.square(sign)
        registers = sign * ops.widen(self.W_s) + zero * ops.widen(self.W_0)
        z = keras.ops.sum(registers, axis=-2) + ops.widen(self.b)
        return self.cast(keras.ops.sigmoid(z))

    def read(self, unit: Any) -> str:
        columns = unit.index + self.units * np.arange(self.redundancy)
        before = len(unit.not_discrete)
        left = unit.weights("kernel_1", columns)
        right = unit.weights("kernel_2", columns)
        signs, zeros = (ops.to_numpy(w)[:, unit.index] for w in (self.W_s, self.W_0))
        b = ops.to_numpy(self.b)[unit.index]
        if len(unit.not_discrete) == before:
            sides = left.argmax(axis=0), right.argmax(axis=0)
            votes = _votes(*sides, signs, zeros)
            if compared := _comparison(unit, votes, b, self.scale):
                return compared
            unit.record("b", (unit.index,), b)
        terms, weights = (
            [lines.number(unit.rounded(b))],
            [float(unit.rounded(b) != 0)],
        )
        for r in range(self.redundancy):
            d = lines.sum_(left[:, r] - right[:, r], unit.inputs)
            sign = f"tanh({lines.sum_([unit.rounded(self.scale)], [d])})"
            terms += [sign, f"1 - 2 * {sign}**2"]
            weights += [unit.rounded(signs[r]), unit.rounded(zeros[r])]
        return f"sigmoid({lines.sum_(weights, terms)})"

    def snap(self, kernels: dict[str, Any], rows: Any = None) -> None:
        exact.choose(self.V_1)
        exact.choose(self.V_2)


#: Relations by whether they hold when the left side is less, equal and greater.
RELATIONS = {"100": "<", "110": "<=", "010": "==", "101": "!=", "011": ">=", "001": ">"}


def _votes(left, right, signs, zeros):
    """For each pair of inputs, the sum of its registers when the first input is less,
    equal and greater."""
    pairs = {}
    for i, j, s, z in zip(left, right, signs, zeros, strict=True):
        votes = np.array([-s - z, z, s - z]) if i != j else np.full(3, z)
        pair = (i, j) if i < j else (j, i)
        pairs[pair] = pairs.get(pair, 0) + (votes if i <= j else votes[::-1])
    return pairs


def _comparison(unit, pairs, b, scale):
    """The comparison that decides whatever the other registers add, or `None`."""
    for pair, votes in pairs.items():
        others = [v for other, v in pairs.items() if other != pair]
        lowest = b + votes + sum(v.min() for v in others)
        highest = b + votes + sum(v.max() for v in others)
        if not np.all((lowest > 0) | (highest < 0)):
            continue
        weakest = np.where(lowest > 0, lowest, highest)
        outputs = 1 / (1 + np.exp(-weakest))
        off = np.abs(outputs - np.round(outputs))
        holds = "".join(str(int(low > 0)) for low in lowest)
        constant = len(set(holds)) == 1
        if off.max() > unit.tolerance:
            if constant:
                continue
            unit.record("output", (unit.index,), outputs[off.argmax()])
        if constant:
            return holds[0]
        much = f"much more than {lines.number(unit.rounded(1 / scale))}"
        unit.conditions.append(f"where inputs are equal, or differ by {much}")
        return f" {RELATIONS[holds]} ".join(unit.inputs[i] for i in pair)
    return None
