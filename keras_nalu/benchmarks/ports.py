"""Modules as other published code has them, where that differs from the paper's own.

Published figures come from these; the package's layers are in `keras_nalu.layers`.
"""

import math

import keras
from keras.initializers import RandomUniform

from keras_nalu import ops
from keras_nalu.layers import INALU, NALU, NMU, NPU, RealNPU
from keras_nalu.layers.base import GatedLayer, effective

register = keras.saving.register_keras_serializable(package="keras_nalu.experiments")


@register
class BlockedNPU(NPU):
    """An NPU whose gate has no gradient where it is clipped.

    So it is in all the code that published figures come from: the rule that lets the
    gradient through is commented out in that of Heim et al., and missing in the ports
    to PyTorch. Their sparsity error leaves the gate out.
    """

    targets = {"kernel": (-1, 0, 1), "kernel_im": (0,)}

    @effective
    def relevance(self):
        return ops.clip(ops.widen(self.g), 0, 1)


@register
class BlockedRealNPU(RealNPU):
    """A RealNPU whose gate has no gradient where it is clipped: see `BlockedNPU`."""

    targets = {"kernel": (-1, 0, 1)}

    @effective
    def relevance(self):
        return ops.clip(ops.widen(self.g), 0, 1)


@register
class ClippedNMU(NMU):
    """The NMU of Heim et al.: drawn from [0, 1], and clipped in the equation alone."""

    initializer = {
        "class_name": "RandomUniform",
        "config": {"minval": 0.0, "maxval": 1.0},
    }
    constraint = None

    @effective
    def kernel(self):
        return ops.clip(ops.widen(self.W), 0, 1)


@register
class BiasedNALU(NALU):
    """The NALU of Heim et al.: its gate has a bias, `sigmoid(x G + b)`."""

    def __init__(self, units, *, epsilon=1e-8, **kwargs):
        super().__init__(units, epsilon=epsilon, **kwargs)

    def build(self, input_shape):
        super().build(input_shape)
        bound = math.sqrt(6 / (1 + self.units))
        self.b = self._add("b", (self.units,), RandomUniform(-bound, bound))

    def gate(self, inputs):
        return keras.ops.sigmoid(ops.linear(self.cast(inputs), self.G) + self.b)


@register
class GatedINALU(INALU):
    """The iNALU of Heim et al.: its gate depends on the inputs, `sigmoid(x G)`."""

    def build(self, input_shape):
        GatedLayer.build(self, input_shape)
        for name in ("W_a_hat", "M_a_hat", "W_m_hat", "M_m_hat"):
            setattr(self, name, self.add_kernel(name))
        self.G = self.add_gate("G")

    def gate(self, inputs):
        return keras.ops.sigmoid(ops.linear(self.cast(inputs), self.G))
