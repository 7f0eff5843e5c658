from typing import Any

import keras

from keras_nalu.models import backends


class Feed(keras.utils.PyDataset):
    """Where the batches of a call come from.

    In the place of the data Keras is given batches without end of which `steps` are an
    epoch, and takes none of them but to build from: what trains asks for pieces, by
    `chunk`.
    """

    #: Keras opens one iterator for the whole call; `steps` ends each epoch.
    num_batches = None
    steps: Any
    batch_size: int
    #: The steps of the epoch that were taken.
    position = 0
    #: What bounds a chunk by default.
    most_steps = 10_000

    def replace(self, call, steps):
        """Puts itself in the place of the data of `fit` or `evaluate`."""
        batches = backends.current().batches(self)
        call |= {"x": batches, "y": None, "sample_weight": None, steps: self.steps}
        if "shuffle" in call or steps == "steps_per_epoch":
            call["shuffle"] = False

    def replace_held_out(self, call):
        """Puts itself in the place of the data that validate."""
        batches = backends.current().batches(self)
        call |= {"validation_data": batches, "validation_steps": self.steps}

    def readers(self):
        """The readers that an epoch is known to need."""
        return set()

    def chunk(self, steps, iterator):
        """The next so many steps of the epoch, in pieces `(reader, data, first, last)`:
        the steps from `first` to `last` of one loop on the device.

        `iterator` is Keras' own, over this feed.
        """
        raise NotImplementedError

    def state(self):
        """What of it is in no variable at the end of an epoch, for a backup."""

    def restore(self, state):
        """Goes on from there."""
