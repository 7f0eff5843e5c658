"""The papers' penalties, with coefficients that follow the steps of the training.

A penalty acts on a stored weight; `+` adds two of them. Its coefficient is a number or
a schedule of `keras.optimizers.schedules`, a function of the number of training steps.
The papers use `LinearRamp` and `StepwiseGrowth`.
"""

import inspect
import math
import numbers
from collections.abc import Sequence
from typing import Any, TypeAlias

import keras
import numpy as np
from keras import ops

from keras_nalu import expect, private
from keras_nalu.ops import distance, magnitude, tensor, widen

Schedule = keras.optimizers.schedules.LearningRateSchedule
#: The factor of a penalty: a number, a schedule, or the config of a schedule.
Coefficient: TypeAlias = (
    float | keras.optimizers.schedules.LearningRateSchedule | dict[str, Any]
)


def _config(part: Any) -> dict[str, Any]:
    """Every constructor argument, read from the attribute of the same name."""
    names = inspect.signature(type(part)).parameters
    return {
        name: keras.saving.serialize_keras_object(getattr(part, name)) for name in names
    }


@keras.saving.register_keras_serializable(package="keras_nalu")
class LinearRamp(Schedule):
    """A linear schedule: 0 until one step, then rising to `value` at a later step.

        value * clip((step - start) / (end - start), 0, 1)

    Args:
        value: The value after the ramp.
        start: The last step whose value is 0.
        end: The first step whose value is `value`.

    Raises:
        ValueError: `start` is not below `end`.

    Example:

    >>> ramp = keras_nalu.regularizers.LinearRamp(10, 20_000, 35_000)
    >>> [float(ramp(step)) for step in (0, 27_500, 50_000)]
    [0.0, 5.0, 10.0]

    Reference: Madsen and Johansen, Neural Arithmetic Units, ICLR 2020,
    arXiv:2001.05016.
    """

    def __init__(self, value: float, start: float, end: float) -> None:
        self.value = expect.number("value", value)
        self.start = expect.not_negative("start", start, "20_000")
        self.end = expect.not_negative("end", end, "35_000")
        if not self.start < self.end:
            raise ValueError(
                "Expected steps with 0 <= start < end. Received: "
                f"start={start!r}, end={end!r}. Try start=20_000, end=35_000."
            )

    def __call__(self, step: Any) -> Any:
        step = ops.cast(tensor("step", step), "float32")
        share = (step - self.start) / (self.end - self.start)
        return self.value * ops.clip(share, 0.0, 1.0)

    def get_config(self) -> dict[str, Any]:
        return _config(self)


