"""Programs that are compiled once, for all models of which they are the same.

TensorFlow never frees what XLA compiled, and JAX only with the model: a process that
makes model after model of one kind would end at the system's limit of mappings. What a
model differs in, such as its variables and adapted layers, is passed in, or stands in
the text of its trace. Whose texts are equal share one program.
"""

import collections

#: How many are held, the last used ones. JAX frees the others.
HELD = 256

_held = collections.OrderedDict()


def compiled(text, compile):
    """The program of this text; where there is none, that of `compile()`."""
    if text not in _held:
        _held[text] = compile()
        if len(_held) > HELD:
            _held.popitem(last=False)
    _held.move_to_end(text)
    return _held[text]


def forget():
    """Has every program compiled anew."""
    _held.clear()


class Shared:
    """A function that is traced for each kind of arguments.

    Args:
        trace: `trace(*args)` returns what computes the function of such arguments.
        kind: `kind(*args)` tells those apart that need another trace.
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
