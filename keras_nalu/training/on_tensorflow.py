"""What training needs of TensorFlow itself: the loop over steps, and the like."""

import functools
import warnings

import keras

from keras_nalu.training.devices import uneven
from keras_nalu.training.feeds import map_arrays


class Devices:
    """How the batches lie on the devices of a `MirroredStrategy`."""

    #: Keras' iterators cut batches themselves.
    stacks = False

    def __init__(self, strategy):
        import tensorflow as tf

        self.strategy = strategy
        self.fuses = isinstance(strategy, tf.distribute.MirroredStrategy)
        self.parts = strategy.num_replicas_in_sync

    def even(self, function):
        """Keras' `function` of an iterator, where the devices' parts of a batch have
        one size: else Keras would take the mean of the means."""

        def checked(iterator):
            batch = next(iterator)
            for a in keras.tree.flatten(batch):
                parts = self.strategy.experimental_local_results(a)
                sizes = {part.shape[0] for part in parts if hasattr(part, "shape")}
                if len(sizes) > 1:
                    raise ValueError(
                        uneven(self.parts, f"parts of {sorted(sizes)} rows")
                    )
            return function(iter([batch]))

        return checked

    def running(self, step):
        """`step`, of each device with its rows of a batch; the logs are the means."""
        import tensorflow as tf

        def share(a):
            rows = a.shape[0] // self.parts
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            start = (replica * rows, *[0] * (a.ndim - 1))
            return keras.ops.slice(a, start, (rows, *a.shape[1:]))

        def mean(log):
            return tf.reduce_mean(self.strategy.experimental_local_results(log), axis=0)

        def everywhere(batch):
            logs = self.strategy.run(lambda: step(map_arrays(share, batch)))
            return keras.tree.map_structure(mean, logs)

        return everywhere


def find_devices(model):
    strategy = model.distribute_strategy
    return Devices(strategy) if strategy.num_replicas_in_sync > 1 else None


def refuse(model):
    """Where Keras' `fit` does not train, or not on all devices."""
    import tensorflow as tf

    distribution = keras.distribution.distribution()
    if distribution is not None and distribution.device_mesh.devices.size > 1:
        raise ValueError(
            "`keras.distribution` is for JAX; on TensorFlow Keras trains on one device "
            f"in spite of it. Received: {distribution}. Try KERAS_BACKEND=jax, or make "
            "the model within `tf.distribute.MirroredStrategy().scope()`."
        )
    strategy = model.distribute_strategy
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return
    if strategy.num_replicas_in_sync > len(strategy.extended.worker_devices):
        raise ValueError(
            "Keras' `fit` does not train under MultiWorkerMirroredStrategy "
            "(https://github.com/keras-team/keras/issues/20585). Try KERAS_BACKEND=jax "
            "with `keras.distribution.initialize` and `keras.distribution."
            "DataParallel`, or a loop of your own around `strategy.run`."
        )


def make_loop(step, reader, devices=None):
    """`function(data, first, last)`: those steps, in one loop on the device.

    `step(batch)` is Keras' own; the state is in the model's variables. The last step
    stands after the loop, for its logs.
    """
    import tensorflow as tf

    step = devices.running(step) if devices else tf.function(step, autograph=False)

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

    compiled = tf.function(loop, jit_compile=True, autograph=False)
    traced = tf.function(loop, autograph=False)
    if devices:
        # XLA compiles for one device: "Trying to access resource", it says of others'.
        compiled = traced

    def function(data, first, last):
        nonlocal compiled
        given = data, tf.constant(first), tf.constant(last)
        try:
            return (compiled(*given),)
        except tf.errors.InvalidArgumentError as error:
            if "unsupported operations" not in error.message:
                raise
        warnings.warn(
            "XLA cannot compile this model's training step on TensorFlow: it trains "
            "without, many times slower. Try KERAS_BACKEND=jax.",
            stacklevel=2,
        )
        compiled = traced
        return (compiled(*given),)

    return function


def draw_each(draw, states):
    """`draw` of every state, stacked."""
    import tensorflow as tf

    # Not `vectorized_map`, which makes the same loop of random numbers, and warns.
    drawn = tf.function(lambda states: keras.ops.map(draw, states), autograph=False)
    # Called as it is, it warns of retracing, whatever the function.
    return drawn.get_concrete_function(states)(states)


def uniform(seed, shape, low, high):
    return _uniform(shape, low, high)(seed)


@functools.cache
def _uniform(shape, low, high):
    import tensorflow as tf

    # The default generator takes four times as long on a processor; this one is for XLA
    # alone.
    @tf.function(jit_compile=True, autograph=False)
    def draw(seed):
        dtype = keras.config.floatx()
        return tf.random.stateless_uniform(
            shape, seed, low, high, dtype, alg="threefry"
        )

    return draw


def gradient(function, weights):
    """Of the first of two results; and the second."""
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(weights)
        loss, more = function(weights)
    return tape.gradient(loss, weights), more


def compiled(function):
    import tensorflow as tf

    return tf.function(function, jit_compile=True, autograph=False)
