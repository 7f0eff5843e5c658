"""The loop over training steps, on TensorFlow."""


def make_loop(step, reader):
    """`function(data, first, last)`: those steps, in one loop on the device.

    `step(batch)` is Keras' own; the state is in the model's variables. The last step
    stands after the loop, for its logs.
    """
    import tensorflow as tf

    step = tf.function(step, autograph=False)

    @tf.function(jit_compile=True, autograph=False)
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

    def function(data, first, last):
        return (loop(data, tf.constant(first), tf.constant(last)),)

    return function
