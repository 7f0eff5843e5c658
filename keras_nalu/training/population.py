"""Many models of one architecture, trained as one."""

import contextlib
import itertools
import math
import types

import keras
import numpy as np
from keras import ops

from keras_nalu import expect
from keras_nalu.layers.base import walk_layers
from keras_nalu.training import devices, draws, feeds
from keras_nalu.training.elementwise import clip, expect_elementwise, unclipped
from keras_nalu.training.fused import Fused, arguments, like, told, watch
from keras_nalu.training.initial import draw_members, fixed, variables_of
from keras_nalu.training.scores import Scores, quantiles, scorer_of


@keras.saving.register_keras_serializable(package="keras_nalu")
class Population(Fused, keras.Model):
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

    Args:
        model: The template, a `Sequential` or functional model with an input. It stays
            as it is.
        size: Number of members.
        seed: An integer makes the initial weights reproducible; a member's depend on
            the seed and its number alone. Without one it comes from NumPy's global
            generator, which `keras.utils.set_random_seed` seeds.
        **kwargs: `name`, as for any Keras model.

    Raises:
        ValueError: the template has no input, `size` is not a positive integer, the
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

    def __init__(self, model, size, seed=None, **kwargs):
        if not isinstance(model, keras.Model) or not getattr(model, "outputs", None):
            expected = "a Sequential or functional model with an input"
            example = "keras.Sequential([keras.Input((2,)), NALU(1)])"
            raise expect.invalid("model", model, expected, example)
        size = expect.integer("size", size)
        if seed is not None:
            expected = "None or an integer of 0 or more"
            seed = expect.integer("seed", seed, expected, 0, math.inf, 0)
        if keras.backend.backend() not in ("tensorflow", "jax"):
            raise ValueError(
                "A population trains on TensorFlow or JAX. Received: the backend "
                f"{keras.backend.backend()!r}. Set KERAS_BACKEND=tensorflow."
            )
        super().__init__(dtype=model.dtype_policy, **kwargs)
        self.size = size
        # From the generator that `keras.utils.set_random_seed` seeds.
        self.seed = np.random.randint(2**31) if seed is None else seed  # noqa: NPY002
        # Where Keras does not look for weights: the template's are not trained.
        self._hidden = types.SimpleNamespace(
            model=model, logs={}, member_logs={}, own=None, scores=None
        )
        self._hidden.spread = devices.members(self.size)
        values = [*draw_members(model, self.size, self.seed)]
        trainable = len(model.trainable_variables)
        with self._spread_scope(stacked=True):
            for index, (variable, value) in enumerate(
                zip(variables_of(model), values, strict=True)
            ):
                self.add_weight(
                    shape=(self.size, *variable.shape),
                    initializer=fixed(value),
                    dtype=variable.dtype,
                    trainable=index < trainable,
                    constraint=_of_each(variable.constraint),
                    autocast=False,
                    name=variable.path.replace("/", "_"),
                )
        self.built = True

    @property
    def template(self):
        """The model that was given."""
        return self._hidden.model

    @property
    def _population_size(self):
        return self.size

    @property
    def metrics(self):
        scores = self._hidden.scores
        return super().metrics + ([] if scores is None else [scores])

    @property
    def member_logs(self):
        """What the last epoch of `fit` came to, as arrays of every member's, by name.

        For callbacks, in `on_epoch_end`; the validation's too, if it took place.
        """
        return dict(self._hidden.member_logs)

    def stacked(self, variable):
        """The variable that holds what this one of the template is in every member.

        The members are its first axis. A callback may read it, and assign to it, at the
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

    def get_config(self):
        model = keras.saving.serialize_keras_object(self.template)
        return {"model": model, "size": self.size, "seed": self.seed, "name": self.name}

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
        self._hidden.given = given
        self._hidden.scorer = scorer_of(self.template)
        metrics = watch(self.template, given)
        self._hidden.scorer.compile("sgd", **given)
        self._hidden.scores = None
        # Without the loss, which is the scorer's: Keras would try it on all members.
        super().compile(optimizer, **kwargs)
        self.loss = loss
        self._own.weight_metrics = metrics
        self._hidden.measure = feeds.backend_module().compiled(self._measure_weights)

    def get_compile_config(self):
        config = super().get_compile_config()
        scorer = self._hidden.scorer.get_compile_config() if config else {}
        names = ("loss", "loss_weights", "metrics", "weighted_metrics")
        return config | {name: scorer[name] for name in names if name in scorer}

    def _fuses(self):
        return self.compiled

    def _spread_scope(self, stacked=False):
        """Where Keras lays out data; or, if `stacked`, what all members have."""
        spread = self._hidden.spread
        if spread is None:
            return contextlib.nullcontext()
        return spread.stacked_scope() if stacked else spread.scope()

    def _find_devices(self, call):
        if spread := self._hidden.spread:
            self._devices = feeds.backend_module().Devices(
                1, lambda batch: spread.layout(self._is_own(batch[0]))
            )
        elif devices.find(self):
            raise ValueError(
                "A population spreads its members on JAX, if it is made after "
                "`keras.distribution.set_distribution`. Received: one that was made "
                "for one device, and several devices. Try `KERAS_BACKEND=jax` with "
                "`keras.distribution.set_distribution(keras.distribution."
                "DataParallel())` first, or one device."
            )

    @like(keras.Model.fit)
    def fit(self, *args, **kwargs):
        call = arguments(keras.Model.fit, self, args, kwargs)
        self._admit(call)
        if isinstance(call.get("validation_data"), tuple | list):
            names = ("x", "y", "sample_weight")
            held_out = dict(zip(names, call["validation_data"], strict=False))
            self._admit(held_out)
            call["validation_data"] = tuple(held_out.values())
        self._open_scores(call)
        self._hidden.member_logs = {}
        self._hidden.seen = {}

        def remember(epoch, logs):
            self._hidden.member_logs = self._per_member(logs)
            for name, values in self.member_logs.items():
                self._hidden.seen.setdefault(name, []).append(values)

        keep = keras.callbacks.LambdaCallback(on_epoch_end=remember)
        call["callbacks"] = [keep, *keras.tree.flatten(call.get("callbacks") or [])]
        with self._spread_scope():
            history = super().fit(**call)
        history.members = self._members()
        return history

    def _members(self):
        return {name: np.stack(values) for name, values in self._hidden.seen.items()}

    def fit_state(self):
        return super().fit_state() | {"members": self._members()}

    def restore_fit_state(self, state):
        super().restore_fit_state(state)
        self._hidden.seen = {name: [*a] for name, a in state["members"].items()}

    def _per_member(self, logs):
        """Of the epoch; the validation's too, if it took place."""
        held_out = self._hidden.logs["test"] if "val_loss" in logs else {}
        return self._hidden.logs["train"] | {
            f"val_{name}": values for name, values in held_out.items()
        }

    @like(keras.Model.evaluate)
    def evaluate(self, *args, **kwargs):
        call = arguments(keras.Model.evaluate, self, args, kwargs)
        if call.get("_use_cached_eval_dataset"):
            return super().evaluate(**call)
        self._admit(call)
        self._open_scores(call)
        as_dictionary = call.pop("return_dict", False)
        with self._spread_scope():
            super().evaluate(**call)
        logs = self._hidden.logs["test"]
        return logs if as_dictionary else list(logs.values())

    @like(keras.Model.predict)
    def predict(self, x, *args, **kwargs):
        call = {"x": x}
        self._admit(call)
        # TensorFlow would trace data with and without an axis of the members as data of
        # any rank.
        if self._hidden.own != (own := self._is_own(call["x"])):
            self.predict_function = None
        self._hidden.own = own
        with self._spread_scope():
            outputs = super().predict(call["x"], *args, **kwargs)
        return keras.tree.map_structure(lambda y: np.moveaxis(y, 1, 0), outputs)

    def member(self, index):
        """A copy of one member as a plain Keras model, compiled like the population."""
        model = keras.models.clone_model(self.template)
        for variable, stacked in zip(
            variables_of(model), variables_of(self), strict=True
        ):
            variable.assign(ops.convert_to_numpy(stacked)[index])
        for layer in walk_layers(model):
            if hasattr(layer, "finalize_state"):
                layer.finalize_state()
        if self.compiled:
            given = _fresh(self._hidden.given)
            watch(model, given)
            model.compile(_fresh(self.optimizer), **given)
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
        self.evaluate(x, y, batch_size, 0, sample_weight, steps)
        losses = self._hidden.logs["test"]["loss"]
        if not np.isfinite(losses).any():
            raise ValueError("No member has a loss that is a number on this data.")
        return self.member(
            int(np.argmin(np.where(np.isfinite(losses), losses, np.inf)))
        )

    def call(self, inputs, training=None):
        outputs, state, _ = self._each(
            lambda values: self._predict(values, training), {"x": inputs}, scores=False
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
        # On JAX the variables' values come in, and go out again.
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
        """Keras' own step takes the gradient of all members' losses together. Taken in
        each member's part it is the same, in half the time on JAX; on TensorFlow XLA
        would compile the other one anew on every call."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        gradient = feeds.backend_module().gradient

        def member(values):
            def lose(trainable):
                y_pred, state, losses = self._predict(
                    values | {"trainable": trainable}, training
                )
                seen = values | {"y_pred": y_pred}
                loss, scores = self._lose(seen, sum(losses), training)
                return loss, (y_pred, scores, state)

            if training:
                gradients, seen = gradient(lose, values["trainable"])
                gradients = clip(self.optimizer, gradients)
            else:
                gradients, seen = [], lose(values["trainable"])[1]
            y_pred, scores, state = seen
            seen = values | {"y_pred": y_pred, "scores": scores}
            return gradients, state, *self._measure(seen)

        gradients, state, logs, scores = self._each(
            member, {"x": x, "y": y, "sample_weight": sample_weight}
        )
        _assign(self.non_trainable_variables, state)
        _assign(self._hidden.scores.variables, scores)
        if training:
            with unclipped(self.optimizer):
                self.optimizer.apply(gradients, self.trainable_variables)
        return logs

    def _each(self, function, data, scores=True):
        """`function` of what each member has, by name; `data` is shared or its own."""
        own = self._is_own(data["x"])
        shared = {name: value for name, value in data.items() if value is not None}
        stacked = {
            "trainable": _tensors(self.trainable_variables),
            "non_trainable": _tensors(self.non_trainable_variables),
        }
        if scores:
            stacked["scores"] = _tensors(self._hidden.scores.variables)
        if own:
            stacked |= keras.tree.map_structure(lambda a: ops.moveaxis(a, 1, 0), shared)
            shared = {}
        return ops.vectorized_map(lambda values: function(shared | values), stacked)

    def _predict(self, values, training):
        """A member's outputs, its weights that are not trained, and its penalties."""
        return self.template.stateless_call(
            values["trainable"],
            values["non_trainable"],
            values["x"],
            training=training,
            return_losses=True,
        )

    def _lose(self, values, penalty, training):
        """A member's loss, and what its metrics have counted then."""
        scorer = self._hidden.scorer
        with self._scope(values) as scope:
            loss = scorer.compute_loss(
                None,
                values.get("y"),
                values["y_pred"],
                values.get("sample_weight"),
                training,
            )
            if len(loss.shape):
                raise ValueError(
                    "A member's loss must be one number. Received: a loss of shape "
                    f"{tuple(loss.shape)}. Give it a reduction, such as 'sum'."
                )
            loss = loss + penalty
            rows = keras.tree.flatten(values["y_pred"])[0].shape[0]
            scorer.metrics[0].update_state(loss, sample_weight=rows)
        return loss, self._counted(scope)

    def _measure(self, values):
        """A member's logs, and what its metrics have counted then."""
        with self._scope(values) as scope:
            logs = self._hidden.scorer.compute_metrics(
                None, values.get("y"), values["y_pred"], values.get("sample_weight")
            )
        return logs, self._counted(scope)

    def _scope(self, values):
        variables = self._hidden.scorer.metrics_variables
        mapping = list(zip(variables, values["scores"], strict=True))
        return keras.StatelessScope(state_mapping=mapping)

    def _counted(self, scope):
        variables = self._hidden.scorer.metrics_variables
        return [scope.get_current_value(variable) for variable in variables]

    def _is_own(self, x):
        """Whether each member has its own data: there is an axis more then."""
        inputs = keras.tree.flatten(self.template.inputs)
        return len(keras.tree.flatten(x)[0].shape) > len(inputs[0].shape)

    def _admit(self, call):
        """Data of each member's own comes with the members first; batches come first
        in what Keras sees."""
        data = {name: call.get(name) for name in ("x", "y", "sample_weight")}
        if not all(map(_is_array, keras.tree.flatten(data))):
            return
        if not self._is_own(data["x"]):
            labels = keras.tree.flatten(data["y"])
            if any(
                a is not None and a.ndim > len(output.shape)
                for a, output in zip(labels, self.template.outputs, strict=False)
            ):
                raise ValueError(
                    "Expected inputs of each member's own, as its labels are. "
                    "Received: inputs without an axis of the members."
                )
            return
        rows = {tuple(a.shape[:2]) for a in keras.tree.flatten(data) if a is not None}
        if len(rows) > 1 or next(iter(rows))[0] != self.size:
            raise ValueError(
                f"Expected data of {self.size} members, or shared data with an axis "
                f"less. Received: {', '.join(map(str, rows))} on the first axes."
            )
        if call.get("class_weight"):
            raise ValueError(
                "`class_weight` is for data that all members share. Received: data of "
                "each member's own. Try `sample_weight`."
            )
        call.update(keras.tree.map_structure(_rows_first, data))

    def _open_scores(self, call):
        """The state of every member's metrics, once it is known what they measure."""
        if not self.compiled or self._hidden.scores is not None:
            return
        batch = self._first_batch(call)
        x, *labels = keras.utils.unpack_x_y_sample_weight(batch)
        if self._is_own(x):
            labels = [
                None if a is None else keras.tree.map_structure(lambda a: a[:, 0], a)
                for a in labels
            ]
        rows = feeds.count_rows(x)
        scorer = self._hidden.scorer
        y_pred = keras.tree.map_structure(
            lambda o: ops.zeros((rows, *(n or 1 for n in o.shape[1:])), o.dtype),
            scorer.input,
        )
        scorer.compute_loss(None, labels[0], y_pred, labels[1])
        self._hidden.names = list(
            scorer.compute_metrics(None, labels[0], y_pred, labels[1])
        )
        scorer.reset_metrics()
        with self._spread_scope(stacked=True):
            self._hidden.scores = Scores(self.size, scorer.metrics_variables)

    def _first_batch(self, call):
        x, y, weight = (call.get(name) for name in ("x", "y", "sample_weight"))
        data = keras.utils.pack_x_y_sample_weight(x, y, weight)
        if feeds.are_arrays(data):
            return feeds.take_rows(data, slice(1))
        if draws.is_function(x):
            nought = ops.zeros((2,), "int32")
            return draws.Drawing(x, self.size)(nought, 0)(nought[0])
        if isinstance(x, keras.utils.PyDataset):
            return x[0]
        batches = iter(x)
        first = next(batches)
        if batches is x:
            call["x"] = (batch for batch in itertools.chain([first], batches))
        return first

    def _logs_are_results(self, step):
        return True

    def _read_weights(self, logs, values):
        if self._own.weight_metrics:
            values = values or _tensors(variables_of(self))
            measured = self._hidden.measure(values)
            for metric, errors in zip(self._own.weight_metrics, measured, strict=True):
                logs |= dict.fromkeys(told(metric, self.template, logs), errors)
        return logs

    def _measure_weights(self, values):
        """Of every member, what each metric of the weights comes to."""

        def member(values):
            mapping = list(zip(variables_of(self.template), values, strict=True))
            with keras.StatelessScope(state_mapping=mapping):
                return [metric.measure() for metric in self._own.weight_metrics]

        return ops.vectorized_map(member, values)

    def _read_logs(self, kind, logs):
        logs = {name: ops.convert_to_numpy(logs[name]) for name in self._hidden.names}
        self._hidden.logs[kind] = logs
        return quantiles(logs)


def _is_array(a):
    return a is None or feeds.are_arrays(a)


def _rows_first(a):
    if a is None:
        return None
    # A view, which `fit` may take to the device piece by piece.
    return (np if isinstance(a, np.ndarray) else ops).moveaxis(a, 0, 1)


def _tensors(variables):
    return [ops.convert_to_tensor(variable) for variable in variables]


def _assign(variables, values):
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _fresh(given):
    """Metrics and optimizers without what they have counted."""
    stateful = keras.metrics.Metric, keras.optimizers.Optimizer
    return keras.tree.map_structure(
        lambda a: a.from_config(a.get_config()) if isinstance(a, stateful) else a, given
    )


def _of_each(constraint):
    if constraint is None:
        return None
    return lambda w: ops.vectorized_map(constraint, ops.convert_to_tensor(w))
