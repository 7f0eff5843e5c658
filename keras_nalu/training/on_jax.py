"""What training needs of JAX itself: the loop over steps, and the like."""

import math

import keras

from keras_nalu.training.feeds import map_arrays

#: Of Threefry-2x32 (Salmon et al. 2011, Parallel random numbers: as easy as 1, 2, 3).
ROTATIONS = 13, 15, 26, 6, 17, 29, 16, 24
MANY = 2**18


class Devices:
    """How batches lie on the devices of a `keras.distribution`.

    Args:
        parts: Into how many parts each is cut, of this process.
        layout: `layout(batch)(shape)` is the `keras.distribution.TensorLayout` of an
            array in that batch.
    """

    #: Batches are stacked: each device holds its part of every one.
    stacks = fuses = True

    def __init__(self, parts, layout):
        self.parts = parts
        self.layout = layout

    def put(self, batches):
        """Batches that stand one behind the other, each this process' share."""
        import jax

        layout = self.layout(map_arrays(lambda a: a[0], batches))

        def put(a):
            one = layout(a.shape[1:])
            every = keras.distribution.TensorLayout((None, *one.axes), one.device_mesh)
            return jax.make_array_from_process_local_data(every.backend_layout, a)

        return map_arrays(put, batches)

    def hold(self, model):
        """What the variables are. Keras takes it from them while it trains, and where
        it cannot cut a batch it does not give it back."""
        optimizer = getattr(model, "optimizer", None)
        variables = [*model.variables, *(optimizer.variables if optimizer else ())]
        return [(variable, variable.value) for variable in variables]

    def put_back(self, model, held):
        model.jax_state_sync()
        for variable, value in held:
            if not value.is_deleted():
                variable.assign(value)

    def reading(self, reader):
        """`reader`, with every batch laid out, also one that is drawn."""

        def read(data, start):
            batch = reader(data, start)
            return lambda i: self._lay_out(batch(i))

        return read

    def _lay_out(self, batch):
        layout = self.layout(batch)
        distribute = keras.distribution.distribute_tensor
        return map_arrays(lambda a: distribute(a, layout(a.shape)), batch)


def find_devices(_):
    distribution = keras.distribution.distribution()
    if distribution is None:
        return None
    parts = max(1, distribution.num_model_replicas // distribution.num_processes)
    return Devices(parts, lambda batch: distribution.get_data_layout)


def make_loop(step, reader, devices=None):
    """`function(state, data, first, last)`: those steps, in one loop on the device.

    `step(state, batch)` is Keras' own, and returns the logs and the next state. The
    last step stands after the loop, for its logs.
    """
    import jax

    read = devices.reading(reader) if devices else reader

    def loop(state, data, first, last):
        def block(carried):
            start, state = carried
            batch = read(data, start)
            end = jax.numpy.minimum(start + reader.block, last)
            state = jax.lax.fori_loop(
                start, end, lambda i, state: step(state, batch(i))[1], state
            )
            return start + reader.block, state

        if reader.block:
            _, state = jax.lax.while_loop(
                lambda carried: carried[0] < last, block, (first, state)
            )
        return step(state, read(data, last)(last))

    function = None

    def in_turn(state, data, first, last):
        nonlocal function
        if function is None:
            options = {}
            if devices:
                # Weights stay on their devices, as with Keras' own step.
                layouts = jax.tree.map(lambda a: a.sharding, state)
                options["out_shardings"] = None, layouts
            function = jax.jit(loop, donate_argnums=0, **options)
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
