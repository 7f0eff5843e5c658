"""From the arguments of a call to a `Run`, or to `None` if Keras is to run it."""

import inspect
import math
import numbers
import warnings

import keras

from keras_nalu.models import backends, fusing
from keras_nalu.models.arrays import (
    are_arrays,
    count_rows,
    is_dense,
    plain_arrays,
    take_rows,
)
from keras_nalu.models.feeds.arrays import Arrays, SpreadArrays
from keras_nalu.models.feeds.base import Feed
from keras_nalu.models.feeds.datasets import Dataset, Iterated, is_static
from keras_nalu.models.feeds.sampled import Sampled, is_function
from keras_nalu.models.run import Run

#: The floating-point operations of a chunk, bounded so that the progress bar moves.
CHUNK_FLOPS = 1e9

#: If this bound leaves fewer steps, a step is so heavy that a loop gains nothing. On
#: JAX, whose loop uses one core, two Dense of 1024 units take 1.5 times as long.
LEAST_STEPS = 10

#: The steps that Keras takes while a loop compiles, on a CPU: of a small model 700
#: (TensorFlow) to 1,800 (JAX), of six times Dense, BatchNormalization, GELU and Dropout
#: 3,500 to 4,100. Validation compiles one more loop.
PAYING_STEPS = 5_000

DATA = "x", "y", "sample_weight"


class NotFused(Exception):
    """The reason why a call is left to Keras, in a few words or empty."""


def arguments(method, model, args, kwargs):
    given = inspect.signature(method).bind(model, *args, **kwargs).arguments
    del given["self"]
    return given | given.pop("kwargs", {})


