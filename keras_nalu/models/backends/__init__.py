"""The parts of training that need the backend itself instead of Keras."""

import functools

import keras

from keras_nalu.models.backends.base import Backend


def current() -> Backend:
    """The `Backend` of Keras' backend."""
    return _backend(keras.backend.backend())


@functools.cache
def _backend(name):
    match name:
        case "tensorflow":
            from keras_nalu.models.backends.tensorflow import TensorFlow

            return TensorFlow()
        case "jax":
            from keras_nalu.models.backends.jax import Jax

            return Jax()
        case "torch":
            from keras_nalu.models.backends.torch import Torch

            return Torch()
    return Backend()
