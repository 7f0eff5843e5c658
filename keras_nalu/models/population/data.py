"""The data of a population: shared by all members, or per member."""

import itertools

import keras
import numpy as np
from keras import ops

from keras_nalu.models.arrays import are_arrays, is_dense, plain_arrays, take_rows
from keras_nalu.models.feeds.sampled import Sampler, is_function
from keras_nalu.models.planning import DATA


class Data:
    """Checks the data of a call, and finds out whether it is shared.

    Args:
        template: The model that every member copies.
        size: The number of members.
    """

    def __init__(self, template, size):
        self.template = template
        self.size = size

    def is_per_member(self, x):
        """Whether `x` has the additional axis of data per member."""
        inputs = keras.tree.flatten(self.template.inputs)
        return len(keras.tree.flatten(x)[0].shape) > len(inputs[0].shape)

    def admit(self, call):
        """Checks the data, moves rows before members, since Keras wants them first, and
        makes arrays of pandas objects."""
        call |= plain_arrays({name: call[name] for name in DATA if name in call})
        data = {name: call.get(name) for name in DATA}
        if not all(a is None or are_arrays(a) for a in keras.tree.flatten(data)):
            return
        if data["x"] is None:
            return
        if self.is_per_member(data["x"]):
            self._expect_size(data)
            if call.get("class_weight"):
                raise ValueError(
                    "`class_weight` is for data that all members share. Received: "
                    "data per member. Try `sample_weight`."
                )
            call |= keras.tree.map_structure(_rows_first, data)
        else:
            self._expect_shared(data["y"])

    def admit_held_out(self, call):
        """Does the same with the validation data."""
        held_out = call.get("validation_data")
        if isinstance(held_out, tuple | list):
            data = dict(zip(DATA, held_out, strict=False))
            self.admit(data)
            call["validation_data"] = tuple(data.values())

    def _expect_shared(self, y):
        labels = keras.tree.flatten(y)
        if any(
            a is not None and a.ndim > len(output.shape)
            for a, output in zip(labels, self.template.outputs, strict=False)
        ):
            raise ValueError(
                "Expected inputs of shape (members, rows, ...), because the labels are "
                "per member. Received: inputs without an axis of members. Try "
                f"`np.broadcast_to(x, ({self.size}, *x.shape))`."
            )

    def _expect_size(self, data):
        rows = {tuple(a.shape[:2]) for a in keras.tree.flatten(data) if a is not None}
        if len(rows) > 1 or next(iter(rows))[0] != self.size:
            raise ValueError(
                f"Expected data of {self.size} members, in shape ({self.size}, rows, "
                "...), or shared data in shape (rows, ...). Received: "
                f"{', '.join(map(str, rows))} on the first axes."
            )

    def first(self, call):
        """The first rows or batch of one member: x, y and their weights. If `call` has
        an iterator, it is replaced by one that still has that batch."""
        batch = self._first_batch(call)
        x, *labels = keras.utils.unpack_x_y_sample_weight(batch)
        if self.is_per_member(x):
            labels = [
                None if a is None else keras.tree.map_structure(lambda a: a[:, 0], a)
                for a in labels
            ]
        return x, *labels

    def _first_batch(self, call):
        x = call.get("x")
        data = keras.utils.pack_x_y_sample_weight(*(call.get(name) for name in DATA))
        if all(a is None or is_dense(a) for a in keras.tree.flatten(data)):
            return take_rows(data, slice(1))
        if is_function(x):
            nought = ops.zeros((2,), "int32")
            return Sampler(x, self.size)(nought, 0)(nought[0])
        if isinstance(x, keras.utils.PyDataset):
            return x[0]
        batches = iter(x)
        first = next(batches)
        if batches is x:
            call["x"] = (batch for batch in itertools.chain([first], batches))
        return first


def _rows_first(a):
    if a is None:
        return None
    # NumPy returns a view here, which `fit` can copy to the device piece by piece.
    return (np if isinstance(a, np.ndarray) else ops).moveaxis(a, 0, 1)
