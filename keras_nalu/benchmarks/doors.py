"""What the benchmarks take from the package that has no public name.

Everything else in this room uses public names. Missing are: a drawn data set that has a
seed of its own and may begin again in every epoch (`Sampled`), and products that keep
all digits of float32 on a GPU (`matmul`, `linear`, `clip`).
"""

from keras_nalu.models.feeds.sampled import Sampled as Sampled
from keras_nalu.ops import clip as clip
from keras_nalu.ops import linear as linear
from keras_nalu.ops import matmul as matmul
