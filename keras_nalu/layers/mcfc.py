import math
from typing import Any

import keras

from keras_nalu import lines, ops
from keras_nalu.initializers import Orthogonal, UnitVector
from keras_nalu.layers import exact
from keras_nalu.layers.base import GatedLayer, effective


@keras.saving.register_keras_serializable(package="keras_nalu")
class MCFC(GatedLayer):
    """Mass-conserving fully connected layer: it distributes its inputs to its units.

        W = sigmoid(gate_w + gate_b) * softmax(r)    of each input, over the units  (1)
        y = x W                                                                  (2)

    Without the gate, an input's weights sum up to 1; the gate is the share that a unit
    lets out. Use it where the answer is a sum of inputs, or where an amount is divided.
    It cannot subtract. The weights reach 1 only if the gate saturates; train it with
    `keras_nalu.regularizers.NegativeSquare`.

    Args:
        units: Size of the last axis of the outputs.
        kernel_initializer: Initializer of `r`. `None` takes the identity if `r` is
            square, else an orthogonal matrix.
        gate_initializer: Initializer of `gate_w` and `gate_b`. `None` samples the first
            as a vector of length 1 and sets the second to 0.
        kernel_regularizer: Regularizer of `r`.
        gate_regularizer: Regularizer of `gate_w` and `gate_b`.
        kernel_constraint: Constraint of `r`.
        gate_constraint: Constraint of `gate_w` and `gate_b`.
        **kwargs: `name`, `dtype` and the other arguments of any Keras layer.

    Input shape: `(..., features)`, of rank 2 or more.

    Output shape: `(..., units)`.

    Raises:
        ValueError: `units` is not a positive integer; the inputs are of rank 1, or
            their last axis is unknown or differs from the one it was built for.

    Example:

    >>> layer = MCFC(1)
    >>> layer.build((None, 2))
    >>> layer.set_weights([np.zeros((2, 1)), np.array([20]), np.array([0])])
    >>> y = layer(np.array([[7, 2], [1000, 3]]))
    >>> print(keras.ops.convert_to_numpy(y).round(1))
    [[   9.]
     [1003.]]

    Reference: Hoedt et al., MC-LSTM: Mass-Conserving LSTM, ICML 2021,
    arXiv:2101.05186.
    """

    targets = {"kernel": (0, 1)}
    operations = ("add",)
    domain = "all reals"
    reference = "arXiv:2101.05186"

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        square = self._in == self.units
        self.r = self.add_kernel("r", None, "identity" if square else Orthogonal)
        self.gate_w = self.add_gate("gate_w", (self.units,), UnitVector)
        self.gate_b = self.add_gate("gate_b", (self.units,), "zeros")

    @effective
    def kernel(self) -> Any:
        """The effective weights `W`, of shape (in, units), in (0, 1)."""
        o = keras.ops.sigmoid(ops.widen(self.gate_w + self.gate_b))
        return o * ops.softmax(self.r, axis=-1)

    def call(self, inputs: Any, training: bool = False) -> Any:
        x = self.start(inputs, training)
        y = ops.linear(x, self.kernel)
        return self.cast(y)

    def read(self, unit: Any) -> str:
        return lines.linear(unit)

    def snap(self, kernels: dict[str, Any], rows: Any = None) -> None:
        exact.hand_out(self.r, self.gate_w, self.gate_b, kernels["kernel"] == 1)


@keras.saving.register_keras_serializable(package="keras_nalu")
class MulMCFC(GatedLayer):
    """Multiplicative MC-FC: a product of its inputs to powers from 0 to 1.

        W = sigmoid(gate_w + gate_b) * softmax(r)    of each input, over the units  (1)
        y = exp(log(x) W + bias)                                                 (2)

    Use it where the answer is a product of positive inputs. A negative input gives NaN.
    An input of 0 gives 0, or NaN if a weight is exactly 0 (0 * inf), and its gradients
    are NaN. The weights reach 1 only if the gate saturates; train it with
    `keras_nalu.regularizers.NegativeSquare`. It computes in float32 at least, whatever
    the dtype policy.

    Where a step overflows, the outputs and gradients that depend on it can be infinite
    or NaN, although the exact value may fit.

    Args:
        units: Size of the last axis of the outputs.
        kernel_initializer: Initializer of `r`. `None` takes the identity if `r` is
            square, else an orthogonal matrix.
        gate_initializer: Initializer of `gate_w` and `gate_b`. `None` samples the first
            as a vector of length 1 and sets the second to 0.
        kernel_regularizer: Regularizer of `r`.
        gate_regularizer: Regularizer of `gate_w` and `gate_b`.
        kernel_constraint: Constraint of `r`.
        gate_constraint: Constraint of `gate_w` and `gate_b`.
        **kwargs: `name`, `dtype` and the other arguments of any Keras layer.

    Input shape: `(..., features)`, of rank 2 or more.

    Output shape: `(..., units)`.

    Raises:
        ValueError: `units` is not a positive integer; the inputs are of rank 1, or
            their last axis is unknown or differs from the one it was built for.

    Example:

    >>> layer = MulMCFC(1)
    >>> layer.build((None, 2))
    >>> layer.set_weights([np.zeros((2, 1)), *np.array([[20], [0], [0]])])
    >>> y = layer(np.array([[7, 2], [1000, 3]]))
    >>> print(keras.ops.convert_to_numpy(y).round(1))
    [[  14.]
     [3000.]]

    Reference: Hoedt et al., MC-LSTM: Mass-Conserving LSTM, ICML 2021,
    arXiv:2101.05186.
    """

    targets = {"kernel": (0, 1)}
    operations = ("multiply",)
    domain = "positive reals"
    reference = "arXiv:2101.05186"

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        square = self._in == self.units
        self.r = self.add_kernel("r", None, "identity" if square else Orthogonal)
        self.gate_w = self.add_gate("gate_w", (self.units,), UnitVector)
        self.gate_b = self.add_gate("gate_b", (self.units,), "zeros")
        self.bias = self.add_stored("bias", (self.units,), "zeros")

    @effective
    def kernel(self) -> Any:
        """The effective weights `W`, of shape (in, units), in (0, 1)."""
        o = keras.ops.sigmoid(ops.widen(self.gate_w + self.gate_b))
        return o * ops.softmax(self.r, axis=-1)

    def call(self, inputs: Any, training: bool = False) -> Any:
        x = self.start(inputs, training)
        log = keras.ops.log(ops.widen(x))
        y = keras.ops.exp(ops.matmul(log, self.kernel) + ops.widen(self.bias))
        return self.cast(y)

    def read(self, unit: Any) -> str:
        factor = unit.rounded(math.exp(ops.to_numpy(self.bias)[unit.index]))
        if any(unit.signed):
            unit.conditions.append("where no input is negative")
        powers = zip(unit.inputs, unit.weights(), strict=True)
        return lines.product([(lines.number(factor), float(factor != 1)), *powers])

    def snap(self, kernels: dict[str, Any], rows: Any = None) -> None:
        exact.hand_out(self.r, self.gate_w, self.gate_b, kernels["kernel"] == 1)
