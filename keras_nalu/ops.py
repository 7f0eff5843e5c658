"""The mathematics that two or more layers, losses or metrics share, in `keras.ops`."""

import functools
from collections.abc import Iterable
from typing import Any

import numpy as np
from keras import backend, config, ops

from keras_nalu import expect, wide

#: From this number of weights on, signs are computed by matrix products. A training
#: step of a 32 x 32 INALU is then 6.2 times as fast on JAX, and 2.4 on TensorFlow.
SIGNS = 1024


def tensor(name: str, x: Any) -> Any:
    """`x` as a tensor. Raises ValueError unless it holds real numbers."""
    return ops.convert_to_tensor(expect.real(name, x))


def floating(name: str, x: Any) -> Any:
    """`x` as a tensor of floats; integers become Keras' default float."""
    x = tensor(name, x)
    is_float = backend.is_float_dtype(backend.standardize_dtype(x.dtype))
    return x if is_float else ops.cast(x, config.floatx())


def to_numpy(x: Any) -> np.ndarray:
    """`x` as an array of float64."""
    return np.asarray(ops.convert_to_numpy(x), dtype=float)


def widen(x: Any) -> Any:
    """`x` in float32 at least, because 1e-7 and products exceed half precision."""
    return ops.cast(x, backend.result_type(x.dtype, "float32"))


def magnitude(x: Any) -> Any:
    """`|x|`, with slope 0 at 0 on every backend; `abs` has slope 1 there on JAX."""
    return x * ops.sign(x)


def matmul(x: Any, W: Any) -> Any:
    """`x W` in the full precision of its dtype: by default JAX lets a GPU round float32
    to 11 bits first."""
    if backend.backend() != "jax":
        return ops.matmul(x, W)
    import jax

    with jax.default_matmul_precision("highest"):
        return ops.matmul(x, W)


def linear(x: Any, W: Any) -> Any:
    """`x W`: multiplied in the dtype of `x`, returned in float32 at least."""
    return widen(matmul(x, ops.cast(W, x.dtype)))


def nac_weight(W_hat: Any, M_hat: Any) -> Any:
    """`tanh(W_hat) * sigmoid(M_hat)`: biased towards -1, 0 and 1."""
    return ops.tanh(widen(W_hat)) * ops.sigmoid(widen(M_hat))


def log_space_product(x: Any, W: Any, epsilon: float) -> Any:
    """`exp(log(|x| + epsilon) W)`: the product of the `|x_i| ** W_i`."""
    return ops.exp(matmul(ops.log(magnitude(widen(x)) + epsilon), W))


def gated_product(x: Any, W: Any) -> Any:
    """`prod_i (W_i x_i + 1 - W_i)`: the product of the inputs whose weight is 1."""
    x = widen(x)
    if wide.is_wide(x, W):
        return wide.product(_gated, _by_gated, x, W)
    return ops.prod(_gated(ops.expand_dims(x, -1), W), axis=-2)


def _gated(x, W):
    return W * x + (1 - W)


def _by_gated(E, x, W):
    return matmul(E, _transposed(W)), matmul(_transposed(x - 1), E)


def gated_powers(x: Any, W: Any, A: Any) -> Any:
    """`prod_i (sign(x_i) |x_i| ** W_i A_i + 1 - A_i)`: powers whose `A` is 0 are 1."""
    x = widen(x)
    if wide.is_wide(x, W):
        return wide.product(_gated_power, _by_gated_power, x, W, A)
    x = ops.expand_dims(x, -1)
    powers = ops.sign(x) * ops.power(magnitude(x), W)
    return ops.prod(powers * A + (1 - A), axis=-2)


def _gated_power(x, W, A):
    return _power(x, W) * A + (1 - A)


def _power(x, W):
    # As exact as the size of the logarithm allows, in a tenth of the time of `power`.
    exponent = ops.where(W == 0, 0, W * ops.log(magnitude(x)))
    return ops.sign(x) * ops.exp(exponent)


def _by_gated_power(E, x, W, A):
    powers = E * _power(x, W)
    by_x = matmul(powers, _transposed(A * W)) / x
    by_W = matmul(_transposed(ops.log(magnitude(x))), powers) * A
    # Not the sum of the differences, for which XLA would compute both again.
    by_A = [ops.sum(each, axis=-2, keepdims=True) for each in (powers, E)]
    return by_x, by_W, by_A[0] - by_A[1]


def _transposed(x):
    return ops.swapaxes(x, -1, -2)


def signed_product(x: Any, W: Any, epsilon: float, omega: float) -> Any:
    """`exp(min(log(max(|x|, epsilon)) W, omega))`, times `sign_product` of `|W|`."""
    x = widen(x)
    log = ops.log(ops.maximum(magnitude(x), epsilon))
    return ops.exp(ops.minimum(matmul(log, W), omega)) * sign_product(x, magnitude(W))


