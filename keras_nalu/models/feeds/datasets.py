import itertools
import sys

import keras
import numpy as np

from keras_nalu.models.arrays import count_rows, leaves, map_arrays
from keras_nalu.models.feeds.arrays import BLOCK_BYTES
from keras_nalu.models.feeds.base import Feed
from keras_nalu.models.feeds.readers import Single, Stacked

#: The number of batches in a stack; more gain nothing.
STACKED_STEPS = 100


class Dataset(Feed):
    """The batches of a `tf.data.Dataset` whose elements have static shapes."""

    most_steps = STACKED_STEPS

    def __init__(self, dataset, steps=None):
        super().__init__()
        cardinality = int(dataset.cardinality())
        # Like Keras, open it only once if the steps of an epoch are given.
        self.reopens = steps is None
        self.steps = cardinality if steps is None else steps
        self.dataset = dataset
        self.batches = None
        self.batch_size = count_rows(self._blank())

    def _blank(self):
        return keras.tree.map_structure(
            lambda spec: np.zeros((spec.shape[0] or 1, *spec.shape[1:]), _dtype(spec)),
            self.dataset.element_spec,
        )

    def __getitem__(self, index):
        # Keras builds from this batch. On JAX it would open the data set for that, and
        # each opening may shuffle; on TensorFlow it would not.
        if keras.backend.backend() == "jax":
            return _to_arrays(next(iter(self.dataset)))
        return self._blank()

    def readers(self):
        return {Stacked()}

    def chunk(self, steps, iterator):
        if self.batches is None or (self.position == 0 and self.reopens):
            self.batches = iter(self.dataset)
        steps = min(steps, self.steps - self.position)
        self.position = (self.position + steps) % self.steps
        batches = map(_to_arrays, itertools.islice(self.batches, steps))
        for _, group in itertools.groupby(batches, _shapes):
            first = next(group)
            size = sum(a.nbytes for a in leaves(first))
            block = min(steps, max(1, BLOCK_BYTES // max(1, size)))
            group = itertools.chain([first], group)
            while held := [*itertools.islice(group, block)]:
                yield _stacked(held, block)


class Iterated(Feed):
    """Data of any kind and shape, over which Keras iterates batch by batch."""

    most_steps = 1

    def __init__(self, steps=None):
        super().__init__()
        self.steps = steps
        self.batch_size = 1

    def replace(self, call, steps):
        """Keras keeps the data."""

    def replace_held_out(self, call):
        """Keras keeps the data."""

    def chunk(self, steps, iterator):
        # `next` is not called within a generator, where PEP 479 would turn the
        # StopIteration that Keras waits for into a RuntimeError.
        batches = [next(iterator), *itertools.islice(iterator, steps - 1)]
        return map(_single, batches)


def _single(batch):
    return Single(_shapes(batch)), batch, 0, 0


def _stacked(batches, steps):
    if len(batches) == 1:
        return _single(map_arrays(keras.ops.convert_to_tensor, batches[0]))
    last = len(batches) - 1
    # Padded to the same number, because every shape compiles a program.
    batches += batches[-1:] * (steps - len(batches))
    data = map_arrays(lambda *a: np.stack(a), *batches)
    return Stacked(), map_arrays(keras.ops.convert_to_tensor, data), 0, last


def is_static(x):
    """Whether `x` is a `tf.data.Dataset` of numbers whose shapes are known, except for
    the batch size."""
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is None or not isinstance(x, tensorflow.data.Dataset):
        return False
    return all(
        isinstance(spec, tensorflow.TensorSpec)
        and (spec.dtype.is_floating or spec.dtype.is_integer or spec.dtype.is_bool)
        and spec.shape.rank
        and None not in spec.shape[1:]
        for spec in keras.tree.flatten(x.element_spec)
    )


def _dtype(spec):
    return spec.dtype.as_numpy_dtype


def _to_arrays(batch):
    return keras.tree.map_structure(lambda a: a.numpy(), batch)


def _shapes(batch):
    return tuple(tuple(a.shape) for a in leaves(batch))
