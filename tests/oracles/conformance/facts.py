"""The facts that a layer's test file states, and what follows from them."""

import inspect

import keras
import numpy as np
import pytest
from keras import initializers
from oracles import exact

import keras_nalu

BACKEND = keras.backend.backend()
SLOW = pytest.mark.slow
only_tensorflow = pytest.mark.only("tensorflow", reason="keeps no float64")

#: A second value of the constructor arguments that all layers have.
SECOND = {
    "units": 5,
    "kernel_initializer": initializers.Constant(0.3),
    "gate_initializer": initializers.Constant(0.3),
    "kernel_regularizer": keras.regularizers.L2(1.0),
    "gate_regularizer": keras.regularizers.L2(1.0),
    "kernel_constraint": keras.constraints.MaxNorm(1e-3),
    "gate_constraint": keras.constraints.MaxNorm(1e-3),
}
MOST, LEAST = float(np.finfo("float32").max), float(np.finfo("float32").tiny)
ROWS = {
    "positive": np.array([[1, 2], [3, 4], [5, 0.5], [8, 8]]),
    "signed": np.array([[1.0, -2.0], [-3.0, 4.0], [5.0, 0.5], [-8.0, -8.0]]),
    "compared": np.array([[-5, 3], [4, 4], [5, -5]]),
    "ordered": np.array([[1, 2], [3, 4]]),
}


def numpy(y):
    return keras.ops.convert_to_numpy(keras.ops.cast(y, "float32"))


def same(first, second):
    return all(
        np.shape(a) == np.shape(b) and np.array_equal(a, b)
        for a, b in zip(first, second, strict=True)
    )


def penalty(layer):
    return float(np.sum([numpy(loss) for loss in layer.losses]))


def step(layer, gradients):
    optimizer = keras.optimizers.SGD(0.1)
    gradients = [keras.ops.convert_to_tensor(g) for g in gradients]
    optimizer.apply(gradients, layer.trainable_variables)


def integers(low, high, signed=False):
    """Random pairs, a tenth of them equal."""
    rng = np.random.default_rng(0)
    X = rng.integers(low, high, size=(1000, 2))
    X[::10, 1] = X[::10, 0]
    return X * rng.choice([-1, 1], X.shape) if signed else X


def assert_near(value, expected, bound, name, error=0.0):
    """`error` is that of float64, in units of its epsilon."""
    bound = bound * (1 + np.abs(expected)) + np.finfo("float64").eps * error
    assert (np.abs(value - expected) <= bound).all(), name


def hats(*w, size=20):
    """`W_hat` and `M_hat` of these effective weights."""
    return np.arctanh(np.clip(w, -1 + 1e-9, 1 - 1e-9)), np.full(len(w), size)


def filled(layer, *weights):
    """The layer, of two inputs if it is not built, with these weights of any shape."""
    if not layer.built:
        layer.build((None, 2))
    pairs = zip(weights, layer.weights, strict=True)
    layer.set_weights([np.reshape(w, v.shape) for w, v in pairs])
    return layer


class Facts:
    """The facts that a layer's test file states."""

    #: The class.
    layer: type = keras_nalu.NAU
    #: By operation the stored weights, in the layer's order, with which it computes it
    #: of two inputs; and the constructor's arguments for these.
    ideal = {}
    given = {}
    #: By operation the right answer, where that is no function of NumPy's.
    answers = {}
    #: Whether products are multiplied out, and not through exp(log).
    multiplies = False
    #: Second values of the layer's further arguments, and their defaults.
    second = {}
    defaults = {}
    #: The stored weights that `gate_*` act on, and those that nothing acts on; all
    #: others are kernels.
    gates = ()
    free = ()
    #: Effective weights that are not of shape (in, units), for 3 inputs and 2 units.
    shapes = {}
    #: What it is not for.
    bears_zero = True
    bears_negative = True
    #: How its stored weights begin, of 80 inputs and 60 units, by name: see
    #: `oracles.beginnings`.
    begins = {}
    #: The magnitudes, beside 0, between which a fresh layer and its gradients are
    #: finite whatever the seed.
    finite = 0, np.inf
    #: Whether they end where the exact ones do: sums and bounded products.
    bounded = False
    #: Whether `training` changes the equation.
    trains = False
    #: The modules of the authors of which there are vectors.
    modules = ()
    #: Weights of one unit, rows and the text that is read: exactly, and rounded.
    exactly = ()
    rounded = ()
    #: Weights that are near to an answer, and the text of that.
    near = None

    @staticmethod
    def equation(ops, x, **weights):
        """The layer's equation for rows of inputs."""
        raise NotImplementedError

    # The rest follows from these facts.

    @classmethod
    def arguments(cls):
        parameters = inspect.signature(cls.layer).parameters.values()
        return [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]

    @classmethod
    def second_of(cls, name):
        return (SECOND | cls.second)[name]

    @classmethod
    def varied(cls):
        """A layer in which every argument has its second value."""
        return cls.layer(**{name: cls.second_of(name) for name in cls.arguments()})

    @classmethod
    def part(cls, weight):
        name = weight.name
        return "gate" if name in cls.gates else "free" if name in cls.free else "kernel"

    @classmethod
    def sample(cls, shape=(4, 3)):
        """Inputs from the layer's domain."""
        x = np.random.default_rng(0).uniform(-3, 3, shape).astype("float32")
        return x if cls.bears_negative else np.abs(x)

    @classmethod
    def made(cls, *weights, **given):
        """A layer of one unit and two inputs with these weights, of any shape."""
        return filled(cls.layer(1, **given), *weights)

    @classmethod
    def built(cls, *columns, **given):
        """A layer with a unit for each of these lists of weights."""
        layer = cls.layer(len(columns), **cls.given | given)
        layer.build((None, 2))
        pairs = zip(layer.weights, zip(*columns, strict=True), strict=True)
        for stored, parts in pairs:
            joined = np.concatenate(parts, axis=-1)
            # The units of an NPU share one relevance gate.
            stored.assign(joined if joined.shape == stored.shape else parts[0])
        return layer

    @classmethod
    def drawn(cls, seed=0, rows=12, **given):
        """A layer of three units with weights, and inputs from its domain."""
        rng = np.random.default_rng(seed)
        x = rng.choice([-1, 1], (rows, 4)) * 10 ** rng.uniform(-3, 1, (rows, 4))
        if not cls.bears_negative:
            x = np.abs(x)
        elif cls.bears_zero:
            x[0], x[1, 2:] = 0, 0
        layer = cls.layer(3, **given)
        layer.build(x.shape)
        for variable in layer.trainable_variables:
            variable.assign(rng.normal(size=variable.shape))
        return layer, x

    @classmethod
    def options_of(cls, layer, training=False):
        """The arguments of the equation except the weights."""
        named = inspect.signature(cls.equation).parameters
        options = {
            name: getattr(layer, name) for name in cls.arguments() if name in named
        }
        return options | ({"training": training} if "training" in named else {})

    @classmethod
    def exact(cls, layer, x, c, training=False):
        """The outputs and gradients by name, as pairs of values and errors."""
        weights = {v.name: np.array(v) for v in layer.trainable_variables}
        options = cls.options_of(layer, training)
        return exact.evaluate(cls.equation, x, c, weights, **options)

    @classmethod
    def answer(cls, operation, X):
        a, b = np.float64(X.T[..., None])
        return np.float64((cls.answers.get(operation) or getattr(np, operation))(a, b))
