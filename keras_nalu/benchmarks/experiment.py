"""One experiment: a module on a task, with many seeds, trained as one population."""

import dataclasses
import hashlib
import importlib.metadata
import json
import math
import time
from typing import Any

import keras
import numpy as np

import keras_nalu
from keras_nalu import expect
from keras_nalu.benchmarks import inalu
from keras_nalu.benchmarks.tasks import Task
from keras_nalu.layers.base import ArithmeticLayer, walk_layers
from keras_nalu.metrics import SparsityError
from keras_nalu.training import Population
from keras_nalu.training.draws import Draws

#: By name, what a paper does between the steps: functions of a `Log`, that return
#: callbacks. A paper's of one's own is added here.
RULES: dict[str, Any] = {
    "inalu": lambda log: inalu.callbacks(),
    "inalu port": lambda log: inalu.port_callbacks(log.last_error),
}


#: Raised whenever what is drawn or measured changes: older rows count no more.
PROTOCOL = 1


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A module, a task, an optimizer, and how long and how often.

    Its JSON is its identity: two that differ in nothing of it have the same results.

    Args:
        module: What the tables call the module.
        task: A `Task` of `keras_nalu.benchmarks.tasks`, or of one's own: its class,
            its fields and what `Task` names count, not what its methods do.
        layers: The Keras layers that are trained, one behind the other. A class of
            one's own has `@keras.saving.register_keras_serializable()`.
        optimizer: A Keras optimizer.
        seeds: How many: 0, 1, ...; of each variant of the task.
        steps: Of training, a multiple of `log_every`.
        log_every: Steps from one measurement to the next; there is one before the
            first.
        restarts: Runs of every seed, on the same task with other weights and batches;
            the one with the best validation is the seed's. That the test is not asked
            makes it a method, which a user has as well.
        rules: Names of `RULES`: what a paper does between the steps.
        suite: The name of the table that it belongs to.

    Example, an NMU at another rate on a range of one's own:

    >>> from keras_nalu.benchmarks.experiment import Experiment
    >>> from keras_nalu.benchmarks.tasks import SingleModule, Uniform, Variant
    >>> mine = Variant("[3,4]", Uniform(((3, 4),)), Uniform(((4, 8),)))
    >>> experiment = Experiment(
    ...     "NMU",
    ...     SingleModule("multiply", variants=(mine,)),
    ...     [NMU(1)],
    ...     keras.optimizers.Adam(1e-2),
    ...     seeds=2,
    ...     steps=2000,
    ... )
    >>> [row["solved"] for row in experiment.run()]
    [True, True]
    """

    module: str
    task: Task
    layers: Any
    optimizer: Any
    seeds: int = 25
    steps: int = 50_000
    log_every: int = 1000
    restarts: int = 1
    rules: tuple = ()
    suite: str = "own"

    def __post_init__(self):
        for name in ("module", "suite"):
            expect.kind(name, getattr(self, name), str, "a name", "'NMU'")
        expect.kind("task", self.task, Task, "a task", "SingleModule('multiply')")
        expect.items("rules", self.rules, str, "a list of names", "('inalu',)")
        object.__setattr__(self, "rules", tuple(self.rules))
        for name in ("seeds", "restarts", "steps", "log_every"):
            count = expect.integer(name, getattr(self, name), instead=1000)
            object.__setattr__(self, name, count)
        if self.steps % self.log_every:
            raise ValueError(
                "Expected seeds, restarts, and steps in whole thousands (`log_every`). "
                f"Received: seeds={self.seeds}, restarts={self.restarts}, "
                f"steps={self.steps}, log_every={self.log_every}."
            )
        by_epoch = self.rules or self.task.batches
        if by_epoch and self.log_every != (self.task.batches or 1000):
            raise ValueError(
                "The task or its rules go by epochs. Expected log_every="
                f"{self.task.batches or 1000}. Received: log_every={self.log_every}."
            )
        if unknown := [name for name in self.rules if name not in RULES]:
            raise ValueError(
                f"Unknown rule. Received: {unknown[0]!r}. Expected one of "
                f"{', '.join(RULES)}."
            )
        # As text, so that it can be compared, sent and kept; a layer's own name counts
        # the layers before it, and is no part of the experiment.
        if not isinstance(self.layers, str):
            kind, expected = keras.Layer, "a list of Keras layers"
            expect.items("layers", self.layers, kind, expected, "[NMU(1)]")
            layers = [keras.saving.serialize_keras_object(a) for a in self.layers]
            object.__setattr__(self, "layers", json.dumps(_nameless(layers)))
        if not isinstance(self.optimizer, str):
            kind, expected = keras.optimizers.Optimizer, "a Keras optimizer"
            adam = "keras.optimizers.Adam(1e-2)"
            expect.kind("optimizer", self.optimizer, kind, expected, adam)
            optimizer = keras.saving.serialize_keras_object(self.optimizer)
            object.__setattr__(self, "optimizer", json.dumps(_nameless(optimizer)))

    def config(self):
        """All that decides the results, as plain data."""
        config = _plain(self) | {"layers": json.loads(self.layers)}
        return config | {
            "optimizer": json.loads(self.optimizer),
            "protocol": PROTOCOL,
        }

    @property
    def identity(self):
        """A short name of its JSON."""
        text = json.dumps(self.config(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def members(self):
        return len(self.task.variants) * len(self.run_seeds)

    @property
    def row_count(self):
        return len(self.task.variants) * self.seeds * len(self.task.measures())

    @property
    def run_seeds(self):
        """The seed of every run of a variant."""
        return tuple(range(self.seeds)) * self.restarts

    @property
    def batch_steps(self):
        """Of all members together: what it costs."""
        return self.members * self.steps

    def population(self):
        """The models, compiled: of every variant, all seeds."""
        template = keras.Sequential(
            [
                keras.Input(self.task.input_shape),
                *map(keras.saving.deserialize_keras_object, json.loads(self.layers)),
            ]
        )
        optimizer = keras.saving.deserialize_keras_object(json.loads(self.optimizer))
        kind = getattr(optimizer, "population", Population)
        population = kind(template, self.members, seed=0)
        for variable in population.weights:
            # A seed begins with the same weights in all variants.
            drawn = keras.ops.convert_to_numpy(variable)[: len(self.run_seeds)]
            variable.assign(np.concatenate([drawn] * len(self.task.variants)))
        metrics = list(self.task.measures().values())
        if any(isinstance(layer, ArithmeticLayer) for layer in walk_layers(template)):
            metrics.append(SparsityError())
        population.compile(optimizer, self.task.loss, metrics=metrics)
        return population

    def run(self, progress=None):
        """Trains, and returns a row for every variant, seed and measure.

        A row says what was trained (`suite`, `experiment`, `module`, `operation`,
        `inputs`, `range`, `seed`, `steps`), where and when (`backend`, `versions`,
        `seconds` and `members` of the whole population), and what it came to: at
        `selected_step`, where the validation was best, the error `interpolation` of the
        validation and `extrapolation` of the test, and the `sparsity_error`; whether
        that test is below `threshold` (`solved`), the first measured step at which it
        was (`solved_at`), and whether the run `diverged` in the end. Numbers that are
        not finite are `None`.

        The sparsity error is the largest of all effective weights. The published code
        takes the mean of the largest of each matrix for an iNALU and an NPU.

        Args:
            progress: Called with the number of steps that were trained since.
        """
        started = time.perf_counter()
        # What cannot be told in the end is to be said at once.
        every, thresholds = self._identified(), self.task.thresholds()
        # What draws weights anew in the course of the training draws from this one.
        np.random.seed(0)  # noqa: NPY002
        population = self.population()
        log = Log(self, population, progress)
        rules = [make for name in self.rules for make in RULES[name](log)]
        batches = Draws(
            lambda stream: self.task.draw(stream, self.run_seeds),
            self.log_every,
            self.members,
            seed=0,
            repeats=bool(self.task.batches),
        )
        population.fit(
            batches,
            epochs=self.steps // self.log_every,
            steps_per_epoch=self.log_every,
            verbose=0,
            callbacks=[log, *rules],
        )
        every["seconds"] = round(time.perf_counter() - started, 3)
        return [every | row for row in self._rows(log, thresholds)]

    def _identified(self):
        """What all rows have in common."""
        return {
            "suite": self.suite,
            "experiment": self.identity,
            "module": self.module,
            "inputs": self.task.inputs,
            "steps": self.steps,
            "backend": keras.backend.backend(),
            "versions": _versions(),
            "members": self.members,
        }

    def _rows(self, log, thresholds):
        for operation in self.task.measures():
            near, far = log.errors(operation)
            sparsity = log.sparsity()
            for variant, place in enumerate(self.task.variants):
                for seed in range(self.seeds):
                    runs = [
                        _result(
                            log.steps,
                            near[:, member],
                            far[:, member],
                            sparsity[:, member],
                            thresholds[variant],
                            self.task.judged,
                        )
                        for member in self._tries(variant, seed)
                    ]
                    best = min(runs, key=_validation)
                    names = {"operation": operation, "range": place.name, "seed": seed}
                    yield names | best

    def _tries(self, variant, seed):
        """The numbers of a seed's members."""
        runs = len(self.run_seeds)
        return range(variant * runs + seed, (variant + 1) * runs, self.seeds)


