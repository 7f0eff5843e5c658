"""The arithmetic of training NALUs as a loop on the device, without Keras' training.

Members are an axis that everything broadcasts over, the gradient is the backend's, Adam
and the metrics are written out. `keras.ops` only names the functions of the backend.
"""

import keras
from keras import ops


def training(read, members, divisor, steps, counts_close=False, layer=None):
    """A function that trains on for `steps`. `read(i, uniform)` is batch `i`, of
    (members or 1, rows, features); the loss the sum of squares by `divisor`. The layer
    is `(forward(i, uniform, x, *weights), weights)`, by default the notebook's NALU."""

    def lose(i, weights, x, y):
        y_pred = forward(i, uniform, x, *weights)
        losses = ops.sum(ops.square(y_pred - y), axis=(1, 2)) / divisor
        return ops.sum(losses), (losses, y_pred)

    def step(i, state):
        t, weights, m, v, means, close, _ = state
        x, y = read(i, uniform)
        gradients, (losses, y_pred) = gradient(lambda w: lose(i, w, x, y), weights)
        t, means = t + 1, means + losses * y.shape[1]
        m = [a + 0.1 * (g - a) for a, g in zip(m, gradients, strict=True)]
        v = [a + 0.001 * (g * g - a) for a, g in zip(v, gradients, strict=True)]
        rate = 1e-3 * ops.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        weights = [
            w - rate * a / (ops.sqrt(b) + 1e-7)
            for w, a, b in zip(weights, m, v, strict=True)
        ]
        if counts_close:
            near = ops.abs(y - y_pred) <= 1e-4 + 1e-4 * ops.abs(y_pred)
            close = close + ops.sum(ops.cast(near, "float32"), axis=(1, 2))
        return t, weights, m, v, means, close, losses

    on_backend = {"jax": _on_jax, "tensorflow": _on_tensorflow}
    gradient, loop, uniform = on_backend[keras.backend.backend()](step, steps)
    forward, weights = layer or (
        lambda i, uniform, *x_and_weights: _nalu(*x_and_weights),
        list(keras.random.truncated_normal((3, members, 2, 1), stddev=0.02)),
    )
    zeros, none = [ops.zeros_like(w) for w in weights], ops.zeros((members,))
    state = ops.zeros(()), weights, zeros, zeros, none, none, none

    def train():
        nonlocal state
        state = loop(state)
        ops.convert_to_numpy(state[0])

    return train


def rows_of(X, Y, batch):
    """Reads shared rows of arrays, in order."""
    X, Y = (ops.convert_to_tensor(a[None], "float32") for a in (X, Y))

    def read(i, _):
        return [ops.slice(a, (0, i * batch, 0), (1, batch, a.shape[2])) for a in (X, Y)]

    return read


def _nalu(x, W_hat, M_hat, G):
    W = ops.tanh(W_hat) * ops.sigmoid(M_hat)
    m = ops.exp(ops.matmul(ops.log(ops.abs(x) + 1e-7), W))
    g = ops.sigmoid(ops.matmul(x, G))
    return g * ops.matmul(x, W) + (1 - g) * m


def _on_jax(step, steps):
    import jax

    def gradient(function, weights):
        return jax.grad(function, has_aux=True)(weights)

    def loop(state):
        return jax.lax.fori_loop(0, steps, step, state)

    def uniform(i, shape, low, high):
        return jax.random.uniform(jax.random.key(i), shape, minval=low, maxval=high)

    return gradient, jax.jit(loop), uniform


def _on_tensorflow(step, steps):
    import tensorflow as tf

    def gradient(function, weights):
        with tf.GradientTape() as tape:
            tape.watch(weights)
            loss, more = function(weights)
        return tape.gradient(loss, weights), more

    @tf.function(jit_compile=True, autograph=False)
    def loop(state):
        def one(i, state):
            return i + 1, step(i, state)

        first = tf.constant(0), state
        return tf.while_loop(lambda i, state: i < steps, one, first)[1]

    def uniform(i, shape, low, high):
        # The default generator takes four times as long under XLA on a processor.
        return tf.random.stateless_uniform(shape, [0, i], low, high, alg="threefry")

    return gradient, loop, uniform
