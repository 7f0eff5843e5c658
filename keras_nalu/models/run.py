"""A call of `fit` or `evaluate` that is fused: a `Run` holds the state of the call.

Keras calls one function for every chunk of steps. `Chunks` takes the place of that
function and keeps the compiled loops; a `Run` exists only during a call. The current
run is known by thread, because another thread may predict at the same time.
"""

import contextlib
import contextvars

from keras_nalu.models import backends

_current = contextvars.ContextVar("run", default=None)


class Run:
    """A call that is fused.

    Args:
        model: The model that is called.
        call: The arguments for Keras, with feeds instead of data.
        feeds: The feeds of the training, as `train`, and of the evaluation, as `test`.
        steps: The length of a chunk.
        devices: The `Devices` that hold the batches.
    """

    def __init__(self, model, call, feeds, steps, devices):
        self.model = model
        self.call = call
        self.feeds = feeds
        self.steps = steps
        self.devices = devices
        #: The results of the metrics, if the last chunk returned them.
        self.results = None
        # On JAX, within a chunk, the state that Keras does not have yet.
        self._state = None

    def begin_validation(self):
        """Starts at the first batch, also if a callback stopped the last validation."""
        self.feeds["test"].position = 0

    def advance(self, kind, loops, step, state, iterator):
        """Runs a chunk of steps; returns the logs of the last step and the state."""
        self._state, self.results = state, None
        logs = {}
        try:
            pieces = self.feeds[kind].chunk(self.steps, iterator)
        except StopIteration:
            # The data ended before the chunk began.
            self._state = None
            raise
        for reader, data, first, last in pieces:
            if reader not in loops:
                make = backends.current().make_loop
                loops[reader] = make(step, reader, self.devices)
            logs, *state = loops[reader](*state, data, first, last)
            self._state = state
        logs = self.finish(kind, logs, state)
        self._state = None
        return logs, state

    def finish(self, kind, logs, state):
        """The logs of a chunk for Keras."""
        if not self.model.measures_weights:
            self.results = logs
        return logs

    def put_back(self):
        """Assigns the state after an interruption within a chunk, on JAX: Keras has the
        state from before the chunk, whose arrays were donated."""
        if not self._state:
            return
        model = self.model
        variables = [model.trainable_variables, model.non_trainable_variables]
        if len(self._state[0]) == 4:
            variables.append(model.optimizer.variables)
        variables.append(model.metrics_variables)
        for of_kind, values in zip(variables, self._state[0], strict=True):
            for variable, value in zip(of_kind, values, strict=True):
                variable.assign(value)

    def state(self):
        """The state that is in no variable at the end of an epoch, for a backup."""
        return {"feeds": {kind: feed.state() for kind, feed in self.feeds.items()}}

    def restore(self, state):
        for kind, feed in self.feeds.items():
            if kept := state["feeds"].get(kind):
                feed.restore(kept)


class Chunks:
    """The function that Keras calls for every chunk of steps.

    Args:
        model: The model.
        kind: `train` or `test`.
        step: The model's step.
        function: Keras' function, for every call that is not fused.
    """

    def __init__(self, model, kind, step, function):
        self.model = model
        self.kind = kind
        self.step = step
        self.function = function
        self.loops = {}
        #: The number of steps that Keras took since the last loop.
        self.left = 0

    def __call__(self, *state_and_iterator):
        run = current(self.model)
        if run is None:
            self.left += self.model.steps_per_execution
            return self.function(*state_and_iterator)
        self.left = 0
        *state, iterator = state_and_iterator
        logs, state = run.advance(self.kind, self.loops, self.step, state, iterator)
        return (logs, *state) if state else logs


def current(model) -> Run | None:
    """The run of this model in this thread."""
    run = _current.get()
    return run if run is not None and run.model is model else None


@contextlib.contextmanager
def running(run):
    """Makes `run` the current one; `None` leaves everything to Keras."""
    token = _current.set(run)
    try:
        yield
    except BaseException:
        if run is not None:
            run.put_back()
        raise
    finally:
        _current.reset(token)
