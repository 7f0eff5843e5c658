"""A call of `fit` or `evaluate` that is fused: it owns all that is true only meanwhile.

Keras offers one door, the functions that it calls for every chunk of steps. The model
keeps what was asked of it; a `Chunks` is such a function, and keeps the loops that were
compiled; a `Run` is made by the call, and is gone with it. The run that is going on is
known by thread: another one may predict meanwhile.
"""

import contextlib
import contextvars

from keras_nalu.models import backends

_current = contextvars.ContextVar("run", default=None)


class Run:
    """A call that is fused.

    Args:
        model: The model that is called.
        call: The arguments that Keras is given, with feeds in the place of the data.
        feeds: The feed of the training, as `train`, and of the evaluation, as `test`.
        steps: The length of a chunk.
        devices: Where the batches lie.
    """

    def __init__(self, model, call, feeds, steps, devices):
        self.model = model
        self.call = call
        self.feeds = feeds
        self.steps = steps
        self.devices = devices
        #: What the metrics come to, where the last chunk has said so.
        self.results = None
        # On JAX, within a chunk: the state that Keras does not have yet.
        self._state = None

    def begin_validation(self):
        """From the first batch, also where a callback stopped the last one."""
        self.feeds["test"].position = 0

    def advance(self, kind, loops, step, state, iterator):
        """Runs one chunk of steps; returns the logs of the last, and the next state."""
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
        """What Keras logs of a chunk."""
        if not self.model.measures_weights:
            self.results = logs
        return logs

    def put_back(self):
        """After an interruption within a chunk, on JAX: Keras has the state from before
        the chunk, whose arrays are gone."""
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
        """What of it is in no variable at the end of an epoch, for a backup."""
        return {"feeds": {kind: feed.state() for kind, feed in self.feeds.items()}}

    def restore(self, state):
        for kind, feed in self.feeds.items():
            if kept := state["feeds"].get(kind):
                feed.restore(kept)


class Chunks:
    """What Keras calls for every chunk of steps, made anew whenever Keras would.

    Args:
        model: The model.
        kind: Whether it trains, `train`, or evaluates, `test`.
        step: The model's step.
        function: Keras' own, for every call that is not fused.
    """

    def __init__(self, model, kind, step, function):
        self.model = model
        self.kind = kind
        self.step = step
        self.function = function
        self.loops = {}
        #: The steps that were left to Keras since it last ran a loop.
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
    """The fused call of this model that this thread is in."""
    run = _current.get()
    return run if run is not None and run.model is model else None


@contextlib.contextmanager
def running(run):
    """Within it `run` is the current one; `None` leaves everything to Keras."""
    token = _current.set(run)
    try:
        yield
    except BaseException:
        if run is not None:
            run.put_back()
        raise
    finally:
        _current.reset(token)
