"""What training needs of JAX itself: the loop over steps, and the like."""

import contextlib
import functools
import math

import jax
import keras

from keras_nalu.models.arrays import map_arrays
from keras_nalu.models.backends.base import Backend, Devices
from keras_nalu.models.backends.programs import Shared, compiled

#: Of Threefry-2x32 (Salmon et al. 2011, Parallel random numbers: as easy as 1, 2, 3).
ROTATIONS = 13, 15, 26, 6, 17, 29, 16, 24
MANY = 2**18


class Spread(Devices):
    """The devices of a `keras.distribution`.

    Args:
        parts: Into how many parts each batch is cut, of this process.
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
        """Keras takes the values out of the variables while it works, and where it
        cannot cut a batch it does not give them back."""
        variables = [*model.variables, *model.metrics_variables]
        if model.optimizer is not None:
            variables += model.optimizer.variables
        held = [(variable, variable.value) for variable in variables]
        try:
            yield
        except Exception:
            # Of the metrics, some may be of this call.
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
        """`step(state, batch)` returns the logs and the next state. The last step
        stands after the loop, for its logs."""
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
            options = {"donate_argnums": 0}
            if devices.spread:
                # Weights stay on their devices, as with Keras' own step.
                options["out_shardings"] = None, jax.tree.map(_sharding, state)
            return _trace(loop, state, *args, **options)

        shared = Shared(trace, _kind)
        # Else blocks of a large data set would pile up before they are trained on.
        return lambda state, *args: shared(jax.block_until_ready(state), *args)

    def compiled(self, function):
        return Shared(functools.partial(_trace, function), _kind)

    def gradient(self, function, weights):
        return jax.grad(function, has_aux=True)(weights)

    def sample_each(self, sample, states):
        return self.compiled(jax.vmap(sample))(states)

    def uniform(self, seed, shape, low, high):
        """By Threefry: JAX' own, to the bit.

        On a processor JAX loops over its rounds, with all numbers in memory in between.
        For many numbers the rounds are written out here, and become one loop over
        these: a step of a model of 100 inputs takes half the time.
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
    """What computes the function: a program that may be others', too."""
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
    # The fraction of a number in [1, 2).
    number = jax.lax.bitcast_convert_type((a ^ b) >> 9 | 0x3F800000, "float32") - 1
    # Else whatever reads the numbers would draw them for itself.
    return jax.lax.optimization_barrier(
        jax.numpy.maximum(low, number * (high - low) + low)
    )
