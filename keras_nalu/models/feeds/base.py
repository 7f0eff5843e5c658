from typing import Any

import keras


class Feed(keras.utils.PyDataset):
    """Where the batches of a call come from.

    Keras is given the feed in the place of the data, as batches without end of which
    `steps` are an epoch, and takes none of them but to build from: what trains asks for
    pieces, by `chunk`.
    """

    #: Keras opens one iterator for the whole call; `steps` ends each epoch.
    num_batches = None
    steps: Any
    batch_size: int
    #: What bounds a chunk by default.
    most_steps = 10_000

    def replace(self, call, steps):
        """Puts itself in the place of the data of `fit` or `evaluate`."""
        call |= {"x": self, "y": None, "sample_weight": None, steps: self.steps}
        if "shuffle" in call or steps == "steps_per_epoch":
            call["shuffle"] = False

    def replace_held_out(self, call):
        """Puts itself in the place of the data that validate."""
        call |= {"validation_data": self, "validation_steps": self.steps}

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
