"""Variants of the modules that other published code has.

Published figures come from these, not from the papers' equations.
"""

import math

import keras
from keras.initializers import RandomUniform

from keras_nalu import INALU, NALU, NMU, NPU, RealNPU
from keras_nalu.benchmarks.doors import clip, linear

#: Saved files of version 2.0 have this package name, so it cannot change.
register = keras.saving.register_keras_serializable(package="keras_nalu.experiments")


@register
class BlockedNPU(NPU):
    """An NPU whose gate has no gradient where it is clipped.

    Published figures come from such code: the rule that lets the gradient through is
    commented out in that of Heim et al., and missing in the ports to PyTorch. Their
    sparsity error leaves out the gate.
    """

    targets = {"kernel": (-1, 0, 1), "kernel_im": (0,)}

    @property
    def relevance(self):
        return clip(self.g, 0, 1)


@register
class BlockedRealNPU(RealNPU):
    """A RealNPU whose gate has no gradient where it is clipped: see `BlockedNPU`."""

    targets = {"kernel": (-1, 0, 1)}

    @property
    def relevance(self):
        return clip(self.g, 0, 1)


@register
class ClippedNMU(NMU):
    """The NMU of Heim et al.: initialized from U(0, 1), clipped in the equation."""

    initializer = {
        "class_name": "RandomUniform",
        "config": {"minval": 0.0, "maxval": 1.0},
    }
    constraint = None

    @property
    def kernel(self):
        return clip(self.W, 0, 1)


@register
class BiasedNALU(NALU):
    """The NALU of Heim et al.: its gate has a bias, `sigmoid(x G + b)`."""

    def __init__(self, units, *, epsilon=1e-8, **kwargs):
        super().__init__(units, epsilon=epsilon, **kwargs)

    def build(self, input_shape):
        super().build(input_shape)
        bound = math.sqrt(6 / (1 + self.units))
        self.b = self.add_weight(
            shape=(self.units,), initializer=RandomUniform(-bound, bound), name="b"
        )

    def gate(self, inputs):
        return keras.ops.sigmoid(linear(self.cast(inputs), self.G) + self.b)


@register
class GatedINALU(INALU):
    """The iNALU of Heim et al.: its gate depends on the inputs, `sigmoid(x G)`."""

    def add_kernel(self, name, shape=None, initializer=None):
        return super().add_kernel(name)

    def add_gate(self, name, shape=None, initializer=None):
        return super().add_gate("G")

    def gate(self, inputs):
        return keras.ops.sigmoid(linear(self.cast(inputs), self.g))
