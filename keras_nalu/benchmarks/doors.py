"""The names of the package that the benchmarks use and that are not public.

`Sampled` is a data set sampled on the device with a seed, which can repeat every epoch;
`matmul`, `linear` and `clip` keep all digits of float32 on a GPU.
"""

from keras_nalu.models.feeds.sampled import Sampled as Sampled
from keras_nalu.ops import clip as clip
from keras_nalu.ops import linear as linear
from keras_nalu.ops import matmul as matmul
