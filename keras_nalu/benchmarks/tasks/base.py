"""What every task answers: what is drawn, what is right, what counts as solved."""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import keras
from keras import ops

from keras_nalu.benchmarks.tasks.distributions import Variant


@dataclasses.dataclass(frozen=True)
class Task:
    """What is learned, from which batches, and what counts as success.

    A task of one's own gives `variants`, `inputs` and `answer`; `measures` if its error
    is not the mean squared one; and `config`, if it has further arguments.
    """

    operation: str

    #: Rows of a batch; of a validation or test set, which is drawn in pieces.
    batch_size: ClassVar[int] = 128
    rows: ClassVar[int] = 10_000
    pieces: ClassVar[dict] = {"validation": 10, "test": 10}
    #: Batches after which the training set repeats; 0: every batch is fresh.
    batches: ClassVar[int] = 0
    #: The seeds of the published code's validation and test sets.
    sets: ClassVar[dict] = {"validation": 43953907, "test": 8689336}
    loss: ClassVar[str] = "mse"
    #: Which measurement judges a run: the one of the "best" validation, or the "last".
    judged: ClassVar[str] = "best"
    #: Errors below it count as solved, of each variant; `None`: there is no such line.
    threshold: Any = 1e-5
    #: What `operation` may be; `None`: any name.
    known: ClassVar[Any] = None

    def __post_init__(self):
        if self.known is not None and self.operation not in self.known:
            raise ValueError(
                f"Unknown operation. Received: operation={self.operation!r}. Expected "
                f"one of {', '.join(self.known)}."
            )

    def config(self):
        """What counts of a task: two with the same have the same results.

        A task of one's own adds its arguments. What its methods do does not count: let
        another class have another name.
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
        """The labels; `x` is of shape (variants, runs or 1, rows, inputs), and `seeds`
        has the seed of every run."""
        raise NotImplementedError

    def measures(self):
        """Metrics by the name of the operation that they judge."""
        return {self.operation: keras.metrics.MeanSquaredError(self.operation)}

    def thresholds(self):
        """Of every variant."""
        if isinstance(self.threshold, str):
            raise ValueError(
                "Expected a number, or the name of a rule that the task has. Received: "
                f"threshold={self.threshold!r}."
            )
        return [self.threshold] * len(self.variants)

    def draw_inputs(self, stream, rows, members, part):
        # Generators give whole multiples of 2**-23. Halfway between them, no divisor is
        # 0 by chance, as it was in every second run of 50,000 steps on [-2, 2]; the
        # published code rounds to single precision what has 53 digits.
        u = stream.uniform((rows, self.inputs), members=members) + 2**-24
        return ops.stack([variant.of(part).sample(u) for variant in self.variants])

    def draw(self, stream, seeds, part="training"):
        """A batch for every variant and run: of shape (variants * runs, rows, ...)."""
        training = part == "training"
        rows = self.batch_size if training else self.rows // self.pieces[part]
        runs = len(seeds)
        x = self.draw_inputs(stream, rows, runs if training else 1, part)
        y = self.answer(x, seeds)

        def of_runs(a):
            shape = (len(self.variants), runs, *a.shape[2:])
            return ops.reshape(
                ops.broadcast_to(a, shape), (shape[0] * runs, *shape[2:])
            )

        return of_runs(x), of_runs(y)
