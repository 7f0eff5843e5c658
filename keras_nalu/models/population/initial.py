"""The initial weights of all members of a population."""

import keras
import numpy as np
from keras import ops

from keras_nalu.layers.base import ArithmeticLayer, walk_layers
from keras_nalu.models import backends
from keras_nalu.private import initializer_of


def variables_of(model):
    return [*model.trainable_variables, *model.non_trainable_variables]


def initial_values(model, size, seed, kept=frozenset()):
    """The initial values of every weight, stacked over the members.

    Trainable weights are sampled from the seed and the member's number. The seed of an
    initializer is ignored, because with it all members would be the same. Other weights
    are copied from the template, such as those of a frozen layer or the statistics of a
    Normalization, and so are the variables whose `id` is in `kept`. Step counters start
    at 0, and the seeds of layers differ by member.
    """
    fresh, initializers = _clone(model)
    counters = _counters(fresh)
    keys = np.random.SeedSequence(seed).generate_state(len(initializers))
    old = variables_of(model)
    trainable = len(model.trainable_variables)
    for index, variable in enumerate(variables_of(fresh)):
        states = np.stack([np.full(size, keys[index]), np.arange(size)], axis=1)
        states = states.astype("uint32")
        initializer = initializers[index]
        if variable.name == "seed_generator_state":
            yield states
        elif id(variable) in counters:
            yield np.stack([ops.convert_to_numpy(variable)] * size)
        elif index >= trainable or id(old[index]) in kept:
            yield np.stack([ops.convert_to_numpy(old[index])] * size)
        elif _is_random(initializer):
            yield _sample(variable, initializer, states)
        else:
            yield np.stack([ops.convert_to_numpy(variable)] * size)


def _clone(model):
    """A copy of the model with initial weights, and the initializers of these."""
    if model.compiled:
        # Keras would compile the copy, too, which fails within the scope.
        model = keras.Model(model.inputs, model.outputs)
    with keras.StatelessScope():
        fresh = keras.models.clone_model(model)
        initializers = [initializer_of(variable) for variable in variables_of(fresh)]
    return fresh, initializers


def _counters(model):
    """The `id`s of the variables that count steps for the penalties with a schedule."""
    return {
        id(regularizer.steps)
        for layer in walk_layers(model)
        if isinstance(layer, ArithmeticLayer)
        for regularizer in layer.scheduled
    }


def _is_random(initializer):
    config = getattr(initializer, "get_config", dict)()
    return "seed" in config


def _sample(variable, initializer, states):
    generator = keras.random.SeedGenerator(0)
    config = {**initializer.get_config(), "seed": generator}
    seeded = initializer.from_config(config)

    def sample(state):
        with keras.StatelessScope(state_mapping=[(generator.state, state)]):
            return seeded(variable.shape, dtype=variable.dtype)

    return backends.current().sample_each(sample, ops.convert_to_tensor(states))


def fixed(value):
    """An initializer that returns this value."""
    return lambda *_, **__: value
