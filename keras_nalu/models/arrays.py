"""Structures of arrays: what of them is a batch, and how many rows it has."""

import sys

import keras
import numpy as np


def map_arrays(function, *structures):
    """Over the arrays; an output without labels is `None` there."""
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
    """`data`, with tables of pandas as the arrays that Keras makes of them."""
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
        all(map(_is_dense, each))
        and len({tuple(a.shape[:1]) for a in each}) == 1
        and each[0].ndim > 0
    )


def _is_dense(a):
    if isinstance(a, np.ndarray):
        return a.dtype.kind in "biuf"
    # TensorFlow's sparse and ragged tensors are no arrays.
    return keras.ops.is_tensor(a) and hasattr(a, "__array__")


def to_device(data):
    """Tensors; NumPy's floats become Keras' default float, as in Keras."""

    def convert(a):
        floating = isinstance(a, np.ndarray) and a.dtype.kind == "f"
        return keras.ops.convert_to_tensor(
            a, keras.config.floatx() if floating else None
        )

    return map_arrays(convert, data)
