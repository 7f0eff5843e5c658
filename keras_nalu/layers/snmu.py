from typing import Any

import keras

from keras_nalu import expect, lines, ops
from keras_nalu.constraints import Clip
from keras_nalu.initializers import NMUUniform
from keras_nalu.layers.base import ArithmeticLayer, effective


@keras.saving.register_keras_serializable(package="keras_nalu")
class SNMU(ArithmeticLayer):
    """Stochastic Neural Multiplication Unit: an NMU that is trained with noise.

        P(x) = prod_i (W_i x_i + 1 - W_i)                                        (1)
        y = P(x * n) / P(n), n uniform in the noise range    in training         (2)
        y = P(x)                                             else

    The noise cancels only where the weights are 0 and 1, and so leads the training out
    of other solutions. Use it where an `NMU` gets stuck.

    Train it with `keras_nalu.regularizers.Sparsity(ramp, low=0)`, like an NMU. If the
    noise range includes 0, the divisor can be 0; with "batch", a batch of equal numbers
    gives NaN.

    The product is computed in float32 at least, whatever the dtype policy. Where a step
    overflows, the outputs and gradients that depend on it can be infinite or NaN,
    although the exact value may fit.

    Args:
        units: Size of the last axis of the outputs.
        kernel_initializer: Initializer of `W`.
        kernel_regularizer: Regularizer of `W`.
        kernel_constraint: Constraint of `W`, by default `Clip(0, 1)`, which acts after
            every training step.
        noise_range: The bounds of the noise, or "batch" for 1 and `1 + 1 / std(x)`,
            with the standard deviation of all entries of the batch.
        seed: An integer that makes the noise reproducible, from 0 to 2**32 - 1, or to
            2**31 - 1 on PyTorch.
        **kwargs: `name`, `dtype` and the other arguments of any Keras layer.

    Input shape: `(..., features)`, of rank 2 or more.

    Output shape: `(..., units)`.

    Raises:
        ValueError: `units` is not a positive integer, or `noise_range` not a pair of
            numbers `low < high`; the inputs are of rank 1, or their last axis is
            unknown or differs from the one it was built for.

    Example:

    >>> layer = SNMU(1)
    >>> layer.build((None, 3))
    >>> layer.set_weights([np.array([[1], [1], [0]])])
    >>> print(keras.ops.convert_to_numpy(layer(np.array([[7, -2, 5], [1000, 3, 0]]))))
    [[ -14.]
     [3000.]]

    Reference: Mistry et al., Improving the Robustness of Neural Multiplication Units
    with Reversible Stochasticity, 2022, arXiv:2211.05624.
    """

    initializer = NMUUniform
    constraint = Clip(0, 1)
    targets = {"kernel": (0, 1)}
    stored = {"kernel": "W"}
    operations = ("multiply",)
    domain = "all reals"
    reference = "arXiv:2211.05624"

    def __init__(
        self,
        units: int,
        *,
        noise_range: str | tuple[float, float] = (1, 5),
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(units, **kwargs)
        is_batch = isinstance(noise_range, str) and noise_range == "batch"
        self.noise_range: Any = noise_range if is_batch else _range(noise_range)
        # On PyTorch Keras' generators store their seed as an int32.
        bits = 31 if keras.backend.backend() == "torch" else 32
        self.seed = expect.seed("seed", seed, bits)
        self.seed_generator = keras.random.SeedGenerator(self.seed)

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        self.W = self.add_kernel("W")

    @effective
    def kernel(self) -> Any:
        """The weights `W`, of shape (in, units), in [0, 1] by their constraint."""
        return ops.widen(self.W)

    def call(self, inputs: Any, training: bool = False) -> Any:
        x = ops.widen(self.start(inputs, training))
        if training:
            y = ops.noisy_product(x, self.noise(x), self.kernel)
        else:
            y = ops.gated_product(x, self.kernel)
        return self.cast(y)

    def noise(self, x: Any) -> Any:
        """`n` of equation (2), sampled for every entry of the inputs."""
        batch = self.noise_range == "batch"
        low, high = (1, _high(x)) if batch else self.noise_range
        n = keras.random.uniform(
            keras.ops.shape(x), dtype=x.dtype, seed=self.seed_generator
        )
        return low + (high - low) * n

    def read(self, unit: Any) -> str:
        return lines.gated_product(unit)


def _range(value):
    if isinstance(value, tuple | list) and len(value) == 2:
        low, high = (expect.number("noise_range", n) for n in value)
        if low < high:
            return low, high
    expected = "two numbers low < high, or 'batch'"
    raise expect.invalid("noise_range", value, expected, "(1, 5)")


def _high(x):
    count = keras.ops.cast(keras.ops.size(x), x.dtype)
    variance = keras.ops.var(x) * count / (count - 1)
    return 1 + keras.ops.stop_gradient(keras.ops.rsqrt(variance))
