"""The arithmetic layers, and `LAYERS`, which maps their names to their classes."""

# Registers the losses and metrics that a saved model may name beside its layers, so
# that Keras' loader finds them.
import keras_nalu.losses
import keras_nalu.metrics  # noqa: F401
from keras_nalu.layers.base import ArithmeticLayer
from keras_nalu.layers.cell import ArithmeticCell as ArithmeticCell
from keras_nalu.layers.sparsity_error import SparsityError as SparsityError

# By family; every table has them in this order.
# isort: off
from keras_nalu.layers.nac import NAC as NAC
from keras_nalu.layers.nac_mul import NACMul as NACMul
from keras_nalu.layers.nalu import NALU as NALU
from keras_nalu.layers.separate_nalu import SeparateNALU as SeparateNALU
from keras_nalu.layers.gnalu import GNALU as GNALU
from keras_nalu.layers.inalu import INALU as INALU
from keras_nalu.layers.shared_inalu import SharedINALU as SharedINALU
from keras_nalu.layers.nau import NAU as NAU
from keras_nalu.layers.nmu import NMU as NMU
from keras_nalu.layers.snmu import SNMU as SNMU
from keras_nalu.layers.naive_npu import NaiveNPU as NaiveNPU
from keras_nalu.layers.npu import NPU as NPU
from keras_nalu.layers.real_npu import RealNPU as RealNPU
from keras_nalu.layers.nru import NRU as NRU
from keras_nalu.layers.nmru import NMRU as NMRU
from keras_nalu.layers.mcfc import MCFC as MCFC
from keras_nalu.layers.mcfc import MulMCFC as MulMCFC
from keras_nalu.layers.nsr import NSR as NSR
# isort: on

LAYERS: dict[str, type[ArithmeticLayer]] = {
    name: layer
    for name, layer in list(globals().items())
    if isinstance(layer, type)
    and issubclass(layer, ArithmeticLayer)
    and layer is not ArithmeticLayer
}
