"""What the metrics of every member of a population count, and how it is logged."""

import keras
import numpy as np
from keras import ops

from keras_nalu.models.population.initial import fixed

QUANTILES = {"": 0.5, "_min": 0, "_q1": 0.25, "_q3": 0.75, "_max": 1}


class Scores(keras.metrics.Metric):
    """What the metrics have counted, of every member. Keras resets it."""

    def __init__(self, size, variables):
        super().__init__(name="scores")
        self._fresh = [
            np.stack([ops.convert_to_numpy(variable)] * size) for variable in variables
        ]
        for variable, value in zip(variables, self._fresh, strict=True):
            self.add_variable(value.shape, fixed(value), variable.dtype)

    def reset_state(self):
        for variable, value in zip(self.variables, self._fresh, strict=True):
            variable.assign(value)

    def result(self):
        return {}


def quantiles(logs):
    """Of the members that did not diverge; Keras logs single numbers."""
    alive = np.isfinite(logs["loss"])
    read = {}
    for name, values in logs.items():
        finite = values[alive & np.isfinite(values)]
        levels = list(QUANTILES.values())
        of_members = np.quantile(finite, levels) if finite.size else [np.nan] * 5
        read |= {
            name + suffix: float(value)
            for suffix, value in zip(QUANTILES, of_members, strict=True)
        }
    read["diverged"] = int(np.sum(~alive))
    return read
