"""The base class of tasks: their samples, labels, and threshold."""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import keras
from keras import ops

from keras_nalu.benchmarks.tasks.distributions import Variant


@dataclasses.dataclass(frozen=True)
class Task:
    """An operation to learn, its batches, and the threshold of success.

    A subclass defines `variants`, `inputs` and `answer`, `measures` if its error is not
    the mean squared one, and `config` if it has further arguments.
    """

    operation: str

    #: Rows of a batch, and of a validation or test set, which is sampled in pieces.
    batch_size: ClassVar[int] = 128
    rows: ClassVar[int] = 10_000
    pieces: ClassVar[dict] = {"validation": 10, "test": 10}
    #: Batches after which the training set repeats; with 0 every batch is new.
    batches: ClassVar[int] = 0
    #: The seeds of the validation and test sets, as in the published code.
    sets: ClassVar[dict] = {"validation": 43953907, "test": 8689336}
    loss: ClassVar[str] = "mse"
    #: The measurement that judges a run: the one of "best" validation, or the "last".
    judged: ClassVar[str] = "best"
    #: An error below it counts as solved; `None` if there is no such limit.
    threshold: Any = 1e-5
    #: The valid names of `operation`; `None` allows any.
    known: ClassVar[Any] = None

    def __post_init__(self):
        if self.known is not None and self.operation not in self.known:
            raise ValueError(
                f"Unknown operation. Received: operation={self.operation!r}. Expected "
                f"one of {', '.join(self.known)}."
            )

    def config(self):
        """The facts that determine the results, as plain data.

        A subclass adds its arguments. Methods are not part of it, so a class that
        changes them needs another name.
        """
        return {
            "task": type(self).__name__,
            "operation": self.operation,
            "threshold": self.threshold,
            "inputs": self.inputs,
            "variants": [variant.config() for variant in self.variants],
            "batch_size": self.batch_size,
            "rows": self.rows,
            "pieces": self.pieces,
            "batches": self.batches,
            "sets": self.sets,
            "loss": self.loss,
            "judged": self.judged,
        }

    @property
    def variants(self) -> Sequence[Variant]:
        raise NotImplementedError

    @property
    def inputs(self) -> int:
        raise NotImplementedError

    @property
    def input_shape(self):
        return (self.inputs,)

    def answer(self, x, seeds):
        """The labels of `x`, (variants, runs or 1, rows, inputs), by run and seed."""
        raise NotImplementedError

    def measures(self):
        """{operation: metric that judges it}."""
        return {self.operation: keras.metrics.MeanSquaredError(self.operation)}

    def thresholds(self):
        """The threshold of every variant."""
        if isinstance(self.threshold, str):
            raise ValueError(
                "Expected a number, or the name of one of the task's rules. Received: "
                f"threshold={self.threshold!r}."
            )
        return [self.threshold] * len(self.variants)

    def sample_inputs(self, stream, rows, members, part):
        # Generators give multiples of 2**-23, with which a divisor was 0 in every
        # second run of 50,000 steps on [-2, 2]. Halfway between them none is. The
        # published code samples in double precision.
        u = stream.uniform((rows, self.inputs), members=members) + 2**-24
        return ops.stack([variant.of(part).sample(u) for variant in self.variants])

    def sample(self, stream, seeds, part="training"):
        """A batch for every variant and run, (variants * runs, rows, ...)."""
        training = part == "training"
        rows = self.batch_size if training else self.rows // self.pieces[part]
        runs = len(seeds)
        x = self.sample_inputs(stream, rows, runs if training else 1, part)
        y = self.answer(x, seeds)

        def of_runs(a):
            shape = (len(self.variants), runs, *a.shape[2:])
            return ops.reshape(
                ops.broadcast_to(a, shape), (shape[0] * runs, *shape[2:])
            )

        return of_runs(x), of_runs(y)
