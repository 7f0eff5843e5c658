"""The training of every module in published code."""

from keras.optimizers import Adam

from keras_nalu.benchmarks import inalu, ports
from keras_nalu.constraints import Clip
from keras_nalu.initializers import NACUniform, NAUUniform
from keras_nalu.layers import (
    GNALU,
    MCFC,
    NAC,
    NALU,
    NAU,
    NMRU,
    NMU,
    NRU,
    SNMU,
    MulMCFC,
    NACMul,
)
from keras_nalu.regularizers import (
    L1,
    Discretization,
    LinearRamp,
    NegativeSquare,
    Sparsity,
    StepwiseGrowth,
)


def adam(rate=1e-3, **kwargs):
    """Adam with the epsilon of PyTorch in the published code. Keras adds it before the
    bias correction, so that it counts up to 30 times as much in the first steps."""
    return Adam(rate, epsilon=1e-8, **kwargs)


def gated():
    """The initial weights of NAC and NALU in the published code."""
    return {"kernel_initializer": NACUniform(), "gate_initializer": "glorot_uniform"}


def sparse(coefficient, low, start, end):
    return Sparsity(LinearRamp(coefficient, start, end), low=low)


def _npu(layer, first, last, **kwargs):
    l1 = L1(StepwiseGrowth(first, last))
    return [layer(1, kernel_regularizer=l1, gate_regularizer=l1, **kwargs)]


def _modified(start, end):
    l1 = L1(StepwiseGrowth(1e-9, 1e-7))
    return [
        ports.BlockedRealNPU(
            1,
            kernel_regularizer=l1 + Discretization(LinearRamp(1, start, end)),
            gate_regularizer=l1 + sparse(1, 0, start, end),
            kernel_constraint=Clip(-1, 1),
            gate_constraint=Clip(0, 1),
            kernel_initializer=NAUUniform(),
        )
    ]


def recipe(module, operation, inputs=2):
    """The published training of a module on the single module task, as arguments of an
    `Experiment`. The schedules are for 50,000 steps, or 100,000 with more than two
    inputs; for these the code has only NAU, iNALU and the modules that divide.
    """
    ramp = (20_000, 35_000) if inputs == 2 else (50_000, 75_000)
    growth = (1e-7, 1e-5) if operation == "multiply" else (1e-9, 1e-7)
    optimizer, rules = adam(), ()
    match module:
        case "NAC":
            layers = [NAC(1, kernel_initializer=NACUniform())]
        case "NACMul":
            layers = [NACMul(1, kernel_initializer=NACUniform())]
        case "NALU":
            layers = [NALU(1, **gated())]
        case "GNALU":
            layers = [GNALU(1, **gated())]
        case "NAU":
            layers = [NAU(1, kernel_regularizer=sparse(0.01, -1, *ramp))]
        case "NMU":
            layers = [NMU(1, kernel_regularizer=sparse(10, 0, *ramp))]
        case "SNMU":
            layers = [SNMU(1, kernel_regularizer=sparse(10, 0, *ramp))]
        case "NPU":
            layers, optimizer = _npu(ports.BlockedNPU, *growth), adam(5e-3)
        case "RealNPU":
            layers, optimizer = _npu(ports.BlockedRealNPU, *growth), adam(5e-3)
        case "RealNPU (modified)":
            ends = (40_000, 50_000) if inputs == 2 else ramp
            layers, optimizer = _modified(*ends), adam(5e-3)
        case "NRU":
            layers = [NRU(1, kernel_regularizer=sparse(10, -1, *ramp))]
            optimizer = adam(1.0 if inputs == 2 else 1e-3)
        case "NMRU":
            layers = [NMRU(1, kernel_regularizer=sparse(10, 0, *ramp))]
            optimizer = adam(1e-2, global_clipnorm=1.0)
        case "MCFC" | "MulMCFC":
            large = NegativeSquare(LinearRamp(10, *ramp))
            kind = MCFC if module == "MCFC" else MulMCFC
            layers = [kind(1, kernel_regularizer=large, gate_regularizer=large)]
        case "INALU":
            layers, optimizer = [inalu.PortedINALU(1)], adam(clipvalue=0.1)
            rules = ("inalu port",)
        case _:
            raise ValueError(
                "There is no published recipe for this module. Received: "
                f"module={module!r}. Pass layers and an optimizer to `Experiment`."
            )
    return {"layers": layers, "optimizer": optimizer, "rules": rules}
