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
    """Random numbers for one batch, which depend only on its seed."""

    def __init__(self, seed, members):
        self.seed = seed
        self.members = members
        self.calls = 0

    def uniform(self, shape, low=0.0, high=1.0, members=None):
        """Numbers in [low, high), of this shape, behind an axis of the members if there
        are any. `members` may be less if several members are to see the same."""
        self.calls += 1
        seed = self.seed + keras.ops.convert_to_tensor([self.calls, 0], "int32")
        members = self.members if members is None else members
        shape = tuple(shape) if members is None else (members, *shape)
        return backends.current().uniform(seed, shape, low, high)


@dataclasses.dataclass(frozen=True)
class Sampler:
    """Reads batches from a function that samples them."""

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
    """Batches that a function samples on the device.

    They are the same in every epoch if it `repeats`. A seed makes them reproducible.
    """

    def __init__(self, sample, steps, members=None, seed=None, repeats=False):
        super().__init__()
        if steps is None:
            raise ValueError(
                "Expected the number of steps of an epoch, since a function samples "
                "batches without end. Received: None. Try steps_per_epoch=1000 in "
                "`fit`, validation_steps=10 for a sampled validation, or steps=1000 in "
                "`evaluate`."
            )
        self.reader = Sampler(sample, members)
        self.steps = expect.integer("steps", steps, instead=1000)
        self.repeats = repeats
        self.count = 0
        if seed is None:
            # `keras.utils.set_random_seed` seeds this generator.
            seed = np.random.randint(2**31 - 2**16)  # noqa: NPY002
        # Calls of `uniform` add to the first number, batches to the second.
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
    """Whether `x` is a function that samples batches."""
    return callable(x) and not isinstance(x, keras.utils.PyDataset)
