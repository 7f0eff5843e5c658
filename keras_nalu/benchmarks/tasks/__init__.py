"""The tasks of the papers' benchmarks, sampled on the device.

A task has variants, such as the nine ranges of Mistry et al. One population trains
every seed of every variant. A seed gets the same random numbers in all variants,
scaled to their ranges, as in the published code, which seeds its generator with it.
Validation and test rows are the same for all seeds of one variant.
"""

from keras_nalu.benchmarks.tasks.arithmetic import Arithmetic as Arithmetic
from keras_nalu.benchmarks.tasks.arithmetic import InaluArithmetic as InaluArithmetic
from keras_nalu.benchmarks.tasks.arithmetic import Simple as Simple
from keras_nalu.benchmarks.tasks.arithmetic import SingleModule as SingleModule
from keras_nalu.benchmarks.tasks.base import Task as Task
from keras_nalu.benchmarks.tasks.comparison import Comparison as Comparison
from keras_nalu.benchmarks.tasks.distributions import DISTRIBUTIONS as DISTRIBUTIONS
from keras_nalu.benchmarks.tasks.distributions import MIXED_SIGNS as MIXED_SIGNS
from keras_nalu.benchmarks.tasks.distributions import ONE_TO_TWO as ONE_TO_TWO
from keras_nalu.benchmarks.tasks.distributions import RANGES as RANGES
from keras_nalu.benchmarks.tasks.distributions import Benford as Benford
from keras_nalu.benchmarks.tasks.distributions import Exponential as Exponential
from keras_nalu.benchmarks.tasks.distributions import Halves as Halves
from keras_nalu.benchmarks.tasks.distributions import Normal as Normal
from keras_nalu.benchmarks.tasks.distributions import Uniform as Uniform
from keras_nalu.benchmarks.tasks.distributions import Variant as Variant
from keras_nalu.benchmarks.tasks.four_functions import FourFunctions as FourFunctions
from keras_nalu.benchmarks.tasks.running import Running as Running
from keras_nalu.benchmarks.tasks.running import RunningImages as RunningImages
