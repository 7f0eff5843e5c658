"""Outputs and gradients of a layer, by the API of each backend."""

import keras
import numpy as np


class Trained(keras.Layer):
    """A layer that is always called with this value of `training`."""

    def __init__(self, layer, training):
        super().__init__(dtype=layer.dtype_policy)
        self.layer, self.training = layer, training
        self.built = True

    def call(self, x):
        return self.layer(x, training=self.training)


def differentiate(layer, x, c):
    """`y, gradients`, of `sum(c * y)`.

    The gradients are by name: `x` and the layer's trainable weights.
    """
    by = {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}
    return by[keras.backend.backend()](layer, x, c)


def _tensorflow(layer, x, c):
    import tensorflow as tf

    x = tf.convert_to_tensor(x)
    variables = [v.value for v in layer.trainable_variables]
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)
        total = tf.reduce_sum(y * tf.cast(c, y.dtype))
    return y, _named(layer, tape.gradient(total, [x, *variables]))


def _jax(layer, x, c):
    import jax

    def total(x, trainable):
        y, _ = layer.stateless_call(trainable, layer.non_trainable_variables, x)
        return (y * c.astype(y.dtype)).sum(), y

    x = jax.numpy.asarray(x)
    weights = [v.value for v in layer.trainable_variables]
    (_, y), (d_x, d_weights) = jax.value_and_grad(total, (0, 1), has_aux=True)(
        x, weights
    )
    return y, _named(layer, [d_x, *d_weights])


def _torch(layer, x, c):
    import torch

    x = torch.tensor(x, requires_grad=True)
    y = layer(x)
    total = (y * torch.as_tensor(c, dtype=y.dtype)).sum()
    weights = [v.value for v in layer.trainable_variables]
    return y, _named(layer, torch.autograd.grad(total, [x, *weights]))


def _named(layer, gradients):
    names = ["x", *(v.name for v in layer.trainable_variables)]
    return {
        name: keras.ops.convert_to_numpy(gradient)
        for name, gradient in zip(names, gradients, strict=True)
    }


def slopes(layer, x, training=False):
    """`y` and the gradients of its sum."""
    x = np.array(x, "float32")
    c = np.ones((len(x), layer.units), "float32")
    y, gradients = differentiate(Trained(layer, training), x, c)
    return keras.ops.convert_to_numpy(y), gradients
