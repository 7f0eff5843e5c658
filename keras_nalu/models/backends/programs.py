"""Compiled programs, shared by all models whose traces have equal texts.

TensorFlow never frees what XLA compiled, and JAX frees it only with the model, so a
process that makes many models of one kind would reach the system's limit of mappings.
The values in which models differ, such as variables and adapted layers, are passed in;
all other differences are in the text of the trace.

On TensorFlow the trace of a step stays in memory, some 2 MB a model, and with Keras'
own `fit` twice as much: the optimizer's `all_reduce` has a custom gradient, and
TensorFlow keeps each one that was traced.
"""

import collections

#: The number of programs to hold, the last used ones. JAX frees the others.
HELD = 256

_held = collections.OrderedDict()


def compiled(text, compile):
    """The program of this text, made by `compile()` if there is none."""
    if text not in _held:
        _held[text] = compile()
        if len(_held) > HELD:
            _held.popitem(last=False)
    _held.move_to_end(text)
    return _held[text]


def forget():
    """Forgets every program, so that all are compiled again."""
    _held.clear()


class Shared:
    """A function that is traced for each kind of arguments.

    Args:
        trace: `trace(*args)` returns the compiled function for such arguments.
        kind: `kind(*args)` differs for arguments that need different traces.
    """

    def __init__(self, trace, kind):
        self._trace = trace
        self._kind = kind
        self._traced = {}

    def __call__(self, *args):
        kind = self._kind(*args)
        if kind not in self._traced:
            self._traced[kind] = self._trace(*args)
        return self._traced[kind](*args)
