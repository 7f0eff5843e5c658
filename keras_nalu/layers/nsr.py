import keras

from keras_nalu import expect, ops
from keras_nalu.layers.base import ArithmeticLayer, effective, positive


@keras.saving.register_keras_serializable(package="keras_nalu")
class NSR(ArithmeticLayer):
    """Neural Status Register: a comparison of two of its inputs.

        d = x softmax(V_1) - x softmax(V_2)                                      (1)
        sign = tanh(scale d)                                                     (2)
        zero = 1 - 2 tanh(scale d) ** 2                                          (3)
        y = sigmoid(b + sum_r (sign_r W_s_r + zero_r W_0_r))                     (4)

    The softmax runs over the inputs, the sum over the registers of a unit. Use it where
    the answer is whether one input is less than, equal to or greater than another; `y`
    is near 1 where it is. Inputs nearer to each other than `1 / scale` are not told
    apart; those much farther apart leave no gradient: scale the data.

    The paper's second output, `1 - y`, is left to the user. It runs in float32 at
    least.

    Args:
        units: Size of the last axis of the outputs.
        kernel_initializer: Initializer of `V_1`, `V_2`, `W_s` and `W_0`, drawn
            independently; `b` starts at 0.
        kernel_regularizer: Regularizer of these.
        kernel_constraint: Constraint of these.
        redundancy: Registers of a unit; more of them find the answer more often.
        scale: What the difference of the inputs is multiplied by.
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

    def __init__(self, units, *, redundancy=1, scale=1.0, **kwargs):
        super().__init__(units, **kwargs)
        self.redundancy = expect.integer("redundancy", redundancy)
        self.scale = positive("scale", scale)

    def build(self, input_shape):
        super().build(input_shape)
        registers = self.redundancy * self.units
        self.V_1 = self.add_kernel("V_1", (self._in, registers))
        self.V_2 = self.add_kernel("V_2", (self._in, registers))
        self.W_s = self.add_kernel("W_s", (self.redundancy, self.units))
        self.W_0 = self.add_kernel("W_0", (self.redundancy, self.units))
        self.b = self._add("b", (self.units,), "zeros")

    @effective
    def kernel_1(self):
        """What stands on the left, of shape (in, redundancy * units), in (0, 1)."""
        return ops.softmax(self.V_1, axis=0)

    @effective
    def kernel_2(self):
        """What stands on the right, of shape (in, redundancy * units), in (0, 1)."""
        return ops.softmax(self.V_2, axis=0)

    def call(self, inputs, training=False):
        x = ops.widen(self.start(inputs, training))
        d = ops.matmul(x, self.kernel_1) - ops.matmul(x, self.kernel_2)
        d = keras.ops.reshape(d, (*keras.ops.shape(d)[:-1], *self.W_s.shape))
        sign = keras.ops.tanh(self.scale * d)
        zero = 1 - 2 * keras.ops.square(sign)
        registers = sign * ops.widen(self.W_s) + zero * ops.widen(self.W_0)
        z = keras.ops.sum(registers, axis=-2) + ops.widen(self.b)
        return self.cast(keras.ops.sigmoid(z))
