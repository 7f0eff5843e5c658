"""Where the batches of a chunk of training steps come from.

A feed hands out pieces, `(reader, data, first, last)`: the steps from `first` to `last`
of one loop on the device, in which `reader(data, start)(i)` is batch `i`.
"""

import dataclasses
import importlib
import itertools
import math
from typing import Any

import keras
import numpy as np

#: Arrays up to this size are on the device as a whole, larger ones in blocks.
RESIDENT_BYTES = 2**28
BLOCK_BYTES = 2**25

#: Batches that an inner loop reads at once. On a processor XLA compiles a loop over
#: less than a kilobyte into one piece of machine code, and runs a larger one operation
#: by operation: three batches of a small model are below, an epoch is not. The
#: notebook's step takes half the time.
INNER_STEPS = 3


@dataclasses.dataclass(frozen=True)
class Slices:
    """Reads batches as consecutive rows of arrays; the only one, if `block` is 0."""

    batch: int
    block: int = INNER_STEPS

    def __call__(self, data, start):
        if not self.block:
            return lambda i: data
        rows = count_rows(data)
        size = min(self.block * self.batch, rows)
        at = keras.ops.minimum(start * self.batch, rows - size)
        block = _slice(data, at, size)
        return lambda i: _slice(block, i * self.batch - at, self.batch)


@dataclasses.dataclass(frozen=True)
class Stacked:
    """Reads batches that stand one behind the other."""

    block: int = INNER_STEPS

    def __call__(self, data, start):
        return lambda i: map_arrays(lambda a: a[i], data)


def _slice(data, at, size):
    def take(a):
        return keras.ops.slice(a, (at, *[0] * (a.ndim - 1)), (size, *a.shape[1:]))

    return map_arrays(take, data)


class Arrays(keras.utils.PyDataset):
    """The rows of arrays; to Keras, batches without end.

    The order comes from NumPy's global generator, on the host: it is the same on every
    backend, and for 10,000 rows a tenth of what drawing it on the device takes.
    """

    num_batches = None

    def __init__(self, data, batch_size, shuffle=False):
        super().__init__()
        # TensorFlow's datasets take tuples, and no trailing `None`.
        data = keras.tree.lists_to_tuples(data)
        while data[-1] is None:
            data = data[:-1]
        leaves = _leaves(data)
        self.data = data
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.rows = leaves[0].shape[0]
        self.steps = math.ceil(self.rows / batch_size)
        on_host = all(isinstance(a, np.ndarray) for a in leaves)
        self.resident = not on_host or sum(a.nbytes for a in leaves) <= RESIDENT_BYTES
        if self.resident:
            self._hold()
        self.position = 0
        self.order = None

    def _hold(self):
        self.data = self.ordered = _to_device(self.data)

    def __getitem__(self, index):
        start = index % self.steps * self.batch_size
        return take_rows(self.data, slice(start, start + self.batch_size))

    def on_epoch_begin(self):
        self.position = 0

    def chunk(self, steps, _):
        start = self.position
        stop = min(start + steps, self.steps)
        self.position = stop % self.steps
        if start == 0 and self.shuffle:
            # The generator that `keras.utils.set_random_seed` seeds.
            self.order = np.random.permutation(self.rows)  # noqa: NPY002
        if not self.resident:
            return self._blocks(start, stop)
        if start == 0:
            self._arrange()
        return self._resident(start, stop)

    def _arrange(self):
        if self.shuffle:
            order = keras.ops.convert_to_tensor(self.order, "int32")
            self.ordered = map_arrays(
                lambda a: keras.ops.take(a, order, axis=0), self.data
            )

    def _resident(self, start, stop):
        full = self.rows // self.batch_size
        if start < full:
            yield Slices(self.batch_size), self.ordered, start, min(stop, full) - 1
        if stop > full:
            rest = self.rows % self.batch_size
            yield Slices(rest, 0), take_rows(self.ordered, slice(-rest, None)), 0, 0

    def _blocks(self, start, stop):
        steps = _block_steps(self.data, self.batch_size)
        for first in range(start, stop, steps):
            last = min(first + steps, stop)
            at = slice(first * self.batch_size, last * self.batch_size)
            data = take_rows(self.data, at if self.order is None else self.order[at])
            yield from self._pieces(data, steps)

    def _pieces(self, rows, steps):
        return _pieces(rows, self.batch_size, steps)


