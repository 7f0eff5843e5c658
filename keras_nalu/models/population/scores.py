"""The state of every member's metrics, and the quantiles that are logged."""

import keras
import numpy as np
from keras import ops

from keras_nalu.models import backends
from keras_nalu.models.population.initial import fixed, variables_of

QUANTILES = {"": 0.5, "_min": 0, "_q1": 0.25, "_q3": 0.75, "_max": 1}


class Scores(keras.metrics.Metric):
    """The state of all members' metrics, as a metric, so that Keras resets it."""

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


class WeightMetrics:
    """The metrics of every member's weights, computed after the last step.

    Args:
        template: The model that every member copies.
        metrics: The `SparsityError` metrics of the population.
    """

    def __init__(self, template, metrics):
        self.template = template
        self.metrics = metrics
        self._measured = backends.current().compiled(
            lambda values: ops.vectorized_map(self._measure, values)
        )

    def measure(self, weights, logs):
        """The value of each metric for every member, by its names in the logs."""
        if not self.metrics:
            return {}
        found = self._measured([ops.convert_to_tensor(weight) for weight in weights])
        return {
            name: values
            for metric, values in zip(self.metrics, found, strict=True)
            for name in self._names(metric) & {*logs}
        }

    def _measure(self, values):
        mapping = list(zip(variables_of(self.template), values, strict=True))
        with keras.StatelessScope(state_mapping=mapping):
            return [metric.measure() for metric in self.metrics]

    def _names(self, metric):
        """The names of a metric in the logs; some begin with the name of an output."""
        model = self.template
        outputs = () if isinstance(model, keras.Sequential) else model.output_names
        return {metric.name, *(f"{name}_{metric.name}" for name in outputs)}


def quantiles(logs):
    """Quantiles over the members that did not diverge, since Keras logs numbers."""
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
