import contextlib
from typing import Any

import keras


class Devices:
    """The devices that hold the batches of a call; here a single one.

    `parts` is the number of equal parts into which this process cuts a batch.
    """

    spread = False
    parts = 1

    def put(self, batches):
        """Stacked batches, on the devices where a loop reads them."""
        return batches

    def reading(self, reader):
        """`reader`, with every batch distributed over the devices."""
        return reader

    @contextlib.contextmanager
    def keeping(self, model):
        """A context in which an error leaves the model's weights as they were."""
        yield


class Backend:
    """A backend without a loop on the device, which subclasses may add."""

    loops = False

    def runs_eagerly(self):
        """Whether a debug mode runs every operation by itself."""
        return False

    def spreads(self, model):
        """Whether a `tf.distribute` strategy spreads the model over several devices."""
        return False

    def devices(self) -> Devices:
        return Devices()

    def refuse_to_fit(self, model):
        """Raises ValueError if Keras' `fit` would not train, or not on all devices."""

    def accelerated(self):
        """Whether the device is not a CPU."""
        return False

    def batches(self, feed) -> Any:
        """The endless batches of a feed, as Keras reads them fastest."""
        return feed

    def make_loop(self, step, reader, devices: Devices):
        """A function `(*state, data, first, last)` that takes these steps in a loop.

        It returns the logs of the last step and, if the state is passed in, the next
        state. `step` is the model's; `reader(data, start)(i)` is batch `i`.
        """
        raise self._without_loop()

    def sample_each(self, sample, states):
        """`sample` of every state, stacked."""
        raise self._without_loop()

    def uniform(self, seed, shape, low, high):
        """Numbers in [low, high), which depend only on the seed of two integers."""
        raise self._without_loop()

    def gradient(self, function, weights) -> Any:
        """The gradient of the first result of `function`, and the second result."""
        raise self._without_loop()

    def compiled(self, function):
        """`function`, compiled as a whole."""
        raise self._without_loop()

    def _without_loop(self):
        return ValueError(
            "There is no loop on the device for the backend "
            f"{keras.backend.backend()!r}. Set KERAS_BACKEND=tensorflow or jax."
        )
