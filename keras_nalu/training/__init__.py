from keras_nalu.training.fused import Model as Model
from keras_nalu.training.fused import Sequential as Sequential
from keras_nalu.training.population import Population as Population
