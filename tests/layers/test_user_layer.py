"""A layer of a user's own: ten lines, read, rounded, trained, and held to the suite."""

import keras
import numpy as np
import pytest
from oracles import exact
from oracles.conformance import Conformance

import keras_nalu
from keras_nalu import initializers, lines, ops
from keras_nalu.layers.base import ArithmeticLayer, effective


@keras.saving.register_keras_serializable(package="mine")
class SquareSum(ArithmeticLayer):
    """The sum of the squares of the inputs that its weights choose.

    Where a step overflows, the outputs and gradients that depend on it can be infinite
    or NaN, although the exact value may fit.
    """

    initializer = initializers.NMUUniform
    targets = {"kernel": (0, 1)}
    stored = {"kernel": "W"}
    operations = ("sum_of_squares",)
    domain = "all reals"

    def build(self, input_shape):
        super().build(input_shape)
        self.W = self.add_kernel("W")

    @effective
    def kernel(self):
        return ops.widen(self.W)

    def call(self, inputs, training=False):
        x = ops.widen(self.start(inputs, training))
        return self.cast(ops.matmul(keras.ops.square(x), self.kernel))

    def read(self, unit):
        return lines.sum_(unit.weights(), [f"{x}**2" for x in unit.inputs])


class TestSquareSum(Conformance):
    layer = SquareSum
    ideal = {"sum_of_squares": [np.ones((2, 1))]}
    answers = {"sum_of_squares": lambda a, b: a**2 + b**2}
    multiplies = True
    finite = 0, 1e4
    exactly = [([(1, 1)], "signed", "x0**2 + x1**2")]
    rounded = [([(0.5, 1)], "signed", "0.5 * x0**2 + x1**2")]
    near = [(0.9, 0.8)], "x0**2 + x1**2"

    @staticmethod
    def equation(ops, x, W):
        return ops.matmul(x**2, W)


@pytest.mark.parametrize("exponent", [-2, -1, 0, 1, 2.0, 5])
def test_an_equation_may_have_whole_powers(exponent):
    x = exact.numbers([3.0])
    (y,) = x**exponent
    assert y.value == pytest.approx(3**exponent)
    slope = exact.gradients([y], [exact.ONE]).get(x[0], exact.number(0))
    assert slope.value == pytest.approx(exponent * 3 ** (exponent - 1))
    with pytest.raises(ValueError, match="Expected a whole exponent"):
        x**0.5


X = np.random.default_rng(0).uniform(-2, 2, (256, 3)).astype("float32")
Y = X[:, :1] ** 2 + X[:, 2:] ** 2


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="trains no populations")
def test_it_trains_in_a_population_and_is_read():
    template = keras.Sequential([keras.Input((3,)), SquareSum(1)])
    population = keras_nalu.Population(template, 3, seed=0)
    population.compile(keras.optimizers.Adam(0.05), "mse")
    population.fit(X, Y, 32, epochs=30, verbose=0)
    best = population.best(X, Y)
    assert str(keras_nalu.formula(best, X)) == "y = x0**2 + x2**2"
    assert keras_nalu.discretize(best, X, Y).layers[-1].is_discrete(0)


def test_what_a_subclass_inherits():
    class Mine(keras_nalu.NMU):
        pass

    layer = Mine(1)
    layer.build((None, 2))
    layer.W.assign([[1], [0.02]])
    assert str(keras_nalu.formula(layer, [[1, 2]])) == "y = x0"
    assert type(keras_nalu.discretize(layer)) is Mine


class Silent(ArithmeticLayer):
    targets = {"kernel": (0, 1)}
    kernel = np.full((2, 1), 0.5)

    def call(self, inputs, training=False):
        return inputs[..., :1]


def test_one_that_says_too_little():
    layer = Silent(1)
    layer.build((None, 2))
    with pytest.raises(TypeError, match=r"Give Silent a method `read\(self, unit\)`"):
        keras_nalu.formula(layer, [[1, 2]])
    with pytest.raises(ValueError, match=r"`kernel` is not on them.*in `stored`"):
        keras_nalu.discretize(layer)


class Hasty(Silent):
    def build(self, input_shape):
        self.W = self.add_kernel("W")


def test_one_that_does_not_build_its_base():
    message = r"Hasty.build must first call `super\(\).build\(input_shape\)`"
    with pytest.raises(TypeError, match=message):
        Hasty(1)(np.ones((1, 2)))
