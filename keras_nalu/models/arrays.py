"""Helpers for structures of arrays: their leaves, rows and dtypes."""

import sys

import keras
import numpy as np


def map_arrays(function, *structures):
    """`map_structure` over arrays; `None` stays, as for an output without labels."""
    return keras.tree.map_structure(
        lambda *a: function(*a) if hasattr(a[0], "shape") else None, *structures
    )


def leaves(data):
    return [a for a in keras.tree.flatten(data) if hasattr(a, "shape")]


def count_rows(data):
    return leaves(data)[0].shape[0]


def take_rows(data, at):
    return map_arrays(lambda a: a[at], data)


def plain_arrays(data):
    """`data` with pandas objects as arrays, converted as Keras does."""
    pandas = sys.modules.get("pandas")
    if pandas is None:
        return data

    def plain(a):
        if isinstance(a, pandas.Series):
            a = a.to_frame()
        return a.to_numpy() if isinstance(a, pandas.DataFrame) else a

    return keras.tree.map_structure(plain, data)


def are_arrays(data):
    """Whether `data` is dense arrays or tensors of numbers, all with the same rows."""
    each = [a for a in keras.tree.flatten(data) if a is not None]
    return (
        all(map(is_dense, each))
        and len({tuple(a.shape[:1]) for a in each}) == 1
        and each[0].ndim > 0
    )


def is_dense(a):
    """Whether `a` is a dense array or tensor of numbers."""
    if isinstance(a, np.ndarray):
        return a.dtype.kind in "biuf"
    # TensorFlow's sparse and ragged tensors lack `__array__`.
    return keras.ops.is_tensor(a) and hasattr(a, "__array__")


def to_device(data):
    """`data` as tensors. As in Keras, NumPy's floats become Keras' default float."""

    def convert(a):
        floating = isinstance(a, np.ndarray) and a.dtype.kind == "f"
        return keras.ops.convert_to_tensor(
            a, keras.config.floatx() if floating else None
        )

    return map_arrays(convert, data)
