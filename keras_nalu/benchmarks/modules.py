"""What every module claims, put to the test: twenty seeds of each of its operations."""

import dataclasses
from typing import Any

import keras
import numpy as np

from keras_nalu import Population
from keras_nalu.datasets import COMPARISONS, OPERATIONS
from keras_nalu.layers import LAYERS
from keras_nalu.regularizers import (
    L1,
    LinearRamp,
    NegativeSquare,
    Sparsity,
    StepwiseGrowth,
)


@dataclasses.dataclass(frozen=True)
class Claim:
    """One operation of one module, on the easiest task there is.

    Two inputs from [1, 2), drawn anew for every step; a seed has solved it when the
    mean squared error on 1,000 rows from [2, 6) is below 1e-5, the threshold of the
    published code of Mistry et al. For comparisons the inputs are integers from 0 to 9,
    and all must be right of 1,000 pairs from 10 to 99.
    """

    module: str
    operation: str
    seeds: int = 20
    steps: int = 50_000
    batch_size: int = 128
    learning_rate: float = 1e-2

    @property
    def compares(self):
        return self.operation in COMPARISONS

    def layer(self):
        return LAYERS[self.module](1, **_penalties(self.module, 1000 * self.epochs))

    @property
    def epochs(self):
        """Of 1,000 steps."""
        return -(-self.steps // 1000)

    def answer(self, x):
        if self.compares:
            right = COMPARISONS[self.operation](x[..., :1], x[..., 1:])
            return keras.ops.cast(right, "float32")
        return OPERATIONS[self.operation](x[..., :1], x[..., 1:])

    def draw(self, stream):
        shape = (self.batch_size, 2)
        if self.compares:
            x = keras.ops.floor(stream.uniform(shape, 0, 10))
        else:
            x = stream.uniform(shape, 1, 2)
        return x, self.answer(x)

    def extrapolation(self):
        rng = np.random.default_rng(0)
        if self.compares:
            x = rng.integers(10, 100, (1000, 2)).astype("float32")
            x[::4, 1] = x[::4, 0]
        else:
            x = rng.uniform(2, 6, (1000, 2)).astype("float32")
        return x, keras.ops.convert_to_numpy(self.answer(x))

    def population(self):
        """The seeds' models, compiled."""
        keras.utils.set_random_seed(0)
        template = keras.Sequential([keras.Input((2,)), self.layer()])
        population = Population(template, self.seeds, seed=0)
        rate = keras.optimizers.schedules.CosineDecay(
            self.learning_rate, 1000 * self.epochs
        )
        loss = "binary_crossentropy" if self.compares else "mse"
        population.compile(keras.optimizers.Adam(rate), loss)
        return population

    def train(self, callbacks=()):
        """The population, trained."""
        population = self.population()
        population.fit(
            self.draw,
            steps_per_epoch=1000,
            epochs=self.epochs,
            verbose=0,
            callbacks=list(callbacks),
        )
        return population

    def solved(self, population):
        """Which of the members have solved it."""
        x, y = self.extrapolation()
        error = np.squeeze(population.predict(x, verbose=0) - y, -1)
        if self.compares:
            return np.all(np.abs(error) < 0.5, axis=1)
        return np.mean(np.square(error), axis=1) < 1e-5


def claims(module, **changes):
    """Every operation of a module."""
    return [
        Claim(module, operation, **changes) for operation in LAYERS[module].operations
    ]


def head(seeds):
    """The head of README's table, to which every module adds a row."""
    learned = f"operations, and how many of {seeds} seeds learned each"
    return f"| layer | {learned} | inputs | paper |\n|---|---|---|---|"


def row(module, counts):
    """A row of the table; `counts` has the seeds that solved each operation."""
    layer = LAYERS[module]
    learned = ", ".join(f"{name} {count}" for name, count in counts.items())
    kind, number = layer.reference.split(":")
    site = {"arXiv": "https://arxiv.org/abs/", "doi": "https://doi.org/"}[kind]
    paper = f"[{layer.reference}]({site}{number})"
    return f"| `{module}` | {learned} | {layer.domain} | {paper} |"


def _penalties(module, steps) -> dict[str, Any]:
    """The paper's penalties, of two kinds: those for discrete weights begin at 40% of
    the training, as in the published benchmark."""

    def ramp(value):
        return LinearRamp(value, 2 * steps // 5, 7 * steps // 10)

    kernel = {
        "NAU": Sparsity(ramp(0.01), low=-1),
        "NRU": Sparsity(ramp(10), low=-1),
        "NMU": Sparsity(ramp(10), low=0),
        "SNMU": Sparsity(ramp(10), low=0),
        "NMRU": Sparsity(ramp(10), low=0),
        "NaiveNPU": L1(StepwiseGrowth(1e-9, 1e-7)),
    }
    both = {
        "NPU": L1(StepwiseGrowth(1e-9, 1e-7)),
        "RealNPU": L1(StepwiseGrowth(1e-9, 1e-7)),
        "MCFC": NegativeSquare(ramp(10)),
        "MulMCFC": NegativeSquare(ramp(10)),
    }
    if module in both:
        return {"kernel_regularizer": both[module], "gate_regularizer": both[module]}
    return {"kernel_regularizer": kernel[module]} if module in kernel else {}
