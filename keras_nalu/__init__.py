"""Neural arithmetic layers for Keras 3.

Public names load on first use (PEP 562): importing the package alone loads no
framework, so that the backend can still be chosen and the command line answers
at once.
"""

import importlib
import importlib.metadata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keras_nalu import constraints as constraints
    from keras_nalu import initializers as initializers
    from keras_nalu import regularizers as regularizers
    from keras_nalu.backup import BackupAndRestore as BackupAndRestore
    from keras_nalu.callbacks import EpochLine as EpochLine
    from keras_nalu.callbacks import StopWhenSolved as StopWhenSolved
    from keras_nalu.datasets import EXTRAPOLATION as EXTRAPOLATION
    from keras_nalu.datasets import generate_dataset as generate_dataset
    from keras_nalu.discovery import ArithmeticRegressor as ArithmeticRegressor
    from keras_nalu.exporting import export as export
    from keras_nalu.formulas import discretize as discretize
    from keras_nalu.formulas import formula as formula
    from keras_nalu.layers import GNALU as GNALU
    from keras_nalu.layers import INALU as INALU
    from keras_nalu.layers import MCFC as MCFC
    from keras_nalu.layers import NAC as NAC
    from keras_nalu.layers import NALU as NALU
    from keras_nalu.layers import NAU as NAU
    from keras_nalu.layers import NMRU as NMRU
    from keras_nalu.layers import NMU as NMU
    from keras_nalu.layers import NPU as NPU
    from keras_nalu.layers import NRU as NRU
    from keras_nalu.layers import NSR as NSR
    from keras_nalu.layers import SNMU as SNMU
    from keras_nalu.layers import ArithmeticCell as ArithmeticCell
    from keras_nalu.layers import MulMCFC as MulMCFC
    from keras_nalu.layers import NACMul as NACMul
    from keras_nalu.layers import NaiveNPU as NaiveNPU
    from keras_nalu.layers import RealNPU as RealNPU
    from keras_nalu.layers import SeparateNALU as SeparateNALU
    from keras_nalu.layers import SharedINALU as SharedINALU
    from keras_nalu.losses import L2Loss as L2Loss
    from keras_nalu.metrics import IsCloseAccuracy as IsCloseAccuracy
    from keras_nalu.metrics import LastBatchLoss as LastBatchLoss
    from keras_nalu.metrics import SparsityError as SparsityError
    from keras_nalu.models import Model as Model
    from keras_nalu.models import Population as Population
    from keras_nalu.models import Sequential as Sequential
    from keras_nalu.saving import load_model as load_model
    from keras_nalu.tensorboard import TensorBoard as TensorBoard

    __version__: str

_ROOMS = {
    "ArithmeticCell": "layers",
    "ArithmeticRegressor": "discovery",
    "BackupAndRestore": "backup",
    "EXTRAPOLATION": "datasets",
    "EpochLine": "callbacks",
    "IsCloseAccuracy": "metrics",
    "L2Loss": "losses",
    "LastBatchLoss": "metrics",
    "GNALU": "layers",
    "INALU": "layers",
    "MCFC": "layers",
    "MulMCFC": "layers",
    "NAC": "layers",
    "NACMul": "layers",
    "NALU": "layers",
    "NAU": "layers",
    "NMRU": "layers",
    "NMU": "layers",
    "NPU": "layers",
    "NRU": "layers",
    "NSR": "layers",
    "NaiveNPU": "layers",
    "RealNPU": "layers",
    "SNMU": "layers",
    "SeparateNALU": "layers",
    "SharedINALU": "layers",
    "Model": "models",
    "Population": "models",
    "Sequential": "models",
    "SparsityError": "metrics",
    "StopWhenSolved": "callbacks",
    "TensorBoard": "tensorboard",
    "discretize": "formulas",
    "export": "exporting",
    "formula": "formulas",
    "generate_dataset": "datasets",
    "load_model": "saving",
}

#: Rooms with many names, used as Keras' own: `keras_nalu.regularizers.Sparsity()`.
_MODULES = "constraints", "initializers", "regularizers"

#: What an extra is needed for, and so not part of `from keras_nalu import *`.
_OF_EXTRAS = {"ArithmeticRegressor"}

__all__ = sorted({*_ROOMS} - _OF_EXTRAS)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str):
    if name == "__version__":
        try:
            return importlib.metadata.version("keras-nalu")
        except importlib.metadata.PackageNotFoundError:
            return "not installed"
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_ROOMS[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_ROOMS, *_MODULES])
