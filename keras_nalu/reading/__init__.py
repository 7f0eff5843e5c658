"""Reading a trained model as a formula, and rounding a model to one."""

from keras_nalu.reading.models import Formula as Formula
from keras_nalu.reading.models import formula as formula
from keras_nalu.reading.rounding import discretize as discretize
