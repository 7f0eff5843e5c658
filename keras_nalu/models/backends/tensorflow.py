"""The loop over steps, compilation and random numbers on TensorFlow."""

import contextvars
import functools
import warnings

import keras
import tensorflow as tf

from keras_nalu.models.backends.base import Backend
from keras_nalu.models.backends.graphs import text_of
from keras_nalu.models.backends.programs import Shared, compiled

_without_xla = contextvars.ContextVar("without_xla", default=False)


class TensorFlow(Backend):
    loops = True

    def runs_eagerly(self):
        return tf.config.functions_run_eagerly()

    def spreads(self, model):
        return model.distribute_strategy.num_replicas_in_sync > 1

    def refuse_to_fit(self, model):
        distribution = keras.distribution.distribution()
        if distribution is not None and distribution.device_mesh.devices.size > 1:
            raise ValueError(
                "`keras.distribution` is for JAX; on TensorFlow Keras trains on only "
                f"one device. Received: {distribution}. Try "
                "KERAS_BACKEND=jax, or make the model within "
                "`tf.distribute.MirroredStrategy().scope()`."
            )
        strategy = model.distribute_strategy
        if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
            return
        if strategy.num_replicas_in_sync > len(strategy.extended.worker_devices):
            raise ValueError(
                "Keras' `fit` does not train under MultiWorkerMirroredStrategy "
                "(https://github.com/keras-team/keras/issues/20585). Try "
                "KERAS_BACKEND=jax with `keras.distribution.initialize` and "
                "`keras.distribution.DataParallel`, or your own loop around "
                "`strategy.run`."
            )

    def accelerated(self):
        return bool(tf.config.list_physical_devices("GPU"))

    def batches(self, feed):
        """The first batch, repeated, since Keras reads none. From a feed it would make
        a generator, which takes five times as long as all else at the start of a call.
        """
        batch = keras.tree.lists_to_tuples(feed[0])
        return tf.data.Dataset.from_tensors(batch).repeat()

    def make_loop(self, step, reader, devices):
        """The state is in the model's variables. The last step comes after the loop,
        because only its logs are returned."""
        step = tf.function(step, autograph=False)

        def loop(data, first, last):
            def block(start):
                batch = reader(data, start)

                def one(i):
                    step(batch(i))
                    return (i + 1,)

                end = tf.minimum(start + reader.block, last)
                tf.while_loop(lambda i: i < end, one, (start,))
                return (start + reader.block,)

            if reader.block:
                tf.while_loop(lambda start: start < last, block, (first,))
            return step(reader(data, last)(last))

        function = self.compiled(loop)
        return lambda data, first, last: (
            function(data, tf.constant(first), tf.constant(last)),
        )

    def compiled(self, function):
        """`function`, compiled by XLA. If XLA refuses an operation, as in a debug mode,
        TensorFlow runs it; the last way also avoids operations that need XLA."""
        ways = iter(
            [
                Shared(functools.partial(_trace, function), _kind),
                tf.function(function, autograph=False),
                self._bare(tf.function(function, autograph=False)),
            ]
        )
        way = next(ways)

        def call(*args):
            nonlocal way
            while True:
                try:
                    return way(*args)
                except tf.errors.InvalidArgumentError as error:
                    following = next(ways, None) if _is_refused(error) else None
                    if following is None:
                        raise
                    way = following
                warnings.warn(
                    "XLA cannot compile this on TensorFlow, so it runs without XLA, "
                    "many times slower. Try KERAS_BACKEND=jax.",
                    stacklevel=2,
                )

        return call

    def _bare(self, function):
        def call(*args):
            token = _without_xla.set(True)
            try:
                return function(*args)
            finally:
                _without_xla.reset(token)

        return call

    def sample_each(self, sample, states):
        # `vectorized_map` would make the same loop of random numbers, and warn.
        every = tf.function(lambda s: keras.ops.map(sample, s), autograph=False)
        if self.runs_eagerly():
            return every(states)
        # Called directly, `every` would warn of retracing.
        return every.get_concrete_function(states)(states)

    def uniform(self, seed, shape, low, high):
        if not self.runs_eagerly() and not _without_xla.get():
            try:
                return _uniform(shape, low, high)(seed)
            except tf.errors.InvalidArgumentError as error:
                if not _is_refused(error):
                    raise
        dtype = keras.config.floatx()
        return tf.random.stateless_uniform(shape, seed, low, high, dtype)

    def gradient(self, function, weights):
        with tf.GradientTape() as tape:
            tape.watch(weights)
            loss, more = function(weights)
        return tape.gradient(loss, weights), more


def _kind(*args):
    return tuple((a.shape, a.dtype) for a in _tensors(args))


def _tensors(args):
    return [a for a in tf.nest.flatten(args, expand_composites=True) if a is not None]


def _trace(function, *args):
    """The compiled function, whose program equal models share."""
    concrete = tf.function(function, autograph=False).get_concrete_function(*args)
    program = compiled(text_of(concrete), functools.partial(_program, concrete))
    captured = concrete.captured_inputs
    program = program.get_concrete_function(*_tensors(args), *captured)
    # Not the tensors themselves, which would keep the graph alive.
    structure = tf.nest.map_structure(
        lambda a: a is not None, concrete.structured_outputs
    )

    def call(*args):
        outputs = iter(program(*_tensors(args), *captured))
        return tf.nest.map_structure(
            lambda there: next(outputs) if there else None, structure
        )

    return call


def _program(concrete):
    """A compiled function of the arguments and all that `concrete` captured."""

    def program(*inputs):
        dtypes = [each.dtype for each in concrete.outputs]
        return tf.raw_ops.StatefulPartitionedCall(args=inputs, Tout=dtypes, f=concrete)

    return tf.function(program, jit_compile=True, autograph=False)


def _is_refused(error):
    """Whether XLA cannot compile an operation; that error has no type of its own."""
    return "unsupported operations" in error.message


@functools.cache
def _uniform(shape, low, high):
    # On a CPU the default algorithm takes four times as long; this one needs XLA.
    @tf.function(jit_compile=True, autograph=False)
    def uniform(seed):
        dtype = keras.config.floatx()
        return tf.random.stateless_uniform(
            shape, seed, low, high, dtype, alg="threefry"
        )

    return uniform
