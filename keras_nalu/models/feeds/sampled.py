import dataclasses
from collections.abc import Callable

import keras
import numpy as np

from keras_nalu import expect
from keras_nalu.models import backends
from keras_nalu.models.arrays import count_rows, map_arrays
from keras_nalu.models.feeds.base import Feed
from keras_nalu.models.feeds.readers import INNER_STEPS


class Stream:
    """Random numbers for one batch: those of its seed, the same on every call."""

    def __init__(self, seed, members):
        self.seed = seed
        self.members = members
        self.calls = 0

    def uniform(self, shape, low=0.0, high=1.0, members=None):
        """Numbers in [low, high), of this shape; behind an axis of the members', or of
        another number of them, where some are to see the same."""
        self.calls += 1
        seed = self.seed + keras.ops.convert_to_tensor([self.calls, 0], "int32")
        members = self.members if members is None else members
        shape = tuple(shape) if members is None else (members, *shape)
        return backends.current().uniform(seed, shape, low, high)


@dataclasses.dataclass(frozen=True)
class Sampler:
    """Reads batches from a function that draws them."""

    sample: Callable
    members: int | None
    block: int = INNER_STEPS

    def __call__(self, seed, start):
        def batch(i):
            counter = keras.ops.stack([keras.ops.zeros_like(i), i])
            data = self.sample(Stream(seed + counter, self.members))
            if self.members is None:
                return data
            return map_arrays(lambda a: keras.ops.moveaxis(a, 0, 1), data)

        return batch


class Sampled(Feed):
    """Batches that a function draws on the device.

    The same in every epoch, if it `repeats`. A seed makes them reproducible.
    """

    def __init__(self, sample, steps, members=None, seed=None, repeats=False):
        super().__init__()
        if steps is None:
            raise ValueError(
                "A function draws batches without end: say how many are an epoch. "
                "Try steps_per_epoch=1000 in `fit`, with validation_steps=10 for a "
                "validation that is drawn, or steps=1000 in `evaluate`."
            )
        self.reader = Sampler(sample, members)
        self.steps = expect.integer("steps", steps, instead=1000)
        self.repeats = repeats
        self.count = 0
        if seed is None:
            # From the generator that `keras.utils.set_random_seed` seeds.
            seed = np.random.randint(2**31 - 2**16)  # noqa: NPY002
        # The calls of `uniform` count on from the first number, the batches from the
        # second.
        self.seed = keras.ops.convert_to_tensor([seed, 0], "int32")
        self.batch_size = count_rows(self[0])

    def __getitem__(self, index):
        return self.reader(self.seed, 0)(keras.ops.convert_to_tensor(index, "int32"))

    def state(self):
        return {"seed": self.seed, "count": self.count}

    def restore(self, state):
        self.seed = keras.ops.convert_to_tensor(state["seed"], "int32")
        self.count = state["count"]

    def chunk(self, steps, iterator):
        steps = min(steps, self.steps - self.position)
        if self.repeats:
            self.count = self.position
        self.position = (self.position + steps) % self.steps
        first = self.count
        self.count += steps
        yield self.reader, self.seed, first, self.count - 1


def is_function(x):
    """Whether `x` draws batches, rather than holding or yielding them."""
    return callable(x) and not isinstance(x, keras.utils.PyDataset)
