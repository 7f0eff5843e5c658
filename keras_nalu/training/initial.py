"""The initial weights of many models at once."""

import inspect
from unittest import mock

import keras
import numpy as np
from keras import ops

from keras_nalu.layers.base import walk_layers
from keras_nalu.training import feeds


def variables_of(model):
    return [*model.trainable_variables, *model.non_trainable_variables]


def draw_members(model, size, seed):
    """Initial values of every weight, drawn anew for every member.

    A member's values depend on the seed and its number alone, and on no seed that an
    initializer was given: with that all members were the same.
    """
    backend = feeds.backend_module()
    keys = np.random.SeedSequence(seed).generate_state(len(variables_of(model)))
    for key, (variable, initializer) in zip(keys, _initializers(model), strict=True):
        states = np.stack([np.full(size, key), np.arange(size)], axis=1)
        states = states.astype("uint32")
        if variable.name == "seed_generator_state":
            yield states
        elif initializer is None:
            yield np.stack([ops.convert_to_numpy(variable)] * size)
        else:
            generator = keras.random.SeedGenerator(0)
            config = {**initializer.get_config(), "seed": generator}
            seeded = initializer.from_config(config)

            def draw(state, seeded=seeded, generator=generator, variable=variable):
                mapping = [(generator.state, state)]
                with keras.StatelessScope(state_mapping=mapping):
                    return seeded(variable.shape, dtype=variable.dtype)

            yield backend.draw_each(draw, ops.convert_to_tensor(states))


def _initializers(model):
    """Of every weight, its value where nothing is drawn, and else what draws it."""
    drawn_by = {}
    add = keras.layers.Layer.add_weight

    def add_weight(layer, *args, **kwargs):
        variable = add(layer, *args, **kwargs)
        given = inspect.signature(add).bind(layer, *args, **kwargs).arguments
        default = "glorot_uniform" if "float" in variable.dtype else "zeros"
        initializer = keras.initializers.get(given.get("initializer") or default)
        if "seed" in getattr(initializer, "get_config", dict)():
            drawn_by[id(variable)] = initializer
        return variable

    # For the layers within layers, too.
    with mock.patch.object(keras.layers.Layer, "add_weight", add_weight):
        fresh = keras.models.clone_model(model)
    counts = {
        id(regularizer.steps)
        for layer in walk_layers(fresh)
        for regularizer in getattr(layer, "scheduled", ())
    }
    # What is not trained may have been adapted to data; what counts steps begins anew.
    pairs = zip(
        fresh.non_trainable_variables, model.non_trainable_variables, strict=True
    )
    adapted = [new if id(new) in counts else old for new, old in pairs]
    values = [*fresh.trainable_variables, *adapted]
    return [
        (value, drawn_by.get(id(variable)))
        for value, variable in zip(values, variables_of(fresh), strict=True)
    ]


def fixed(value):
    """An initializer that gives this value."""
    return lambda *_, **__: value
