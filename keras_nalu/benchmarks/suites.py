"""The papers' benchmarks: modules, recipes and tasks."""

import functools
import itertools
from typing import Any, NamedTuple

import keras

from keras_nalu.benchmarks import claims, inalu, ports
from keras_nalu.benchmarks.experiment import Experiment
from keras_nalu.benchmarks.recipes import adam, gated, recipe, sparse
from keras_nalu.benchmarks.tasks import (
    DISTRIBUTIONS,
    MIXED_SIGNS,
    RANGES,
    Arithmetic,
    Comparison,
    FourFunctions,
    InaluArithmetic,
    Running,
    RunningImages,
    Simple,
    SingleModule,
)
from keras_nalu.initializers import NACUniform
from keras_nalu.layers import (
    NAC,
    NALU,
    NAU,
    NMRU,
    NMU,
    NSR,
    ArithmeticCell,
    NACMul,
    SeparateNALU,
)
from keras_nalu.regularizers import LinearRamp, Sparsity

SUMS = "NAC", "NALU", "NAU", "INALU", "GNALU"
PRODUCTS = "NMU", "NACMul", "NALU", "NPU", "RealNPU", "INALU", "GNALU"
QUOTIENTS = "NACMul", "NALU", "NPU", "RealNPU", "INALU", "GNALU"
#: The 23 pairs of the primer of Mistry et al.
PAIRS = [
    *[("add", module) for module in SUMS],
    *[("subtract", module) for module in SUMS],
    *[("multiply", module) for module in PRODUCTS],
    *[("divide", module) for module in QUOTIENTS],
]
#: The pairs of later papers.
LATER = [
    ("add", "MCFC"),
    ("multiply", "MulMCFC"),
    ("multiply", "SNMU"),
    *[("divide", module) for module in ("RealNPU (modified)", "NRU", "NMRU")],
]
DIVIDERS = [
    ("divide", module) for module in ("RealNPU", "RealNPU (modified)", "NRU", "NMRU")
]


def _single(suite, pairs, inputs=2, variants=RANGES, threshold=1e-5):
    if threshold != 1e-5:
        suite += f"-{threshold}"
    for operation, module in pairs:
        yield Experiment(
            module,
            SingleModule(
                operation, inputs=inputs, variants=variants, threshold=threshold
            ),
            steps=50_000 if inputs == 2 else 100_000,
            suite=suite,
            **recipe(module, operation, inputs),
        )


