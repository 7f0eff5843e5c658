from typing import Any

import keras

from keras_nalu.models import backends


class Feed(keras.utils.PyDataset):
    """The source of the batches of a call.

    Keras gets an endless feed instead of the data, and ends an epoch after `steps`. It
    reads a batch only to build the model; a `Run` gets its batches by `chunk`.
    """

    #: `None` makes Keras keep one iterator for the whole call.
    num_batches = None
    steps: Any
    batch_size: int
    #: The number of steps that were taken in this epoch.
    position = 0
    #: The default limit to the length of a chunk.
    most_steps = 10_000

    def replace(self, call, steps):
        """Replaces the data of `fit` or `evaluate` by this feed."""
        batches = backends.current().batches(self)
        call |= {"x": batches, "y": None, "sample_weight": None, steps: self.steps}
        if "shuffle" in call or steps == "steps_per_epoch":
            call["shuffle"] = False

    def replace_held_out(self, call):
        """Replaces the validation data by this feed."""
        batches = backends.current().batches(self)
        call |= {"validation_data": batches, "validation_steps": self.steps}

    def readers(self):
        """The readers that an epoch needs, if they are known."""
        return set()

    def chunk(self, steps, iterator):
        """The next `steps` of the epoch in pieces `(reader, data, first, last)`, which
        are the steps from `first` to `last` of one loop on the device.

        `iterator` is the one that Keras opened over this feed.
        """
        raise NotImplementedError

    def state(self):
        """The state that is in no variable at the end of an epoch, for a backup."""

    def restore(self, state):
        """Continues from a state."""