def sign_product(x: Any, A: Any) -> Any:
    """`prod_i (sign(x_i) A_i + 1 - A_i)`, for `A` from 0 to 1.

    A factor is `1 - 2 A` if the input is negative, `1 - A` if it is 0, and else 1. For
    many weights, matrix products give the product of the magnitudes, the number of
    negative factors, and the number of zeros.
    """
    if A.shape[0] * A.shape[1] < SIGNS:
        return ops.prod(A * ops.expand_dims(ops.sign(x), -1) + (1 - A), axis=-2)
    negative = ops.cast(x < 0, A.dtype)
    has = ops.concatenate([negative, ops.cast(x == 0, A.dtype)], -1)
    factors = ops.concatenate([1 - 2 * A, 1 - A], 0)
    is_zero = factors == 0
    log = matmul(has, ops.log(ops.where(is_zero, 1, magnitude(factors))))
    turns = matmul(negative, ops.cast(A > 0.5, A.dtype))
    zeros = matmul(has, ops.where(is_zero, 1 + factors, 0))
    # If just one factor is 0, the product has a slope in it, by way of `zeros`.
    rest = ops.where(zeros == 0, 1, ops.where(zeros == 1, zeros - 1, 0))
    return (1 - 2 * (turns % 2)) * ops.exp(log) * rest


def noisy_product(x: Any, noise: Any, W: Any) -> Any:
    """`gated_product` of `x * noise`, divided by that of the noise."""
    return gated_product(x * noise, W) / gated_product(noise, W)


def softmax(w: Any, axis: int) -> Any:
    """Like Keras' softmax, but without its warning about an axis with one entry."""
    w = widen(w)
    return ops.exp(w - ops.logsumexp(w, axis=axis, keepdims=True))


def clip(w: Any, low: float, high: float) -> Any:
    """`w` between two bounds, with slope 1 at the bounds; JAX' clip has 1/2 there."""
    w = ops.convert_to_tensor(w)
    inside = ops.logical_and(w >= low, w <= high)
    return ops.where(inside, w, ops.stop_gradient(ops.clip(w, low, high)))


def straight_through_clip(w: Any, low: float, high: float) -> Any:
    """`w` between two bounds, with slope 1 everywhere."""
    return ops.stop_gradient(ops.clip(w, low, high)) + (w - ops.stop_gradient(w))


def distance(w: Any, targets: Iterable[float]) -> Any:
    """How far every entry is from the nearest of the targets."""
    distances = [magnitude(w - target) for target in targets]
    return functools.reduce(ops.minimum, distances)


def align_labels(y_true: Any, y_pred: Any) -> tuple[Any, Any]:
    """Both as tensors, with `y_true` in the dtype and shape of `y_pred`: an axis of
    length 1 is added or dropped at the end.

    Otherwise labels `(n,)` and predictions `(n, 1)` would broadcast to `(n, n)`.
    """
    y_pred = floating("y_pred", y_pred)
    y_true = ops.cast(tensor("y_true", y_true), y_pred.dtype)
    if y_pred.shape[-1:] == (1,) and len(y_true.shape) == len(y_pred.shape) - 1:
        y_true = ops.expand_dims(y_true, -1)
    elif y_true.shape[-1:] == (1,) and len(y_true.shape) == len(y_pred.shape) + 1:
        y_true = ops.squeeze(y_true, -1)
    true, pred = tuple(y_true.shape), tuple(y_pred.shape)
    if len(true) != len(pred) or any(
        t != p and None not in (t, p) for t, p in zip(true, pred, strict=True)
    ):
        raise ValueError(
            "Labels and predictions must have the same shape; a last axis of length 1 "
            f"may be missing. Received: y_true.shape={true}, y_pred.shape={pred}. "
            f"Reshape the labels to {pred}."
        )
    return y_true, y_pred


def align_weights(sample_weight: Any, shape: Any) -> Any:
    """The weights of values of this shape, with as many axes: one weight for each
    value, step or sample. Keras would broadcast other shapes, too."""
    if sample_weight is None:
        return None
    weights = floating("sample_weight", sample_weight)
    given, shape = tuple(weights.shape), tuple(shape)
    if len(given) == len(shape) + 1 and given[-1] == 1:
        weights = ops.squeeze(weights, -1)
    sizes = tuple(weights.shape)
    if len(sizes) > len(shape) or any(
        a not in (1, b) and None not in (a, b)
        for a, b in zip(sizes, shape, strict=False)
    ):
        raise ValueError(
            "Expected one weight for each sample, or for each of its values. Received: "
            f"sample_weight.shape={given}, for values of shape {shape}. Reshape the "
            f"weights to {shape[:1]}."
        )
    for _ in range(len(shape) - len(sizes)):
        weights = ops.expand_dims(weights, -1)
    return weights
