"""The run and the planner of a population."""

import numpy as np
from keras import ops

from keras_nalu.models import backends
from keras_nalu.models.feeds.datasets import Iterated
from keras_nalu.models.feeds.sampled import Sampled
from keras_nalu.models.planning import Planner
from keras_nalu.models.population.initial import variables_of
from keras_nalu.models.population.scores import quantiles
from keras_nalu.models.run import Run


class PopulationRun(Run):
    """A run that keeps the logs of every member."""

    def __init__(self, *args):
        super().__init__(*args)
        #: The members' logs of the last chunk, by `train` or `test`.
        self.logs = {}
        #: The members' logs of the last epoch, and lists of those of all epochs.
        self.epoch = {}
        self.seen = {}
        self._member = self.model.begin(self)

    def finish(self, kind, logs, state):
        # On JAX the weights are in the state during a call.
        weights = [*state[0][0], *state[0][1]] if state else variables_of(self.model)
        logs |= self._member.weight_metrics.measure(weights, logs)
        names = self._member.names_in_logs
        self.logs[kind] = {name: ops.convert_to_numpy(logs[name]) for name in names}
        return super().finish(kind, quantiles(self.logs[kind]), state)

    def end_epoch(self, logs):
        """Keeps the members' logs of an epoch, including a validation."""
        held_out = self.logs["test"] if "val_loss" in logs else {}
        self.epoch = self.logs["train"] | {
            f"val_{name}": value for name, value in held_out.items()
        }
        for name, value in self.epoch.items():
            self.seen.setdefault(name, []).append(value)

    def history(self):
        return {name: np.stack(values) for name, values in self.seen.items()}

    def state(self):
        return super().state() | {"members": self.history()}

    def restore(self, state):
        super().restore(state)
        self.seen = {name: [*values] for name, values in state["members"].items()}


class PopulationPlanner(Planner):
    """Plans every call as a run, because Keras cannot train a population."""

    run = PopulationRun

    def _plan(self, call, plan):
        # If the model is not compiled, Keras raises the error.
        return plan(dict(call)) if self.model.compiled else None

    def expect(self, call, trains):
        backend = backends.current()
        spread = backend.spreads(self.model) or backend.devices().spread
        if spread and not self.devices().spread:
            raise ValueError(
                "A population spreads its members on JAX, if it is made after "
                "`keras.distribution.set_distribution`. Received: one that was made "
                "for one device, and several devices. Try `KERAS_BACKEND=jax` with "
                "`keras.distribution.set_distribution(keras.distribution."
                "DataParallel())` first, or one device."
            )

    def expect_to_pay(self, feeds, epochs):
        """Does nothing, because Keras cannot run the call."""

    def devices(self):
        return self.model.devices()

    def sampled(self, sample, steps):
        return Sampled(sample, steps, self.model.size)

    def other_data(self, steps, reason):
        return Iterated(steps)

    def expect_chunk(self, steps, feed):
        """Does nothing, because Keras cannot run the call."""
