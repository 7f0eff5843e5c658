import math
from typing import Any

import keras
import numpy as np

from keras_nalu.models.arrays import (
    count_rows,
    leaves,
    map_arrays,
    take_rows,
    to_device,
)
from keras_nalu.models.feeds.base import Feed
from keras_nalu.models.feeds.readers import Single, Slices, Stacked, slice_rows

#: Arrays up to this size are held on the device; larger ones go there in blocks.
RESIDENT_BYTES = 2**28
BLOCK_BYTES = 2**25


class Arrays(Feed):
    """Batches of the rows of arrays.

    The order comes from NumPy's global generator on the host. It is the same on every
    backend, and for 10,000 rows takes a tenth of the time of sampling on the device.
    """

    def __init__(self, data, batch_size, shuffle=False):
        super().__init__()
        # TensorFlow's datasets refuse lists and a trailing `None`.
        data = keras.tree.lists_to_tuples(data)
        while data[-1] is None:
            data = data[:-1]
        each = leaves(data)
        self.data = self.given = data
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.rows = each[0].shape[0]
        self.steps = math.ceil(self.rows / batch_size)
        on_host = all(isinstance(a, np.ndarray) for a in each)
        self.resident = not on_host or sum(a.nbytes for a in each) <= RESIDENT_BYTES
        self.ordered: Any = None
        self.order: Any = None

    def _hold(self):
        held = self.data
        if self.rows > self.batch_size:
            # Padded, so that some more rows do not need another program.
            more = _held_batches(self.steps) * self.batch_size - self.rows
            held = map_arrays(lambda a: _padded(a, more), held)
        self.data = self.ordered = to_device(held)

    def __getitem__(self, index):
        start = index % self.steps * self.batch_size
        return to_device(take_rows(self.given, slice(start, start + self.batch_size)))

    def readers(self):
        full, rest = divmod(self.rows, self.batch_size)
        readers = {Slices(self.batch_size)} if full else set()
        return readers | {Single((rest,))} if rest else readers

    def chunk(self, steps, iterator):
        if self.resident and self.ordered is None:
            self._hold()
        start = self.position
        stop = min(start + steps, self.steps)
        self.position = stop % self.steps
        if start == 0 and self.shuffle:
            # `keras.utils.set_random_seed` seeds this generator.
            self.order = np.random.permutation(self.rows)  # noqa: NPY002
        if not self.resident:
            return self._blocks(start, stop)
        if start == 0:
            self._arrange()
        return self._resident(start, stop)

    def _arrange(self):
        if self.shuffle:
            order = np.pad(self.order, (0, count_rows(self.data) - self.rows))
            order = keras.ops.convert_to_tensor(order, "int32")
            self.ordered = map_arrays(
                lambda a: keras.ops.take(a, order, axis=0), self.data
            )

    def _resident(self, start, stop):
        full, rest = divmod(self.rows, self.batch_size)
        if start < full:
            yield Slices(self.batch_size), self.ordered, start, min(stop, full) - 1
        if stop > full:
            at = full * self.batch_size
            yield Single((rest,)), slice_rows(self.ordered, at, rest), 0, 0

    def _blocks(self, start, stop):
        row_bytes = sum(a.nbytes // len(a) for a in leaves(self.data))
        steps = max(1, BLOCK_BYTES // max(1, self.batch_size * row_bytes))
        for first in range(start, stop, steps):
            last = min(first + steps, stop)
            at = slice(first * self.batch_size, last * self.batch_size)
            data = take_rows(self.data, at if self.order is None else self.order[at])
            yield from self._pieces(data, steps)

    def _pieces(self, data, steps):
        """Rows on the host, padded to `steps` batches, because every shape compiles a
        program."""
        full, rest = divmod(count_rows(data), self.batch_size)
        if full:
            rows, more = (n * self.batch_size for n in (full, steps - full))
            whole = map_arrays(lambda a: _padded(a[:rows], more), data)
            whole = to_device(whole)
            yield Slices(self.batch_size), whole, 0, full - 1
        if rest:
            data = to_device(take_rows(data, slice(-rest, None)))
            yield Single((rest,)), data, 0, 0


def _held_batches(steps):
    """The next power of two."""
    return 1 << (steps - 1).bit_length()


def _padded(a, more):
    shape = more, *a.shape[1:]
    if isinstance(a, np.ndarray):
        return np.concatenate([a, np.zeros(shape, a.dtype)])
    return keras.ops.concatenate([a, keras.ops.zeros(shape, a.dtype)])


class SpreadArrays(Arrays):
    """Batches of the rows of arrays, each cut into a part for every device."""

    def __init__(self, data, batch_size, shuffle, devices):
        self.devices = devices
        super().__init__(data, batch_size, shuffle)

    def _hold(self):
        """Does nothing, because the device of a row depends on the order."""

    def _arrange(self):
        if self.shuffle or self.ordered is None:
            rows = self.data if self.order is None else take_rows(self.data, self.order)
            self.ordered = [*self._pieces(rows, _held_batches(self.steps))]

    def _resident(self, start, stop):
        full, rest = divmod(self.rows, self.batch_size)
        if start < full:
            reader, data, *_ = self.ordered[0]
            yield reader, data, start, min(stop, full) - 1
        if rest and stop > full:
            yield self.ordered[-1]

    def _pieces(self, data, steps):
        for reader, rows, first, last in super()._pieces(data, steps):
            size = reader.batch if isinstance(reader, Slices) else count_rows(rows)

            def stack(a, size=size):
                return np.asarray(a).reshape(-1, size, *a.shape[1:])

            batches = self.devices.put(map_arrays(stack, rows))
            yield Stacked(), batches, first, last
