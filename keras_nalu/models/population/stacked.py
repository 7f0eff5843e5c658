"""A model whose weights are the stacked weights of many members."""

from typing import Any

import keras
from keras import ops

from keras_nalu.layers.base import walk_layers
from keras_nalu.models.model import Model
from keras_nalu.models.population import devices
from keras_nalu.models.population.data import Data
from keras_nalu.models.population.initial import fixed, initial_values, variables_of
from keras_nalu.models.population.member import Member
from keras_nalu.models.population.optimizers import unclipped
from keras_nalu.regularizers import Counting


class Stacked(Model):
    """Trains all members as one. The first axis of each weight is the members.

    Args:
        template: The model that every member copies.
        size: Number of members.
        seed: The seed of the initial weights.
        keep: Names of the template's layers whose weights are copied.
        **kwargs: `name`, as for any Keras model.
    """

    def __init__(self, template, size, seed, keep, **kwargs):
        super().__init__(dtype=template.dtype_policy, **kwargs)
        self.size = size
        self.seed = seed
        self.keep = keep
        # Keras does not track the attributes of these objects, so that the template's
        # weights are not trained.
        self._data = Data(template, size)
        self._place = devices.where(size)
        self._member: Any = Member(template)
        self._add_weights()
        self.built = True

    def _add_weights(self):
        template = self.template
        kept = frozenset(
            id(variable)
            for layer in walk_layers(template)
            if layer.name in self.keep
            for variable in layer.variables
        )
        values = [*initial_values(template, self.size, self.seed, kept)]
        trainable = len(template.trainable_variables)
        with self._place.scope(stacked=True):
            for index, (variable, value) in enumerate(
                zip(variables_of(template), values, strict=True)
            ):
                self.add_weight(
                    shape=(self.size, *variable.shape),
                    initializer=fixed(value),
                    dtype=variable.dtype,
                    trainable=index < trainable,
                    constraint=_per_member(variable.constraint),
                    autocast=False,
                    name=variable.path.replace("/", "_"),
                )

    @property
    def template(self):
        """The model that was given."""
        return self._data.template

    @property
    def metrics(self):
        scores = self._member.scores
        return super().metrics + ([] if scores is None else [scores])

    def stacked(self, variable):
        """The variable with the members' values of this variable of the template.

        Its first axis is the members. A callback may read it, and assign to it, at the
        begin and the end of an epoch.
        """
        for each, stacked in zip(
            variables_of(self.template), self.weights, strict=True
        ):
            if each is variable:
                return stacked
        raise ValueError(
            "Expected a variable of the template. Received: "
            f"{getattr(variable, 'path', variable)!r}. It has: "
            f"{', '.join(each.path for each in variables_of(self.template))}."
        )

    def _open_scores(self, call):
        """Creates the state of the members' metrics, once there is data to build it."""
        if self.compiled and self._member.scores is None:
            with self._place.scope():
                self._member.see(*self._data.first(call))
            with self._place.scope(stacked=True):
                self._member.open(self.size)

    def call(self, inputs, training=None):
        outputs, state, _ = self._each(
            lambda values: self._member.predict(values, training), {"x": inputs}
        )
        _assign(self.non_trainable_variables, state)
        return keras.tree.map_structure(lambda y: ops.moveaxis(y, 0, 1), outputs)

    def train_step(self, *state_and_data):
        return self._step(state_and_data, training=True)

    def test_step(self, *state_and_data):
        return self._step(state_and_data, training=False)

    def _step(self, state_and_data, training):
        *state, data = state_and_data
        if not state:
            return self._run(data, training)
        # On JAX the values of the variables are passed in and returned.
        kinds = [self.trainable_variables, self.non_trainable_variables]
        if training:
            kinds.append(self.optimizer.variables)
        kinds.append(self.metrics_variables)
        mapping = []
        for variables, values in zip(kinds, state[0], strict=True):
            mapping += zip(variables, values, strict=True)
        with keras.StatelessScope(state_mapping=mapping) as scope:
            logs = self._run(data, training)
        return logs, tuple(
            [scope.get_current_value(variable) for variable in variables]
            for variables in kinds
        )

    def _run(self, data, training):
        """Takes the gradient for each member, not of the sum of their losses as Keras'
        step would. It is the same in half the time on JAX; on TensorFlow XLA would
        compile the other one on every call."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        member, optimizer = self._member, self.optimizer

        def step(values):
            return member.train(values, optimizer) if training else member.test(values)

        gradients, state, logs, scores = self._each(
            step,
            {"x": x, "y": y, "sample_weight": sample_weight},
            scores=tensors(member.scores.variables),
        )
        _assign(self.non_trainable_variables, state)
        _assign(member.scores.variables, scores)
        if training:
            with unclipped(optimizer):
                optimizer.apply(gradients, self.trainable_variables)
        return logs

    def _each(self, function, data, **stacked):
        """`function` of each member's values; `data` is shared or per member."""
        shared = {name: value for name, value in data.items() if value is not None}
        stacked["trainable"] = tensors(self.trainable_variables)
        stacked["non_trainable"] = tensors(self.non_trainable_variables)
        if self._data.is_per_member(data["x"]):
            stacked |= keras.tree.map_structure(lambda a: ops.moveaxis(a, 1, 0), shared)
            shared = {}
        return ops.vectorized_map(lambda values: function(shared | values), stacked)


def tensors(variables):
    return [ops.convert_to_tensor(variable) for variable in variables]


def _assign(variables, values):
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _per_member(constraint):
    if isinstance(constraint, Counting):
        # Stacked weights do not need it, because members count in a StatelessScope.
        constraint = constraint.constraint
    if constraint is None:
        return None
    return lambda w: ops.vectorized_map(constraint, ops.convert_to_tensor(w))
