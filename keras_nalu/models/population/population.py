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
    """Many models of one architecture, trained as one: a seed each, in one program.

    Members differ in their initial weights, drawn from the template's initializers, and
    train as each would alone: the loss is summed over the members, and no optimizer is
    accepted that would mix their gradients. One that diverges disturbs no other.

    `compile`, `fit`, `evaluate` and `predict` are those of any Keras model, and run as
    in `keras_nalu.Sequential`. What differs:

    - Data of shape (rows, ...) is shared. With an axis more, (members, rows, ...), each
      member has its own. So it has from a function, `fit(draw, steps_per_epoch=1000)`:
      `draw(stream)` returns one batch, drawn on the device by
      `stream.uniform(shape, low, high)`, which puts the members' axis in front.
    - Logs, and so History and TensorBoard, hold quantiles over the members: `loss` is
      the median, beside it `loss_min`, `loss_q1`, `loss_q3` and `loss_max`; `diverged`
      counts the members whose loss is not finite any more, which the quantiles leave
      out. `fit(...).members` has every member's, as arrays of (epochs, members), and
      in a callback's `on_epoch_end` `population.member_logs` those of the epoch.
    - `evaluate` and `predict` return arrays with the members first.
    - Made under a `keras.distribution`, on JAX, it spreads its members over the
      devices, as many on each.
    - Callbacks see a chunk of steps as one batch; one that looks at single batches has
      the members train step by step. Batches of a generator, a `PyDataset` or a data
      set without static shapes are trained on one by one, too.

    What is not trained, such as a frozen layer or an adapted `Normalization`, has the
    template's values in every member; make a layer trainable first to have its weights
    drawn. All that is trained is drawn anew, also where the template was trained or
    loaded, but for the layers in `keep`.

    Args:
        model: The template, a `Sequential` or functional model with an input. It stays
            as it is.
        size: Number of members.
        seed: An integer makes the initial weights reproducible; a member's depend on
            the seed and its number alone. Without one it comes from NumPy's global
            generator, which `keras.utils.set_random_seed` seeds.
        keep: Layers of the template, or their names, with whose weights every member
            begins although they are trained, such as pretrained ones.
        **kwargs: `name`, as for any Keras model.

    Raises:
        ValueError: the template has no input, or a step, loss or metrics that its
            class computes in its own way; `size` is not a positive integer; the
            backend is PyTorch, the members are no multiple of the devices; in
            `compile`, an optimizer that does not treat every weight by itself,
            clipping by norm of gradients that are accumulated, float16 with its loss
            scaling, or running eagerly; in `fit`, data for another number of members.

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
        if seed is not None:
            expected = "None or an integer of 0 or more"
            seed = expect.integer("seed", seed, expected, 0, math.inf, 0)
        if seed is None:
            # From the generator that `keras.utils.set_random_seed` seeds.
            seed = np.random.randint(2**31)  # noqa: NPY002
        super().__init__(model, size, seed, _names(model, keep), **kwargs)
        #: The runs of the last epoch of `fit` and of the last `evaluate`.
        self._last: Any = None
        self._evaluated: Any = None
        self._predicted_per_member: Any = None

    @property
    def member_logs(self):
        """What the last epoch of `fit` came to, as arrays of every member's, by name.

        For callbacks, in `on_epoch_end`; the validation's too, if it took place.
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
                "A population is compiled as a whole, and does not run eagerly. Look "
                "into one of its members: `population.member(0)`."
            )
        if self.dtype_policy.name == "mixed_float16":
            raise ValueError(
                "Loss scaling would skip a step of all members where one overflows. "
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
        # Without the loss, which is each member's: Keras would try it on all together.
        super().compile(optimizer, **kwargs)
        self.loss = loss

    def get_compile_config(self):
        config = super().get_compile_config()
        scorer = self._member.scorer.get_compile_config() if config else {}
        names = ("loss", "loss_weights", "metrics", "weighted_metrics")
        return config | {name: scorer[name] for name in names if name in scorer}

    def devices(self):
        """Where a call's batches lie."""
        return self._place.devices(self._data.is_per_member)

    @like(keras.Model.fit)
    def fit(self, *args, **kwargs):
        call = arguments(keras.Model.fit, self, args, kwargs)
        self._data.admit(call)
        self._data.admit_held_out(call)
        self._open_scores(call)

        runs = []

        def begin(logs):
            runs.append(current(self))

        def end_epoch(epoch, logs):
            runs[0].end_epoch(logs)
            self._last = runs[0]

        keep = keras.callbacks.LambdaCallback(
            on_train_begin=begin, on_epoch_end=end_epoch
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
        # TensorFlow would trace data with and without an axis of the members as data of
        # any rank.
        per_member = are_arrays(call["x"]) and self._data.is_per_member(call["x"])
        if self._predicted_per_member != per_member:
            self.predict_function = None
        self._predicted_per_member = per_member
        with self._place.scope():
            outputs = super().predict(call["x"], *args, **kwargs)
        return keras.tree.map_structure(lambda y: np.moveaxis(y, 1, 0), outputs)

    def member(self, index):
        """A copy of one member as a plain Keras model, compiled like the population."""
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
            # A model that is loaded builds it, and looks for what it holds.
            model.optimizer.build(model.trainable_variables)
        return model

    def train_on_batch(self, *args, **kwargs):
        raise ValueError(
            "A population takes its batches in `fit` and `evaluate`. "
            "Try `fit(x, y, batch_size=len(x))`."
        )

    test_on_batch = train_on_batch

    def best(self, x, y=None, sample_weight=None, batch_size=None, steps=None):
        """The member with the lowest loss on this data, as by `member`."""
        data = {"x": x, "y": y, "sample_weight": sample_weight}
        more = {"batch_size": batch_size, "steps": steps, "verbose": 0}
        losses = self._evaluate(data | more)["loss"]
        if not np.isfinite(losses).any():
            raise ValueError("No member has a loss that is a number on this data.")
        return self.member(
            int(np.argmin(np.where(np.isfinite(losses), losses, np.inf)))
        )

    def _open_scores(self, call):
        """The state of every member's metrics, once it is known what they measure."""
        if self.compiled and self._member.scores is None:
            with self._place.scope():
                self._member.see(*self._data.first(call))
            with self._place.scope(stacked=True):
                self._member.open(self.size)

    def begin(self, run):
        """A run tells who has the logs of the members, and is told what logs them."""
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
            "A population's members train by Keras' own steps, with its own loss and "
            f"metrics. Received: a template for which {reason}. Give its loss and "
            "metrics to `compile`, or train models one by one."
        )


def _names(template, keep):
    """The names of layers of the template, which may be given themselves."""
    names = [each if isinstance(each, str) else each.name for each in keep]
    known = [layer.name for layer in walk_layers(template)]
    if unknown := sorted({*names} - {*known}):
        raise ValueError(
            "Expected layers of the template, or their names. Received: "
            f"keep={unknown}. It has: {', '.join(known)}."
        )
    return names


def _fresh(given):
    """Metrics and optimizers without what they have counted."""
    stateful = keras.metrics.Metric, keras.optimizers.Optimizer
    return keras.tree.map_structure(
        lambda a: a.from_config(a.get_config()) if isinstance(a, stateful) else a, given
    )
