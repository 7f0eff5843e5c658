"""What training needs of JAX itself: the loop over steps, and the like."""

import functools
import math

#: Of Threefry-2x32 (Salmon et al. 2011, Parallel random numbers: as easy as 1, 2, 3).
ROTATIONS = 13, 15, 26, 6, 17, 29, 16, 24
MANY = 2**18


def make_loop(step, reader):
    """`function(state, data, first, last)`: those steps, in one loop on the device.

    `step(state, batch)` is Keras' own, and returns the logs and the next state. The
    last step stands after the loop, for its logs.
    """
    import jax

    @functools.partial(jax.jit, donate_argnums=0)
    def function(state, data, first, last):
        def block(carried):
            start, state = carried
            batch = reader(data, start)
            end = jax.numpy.minimum(start + reader.block, last)
            state = jax.lax.fori_loop(
                start, end, lambda i, state: step(state, batch(i))[1], state
            )
            return start + reader.block, state

        if reader.block:
            _, state = jax.lax.while_loop(
                lambda carried: carried[0] < last, block, (first, state)
            )
        return step(state, reader(data, last)(last))

    def in_turn(state, data, first, last):
        # Else blocks of a large data set would pile up before they are trained on.
        return function(jax.block_until_ready(state), data, first, last)

    return in_turn


def gradient(function, weights):
    """Of the first of two results; and the second."""
    import jax

    return jax.grad(function, has_aux=True)(weights)


def draw_each(draw, states):
    """`draw` of every state, stacked."""
    import jax

    return jax.jit(jax.vmap(draw))(states)


def uniform(seed, shape, low, high):
    """Numbers in [low, high), by Threefry: JAX' own, to the bit.

    On a processor JAX loops over its rounds, with all numbers in memory in between.
    For many numbers the rounds are written out here, and become one loop over these: a
    step of a model of 100 inputs takes half the time.
    """
    import jax

    seed = jax.numpy.asarray(seed, "uint32")
    low, high = map(jax.numpy.float32, (low, high))
    if math.prod(shape) < MANY:
        return jax.random.uniform(seed, shape, "float32", low, high)
    first, second = seed
    keys = [second, first ^ second ^ jax.numpy.uint32(0x1BD11BDA), first]
    a = jax.numpy.full(shape, first)
    b = jax.lax.iota("uint32", math.prod(shape)).reshape(shape) + second
    for i in range(20):
        a = a + b
        turn = ROTATIONS[i % 8]
        b = (b << turn | b >> 32 - turn) ^ a
        if i % 4 == 3:
            j = i // 4
            a, b = a + keys[j % 3], b + keys[(j + 1) % 3] + jax.numpy.uint32(j + 1)
    # The fraction of a number in [1, 2).
    number = jax.lax.bitcast_convert_type((a ^ b) >> 9 | 0x3F800000, "float32") - 1
    # Else whatever reads the numbers would draw them for itself.
    return jax.lax.optimization_barrier(
        jax.numpy.maximum(low, number * (high - low) + low)
    )


def compiled(function):
    import jax

    return jax.jit(function)
