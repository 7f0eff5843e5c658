from keras_nalu.models.population.population import Population as Population