@keras.saving.register_keras_serializable(package="keras_nalu")
class StepwiseGrowth(Schedule):
    """A schedule that multiplies its value at regular intervals, up to a limit.

        min(first * factor ** floor(step / every), last)

    Args:
        first: The value at the beginning.
        last: The largest value.
        factor: The factor of each interval.
        every: Steps in an interval.

    Raises:
        ValueError: not `0 < first <= last`, `factor > 1` and `every >= 1`.

    Example:

    >>> growth = keras_nalu.regularizers.StepwiseGrowth(1e-9, 1e-7)
    >>> [f"{float(growth(step)):.0e}" for step in (0, 9_999, 10_000, 50_000)]
    ['1e-09', '1e-09', '1e-08', '1e-07']

    Reference: Heim et al., Neural Power Units, NeurIPS 2020, arXiv:2006.01681.
    """

    def __init__(
        self, first: float, last: float, factor: float = 10.0, every: float = 10_000
    ) -> None:
        self.first: Any = expect.positive("first", first)
        self.last: Any = expect.positive("last", last)
        self.factor: Any = expect.number(
            "factor", factor, "a number above 1", "10.0", lambda n: np.float32(n) > 1
        )
        self.every = expect.number(
            "every", every, "a number of steps", "10_000", lambda n: n >= 1
        )
        if not self.first <= self.last:
            raise ValueError(
                "Expected 0 < first <= last. Received: "
                f"first={first!r}, last={last!r}. Try first=1e-9, last=1e-7."
            )

    def __call__(self, step: Any) -> Any:
        times = ops.cast(tensor("step", step) // self.every, "float32")
        # Without this bound the power would overflow after many steps.
        most = math.ceil(math.log(self.last / self.first, self.factor))
        grown = self.first * self.factor ** ops.minimum(times, most)
        return ops.minimum(grown, self.last)

    def get_config(self) -> dict[str, Any]:
        return _config(self)


class Penalty(keras.regularizers.Regularizer):
    """Base of the penalties: a coefficient times a function of a stored weight.

    Args:
        coefficient: A number >= 0, or a schedule of `keras.optimizers.schedules`.
    """

    def __init__(self, coefficient: Coefficient = 1.0) -> None:
        if isinstance(coefficient, dict) and "class_name" in coefficient:
            coefficient = keras.saving.deserialize_keras_object(coefficient)
        if not isinstance(coefficient, numbers.Real | Schedule):
            raise ValueError(
                "Expected a number or a schedule of `keras.optimizers.schedules`. "
                f"Received: coefficient={expect.text(coefficient)}. Try coefficient=10 "
                "or coefficient=keras_nalu.regularizers.LinearRamp(10, 20_000, 35_000)."
            )
        if not isinstance(coefficient, Schedule):
            coefficient = expect.not_negative("coefficient", coefficient, "1.0")
        self.coefficient: Any = coefficient

    def penalty(self, w: Any) -> Any:
        """The function of the weight that the coefficient is multiplied by."""
        raise NotImplementedError

    def at(self, w: Any, step: Any) -> Any:
        """The penalty of a weight after this number of training steps."""
        penalty = self.penalty(widen(tensor("w", w)))
        coefficient = self.coefficient
        if isinstance(coefficient, Schedule):
            coefficient = ops.cast(coefficient(step), penalty.dtype)
        return coefficient * penalty

    def __call__(self, w: Any) -> Any:
        if is_scheduled(self):
            raise ValueError(
                "A coefficient that follows a schedule needs the count of the training "
                "steps, which the layers of keras_nalu keep. Received: "
                f"{type(self).__name__} with a schedule, on a weight of another layer. "
                "Give it a number as coefficient there."
            )
        return self.at(w, 0)

    def __add__(self, other: Any) -> "Sum":
        return Sum([self, other])

    def __radd__(self, other: Any) -> "Sum":
        return Sum([other, self])

    def get_config(self) -> dict[str, Any]:
        return _config(self)


@keras.saving.register_keras_serializable(package="keras_nalu")
class Sum(Penalty):
    """The sum of penalties, as `+` returns it.

    Args:
        terms: The penalties.
    """

    def __init__(self, terms: Sequence[Any]) -> None:
        if not isinstance(terms, list | tuple) or any(
            not callable(term) and not isinstance(term, str | dict) for term in terms
        ):
            raise expect.invalid("terms", terms, "penalties to add", "['l1', 'l2']")
        self.terms = [keras.regularizers.get(term) for term in terms]

    def at(self, w: Any, step: Any) -> Any:
        return sum(
            term.at(w, step) if isinstance(term, Penalty) else term(w)
            for term in self.terms
        )


@keras.saving.register_keras_serializable(package="keras_nalu")
class Sparsity(Penalty):
    """Pulls the entries towards -1, 0 and 1, or towards 0 and 1.

        coefficient * mean(min(|W|, |1 - |W||))                    linear
        coefficient * mean((W (1 - |W|)) ** 2)                     squared

    Use `low=-1` for NAU and NRU, and `low=0` for NMU, SNMU, NMRU and the relevance gate
    of the NPU. With `low=0` the inner |W| is W.

    Args:
        coefficient: A number >= 0, or a schedule of `keras.optimizers.schedules`.
        low: The lowest of the values, -1 or 0.
        squared: Whether to use the squared form.

    Raises:
        ValueError: `low` is neither -1 nor 0.

    Example:

    >>> regularizers = keras_nalu.regularizers
    >>> ramp = regularizers.LinearRamp(10, 20_000, 35_000)
    >>> layer = NMU(1, kernel_regularizer=regularizers.Sparsity(ramp, low=0))

    Reference: Madsen and Johansen, Neural Arithmetic Units, ICLR 2020,
    arXiv:2001.05016.
    """

    def __init__(
        self, coefficient: Coefficient = 1.0, low: int = -1, squared: bool = False
    ) -> None:
        super().__init__(coefficient)
        self.low = expect.integer("low", low, "-1 or 0", -1, 1, 0)
        self.squared = expect.flag("squared", squared)

    def penalty(self, w: Any) -> Any:
        if self.squared:
            u = magnitude(w) if self.low else w
            return ops.mean(ops.square(u * (1 - u)))
        return ops.mean(distance(w, range(self.low, 2)))


@keras.saving.register_keras_serializable(package="keras_nalu")
class OutOfRange(Penalty):
    """Pulls the entries back between two bounds, instead of a constraint.

        coefficient * mean(max(W - high, 0) + max(low - W, 0))

    Args:
        coefficient: A number >= 0, or a schedule of `keras.optimizers.schedules`.
        low: The lowest value without a penalty.
        high: The highest value without a penalty.
        squared: Whether to square the excess of each entry.

    Reference: Madsen and Johansen, Neural Arithmetic Units, ICLR 2020,
    arXiv:2001.05016; published code.
    """

    def __init__(
        self,
        coefficient: Coefficient = 1.0,
        low: float = -1.0,
        high: float = 1.0,
        squared: bool = False,
    ) -> None:
        super().__init__(coefficient)
        self.low = expect.number("low", low)
        self.high = expect.number("high", high)
        if not self.low <= self.high:
            raise ValueError(
                "Expected low <= high. Received: "
                f"low={low!r}, high={high!r}. Try low=-1.0, high=1.0."
            )
        self.squared = expect.flag("squared", squared)

    def penalty(self, w: Any) -> Any:
        excess = ops.relu(w - self.high) + ops.relu(self.low - w)
        return ops.mean(ops.square(excess) if self.squared else excess)


@keras.saving.register_keras_serializable(package="keras_nalu")
class INALUPenalty(Penalty):
    """Pushes the stored weights away from 0, so that tanh and sigmoid saturate.

        coefficient * mean(max(limit - |W|, 0))

    Give it to the kernels and to the gate. The authors add it once the loss is small; a
    schedule that begins late is similar.

    Args:
        coefficient: A number >= 0, or a schedule of `keras.optimizers.schedules`.
        limit: The lowest magnitude without a penalty.

    Reference: Schlör et al., iNALU, 2020, arXiv:2003.07629; published code. The paper
    divides by `limit`.
    """

    def __init__(self, coefficient: Coefficient = 0.05, limit: float = 20.0) -> None:
        super().__init__(coefficient)
        self.limit = expect.number("limit", limit)

    def penalty(self, w: Any) -> Any:
        return ops.mean(ops.relu(self.limit - magnitude(w)))


@keras.saving.register_keras_serializable(package="keras_nalu")
class L1(Penalty):
    """The sum of the magnitudes, with a coefficient that may follow a schedule.

        coefficient * sum(|W|)

    The authors of the NPU use it on all its weights.

    Args:
        coefficient: A number >= 0, or a schedule of `keras.optimizers.schedules`.

    Example:

    >>> regularizers = keras_nalu.regularizers
    >>> l1 = regularizers.L1(regularizers.StepwiseGrowth(1e-9, 1e-7))
    >>> layer = NPU(1, kernel_regularizer=l1, gate_regularizer=l1)

    Reference: Heim et al., Neural Power Units, NeurIPS 2020, arXiv:2006.01681.
    """

    def penalty(self, w: Any) -> Any:
        return ops.sum(magnitude(w))


@keras.saving.register_keras_serializable(package="keras_nalu")
class Discretization(Penalty):
    """Pulls the entries towards -1 and 1.

        coefficient * mean(|1 - |W||)

    Mistry et al. use it on the kernel of their modified RealNPU.

    Args:
        coefficient: A number >= 0, or a schedule of `keras.optimizers.schedules`.

    Example:

    >>> regularizers = keras_nalu.regularizers
    >>> both = regularizers.L1(1e-9) + regularizers.Discretization(
    ...     regularizers.LinearRamp(1, 40_000, 50_000)
    ... )
    >>> layer = RealNPU(1, kernel_regularizer=both)

    Reference: Mistry et al., 2021, arXiv:2110.05177.
    """

    def penalty(self, w: Any) -> Any:
        return ops.mean(distance(w, (-1, 1)))


@keras.saving.register_keras_serializable(package="keras_nalu")
class NegativeSquare(Penalty):
    """Rewards growth without a limit.

        -coefficient * mean(W ** 2)

    Mistry et al. use it on the kernel and the gate of the MC-FC.

    Args:
        coefficient: A number >= 0, or a schedule of `keras.optimizers.schedules`.

    Reference: Mistry et al., A Primer for Neural Arithmetic Logic Modules, JMLR 2022,
    arXiv:2101.09530; published code.
    """

    def penalty(self, w: Any) -> Any:
        return -ops.mean(ops.square(w))


def is_scheduled(regularizer: Any) -> bool:
    """Whether one of its coefficients follows a schedule."""
    if isinstance(regularizer, Sum):
        return any(map(is_scheduled, regularizer.terms))
    return isinstance(regularizer, Penalty) and isinstance(
        regularizer.coefficient, Schedule
    )


class Scheduled(keras.regularizers.Regularizer):
    """A penalty on one weight, with the count of the steps that it was trained.

    The count is a weight of the layer. It increases when an optimizer applies the
    constraint of the penalized weight: once a step, however often the layer is called
    or the penalty is read. Within a `keras.StatelessScope`, as in every step on JAX or
    of a member of a population, assignments by a constraint are lost. There the penalty
    is read once a step, and reading it increases the count. (Only there the count
    includes steps that a LossScaleOptimizer skips.)

    It cannot increase in `call`, which runs more than once for a layer that is shared
    or rematerialized, and for a recurrent cell within a loop, where JAX allows no
    assignment. The optimizer's `iterations` would not do: they restart when a model is
    compiled again, and a step on JAX takes the gradient without them.

    Args:
        penalty: A penalty with a schedule.
        steps: The weight that holds the count.
    """

    def __init__(self, penalty: Penalty, steps: Any) -> None:
        self.penalty = penalty
        self.steps = steps
        #: Whether the layer was called in training since the penalty was last read.
        self.due = False

    def __call__(self, w: Any) -> Any:
        value = self.penalty.at(w, ops.convert_to_tensor(self.steps))
        if private.in_stateless_scope():
            if self.due:
                self.steps.assign(self.steps + 1)
            self.due = False
        return value


class Counting(keras.constraints.Constraint):
    """The constraint of a weight whose penalty is scheduled; see `Scheduled`.

    Args:
        constraint: The constraint that the user or the paper gives, or `None`.
        steps: The weight that holds the count.
    """

    def __init__(self, constraint: Any, steps: Any) -> None:
        self.constraint = constraint
        self.steps = steps

    def __call__(self, w: Any) -> Any:
        if not private.in_stateless_scope():
            self.steps.assign(self.steps + 1)
        return (
            ops.convert_to_tensor(w) if self.constraint is None else self.constraint(w)
        )