def _validation(result):
    error = result["interpolation"]
    return math.inf if error is None else error


def _result(steps, near, far, sparsity, threshold, judged):
    """What the published code makes of one run's errors: most judge it by the test at
    the step where the validation was best."""
    best = np.argmin(np.where(np.isfinite(near), near, np.inf))
    at = int(best) if judged == "best" else len(steps) - 1
    below = far < (-math.inf if threshold is None else threshold)
    solved = None if threshold is None else bool(below[at])
    return {
        "threshold": threshold,
        "solved": solved,
        "solved_at": steps[int(np.argmax(below))] if solved else None,
        "selected_step": steps[at],
        "interpolation": _number(near[at]),
        "extrapolation": _number(far[at]),
        "sparsity_error": _number(sparsity[at]),
        "diverged": not np.isfinite(near[-1]),
    }


class Log(keras.callbacks.Callback):
    """Measures every member on the validation and the test set."""

    def __init__(self, experiment, population, progress=None):
        super().__init__()
        task, seeds = experiment.task, experiment.run_seeds
        self.experiment = experiment
        self.population = population
        self.progress = progress
        self.steps = []
        self.logs = []
        self.sets = {
            part: Draws(
                lambda stream, part=part: task.draw(stream, seeds, part),
                task.pieces[part],
                experiment.members,
                seed=seed,
                repeats=True,
            )
            for part, seed in task.sets.items()
        }

    def on_train_begin(self, logs=None):
        self.measure(0)

    def on_epoch_end(self, epoch, logs=None):
        every = self.experiment.log_every
        self.measure((epoch + 1) * every)
        if self.progress:
            self.progress(every)

    def measure(self, step):
        self.steps.append(step)
        self.logs.append(
            {
                part: self.population.evaluate(draws, verbose=0, return_dict=True)
                for part, draws in self.sets.items()
            }
        )

    def errors(self, name):
        """In validation and test, of shape (measurements, members)."""
        return [
            np.stack([logs[part][name] for logs in self.logs]) for part in self.sets
        ]

    def last_error(self):
        """In the last validation, of every member."""
        return self.logs[-1]["validation"][next(iter(self.experiment.task.measures()))]

    def sparsity(self):
        unknown = np.full(self.experiment.members, np.nan)
        return np.stack(
            [logs["test"].get("sparsity_error", unknown) for logs in self.logs]
        )


def _number(value):
    return float(value) if np.isfinite(value) else None


def _plain(value):
    if dataclasses.is_dataclass(value):
        kind = type(value)
        names = [field.name for field in _fields(value)]
        if isinstance(value, Task):
            # What a class of tasks has in common decides, too.
            names += ["variants", "inputs", *Task.__annotations__]
        fields = {name: _plain(getattr(value, name)) for name in names}
        return {"class": f"{kind.__module__}.{kind.__qualname__}"} | fields
    return [_plain(a) for a in value] if isinstance(value, tuple | list) else value


def _fields(value) -> Any:
    return dataclasses.fields(value)


def _nameless(config):
    if isinstance(config, dict):
        return {
            key: _nameless(value)
            for key, value in config.items()
            if key not in ("name", "build_config")
        }
    return [_nameless(a) for a in config] if isinstance(config, list) else config


def _versions():
    names = {"keras", "numpy", keras.backend.backend()}
    return {"keras_nalu": keras_nalu.__version__} | {
        name: importlib.metadata.version(name) for name in sorted(names)
    }
