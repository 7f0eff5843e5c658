"""Every operation that a module claims, on the easiest task."""

from typing import Any

import keras

from keras_nalu.benchmarks.experiment import Experiment
from keras_nalu.benchmarks.tasks import ONE_TO_TWO, Comparison, SingleModule
from keras_nalu.datasets import COMPARISONS
from keras_nalu.layers import LAYERS
from keras_nalu.regularizers import (
    L1,
    LinearRamp,
    NegativeSquare,
    Sparsity,
    StepwiseGrowth,
)

STEPS = 50_000


def experiments(suite):
    """Yields an experiment for every operation of every module.

    All are trained on two numbers between 1 and 2 and tested between 2 and 6, by Adam
    at a rate that decays from 1e-2 to 0. Comparisons are trained on digits and tested
    on numbers of two digits.
    """
    for module, layer in LAYERS.items():
        for operation in layer.operations:
            if operation in COMPARISONS:
                task = Comparison(operation, digits=(2,))
            else:
                task = SingleModule(operation, variants=ONE_TO_TWO)
            rate = keras.optimizers.schedules.CosineDecay(1e-2, STEPS)
            yield Experiment(
                module,
                task,
                [layer(1, **_penalties(module))],
                keras.optimizers.Adam(rate),
                seeds=20,
                steps=STEPS,
                suite=suite,
            )


def _penalties(module) -> dict[str, Any]:
    """The paper's penalties. Those for discrete weights start at 40% of the training,
    as in the published benchmark."""

    def ramp(value):
        return LinearRamp(value, 2 * STEPS // 5, 7 * STEPS // 10)

    kernel = {
        "NAU": Sparsity(ramp(0.01), low=-1),
        "NRU": Sparsity(ramp(10), low=-1),
        "NMU": Sparsity(ramp(10), low=0),
        "SNMU": Sparsity(ramp(10), low=0),
        "NMRU": Sparsity(ramp(10), low=0),
        "NaiveNPU": L1(StepwiseGrowth(1e-9, 1e-7)),
    }
    both = {
        "NPU": L1(StepwiseGrowth(1e-9, 1e-7)),
        "RealNPU": L1(StepwiseGrowth(1e-9, 1e-7)),
        "MCFC": NegativeSquare(ramp(10)),
        "MulMCFC": NegativeSquare(ramp(10)),
    }
    if module in both:
        return {"kernel_regularizer": both[module], "gate_regularizer": both[module]}
    return {"kernel_regularizer": kernel[module]} if module in kernel else {}
