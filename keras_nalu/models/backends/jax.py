"""The loop over steps, devices and random numbers on JAX."""

import contextlib
import functools
import math

import jax
import keras

from keras_nalu.models.arrays import map_arrays
from keras_nalu.models.backends.base import Backend, Devices
from keras_nalu.models.backends.programs import Shared, compiled

#: Threefry-2x32 (Salmon et al. 2011, Parallel random numbers: as easy as 1, 2, 3).
ROTATIONS = 13, 15, 26, 6, 17, 29, 16, 24
#: From this size on, its rounds are written out.
MANY = 2**18


class Spread(Devices):
    """The devices of a `keras.distribution`.

    Args:
        parts: The number of parts into which this process cuts a batch.
        layout: `layout(batch)(shape)` is the `keras.distribution.TensorLayout` of an
            array in that batch.
    """

    spread = True

    def __init__(self, parts, layout):
        self.parts = parts
        self.layout = layout

    def put(self, batches):
        layout = self.layout(map_arrays(lambda a: a[0], batches))

        def put(a):
            one = layout(a.shape[1:])
            every = keras.distribution.TensorLayout((None, *one.axes), one.device_mesh)
            return jax.make_array_from_process_local_data(every.backend_layout, a)

        return map_arrays(put, batches)

    def reading(self, reader):
        def read(data, start):
            batch = reader(data, start)
            return lambda i: self._lay_out(batch(i))

        return read

    def _lay_out(self, batch):
        layout = self.layout(batch)
        distribute = keras.distribution.distribute_tensor
        return map_arrays(lambda a: distribute(a, layout(a.shape)), batch)

    @contextlib.contextmanager
    def keeping(self, model):
        """Keras takes the values out of the variables while it trains, and does not put
        them back if it cannot cut a batch."""
        variables = [*model.variables, *model.metrics_variables]
        if model.optimizer is not None:
            variables += model.optimizer.variables
        held = [(variable, variable.value) for variable in variables]
        try:
            yield
        except Exception:
            # Metrics may have been created in this call, after `held`.
            model.reset_metrics()
            model.jax_state_sync()
            for variable, value in held:
                if not value.is_deleted():
                    variable.assign(value)
            raise


class Jax(Backend):
    loops = True

    def devices(self):
        distribution = keras.distribution.distribution()
        if distribution is None:
            return Devices()
        parts = max(1, distribution.num_model_replicas // distribution.num_processes)
        return Spread(parts, lambda batch: distribution.get_data_layout)

    def accelerated(self):
        return jax.default_backend() != "cpu"

    def make_loop(self, step, reader, devices):
        """`step(state, batch)` returns the logs and the next state. The last step comes
        after the loop, because only its logs are returned."""
        read = devices.reading(reader)

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

        def trace(state, *args):
            options: dict = {"donate_argnums": 0}
            if devices.spread:
                # Keeps the weights on their devices, as Keras' step does.
                options["out_shardings"] = None, jax.tree.map(_sharding, state)
            return _trace(loop, state, *args, **options)

        shared = Shared(trace, _kind)
        # Without blocking, blocks of a large data set would pile up on the device.
        return lambda state, *args: shared(jax.block_until_ready(state), *args)

    def compiled(self, function):
        return Shared(functools.partial(_trace, function), _kind)

    def gradient(self, function, weights):
        return jax.grad(function, has_aux=True)(weights)

    def sample_each(self, sample, states):
        return self.compiled(jax.vmap(sample))(states)

    def uniform(self, seed, shape, low, high):
        """The numbers of `jax.random.uniform`, bit for bit.

        On a CPU JAX loops over the rounds of Threefry, with all numbers in memory in
        between. For many numbers the rounds are written out here, so that XLA fuses
        them: a step of a model with 100 inputs takes half the time.
        """
        seed = jax.numpy.asarray(seed, "uint32")
        low, high = map(jax.numpy.float32, (low, high))
        if math.prod(shape) < MANY:
            return jax.random.uniform(seed, shape, "float32", low, high)
        return _threefry(seed, shape, low, high)


def _kind(*args):
    return tuple((jax.typeof(a), _sharding(a)) for a in jax.tree.leaves(args))


def _sharding(a):
    return a.sharding if isinstance(a, jax.Array) else None


def _trace(function, *args, **options):
    """The compiled function, which equal models share."""
    lowered = jax.jit(function, **options).lower(*args)
    places = tuple(map(_sharding, jax.tree.leaves(args)))
    text = lowered.as_text(), lowered.in_tree, lowered.out_tree, places
    return compiled(text, lowered.compile)


def _threefry(seed, shape, low, high):
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
    # Random mantissa bits make a number in [1, 2).
    number = jax.lax.bitcast_convert_type((a ^ b) >> 9 | 0x3F800000, "float32") - 1
    # Without the barrier XLA would compute the numbers again for every reader.
    return jax.lax.optimization_barrier(
        jax.numpy.maximum(low, number * (high - low) + low)
    )
