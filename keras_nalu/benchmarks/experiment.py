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

#: What a paper does between epochs: functions of a `Log` that return callbacks. Add the
#: rules of another paper here.
RULES: dict[str, Any] = {
    "inalu": lambda log: [inalu.INALUReinitialize()],
    "inalu port": lambda log: inalu.port_callbacks(log.last_error),
}


#: Raised whenever the samples or the measurements change, which makes old rows invalid.
PROTOCOL = 1


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A module, a task and an optimizer, trained with many seeds.

    `config` has everything that determines the results, and gives the `identity`.

    Args:
        module: The module's name in the tables.
        task: A `Task` of `keras_nalu.benchmarks.tasks`, or a subclass of yours.
        layers: The Keras layers of the model, in order. Your classes need
            `@keras.saving.register_keras_serializable()`.
        optimizer: A Keras optimizer.
        seeds: The number of seeds of each variant of the task: 0, 1, ...
        steps: Steps of training, a multiple of `log_every`.
        log_every: Steps between measurements; the first is before the training.
        restarts: Runs of every seed, on the same task with other weights and batches.
            The run with the best validation counts; the test has no influence.
        rules: Names in `RULES`.
        suite: The name of the suite in the tables.

    Example, an NMU with another rate and another range:

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
                "Expected seeds and restarts of 1 or more, steps in whole thousands "
                "(multiples of `log_every`). "
                f"Received: seeds={self.seeds}, restarts={self.restarts}, "
                f"steps={self.steps}, log_every={self.log_every}."
            )
        by_epoch = self.rules or self.task.batches
        if by_epoch and self.log_every != (self.task.batches or 1000):
            raise ValueError(
                "The task or its rules need epochs of fixed length. Expected log_every="
                f"{self.task.batches or 1000}. Received: log_every={self.log_every}."
            )
        if unknown := [name for name in self.rules if name not in RULES]:
            raise ValueError(
                f"Unknown rule. Received: {unknown[0]!r}. Expected one of "
                f"{', '.join(RULES)}."
            )
        object.__setattr__(self, "rules", tuple(self.rules))
        # As text, which can be compared, pickled and saved.
        if not isinstance(self.layers, str):
            layers = [keras.saving.serialize_keras_object(a) for a in self.layers]
            object.__setattr__(self, "layers", json.dumps(layers))
        if not isinstance(self.optimizer, str):
            optimizer = keras.saving.serialize_keras_object(self.optimizer)
            object.__setattr__(self, "optimizer", json.dumps(optimizer))

    def config(self):
        """Everything that determines the results, as plain data.

        Layers and the optimizer are their Keras configs without names, as Keras numbers
        default names.
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
        """A hash of `config`."""
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
        """The steps of all members together."""
        return self.members * self.steps

    def population(self):
        """The compiled population: all seeds of every variant."""
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
            # A seed has the same initial weights in all variants.
            initial = keras.ops.convert_to_numpy(variable)[: len(self.run_seeds)]
            variable.assign(np.concatenate([initial] * len(self.task.variants)))
        metrics = [*self.task.measures().values(), *_sparsity_error(template)]
        population.compile(optimizer, self.task.loss, metrics=metrics)
        return population

    def run(self, callbacks=()):
        """Trains, and returns a row for every variant, seed and measure.

        A row has

        - the run: `suite`, `experiment`, `module`, `operation`, `inputs`, `range`,
          `seed`, `steps`;
        - the population: `backend`, `versions`, `seconds` and `members`;
        - at `selected_step`, the step with the lowest validation error: the errors
          `interpolation` (validation) and `extrapolation` (test), and `sparsity_error`;
        - `solved`: whether that test error is below `threshold`; `solved_at`: the first
          step at which a test error was; `diverged`: whether the last is not finite.

        Numbers that are not finite are `None`. The sparsity error is the largest of all
        effective weights; for iNALU and NPU, the published code takes the mean of the
        largest of each matrix.

        Args:
            callbacks: Further Keras callbacks.
        """
        started = time.perf_counter()
        # Errors in these should come before the training.
        every, thresholds = self._identified(), self.task.thresholds()
        # `INALUReinitialize` takes its seeds from this generator.
        np.random.seed(0)  # noqa: NPY002
        population = self.population()
        log = Log(self, population)
        rules = [make for name in self.rules for make in RULES[name](log)]
        batches = Sampled(
            lambda stream: self.task.sample(stream, self.run_seeds),
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
        """The columns that all rows share."""
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
        """The indices of a seed's members."""
        runs = len(self.run_seeds)
        return range(variant * runs + seed, (variant + 1) * runs, self.seeds)


def _validation(result):
    error = result["interpolation"]
    return math.inf if error is None else error


def _sparsity_error(template):
    """[SparsityError()], or [] if the model has no arithmetic layer."""
    try:
        keras_nalu.SparsityError(template).result()
    except ValueError:
        return []
    return [keras_nalu.SparsityError()]


def _nameless(config):
    """A Keras config reduced to registered classes and their arguments."""
    if isinstance(config, list):
        return [_nameless(a) for a in config]
    if not isinstance(config, dict):
        return config
    if "class_name" in config and "config" in config:
        name = config.get("registered_name") or config["class_name"]
        return {"class": name, "config": _nameless(config["config"])}
    # Only a dtype policy has a name that matters.
    nothing = () if config.keys() == {"name"} else ("name", "build_config")
    # Without `None`, so that arguments of later Keras versions do not change it.
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
