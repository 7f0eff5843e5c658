"""The papers' initializers that Keras does not have.

If a paper names one for each weight (iNALU, NPU, MC-FC), the layer's `build` has them.
"""

import math
from typing import Any, ClassVar

import keras

from keras_nalu import expect


def _seed(value: Any) -> Any:
    """The seed, checked here because Keras fails only when it first uses it."""
    if isinstance(value, dict) and "class_name" in value:
        value = keras.saving.deserialize_keras_object(value)
    if isinstance(value, keras.random.SeedGenerator):
        return value
    return expect.seed("seed", value)


class _Seeded(keras.initializers.RandomUniform):
    """An initializer whose only argument is the seed."""

    def __init__(self, seed: Any = None) -> None:
        super().__init__(seed=_seed(seed))

    def get_config(self) -> dict[str, Any]:
        return {"seed": super().get_config()["seed"]}


class _Uniform(_Seeded):
    """Uniform between bounds that depend on the shape."""

    center: ClassVar[float]

    def radius(self, inputs: int, units: int) -> float:
        raise NotImplementedError

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        shape = tuple(shape)
        if len(shape) != 2:
            raise ValueError(
                f"{type(self).__name__} is for kernels, of shape (inputs, units). "
                f"Received: shape={shape}. Try RandomUniform(0.25, 0.75)."
            )
        r = self.radius(*shape)
        return keras.random.uniform(
            shape, self.center - r, self.center + r, dtype, self.seed
        )


@keras.saving.register_keras_serializable(package="keras_nalu")
class NACUniform(_Uniform):
    """Uniform in [-r, r], such that `tanh(W_hat) * sigmoid(M_hat)` keeps the variance.

        (1 - tanh(r) / r) (r - tanh(r / 2)) / (2 r) = 2 / max(in + units, 5)

    The variance grows with `r`. Below in + units = 5 no `r` is large enough, and the
    layer starts saturated, with `r = 9.47`. For 100 inputs and 2 units `r` is 0.50.

    Args:
        seed: An integer or `keras.random.SeedGenerator`, as for any Keras initializer.

    Example:

    >>> layer = NAC(2, kernel_initializer=keras_nalu.initializers.NACUniform(seed=0))

    Reference: Madsen and Johansen, Neural Arithmetic Units, ICLR 2020,
    arXiv:2001.05016; the equation is that of their published code.
    """

    center = 0.0

    def radius(self, inputs: int, units: int) -> float:
        wanted = 2 / max(inputs + units, 5)
        low, high = 0.0, 10.0
        for _ in range(60):
            r = (low + high) / 2
            variance = (1 - math.tanh(r) / r) * (r - math.tanh(r / 2)) / (2 * r)
            low, high = (r, high) if variance < wanted else (low, r)
        return low


@keras.saving.register_keras_serializable(package="keras_nalu")
class NAUUniform(_Uniform):
    """Uniform in [-r, r] with `r = min(1/2, sqrt(6 / (in + units)))`.

    Args:
        seed: An integer or `keras.random.SeedGenerator`, as for any Keras initializer.

    Reference: Madsen and Johansen, Neural Arithmetic Units, ICLR 2020,
    arXiv:2001.05016.
    """

    center = 0.0

    def radius(self, inputs: int, units: int) -> float:
        return min(0.5, math.sqrt(6 / max(inputs + units, 1)))


@keras.saving.register_keras_serializable(package="keras_nalu")
class NMUUniform(_Uniform):
    """Uniform in [1/4, 3/4].

    Args:
        seed: An integer or `keras.random.SeedGenerator`, as for any Keras initializer.

    Reference: Madsen and Johansen, Neural Arithmetic Units, ICLR 2020,
    arXiv:2001.05016.
    """

    center = 0.5

    def radius(self, inputs: int, units: int) -> float:
        return 0.25


@keras.saving.register_keras_serializable(package="keras_nalu")
class UnitVector(_Seeded):
    """A vector of length 1 in a random direction: an orthogonal matrix of one column.

    Args:
        seed: An integer or `keras.random.SeedGenerator`, as for any Keras initializer.
    """

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        w = keras.random.normal(shape, dtype=dtype, seed=self.seed)
        # Flattened, because TensorFlow has norms over one or two axes only.
        return w / keras.ops.norm(keras.ops.reshape(w, -1))


@keras.saving.register_keras_serializable(package="keras_nalu")
class Orthogonal(keras.initializers.Orthogonal):
    """Keras' `Orthogonal`, computed in float32 also for weights in half precision.

    Args:
        gain: What the matrix is multiplied by.
        seed: An integer or `keras.random.SeedGenerator`, as for any Keras initializer.
    """

    def __init__(self, gain: float = 1.0, seed: Any = None) -> None:
        super().__init__(gain=expect.number("gain", gain), seed=_seed(seed))

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        w = super().__call__(shape, "float32")
        return w if dtype is None else keras.ops.cast(w, dtype)