def _beyond(suite):
    """Products and quotients of two of 10 inputs, on which the published recipes fail.

    The rate decays to 0, as small errors in the weights of eight irrelevant inputs
    count. Variants have initial weights near 0, with which a product of ten factors
    neither explodes nor vanishes, and take the best of four runs by validation.
    """
    steps = 20_000
    near = keras.initializers.RandomUniform(0.0, 0.1)
    for operation, kinds in {"multiply": (NMU, NMRU), "divide": (NMRU,)}.items():
        for kind, (name, start, restarts) in itertools.product(
            kinds, [("", None, 1), (", near 0", near, 1), (", best of 4", near, 4)]
        ):
            if kind is NMU and restarts > 1:
                continue  # if the NMU fails, it does with all seeds
            penalty = sparse(10, 0, 2 * steps // 5, 7 * steps // 10)
            rate = keras.optimizers.schedules.CosineDecay(1e-2, steps)
            clips = {"global_clipnorm": 1.0} if kind is NMRU else {}
            yield Experiment(
                kind.__name__ + name,
                SingleModule(operation, inputs=10),
                [kind(1, kernel_initializer=start, kernel_regularizer=penalty)],
                adam(rate, **clips),
                steps=steps,
                restarts=restarts,
                suite=suite,
            )


def _two_layers(module):
    """The models of Madsen and Johansen, on 100 inputs."""
    nmu = LinearRamp(10, 1_000_000, 2_000_000)
    nau = LinearRamp(0.01, 5_000, 50_000)
    init = {"kernel_initializer": NACUniform()}
    match module:
        case "Linear":
            return [keras.layers.Dense(2), keras.layers.Dense(1)]
        case "NAC":
            return [NAC(2, **init), NAC(1, **init)]
        case "NACMul":
            return [NAC(2, **init), NACMul(1, **init)]
        case "NALU":
            return [NALU(2, **gated()), NALU(1, **gated())]
        case "NALU behind NAC":
            return [NAC(2, **init), NALU(1, **gated())]
        case "SeparateNALU behind NAC":
            return [NAC(2, **init), SeparateNALU(1, **gated())]
        case "NAU":
            return [
                NAU(units, kernel_regularizer=Sparsity(nau, low=-1)) for units in (2, 1)
            ]
        case "NMU":
            return [
                NAU(2, kernel_regularizer=Sparsity(nmu, low=-1)),
                NMU(1, kernel_regularizer=Sparsity(nmu, low=0)),
            ]
    raise ValueError(f"Unknown model. Received: module={module!r}.")


def _arithmetic(suite, task, modules, operations, thousands):
    for operation in operations:
        for module in modules:
            yield Experiment(
                module,
                task(operation),
                _two_layers(module),
                adam(),
                seeds=100,
                steps=1000 * thousands,
                suite=suite,
            )


def _inalu(suite, inputs):
    for operation in ("add", "subtract", "multiply", "divide"):
        for module, layer in inalu.MODULES.items():
            yield Experiment(
                module,
                InaluArithmetic(operation, inputs=inputs),
                [layer(1)],
                inalu.INALUAdam(),
                seeds=10,
                steps=100_000,
                rules=("inalu",),
                suite=suite,
            )


def _rmsprop(rate):
    """RMSProp as in Flux, which adds 1e-8 to the root; Keras adds to the square."""
    return keras.optimizers.RMSprop(rate, epsilon=1e-16)


def _heim(suite):
    """The models of Heim et al., whose NAU is an unconstrained matrix."""
    last = keras.layers.Dense(4, use_bias=False)
    glorot = "glorot_uniform"
    nalu: Any = {"kernel_initializer": glorot, "gate_initializer": glorot}
    sigmoids = [keras.layers.Dense(10, "sigmoid") for _ in range(2)]
    npu = adam(5e-3)
    for module, layers, optimizer in [
        ("NPU", [ports.BlockedNPU(6), last], npu),
        ("RealNPU", [ports.BlockedRealNPU(6), last], npu),
        ("NMU", [ports.ClippedNMU(6), last], npu),
        ("NALU", [ports.BiasedNALU(units, **nalu) for units in (6, 4)], _rmsprop(5e-3)),
        (
            "INALU",
            [ports.GatedINALU(units, **nalu) for units in (6, 4)],
            _rmsprop(1e-3),
        ),
        ("Dense", [*sigmoids, keras.layers.Dense(4)], npu),
    ]:
        yield Experiment(
            module,
            FourFunctions(),
            layers,
            optimizer,
            seeds=20,
            steps=20_000,
            suite=suite,
        )


def _comparisons(suite):
    for operation in NSR.operations:
        yield Experiment(
            "NSR",
            Comparison(operation),
            [NSR(1)],
            adam(),
            seeds=10,
            steps=50_000,
            suite=suite,
        )


def _running(suite):
    sparse = LinearRamp(10, 10_000, 20_000)
    layers = {
        "add": {
            "NAC": NAC(1, kernel_initializer=NACUniform()),
            "NAU": NAU(1, kernel_regularizer=Sparsity(sparse, low=-1)),
        },
        "multiply": {
            "NACMul": NACMul(1, kernel_initializer=NACUniform()),
            "NMU": NMU(1, kernel_regularizer=Sparsity(sparse, low=0)),
        },
    }
    for operation, modules in layers.items():
        for module, layer in modules.items():
            yield Experiment(
                module,
                Running(operation),
                [keras.layers.RNN(ArithmeticCell(layer), return_sequences=True)],
                adam(),
                seeds=10,
                steps=30_000,
                suite=suite,
            )


def _running_images(suite):
    for operation, cell in {"add": NAU(1), "multiply": NMU(1)}.items():
        yield Experiment(
            type(cell).__name__,
            RunningImages(operation),
            [
                keras.layers.Dense(64, "relu"),
                keras.layers.Dense(1),
                keras.layers.RNN(ArithmeticCell(cell), return_sequences=True),
            ],
            adam(),
            seeds=10,
            steps=20_000,
            suite=suite,
        )


class Suite(NamedTuple):
    """A suite's description, and the function that makes its experiments."""

    description: str
    experiments: Any
    #: Whether its function takes `threshold`.
    has_thresholds: bool


FOUR = "add", "subtract", "multiply", "divide"
MODELS = "Linear", "NAC", "NACMul", "NALU", "NAU", "NMU"
GATES = "NALU behind NAC", "SeparateNALU behind NAC"
#: {name: (description, function that yields its experiments, *arguments)}.
_TABLE: dict[str, Any] = {
    "single-module": (
        "one module, two inputs, nine ranges: the primer of Mistry et al.",
        *(_single, PAIRS),
    ),
    "single-module-later": (
        "one module, two inputs, nine ranges: modules of later papers",
        *(_single, LATER),
    ),
    "single-module-10": (
        "two of 10 inputs matter, 100,000 steps; NAU and iNALU are published",
        *(_single, PAIRS, 10),
    ),
    "single-module-100": (
        "two of 100 inputs matter, 100,000 steps; NAU is published",
        *(_single, PAIRS, 100),
    ),
    "division": (
        "division of two inputs (Mistry et al., division)",
        *(_single, DIVIDERS),
    ),
    "division-10": (
        "division, two of 10 inputs matter (the same paper)",
        *(_single, DIVIDERS, 10),
    ),
    "division-signs": (
        "division of numbers of different signs",
        *(_single, DIVIDERS, 2, MIXED_SIGNS),
    ),
    "division-distributions": (
        "division of numbers that are not uniform in one range",
        *(_single, DIVIDERS, 2, DISTRIBUTIONS),
    ),
    "claims": (
        "every operation that a module of this package claims, 20 seeds",
        claims.experiments,
    ),
    "beyond": (
        "two of 10 inputs, with a decaying rate, from weights near 0",
        _beyond,
    ),
    "arithmetic": (
        "sums of subsets of 100 inputs, two layers, 5,000,000 steps, 100 seeds: the "
        "main table of Madsen and Johansen",
        *(_arithmetic, Arithmetic, MODELS, (*FOUR, "square", "root"), 5000),
    ),
    "arithmetic-gates": (
        "the same, with a NALU as the second layer",
        *(_arithmetic, Arithmetic, GATES, ("add", "multiply"), 5000),
    ),
    "arithmetic-simple": (
        "(x1 + x2) (x1 + x2 + x3 + x4), 100 seeds (the same paper)",
        *(_arithmetic, Simple, ("NMU", "NALU", "NACMul"), ("multiply",), 200),
    ),
    "inalu-minimal": (
        "two inputs, seven distributions, 10 seeds: experiment 1 of Schlör et al.",
        *(_inalu, 2),
    ),
    "inalu-simple": (
        "the same with 10 inputs, two of which matter: their experiment 2",
        *(_inalu, 10),
    ),
    "npu-simple": ("sum, product, quotient and root at once (Heim et al.)", _heim),
    "comparisons": (
        "which of two digits is less (Faber and Wattenhofer)",
        _comparisons,
    ),
    "running": (
        "running sums and products of digits, by a recurrent cell",
        _running,
    ),
    "running-images": (
        "the same for images of digits, with a small network; needs scikit-learn and "
        "--backend jax",
        _running_images,
    ),
}
#: The suites by their names in `keras-nalu benchmark`.
SUITES = {
    name: Suite(description, functools.partial(make, name, *given), make is _single)
    for name, (description, make, *given) in _TABLE.items()
}
