"""The measurements of an experiment while it trains, and the result of one run."""

import math

import keras
import numpy as np

from keras_nalu.benchmarks.doors import Sampled


class Log(keras.callbacks.Callback):
    """Measures every member on the validation and the test set."""

    def __init__(self, experiment, population):
        super().__init__()
        task, seeds = experiment.task, experiment.run_seeds
        self.experiment = experiment
        self.population = population
        self.steps = []
        self.logs = []
        self.sets = {
            part: Sampled(
                lambda stream, part=part: task.sample(stream, seeds, part),
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
        self.measure((epoch + 1) * self.experiment.log_every)

    def measure(self, step):
        self.steps.append(step)
        self.logs.append(
            {
                part: self.population.evaluate(rows, verbose=0, return_dict=True)
                for part, rows in self.sets.items()
            }
        )

    def errors(self, name):
        """The errors in validation and in test, (measurements, members) each."""
        return [
            np.stack([logs[part][name] for logs in self.logs]) for part in self.sets
        ]

    def last_error(self):
        """Every member's error in the last validation, (members,)."""
        return self.logs[-1]["validation"][next(iter(self.experiment.task.measures()))]

    def sparsity(self):
        unknown = np.full(self.experiment.members, np.nan)
        return np.stack(
            [logs["test"].get("sparsity_error", unknown) for logs in self.logs]
        )


def result(steps, near, far, sparsity, threshold, judged):
    """The columns of one run by the rules of the published code: most papers judge it
    by the test at the step with the lowest validation error."""
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


def _number(value):
    return float(value) if np.isfinite(value) else None
