"""What training needs of TensorFlow itself: the loop over steps, and the like."""

import functools
import warnings

import keras


def make_loop(step, reader):
    """`function(data, first, last)`: those steps, in one loop on the device.

    `step(batch)` is Keras' own; the state is in the model's variables. The last step
    stands after the loop, for its logs.
    """
    import tensorflow as tf

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

    compiled = tf.function(loop, jit_compile=True, autograph=False)
    traced = tf.function(loop, autograph=False)

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
