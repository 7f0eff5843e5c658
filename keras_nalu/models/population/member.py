"""The step of one member, as a function without side effects."""

from typing import Any

import keras
from keras import ops

from keras_nalu.models import backends
from keras_nalu.models.model import watch
from keras_nalu.models.population.optimizers import clip
from keras_nalu.models.population.scores import Scores, WeightMetrics


class Member:
    """The computation of a member. Its values are passed in and returned.

    `values` are a dictionary of the weights, `trainable` and `non_trainable`, the state
    of the metrics, `scores`, and the batch, `x`, `y` and `sample_weight`.

    Args:
        template: The model that every member copies.
        compiled: The loss and metrics, as `compile` takes them; without them it can
            only predict.
    """

    compiled: Any
    scorer: Any
    weight_metrics: Any
    #: The state of the metrics of all members, once a batch was seen.
    scores: Any = None

    def __init__(self, template, compiled=None):
        self.template = template
        self.compiled = compiled
        if compiled is not None:
            self.weight_metrics = WeightMetrics(template, watch(template, compiled))
            self.scorer = scorer_of(template)
            self.scorer.compile("sgd", **compiled)
        #: Empty until a batch was seen.
        self.names_in_logs = []

    def see(self, x, y, sample_weight):
        """Builds the metrics of a member on a batch."""
        rows = keras.tree.flatten(x)[0].shape[0]
        y_pred = keras.tree.map_structure(
            lambda o: ops.zeros((rows, *(n or 1 for n in o.shape[1:])), o.dtype),
            self.scorer.input,
        )
        self._compute_loss(y, y_pred, sample_weight, True)
        logs = self.scorer.compute_metrics(None, y, y_pred, sample_weight)
        self.names_in_logs = [*logs]
        self.scorer.reset_metrics()

    def open(self, size):
        """Creates the state of the metrics of `size` members."""
        self.scores = Scores(size, self.scorer.metrics_variables)

    def predict(self, values, training):
        """The outputs, the non-trainable weights, and the penalties."""
        return self.template.stateless_call(
            values["trainable"],
            values["non_trainable"],
            values["x"],
            training=training,
            return_losses=True,
        )

    def train(self, values, optimizer):
        """The gradients, the non-trainable weights, the logs and the scores."""
        gradient = backends.current().gradient
        gradients, seen = gradient(
            lambda trainable: self._lose(values | {"trainable": trainable}, True),
            values["trainable"],
        )
        return clip(optimizer, gradients), *self._measure(values, *seen)

    def test(self, values):
        """What `train` returns, with an empty list of gradients."""
        _, seen = self._lose(values, False)
        return [], *self._measure(values, *seen)

    def _lose(self, values, training):
        """The loss, and the outputs, non-trainable weights and scores."""
        y_pred, state, losses = self.predict(values, training)
        y, weight = values.get("y"), values.get("sample_weight")
        with self._scope(values["scores"]) as scope:
            loss = self._compute_loss(y, y_pred, weight, training)
            if len(loss.shape):
                raise ValueError(
                    "A member's loss must be one number. Received: a loss of shape "
                    f"{tuple(loss.shape)}. Give it a reduction, such as 'sum'."
                )
            loss = loss + sum(losses)
            rows = keras.tree.flatten(y_pred)[0].shape[0]
            self.scorer.metrics[0].update_state(loss, sample_weight=rows)
        return loss, (y_pred, state, self._counted(scope))

    def _compute_loss(self, y, y_pred, sample_weight, training):
        if y is None and self.compiled.get("loss") is not None:
            raise ValueError(
                "Expected labels for the loss. Received: y=None. Give them as `y`."
            )
        return self.scorer.compute_loss(None, y, y_pred, sample_weight, training)

    def _measure(self, values, y_pred, state, scores):
        y, weight = values.get("y"), values.get("sample_weight")
        with self._scope(scores) as scope:
            logs = self.scorer.compute_metrics(None, y, y_pred, weight)
        return state, logs, self._counted(scope)

    def _scope(self, scores):
        mapping = list(zip(self.scorer.metrics_variables, scores, strict=True))
        return keras.StatelessScope(state_mapping=mapping)

    def _counted(self, scope):
        variables = self.scorer.metrics_variables
        return [scope.get_current_value(variable) for variable in variables]


def scorer_of(model):
    """A model whose inputs are the outputs of `model`, to compute loss and metrics."""

    def stand_in(output, name=None):
        return keras.Input(output.shape[1:], dtype=output.dtype, name=name)

    if isinstance(model, keras.Sequential):
        outputs = stand_in(model.outputs[0])
    elif isinstance(model.output, dict):
        outputs = {
            name: stand_in(output, name) for name, output in model.output.items()
        }
    else:
        names = dict(zip(map(id, model.outputs), model.output_names, strict=True))
        outputs = keras.tree.map_structure(
            lambda output: stand_in(output, names[id(output)]), model.output
        )
    return keras.Model(outputs, outputs)