class SpreadArrays(Arrays):
    """Rows of arrays, where each of several devices holds its part of every batch."""

    ordered: Any = None

    def __init__(self, data, batch_size, shuffle, devices):
        self.devices = devices
        super().__init__(data, batch_size, shuffle)

    def _hold(self):
        """Nothing: where a row goes depends on the order."""

    def _arrange(self):
        if self.shuffle or self.ordered is None:
            rows = self.data if self.order is None else take_rows(self.data, self.order)
            self.ordered = [*self._pieces(rows, self.rows // self.batch_size)]

    def _resident(self, start, stop):
        full, rest = divmod(self.rows, self.batch_size)
        if start < full:
            reader, data, *_ = self.ordered[0]
            yield reader, data, start, min(stop, full) - 1
        if rest and stop > full:
            yield self.ordered[-1]

    def _pieces(self, rows, steps):
        for reader, data, first, last in super()._pieces(rows, steps):
            size = reader.batch

            def stack(a, size=size):
                return np.asarray(a).reshape(-1, size, *a.shape[1:])

            yield Stacked(), self.devices.put(map_arrays(stack, data)), first, last


def backend_module():
    """The file for the backend that Keras computes with."""
    return importlib.import_module(f"keras_nalu.training.on_{keras.backend.backend()}")


def are_arrays(data):
    """Whether `data` is dense arrays or tensors, all with the same rows."""
    leaves = [a for a in keras.tree.flatten(data) if a is not None]
    return (
        all(
            a.dtype.kind in "biuf"
            if isinstance(a, np.ndarray)
            else keras.ops.is_tensor(a) and _is_dense(a)
            for a in leaves
        )
        and len({tuple(a.shape[:1]) for a in leaves}) == 1
        and leaves[0].ndim > 0
    )


def _is_dense(a):
    return hasattr(a, "__array__")


class Batches:
    """What Keras iterates over, a chunk at a time."""

    def __init__(self, steps=None, stacks=False):
        self.steps = steps
        self.stacks = stacks
        self.position = 0

    def chunk(self, steps, iterator):
        if self.steps:
            steps = min(steps, self.steps - self.position)
            self.position = (self.position + steps) % self.steps
        # Not in a generator, which would turn Keras' sign of the end into an error.
        first = next(iterator)
        batches = itertools.chain([first], itertools.islice(iterator, steps - 1))
        return self._grouped(batches, steps)

    def _grouped(self, batches, steps):
        """Batches of one size together, as many as a block may hold."""
        for (size, dense), group in itertools.groupby(batches, _kind):
            if not dense:
                for batch in group:
                    yield Slices(size, 0), batch, 0, 0
                continue
            if not self.stacks:
                group = (map_arrays(np.asarray, batch) for batch in group)
            held = next(group)
            block = min(steps, _block_steps(held, size))
            group = itertools.chain([held], group)
            while held := list(itertools.islice(group, block)):
                if self.stacks:
                    # On their devices already. As many as ever: it compiles once.
                    last = len(held) - 1
                    held += held[-1:] * (block - len(held))
                    stack = map_arrays(lambda *a: keras.ops.stack(a), *held)
                    yield Stacked(), stack, 0, last
                    continue
                rows = map_arrays(lambda *a: np.concatenate(a), *held)
                yield from _pieces(rows, size, block)


def _pieces(data, batch, steps):
    """Rows on the host, padded to `steps` batches: blocks of one shape compile once."""
    full, rest = divmod(count_rows(data), batch)
    if full:

        def padded(a):
            missing = np.zeros(((steps - full) * batch, *a.shape[1:]), a.dtype)
            return np.concatenate([a[: full * batch], missing])

        whole = map_arrays(padded, data)
        yield Slices(batch), _to_device(whole), 0, full - 1
    if rest:
        yield Slices(rest, 0), _to_device(take_rows(data, slice(-rest, None))), 0, 0


def map_arrays(function, *structures):
    """Over the arrays; an output without labels is `None` there."""
    return keras.tree.map_structure(
        lambda *a: function(*a) if hasattr(a[0], "shape") else None, *structures
    )


def _leaves(data):
    return [a for a in keras.tree.flatten(data) if hasattr(a, "shape")]


def _kind(batch):
    return count_rows(batch), all(map(_is_dense, _leaves(batch)))


def count_rows(data):
    return _leaves(data)[0].shape[0]


def take_rows(data, at):
    return map_arrays(lambda a: a[at], data)


def _block_steps(data, batch):
    row_bytes = sum(a.nbytes // len(a) for a in _leaves(data))
    return max(1, BLOCK_BYTES // max(1, batch * row_bytes))


def _to_device(data):
    """Tensors; NumPy's floats become Keras' default float, as in Keras."""

    def convert(a):
        floating = isinstance(a, np.ndarray) and a.dtype.kind == "f"
        return keras.ops.convert_to_tensor(
            a, keras.config.floatx() if floating else None
        )

    return map_arrays(convert, data)
