"""Many models of one architecture, trained as one."""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_nalu import expect
from keras_nalu.layers.base import walk_layers
from keras_nalu.models import backends, fusing
from keras_nalu.models.arrays import are_arrays
from keras_nalu.models.model import like, watch
from keras_nalu.models.planning import arguments
from keras_nalu.models.population.initial import variables_of
from keras_nalu.models.population.member import Member
from keras_nalu.models.population.optimizers import (
    exclude_as,
    expect_elementwise,
)
from keras_nalu.models.population.run import PopulationPlanner
from keras_nalu.models.population.stacked import Stacked
from keras_nalu.models.run import current


@keras.saving.register_keras_serializable(package="keras_nalu")
class Population(Stacked):
    """Many models of one architecture, trained as one program with a seed for each.

    Members differ in their initial weights, sampled by the template's initializers, and
    train as if alone: the loss is summed over the members, and optimizers that would
    mix their gradients are refused. A member that diverges disturbs no other.

    `compile`, `fit`, `evaluate` and `predict` are those of any Keras model, and run as
    in `keras_nalu.Sequential`, with these differences:

    - Data of shape (rows, ...) is shared; data of shape (members, rows, ...) is per
      member, and so is that of a function, `fit(sample, steps_per_epoch=1000)`:
      `sample(stream)` returns one batch, sampled on the device by
      `stream.uniform(shape, low, high)`, which puts the members' axis in front.
    - Logs, and so History and TensorBoard, hold quantiles over the members: `loss` is
      the median, beside `loss_min`, `loss_q1`, `loss_q3` and `loss_max`. `diverged`
      counts the members whose loss is not finite; the quantiles leave them out.
      `fit(...).members` has the logs of every member, in arrays of shape (epochs,
      members); in a callback's `on_epoch_end`, `population.member_logs` has those of
      the epoch.
    - `evaluate` and `predict` return arrays with the members first.
    - If it is made under a `keras.distribution`, on JAX, its members are spread equally
      over the devices.
    - Callbacks see a chunk of steps as one batch. The members train step by step if a
      callback looks at single batches, and on a generator, a `PyDataset` or a data set
      without static shapes.

    Weights that are not trained, such as those of a frozen layer or an adapted
    `Normalization`, are copied from the template. Trainable weights are sampled, even
    if the template was trained or loaded, except in the layers of `keep`.

    Args:
        model: The template, a `Sequential` or functional model with an input. It is
            not changed.
        size: Number of members.
        seed: An integer makes the initial weights reproducible; those of a member
            depend only on the seed and its number. `None` takes NumPy's global
            generator, which `keras.utils.set_random_seed` seeds.
        keep: Layers of the template, or their names, whose weights every member copies
            although they are trainable, such as pretrained ones.
        **kwargs: `name`, as for any Keras model.

    Raises:
        ValueError: the template has no input, or overrides its step, loss or metrics;
            `size` is not a positive integer, or not a multiple of the devices; the
            backend is PyTorch; in `compile`, an optimizer that does not treat every
            weight by itself, clipping by norm with accumulated gradients, the policy
            `mixed_float16`, or running eagerly; in `fit`, data for another number of
            members.

    Example:

    >>> template = keras.Sequential([keras.Input((2,)), NALU(1)])
    >>> population = keras_nalu.Population(template, 10, seed=0)
    >>> population.compile(keras.optimizers.Adam(0.1), "mse")
    >>> X, Y = generate_dataset(seed=0)
    >>> history = population.fit(X, Y, batch_size=10, epochs=20, verbose=0)
    >>> history.members["loss"].shape
    (20, 10)
    >>> print(formula(population.best(X, Y), X))
    y = x0 * x1
    """

    planner = PopulationPlanner

    def __init__(self, model, size, seed=None, keep=(), **kwargs):
        _expect_template(model)
        size = expect.integer("size", size)
        if seed is None:
            # `keras.utils.set_random_seed` seeds this generator.
            seed = np.random.randint(2**31)  # noqa: NPY002
        expected = "None or an integer of 0 or more"
        seed = expect.integer("seed", seed, expected, 0, math.inf, 0)
        super().__init__(model, size, seed, _names(model, keep), **kwargs)
        #: The runs of the last epoch of `fit` and of the last `evaluate`.
        self._last: Any = None
        self._evaluated: Any = None
        self._predicted_per_member: Any = None

    @property
    def member_logs(self):
        """The logs of the last epoch of `fit`: arrays with a value for each member.

        Callbacks may read it in `on_epoch_end`. If the epoch had a validation, it has
        those values, too.
        """
        return {} if self._last is None else dict(self._last.epoch)

    def get_config(self):
        model = keras.saving.serialize_keras_object(self.template)
        config = {"model": model, "size": self.size, "seed": self.seed}
        return config | {"keep": [*self.keep], "name": self.name}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        model = keras.saving.deserialize_keras_object(config["model"], custom_objects)
        return cls(**{**config, "model": model})

    def compile(
        self,
        optimizer="rmsprop",
        loss=None,
        loss_weights=None,
        metrics=None,
        weighted_metrics=None,
        run_eagerly=False,
        **kwargs,
    ):
        optimizer = expect_elementwise(keras.optimizers.get(optimizer))
        if run_eagerly or not kwargs.get("jit_compile", True):
            raise ValueError(
                "A population is compiled as a whole, and does not run eagerly. Try "
                "one of its members instead: `population.member(0)`."
            )
        if self.dtype_policy.name == "mixed_float16":
            raise ValueError(
                "Loss scaling would skip a step of all members if one overflows. "
                "Received: a template with the policy 'mixed_float16'. "
                "Try 'mixed_bfloat16' or 'float32'."
            )
        given = {
            "loss": loss,
            "loss_weights": loss_weights,
            "metrics": metrics,
            "weighted_metrics": weighted_metrics,
        }
        self._member = Member(self.template, given)
        exclude_as(
            optimizer,
            optimizer,
            zip(variables_of(self.template), variables_of(self), strict=True),
        )
        # Without the loss, which Keras would compute for all members together.
        super().compile(optimizer, **kwargs)
        self.loss = loss

    def get_compile_config(self):
        config = super().get_compile_config()
        scorer = self._member.scorer.get_compile_config() if config else {}
        names = ("loss", "loss_weights", "metrics", "weighted_metrics")
        return config | {name: scorer[name] for name in names if name in scorer}

    def devices(self):
        return self._place.devices(self._data.is_per_member)

    @like(keras.Model.fit)
    def fit(self, *args, **kwargs):
        call = arguments(keras.Model.fit, self, args, kwargs)
        self._data.admit(call)
        self._data.admit_held_out(call)
        self._open_scores(call)

        runs = []

        def end_epoch(epoch, logs):
            runs[0].end_epoch(logs)
            self._last = runs[0]

        keep = keras.callbacks.LambdaCallback(
            on_train_begin=lambda logs: runs.append(current(self)),
            on_epoch_end=end_epoch,
        )
        call["callbacks"] = [keep, *keras.tree.flatten(call.get("callbacks") or [])]
        with self._place.scope():
            history = super().fit(**call)
        history.members = runs[0].history()
        return history

    @like(keras.Model.evaluate)
    def evaluate(self, *args, **kwargs):
        call = arguments(keras.Model.evaluate, self, args, kwargs)
        if call.get("_use_cached_eval_dataset"):
            return super().evaluate(**call)
        logs = self._evaluate(call)
        return logs if call.get("return_dict") else list(logs.values())

    def _evaluate(self, call):
        self._data.admit(call)
        self._open_scores(call)
        with self._place.scope():
            super().evaluate(**call | {"return_dict": True})
        return self._evaluated.logs["test"]

    @like(keras.Model.predict)
    def predict(self, x, *args, **kwargs):
        call = {"x": x}
        self._data.admit(call)
        # If the rank of the data changes, TensorFlow would trace it as of any rank.
        per_member = are_arrays(call["x"]) and self._data.is_per_member(call["x"])
        if self._predicted_per_member != per_member:
            self.predict_function = None
        self._predicted_per_member = per_member
        with self._place.scope():
            outputs = super().predict(call["x"], *args, **kwargs)
        return keras.tree.map_structure(lambda y: np.moveaxis(y, 1, 0), outputs)

    def member(self, index):
        """A copy of one member as a plain Keras model, compiled like the population."""
        if not -self.size <= index < self.size:
            raise IndexError(
                f"Expected a member from 0 to {self.size - 1}. Received: {index}."
            )
        model = keras.models.clone_model(self.template)
        pairs = [*zip(variables_of(self), variables_of(model), strict=True)]
        for stacked, variable in pairs:
            variable.assign(ops.convert_to_numpy(stacked)[index])
        for layer in walk_layers(model):
            if hasattr(layer, "finalize_state"):
                layer.finalize_state()
        if self.compiled:
            given = _fresh(self._member.compiled)
            watch(model, given)
            optimizer = _fresh(self.optimizer)
            exclude_as(self.optimizer, optimizer, pairs)
            model.compile(optimizer, **given)
            # A loaded model builds its optimizer, and the file must have its variables.
            model.optimizer.build(model.trainable_variables)
        return model

    def train_on_batch(self, *args, **kwargs):
        raise ValueError(
            "A population takes its batches in `fit` and `evaluate`. "
            "Try `fit(x, y, batch_size=len(x))`."
        )

    test_on_batch = train_on_batch

    def best(self, x, y=None, sample_weight=None, batch_size=None, steps=None):
        """The member with the lowest loss on this data, as `member` returns it."""
        data = {"x": x, "y": y, "sample_weight": sample_weight}
        more = {"batch_size": batch_size, "steps": steps, "verbose": 0}
        losses = self._evaluate(data | more)["loss"]
        if not np.isfinite(losses).any():
            raise ValueError(
                "Expected a member whose loss on this data is finite. Received: none. "
                "Try a lower learning rate."
            )
        return self.member(
            int(np.argmin(np.where(np.isfinite(losses), losses, np.inf)))
        )

    def begin(self, run):
        """Remembers a run, which has the members' logs, and gives it the member."""
        self._evaluated = run
        return self._member


