"""The tests of every arithmetic layer, as a suite to inherit from.

class TestSquareNMU(Conformance):
    layer = SquareNMU
    ideal = {"multiply": [np.ones((2, 1))]}
    answers = {"multiply": lambda a, b: (a * b) ** 2}

    @staticmethod
    def equation(ops, x, W):
        return ops.prod(W * ops.expand_dims(ops.square(x), -1) + (1 - W), axis=-2)
"""

import pytest
from oracles.conformance.arguments import Arguments
from oracles.conformance.calls import Calls, Dtypes
from oracles.conformance.equations import Authors, Equation
from oracles.conformance.facts import SLOW
from oracles.conformance.limits import Limits
from oracles.conformance.solutions import Reading, Solutions
from oracles.conformance.weights import INITIALIZERS, Weights
from oracles.vectors import CLIPPED, SCRAMBLED, files_of


class Conformance(
    Calls,
    Arguments,
    Weights,
    Dtypes,
    Equation,
    Authors,
    Solutions,
    Reading,
    Limits,
):
    """The suite: `class TestX(Conformance)` states the facts of its layer."""

    def pytest_generate_tests(self, metafunc):
        cls = metafunc.cls
        forms = (False, True) if cls.trains else (False,)
        sane = [f for f in files_of(cls.modules) if f not in CLIPPED | SCRAMBLED]
        values = {
            "argument": cls.arguments(),
            "which": ["kernel", "gate"] if cls.gates else ["kernel"],
            "form": forms,
            "file": sane,
            "operation": list(cls.ideal),
            "number": [n for n in ("epsilon", "omega", "scale") if n in cls.second],
            "kind": [
                kind
                if kind in ("default", "seeded")
                else pytest.param(kind, marks=SLOW)
                for kind in INITIALIZERS
            ],
        }
        for name in {*values} & {*metafunc.fixturenames}:
            metafunc.parametrize(name, values[name])
        for name in {"exactly", "rounded"} & {*metafunc.fixturenames}:
            cases = getattr(cls, name)
            metafunc.parametrize(name, cases, ids=[text for *_, text in cases])
