"""Running the experiments of a suite, and keeping their rows."""

import dataclasses
import time

import keras

from keras_nalu.benchmarks.experiment import Experiment
from keras_nalu.benchmarks.suites import SUITES
from keras_nalu.benchmarks.workers import completed


def select(suite, modules=(), operations=(), threshold=None, **changes):
    """The experiments of a suite, or some of them.

    Args:
        suite: A name in `SUITES`.
        modules: Names of modules; all if empty.
        operations: Names of operations, or their first letters; all if empty.
        threshold: The rule for what counts as solved, if the suite has two.
        **changes: `seeds` and `steps` in place of the suite's.
    """
    if suite not in SUITES:
        expected = ", ".join(SUITES)
        raise ValueError(f"no suite {suite!r}. Expected one of {expected}")
    given = {} if threshold is None else {"threshold": threshold}
    if given and not SUITES[suite].has_thresholds:
        raise ValueError(f"the suite {suite} has one threshold rule, that of its paper")
    experiments = list(SUITES[suite].experiments(**given))
    known = list(dict.fromkeys(experiment.module for experiment in experiments))
    tasks = list(dict.fromkeys(experiment.task.operation for experiment in experiments))
    if unknown := [name for name in modules if name not in known]:
        expected = ", ".join(known)
        raise ValueError(f"no module {unknown[0]!r} in {suite}. Expected {expected}")
    for name in operations:
        if not _chosen(name, tasks):
            expected = ", ".join(tasks)
            raise ValueError(f"no operation {name!r} in {suite}. Expected {expected}")
    changes = {name: value for name, value in changes.items() if value is not None}
    chosen = {task for name in operations for task in _chosen(name, tasks)} or {*tasks}
    return [
        dataclasses.replace(experiment, **changes)
        for experiment in experiments
        if (not modules or experiment.module in modules)
        and experiment.task.operation in chosen
    ]


def _chosen(name, tasks):
    """The operation of this name, or else those that start with it."""
    return (
        [name] if name in tasks else [task for task in tasks if task.startswith(name)]
    )


def run(experiments, results, workers=1, scheduler=None):
    """Trains the experiments, and keeps the rows of each as it ends.

    Yields (experiment, rows, error), with either rows or error `None`.
    """
    results.check()
    backend = keras.backend.backend()
    ended = completed(Experiment.run, experiments, workers, scheduler)
    for experiment, rows, error in ended:
        if rows and rows[0]["backend"] != backend:
            error = f"expected a worker with {backend}, received {rows[0]['backend']}"
            rows = None
        if error is None:
            results.write(experiment, backend, rows)
        yield experiment, rows, error


def measured_rate(experiment):
    """The steps of one member per second, measured without compilation."""
    times = []
    brief = dataclasses.replace(experiment, steps=2 * experiment.log_every)
    record = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda *_: times.append(time.perf_counter())
    )
    brief.run([record])
    return brief.members * brief.log_every / (times[-1] - times[-2])
