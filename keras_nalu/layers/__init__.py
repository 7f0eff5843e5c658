"""The arithmetic layers, and `LAYERS`: name -> class, the one list of them."""

# A saved model names its loss and metric beside its layers: whoever imported a layer
# can load the file with Keras' own loader.
import keras_nalu.losses
import keras_nalu.metrics  # noqa: F401
from keras_nalu.layers.nac import NAC as NAC
from keras_nalu.layers.nalu import NALU as NALU

LAYERS = {layer.__name__: layer for layer in (NAC, NALU)}