class Planner:
    """Plans the calls of one model. It leaves to Keras those that cannot be fused."""

    run = Run

    def __init__(self, model):
        self.model = model

    def fit(self, call):
        """The run of `fit(**call)`, if it is fused."""
        return self._plan(call, self._plan_fit)

    def evaluate(self, call):
        """The run of `evaluate(**call)`, if it is fused."""
        return self._plan(call, self._plan_evaluate)

    def _plan(self, call, plan):
        sampled = is_function(call.get("x"))
        try:
            # In a debug mode Keras runs all data that it can run.
            if self.is_asked_for() and (
                sampled or not backends.current().runs_eagerly()
            ):
                return plan(dict(call))
            reason = ""
        except NotFused as why:
            reason = str(why)
        if sampled and self.model.compiled:
            raise ValueError(
                "Only the compiled loop on TensorFlow or JAX trains on a function that "
                "samples batches"
                + (f", but {reason}" if reason else "")
                + ". Call the function in a generator, and give that to `fit`."
            )
        return self.hand_back(reason)

    def hand_back(self, reason):
        if reason:
            warnings.warn(
                f"Training step by step, as Keras does: {reason}.", stacklevel=5
            )

    def is_asked_for(self):
        return fusing.is_asked_for(self.model, self.model.asked_steps)

    def _plan_fit(self, call):
        self.expect(call, trains=True)
        devices = self.devices()
        held_out = self._hold_out(call)
        size = call.get("validation_batch_size") or call.get("batch_size")
        steps = call.get("validation_steps")
        shuffle = call.get("shuffle", True)
        train = self.feed(call, "steps_per_epoch", devices, shuffle)
        train.replace(call, "steps_per_epoch")
        feeds = {"train": train}
        if held_out is not None:
            test = _unpacked(held_out) | {"batch_size": size, "steps": steps}
            feeds["test"] = self.feed(test, "steps", devices)
            feeds["test"].replace_held_out(call)
        epochs = call.get("epochs", 1) - call.get("initial_epoch", 0)
        self.expect_to_pay(feeds, epochs)
        self._build(train)
        self.model.optimizer.build(self.model.trainable_variables)
        steps = self._steps(call, feeds, train)
        return self.run(self.model, call, feeds, steps, devices)

    def _plan_evaluate(self, call):
        self.expect(call, trains=False)
        devices = self.devices()
        test = self.feed(call, "steps", devices)
        test.replace(call, "steps")
        self.expect_to_pay({"test": test}, 1)
        self._build(test)
        steps = self._steps(call, {"test": test}, test)
        return self.run(self.model, call, {"test": test}, steps, devices)

    def expect(self, call, trains):
        """Raises `NotFused` unless a loop is known to do the same as Keras."""
        _expect(fusing.why_not_backend(self.model))
        _expect(fusing.why_not_steps(self.model))
        if trains:
            _expect(fusing.why_not_optimizer(self.model.optimizer))
        if self.model.asked_steps == "auto" and not is_function(call.get("x")):
            _expect(fusing.why_not_callbacks(call.get("callbacks")))

    def expect_to_pay(self, feeds, epochs):
        """Raises `NotFused` if Keras would end before a loop is compiled.

        The steps that Keras trained before count, too, so that a loop is compiled if
        many short calls follow each other.
        """
        asked = self.model.asked_steps != "auto"
        if asked or any(isinstance(feed, Sampled) for feed in feeds.values()):
            return
        if fusing.is_slow(self.model):
            raise NotFused("")
        steps, known = 0, True
        for kind, feed in feeds.items():
            chunks = self.model.chunks(kind)
            known &= chunks is not None and feed.readers() <= {*chunks.loops}
            steps += feed.steps * epochs + (chunks.left if chunks else 0)
        if not known and steps < PAYING_STEPS:
            raise NotFused("")

    def _build(self, feed):
        if not self.model.built:
            x, *_ = keras.utils.unpack_x_y_sample_weight(feed[0])
            self.model(x)
        _expect(fusing.why_not_built(self.model))

    def devices(self):
        return backends.current().devices()

    def _hold_out(self, call):
        """The validation data; `validation_split` takes the last rows, as in Keras."""
        data = plain_arrays({name: call.get(name) for name in DATA})
        call |= data
        held_out = call.get("validation_data")
        share = call.get("validation_split")
        if share and held_out is None and are_arrays(data):
            rows = count_rows(data)
            at = math.floor(rows * (1 - share))
            if 0 < at < rows:
                call |= take_rows(data, slice(at))
                del call["validation_split"]
                return tuple(take_rows(data, slice(at, None)).values())
        return held_out

    def feed(self, call, steps, devices, shuffle=False) -> Feed:
        x, steps = call.get("x"), call.get(steps)
        if isinstance(x, Feed):
            return x
        if is_function(x):
            return self.sampled(x, steps)
        data = plain_arrays(tuple(call.get(name) for name in DATA))
        if call.get("class_weight"):
            return self.other_data(steps, "it weighs classes. Try `sample_weight`")
        if are_arrays(data):
            return self._arrays(data, call, steps, devices, shuffle)
        single = data[1] is None and data[2] is None and not devices.spread
        if single and is_static(x) and _is_known(int(x.cardinality()), steps):
            return Dataset(x, steps)
        if all(map(is_dense, keras.tree.flatten([a for a in data if a is not None]))):
            # Keras says that their rows differ.
            return self.other_data(steps, "")
        return self.other_data(
            steps,
            "the data are neither arrays of numbers with the same rows nor a "
            "`tf.data.Dataset` of static shapes and a known number of batches",
        )

    def _arrays(self, data, call, steps, devices, shuffle):
        if steps is not None or shuffle == "batch":
            reason = "an epoch is not all rows of the arrays in any order"
            return self.other_data(steps, reason)
        size = call.get("batch_size") or 32
        if not isinstance(size, numbers.Integral) or size < 0:
            return self.other_data(steps, "")
        if call.get("validation_split") and call.get("validation_data") is None:
            return self.other_data(steps, "")
        rows = count_rows(data)
        if not rows:
            raise ValueError("Expected rows of data. Received: arrays without rows.")
        if not devices.spread:
            return Arrays(data, int(size), shuffle)
        batch = min(size, rows)
        if batch % devices.parts or rows % batch % devices.parts:
            raise ValueError(
                f"Every batch is cut into {devices.parts} equal parts, one for each "
                f"device, the last batch too. Received: {rows} rows, in batches of "
                f"{batch}. Try a `batch_size` and a number of rows that are multiples "
                f"of {devices.parts}."
            )
        return SpreadArrays(data, int(size), shuffle, devices)

    def other_data(self, steps, reason) -> Feed:
        """The feed of other kinds of data."""
        raise NotFused(reason)

    def sampled(self, sample, steps):
        return Sampled(sample, steps)

    def _steps(self, call, feeds, feed):
        if any(isinstance(each, Iterated) for each in feeds.values()):
            return 1
        if self.model.asked_steps != "auto":
            return self.model.asked_steps
        if fusing.why_not_callbacks(call.get("callbacks")) is not None:
            return 1
        steps = self._chunk_steps(feed)
        self.expect_chunk(steps, feed)
        return steps

    def expect_chunk(self, steps, feed):
        # Keras runs short chunks, except of functions, which it cannot run.
        few = steps == 1 or steps < min(LEAST_STEPS, feed.steps)
        if few and not isinstance(feed, Sampled):
            raise NotFused("")

    def _chunk_steps(self, feed):
        weights = sum(math.prod(weight.shape) for weight in self.model.weights)
        flops = 6 * weights * feed.batch_size
        within = max(1, CHUNK_FLOPS // max(1, flops))
        return math.ceil(min(feed.steps, feed.most_steps, within))


def _expect(reason):
    if reason is not None:
        raise NotFused(reason)


def _unpacked(data):
    if not isinstance(data, tuple | list):
        return {"x": data}
    data = keras.utils.unpack_x_y_sample_weight(data)
    return dict(zip(DATA, data, strict=True))


def _is_known(cardinality, steps):
    """Whether an epoch is known: all batches, or `steps` of an infinite data set."""
    return cardinality > 0 if steps is None else cardinality == -1
