"""The public names, once: `__init__.py` loads each on first use."""

from . import constraints as constraints
from . import initializers as initializers
from . import regularizers as regularizers
from .backup import BackupAndRestore as BackupAndRestore
from .callbacks import EpochLine as EpochLine
from .callbacks import StopWhenSolved as StopWhenSolved
from .datasets import EXTRAPOLATION as EXTRAPOLATION
from .datasets import generate_dataset as generate_dataset
from .discovery import ArithmeticRegressor as ArithmeticRegressor
from .exporting import export as export
from .formulas import discretize as discretize
from .formulas import formula as formula
from .layers import GNALU as GNALU
from .layers import INALU as INALU
from .layers import MCFC as MCFC
from .layers import NAC as NAC
from .layers import NALU as NALU
from .layers import NAU as NAU
from .layers import NMRU as NMRU
from .layers import NMU as NMU
from .layers import NPU as NPU
from .layers import NRU as NRU
from .layers import NSR as NSR
from .layers import SNMU as SNMU
from .layers import ArithmeticCell as ArithmeticCell
from .layers import MulMCFC as MulMCFC
from .layers import NACMul as NACMul
from .layers import NaiveNPU as NaiveNPU
from .layers import RealNPU as RealNPU
from .layers import SeparateNALU as SeparateNALU
from .layers import SharedINALU as SharedINALU
from .layers import SparsityError as SparsityError
from .losses import L2Loss as L2Loss
from .metrics import IsCloseAccuracy as IsCloseAccuracy
from .metrics import LastBatchLoss as LastBatchLoss
from .models import Model as Model
from .models import Population as Population
from .models import Sequential as Sequential
from .saving import load_model as load_model
from .tensorboard import TensorBoard as TensorBoard

__version__: str
