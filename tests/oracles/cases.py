"""The test classes of all layers, for tests of more than one layer."""

import importlib

from keras_nalu.layers import LAYERS


def case(cls):
    """The test class of a layer's class."""
    file = cls.__module__.rpartition(".")[2]
    tests = importlib.import_module(f"layers.test_{file}")
    return getattr(tests, f"Test{cls.__name__}")


CASES = {name: case(cls) for name, cls in LAYERS.items()}
