"""A small experiment, for tests of code that handles experiments."""

import keras
import pytest

from keras_nalu import NMU
from keras_nalu.benchmarks.experiment import Experiment
from keras_nalu.benchmarks.tasks import RANGES, SingleModule

BACKEND = keras.backend.backend()
TORCH = BACKEND == "torch"
trains_populations = pytest.mark.skipif(TORCH, reason="trains no populations")


def small(module=None, steps=20, **changes):
    given = {
        "module": "NMU",
        "task": SingleModule("multiply", variants=RANGES[6:8]),
        "layers": [module or NMU(1)],
        "optimizer": keras.optimizers.Adam(0.1),
        "seeds": 2,
        "steps": steps,
        "log_every": 10,
    }
    return Experiment(**given | changes)
