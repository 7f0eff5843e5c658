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
from keras_nalu.benchmarks import inalu
from keras_nalu.benchmarks.doors import Sampled
from keras_nalu.benchmarks.measuring import Log, result
from keras_nalu.benchmarks.tasks import Task

#: By name, what a paper does between the steps: functions of a `Log`, that return
#: callbacks. A paper's of one's own is added here.
RULES: dict[str, Any] = {
    "inalu": lambda log: [inalu.INALUReinitialize()],
    "inalu port": lambda log: inalu.port_callbacks(log.last_error),
}


#: Raised whenever what is drawn or measured changes: older rows count no more.
PROTOCOL = 1


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A module, a task, an optimizer, and how long and how often.

    `config` names what decides its results, and is its identity.

    Args:
        module: What the tables call the module.
        task: A `Task` of `keras_nalu.benchmarks.tasks`, or of one's own.
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
        if not isinstance(self.task, Task):
            raise ValueError(
                f"Expected a task, such as SingleModule('multiply'). Received: "
                f"task={self.task!r}."
            )
        counts = self.seeds, self.restarts, self.steps, self.log_every
        if any(not isinstance(n, int) or n < 1 for n in counts) or (
            self.steps % self.log_every
        ):
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
        object.__setattr__(self, "rules", tuple(self.rules))
        # As text, so that it can be compared, sent and kept.
        if not isinstance(self.layers, str):
            layers = [keras.saving.serialize_keras_object(a) for a in self.layers]
            object.__setattr__(self, "layers", json.dumps(layers))
        if not isinstance(self.optimizer, str):
            optimizer = keras.saving.serialize_keras_object(self.optimizer)
            object.__setattr__(self, "optimizer", json.dumps(optimizer))

    def config(self):
        """All that decides the results, as plain data.

        Layers and the optimizer count by what Keras saves of them, but for their names:
        a layer's own counts the layers before it.
        """
        return {
            "protocol": PROTOCOL,
            "suite": self.suite,
            "module": self.module,
            "task": self.task.config(),
            "layers": _nameless(json.loads(self.layers)),
            "optimizer": _nameless(json.loads(self.optimizer)),
            "seeds": self.seeds,
            "steps": self.steps,
            "log_every": self.log_every,
            "restarts": self.restarts,
            "rules": list(self.rules),
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
        is_penalized = isinstance(optimizer, inalu.INALUAdam)
        kind = inalu.PenalizedPopulation if is_penalized else keras_nalu.Population
        population = kind(template, self.members, seed=0)
        for variable in population.weights:
            # A seed begins with the same weights in all variants.
            drawn = keras.ops.convert_to_numpy(variable)[: len(self.run_seeds)]
            variable.assign(np.concatenate([drawn] * len(self.task.variants)))
        metrics = [*self.task.measures().values(), *_sparsity_error(template)]
        population.compile(optimizer, self.task.loss, metrics=metrics)
        return population

    def run(self, callbacks=()):
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
            callbacks: Further callbacks of Keras.
        """
        started = time.perf_counter()
        # What cannot be told in the end is to be said at once.
        every, thresholds = self._identified(), self.task.thresholds()
        # What draws weights anew in the course of the training draws from this one.
        np.random.seed(0)  # noqa: NPY002
        population = self.population()
        log = Log(self, population)
        rules = [make for name in self.rules for make in RULES[name](log)]
        batches = Sampled(
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
            callbacks=[log, *rules, *callbacks],
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
                        result(
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


def _sparsity_error(template):
    """The metric, in a list that is empty if the model has no arithmetic layer."""
    try:
        keras_nalu.SparsityError(template).result()
    except ValueError:
        return []
    return [keras_nalu.SparsityError()]


def _nameless(config):
    """What counts of a Keras config: registered classes and their arguments."""
    if isinstance(config, list):
        return [_nameless(a) for a in config]
    if not isinstance(config, dict):
        return config
    if "class_name" in config and "config" in config:
        name = config.get("registered_name") or config["class_name"]
        return {"class": name, "config": _nameless(config["config"])}
    # A dtype policy is nothing but a name.
    nothing = () if config.keys() == {"name"} else ("name", "build_config")
    # What is `None` was not asked for: a later version may have more of that.
    return {
        key: _nameless(value)
        for key, value in config.items()
        if key not in nothing and value is not None
    }


def _versions():
    names = {"keras", "numpy", keras.backend.backend()}
    return {"keras_nalu": keras_nalu.__version__} | {
        name: importlib.metadata.version(name) for name in sorted(names)
    }