def _expect_template(model):
    if not (isinstance(model, keras.Model) and hasattr(model, "outputs")):
        expected = "a Sequential or functional model with an input"
        example = "keras.Sequential([keras.Input((2,)), NALU(1)])"
        raise expect.invalid("model", model, expected, example)
    if not backends.current().loops:
        raise ValueError(
            "A population trains on TensorFlow or JAX. Received: the backend "
            f"{keras.backend.backend()!r}. Set KERAS_BACKEND=tensorflow."
        )
    if reason := fusing.why_not_steps(model):
        raise ValueError(
            "A population's members train by Keras' steps, with its loss and metrics. "
            f"Received: a template for which {reason}. Give loss and metrics to "
            "`compile`, or train models one by one."
        )


def _names(template, keep):
    """The names of the layers in `keep`, which must be layers of the template."""
    names = [each if isinstance(each, str) else each.name for each in keep]
    known = [layer.name for layer in walk_layers(template)]
    if unknown := sorted({*names} - {*known}):
        raise ValueError(
            "Expected layers of the template, or their names. Received: "
            f"keep={unknown}. It has: {', '.join(known)}."
        )
    return names


def _fresh(given):
    """Copies of metrics and optimizers in their initial state."""
    stateful = keras.metrics.Metric, keras.optimizers.Optimizer
    return keras.tree.map_structure(
        lambda a: a.from_config(a.get_config()) if isinstance(a, stateful) else a, given
    )
