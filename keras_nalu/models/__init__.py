from keras_nalu.models.model import Model as Model
from keras_nalu.models.model import Sequential as Sequential
from keras_nalu.models.population import Population as Population
