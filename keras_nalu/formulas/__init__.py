"""Reading a trained model as a formula, and rounding a model to one."""

from keras_nalu.formulas.answer import Formula as Formula
from keras_nalu.formulas.discretize import discretize as discretize
from keras_nalu.formulas.read import formula as formula
