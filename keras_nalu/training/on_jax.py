"""What training needs of JAX itself: the loop over steps, and the like."""

import functools


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
    import jax

    seed = jax.numpy.asarray(seed, "uint32")
    return jax.random.uniform(seed, shape, minval=low, maxval=high)


def compiled(function):
    import jax

    return jax.jit(function)
