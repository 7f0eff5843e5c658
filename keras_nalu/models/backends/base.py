import contextlib
from typing import Any

import keras


class Devices:
    """Where the batches of a call lie: all on one device, unless a subclass says more.

    `parts` is the number of equal parts that a batch of this process is cut into.
    """

    spread = False
    parts = 1

    def put(self, batches):
        """Batches that stand one behind the other, where a loop reads them."""
        return batches

    def reading(self, reader):
        """`reader`, with every batch laid out over the devices."""
        return reader

    @contextlib.contextmanager
    def keeping(self, model):
        """Meanwhile an error leaves the model's weights as they were."""
        yield


class Backend:
    """A backend without a loop on the device; a subclass has one."""

    loops = False

    def runs_eagerly(self):
        """Whether a debug mode has every operation run by itself."""
        return False

    def spreads(self, model):
        """Whether Keras cuts batches over several devices by an engine of its own."""
        return False

    def devices(self) -> Devices:
        return Devices()

    def refuse_to_fit(self, model):
        """Raises where Keras' `fit` would not train, or not on all devices."""

    def accelerated(self):
        """Whether there is something else than a processor."""
        return False

    def batches(self, feed) -> Any:
        """What Keras is given for a feed: its batches without end."""
        return feed

    def make_loop(self, step, reader, devices: Devices):
        """`function(*state, data, first, last)`: those steps, one after the other.

        `step` is Keras' own. `reader(data, start)(i)` is batch `i`. Returns the logs of
        the last step and, where the state is passed in, the next state.
        """
        raise self._without_loop()

    def sample_each(self, sample, states):
        """`draw` of every state, stacked."""
        raise self._without_loop()

    def uniform(self, seed, shape, low, high):
        """Numbers in [low, high), the same for the same seed of two integers."""
        raise self._without_loop()

    def gradient(self, function, weights) -> Any:
        """The gradient of the first of two results, and the second."""
        raise self._without_loop()

    def compiled(self, function):
        """`function`, compiled as a whole."""
        raise self._without_loop()

    def _without_loop(self):
        return ValueError(
            "There is no loop on the device for the backend "
            f"{keras.backend.backend()!r}. Set KERAS_BACKEND=tensorflow, or jax."
        )
