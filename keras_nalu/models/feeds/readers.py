"""Readers of the batches in a loop: `reader(data, start)(i)` is batch `i`."""

import dataclasses

import keras

from keras_nalu.models.arrays import count_rows, map_arrays

#: Batches that an inner loop reads at once. On a CPU XLA compiles a loop over less than
#: a kilobyte as a whole, and runs a larger one operation by operation. Three batches of
#: a small model are small enough; the tutorial's step then takes half the time.
INNER_STEPS = 3


@dataclasses.dataclass(frozen=True)
class Slices:
    """Reads batches as consecutive rows of arrays."""

    batch: int
    block: int = INNER_STEPS

    def __call__(self, data, start):
        rows = count_rows(data)
        size = min(self.block * self.batch, rows)
        at = keras.ops.minimum(start * self.batch, rows - size)
        block = slice_rows(data, at, size)
        return lambda i: slice_rows(block, i * self.batch - at, self.batch)


@dataclasses.dataclass(frozen=True)
class Stacked:
    """Reads batches along the first axis of stacked arrays."""

    block: int = INNER_STEPS

    def __call__(self, data, start):
        return lambda i: map_arrays(lambda a: a[i], data)


@dataclasses.dataclass(frozen=True)
class Single:
    """Reads the same batch every time. Each of its shapes has its own loop."""

    shapes: tuple = ()
    block: int = 0

    def __call__(self, data, start):
        return lambda i: data


def slice_rows(data, at, size):
    def take(a):
        return keras.ops.slice(a, (at, *[0] * (a.ndim - 1)), (size, *a.shape[1:]))

    return map_arrays(take, data)
