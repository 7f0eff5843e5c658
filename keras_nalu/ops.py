"""The mathematics that two or more layers, losses or metrics share.

Everything is written in `keras.ops` and broadcasts over leading axes of the
weights, so that one equation serves one layer and a whole population of them.
"""

from keras import backend, ops


def widen(x):
    """`x` in float32 at least: half precision cannot hold 1e-7, nor a product."""
    return ops.cast(x, backend.result_type(x.dtype, "float32"))


def linear(x, W):
    """`x W`: multiplied in the dtype of `x`, returned in float32 at least."""
    return widen(ops.matmul(x, ops.cast(W, x.dtype)))


def nac_weight(W_hat, M_hat):
    """`tanh(W_hat) * sigmoid(M_hat)`: biased towards -1, 0 and 1."""
    return ops.tanh(widen(W_hat)) * ops.sigmoid(widen(M_hat))


def log_space_product(x, W, epsilon):
    """`exp(log(|x| + epsilon) W)`: the product of the `|x_i| ** W_i`."""
    x = widen(x)
    magnitude = x * ops.sign(x)  # |x|; on JAX the slope of `abs` at zero is not 0
    return ops.exp(ops.matmul(ops.log(magnitude + epsilon), W))


def align_labels(y_true, y_pred):
    """`y_true` in the shape of `y_pred`: an axis of length one is added or dropped.

    Without it labels of shape `(n,)` and predictions of shape `(n, 1)` broadcast to
    `(n, n)`, and every label is compared with every prediction.
    """
    if y_pred.shape[-1:] == (1,) and len(y_true.shape) == len(y_pred.shape) - 1:
        y_true = ops.expand_dims(y_true, -1)
    elif y_true.shape[-1:] == (1,) and len(y_true.shape) == len(y_pred.shape) + 1:
        y_true = ops.squeeze(y_true, -1)
    true, pred = tuple(y_true.shape), tuple(y_pred.shape)
    if len(true) != len(pred) or any(
        t != p and None not in (t, p) for t, p in zip(true, pred, strict=True)
    ):
        raise ValueError(
            "Labels and predictions must have the same shape, but for a last axis of "
            f"length 1. Received: y_true.shape={true}, y_pred.shape={pred}. "
            f"Reshape the labels to {pred}."
        )
    return y_true
