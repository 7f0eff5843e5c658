"""Arithmetic that tracks its rounding error, with the names of `keras.ops`.

An equation that is written once, `equation(ops, x, ...)`, is evaluated by `keras.ops`
on tensors, and by this module on arrays of `Number`.
"""

import functools
import itertools
import math
import operator

import numpy as np

EPS32 = np.finfo("float32").eps


class Number:
    """A float64 with a bound on the rounding of all operations, and its slopes.

    `error` is in units of the machine's epsilon: the sum over all intermediate results
    of their magnitude times the slope of this number by them. No float32 result can be
    expected to be nearer. `parents` are pairs of an operand and the slope by it. `peak`
    is the largest magnitude of this number and all intermediate results.
    """

    made = itertools.count()

    def __init__(self, value, error=0.0, parents=()):
        self.value, self.error, self.parents = float(value), float(error), parents
        self.peak = max([abs(self.value), *(parent.peak for parent, _ in parents)])
        self.place = next(self.made)

    def __add__(self, other):
        other = number(other)
        value = self.value + other.value
        error = self.error + other.error + abs(value)
        return Number(value, error, ((self, ONE), (other, ONE)))

    def __mul__(self, other):
        other = number(other)
        value = self.value * other.value
        error = abs(self.value) * other.error + abs(other.value) * self.error
        return Number(value, error + abs(value), ((self, other), (other, self)))

    def __neg__(self):
        return Number(-self.value, self.error, ((self, -1.0),))

    def __sub__(self, other):
        return self + -number(other)

    def __rsub__(self, other):
        return number(other) + -self

    def __truediv__(self, other):
        return self * _reciprocal(number(other))

    def __rtruediv__(self, other):
        return number(other) / self

    def __pow__(self, exponent):
        """A whole power, as a product of as many factors."""
        if exponent != int(exponent):
            raise ValueError(
                f"Expected a whole exponent. Received: {exponent!r}. Try "
                "`ops.power(x, exponent)`."
            )
        if not exponent:
            return ONE
        factors = itertools.repeat(self, int(abs(exponent)))
        power = functools.reduce(operator.mul, factors)
        return power if exponent > 0 else _reciprocal(power)

    def __abs__(self):
        return self * _sign(self)

    def __lt__(self, other):
        return self.value < other

    __radd__, __rmul__ = __add__, __mul__


def number(value):
    if isinstance(value, Number):
        return value
    # A constant that float32 does not hold, such as pi, is rounded first.
    held = np.isnan(value) or np.float32(value) == value
    return Number(value, 0.0 if held else abs(value))


ONE = Number(1)


def numbers(array):
    """Data and weights, each rounded once."""
    array = np.asarray(array, "float64")
    return np.vectorize(lambda v: Number(v, abs(v)), otypes=[object])(array)


def _function(z, value, slope, of=None):
    """A value whose slope is a number, or a function of the result."""
    result = Number(value, abs(value if of is None else of))
    of_result = slope if callable(slope) else lambda _: slope
    result.error += abs(number(of_result(result)).value) * z.error
    # After adding all of the error, which the slope shares.
    result.parents = ((z, of_result(result)),)
    result.peak = max(result.peak, z.peak)
    return result


def _reciprocal(z):
    return _function(z, 1 / z.value, lambda y: -(y * y))


def _exp(z):
    return _function(z, float(np.exp(z.value)), lambda y: y)


def _log(z):
    return _function(z, math.log(z.value), _reciprocal(z))


def _power(r, w):
    y = _exp(w * _log(r))
    return Number(y.value, y.error, ((r, w * y * _reciprocal(r)), (w, y * _log(r))))


def _tanh(z):
    return _function(z, math.tanh(z.value), lambda y: 1 - y * y)


def _sigmoid(z):
    return _function(z, float(1 / (1 + np.exp(-z.value))), lambda y: y * (1 - y))


def _cos(z):
    # Its absolute error does not fall near its zeros.
    slope = _function(z, -math.sin(z.value), 0.0, of=1)
    slope.error += z.error
    return _function(z, math.cos(z.value), slope, of=1)


def _sign(z):
    return float(np.sign(z.value))


def _clip(z, low, high):
    inside = low <= z.value <= high
    return Number(min(max(z.value, low), high), z.error, ((z, float(inside)),))


def _of_each(function, inputs=1):
    each = np.frompyfunc(function, inputs, 1)
    return lambda *arrays: each(*(np.asarray(a, dtype=object) for a in arrays))


exp, log, tanh, sigmoid = map(_of_each, (_exp, _log, _tanh, _sigmoid))
cos, sign, abs_ = map(_of_each, (_cos, _sign, abs))
power = _of_each(_power, 2)
clip = _of_each(_clip, 3)
#: The value alone, without a slope.
stop_gradient = _of_each(lambda z: Number(z.value, z.error))
reshape, concatenate, matmul, expand_dims = (
    np.reshape,
    np.concatenate,
    np.matmul,
    np.expand_dims,
)


def __getattr__(name):
    if name == "abs":  # This module uses Python's `abs`.
        return abs_
    raise AttributeError(name)


def maximum(x, low):
    return clip(x, low, np.inf)


def minimum(x, high):
    return clip(x, -np.inf, high)


def square(x):
    return x * x


def cast(x, dtype):
    return np.asarray(x, "float64")


def ones(shape):
    return np.full(shape, ONE)


def sum(x, axis):
    return np.sum(x, axis=axis)


def softmax(w, axis):
    e = exp(w)
    return e / np.sum(e, axis=axis, keepdims=True)


def prod(x, axis):
    """A product whose peak is the largest of all orders of its factors."""
    factors = np.moveaxis(x, axis, -1)
    y = np.empty(factors.shape[:-1], object)
    for place in np.ndindex(y.shape):
        y[place] = math.prod(factors[place])
        worst = math.prod(max(1.0, abs(number(z).value)) for z in factors[place])
        y[place].peak = max(y[place].peak, worst)
    return y


def evaluate(equation, x, c, weights, **options):
    """`y` and the gradients of `sum(c * y)` by name, as pairs of values and errors."""
    import oracles.exact as ops

    x, c = numbers(x), numbers(c)
    weights = {name: numbers(value) for name, value in weights.items()}
    if "noise" in options:
        options["noise"] = numbers(options["noise"])
    y = equation(ops, x, **weights, **options)
    slopes = gradients(y.ravel(), c.ravel())
    found = {"y": y} | {
        name: np.vectorize(lambda z: slopes.get(z, number(0)), otypes=[object])(leaf)
        for name, leaf in {"x": x, **weights}.items()
    }
    return {
        name: [np.vectorize(lambda z, k=k: getattr(z, k))(array) for k in PAIR]
        for name, array in found.items()
    }


PAIR = "value", "error"


def gradients(outputs, seeds):
    """Adds the slopes of `sum(seeds * outputs)` to every number that it depends on."""
    nodes, todo = {}, list(outputs)
    while todo:
        node = todo.pop()
        if node.place not in nodes:
            nodes[node.place] = node
            todo += [parent for parent, _ in node.parents]
    slopes = dict(zip(outputs, seeds, strict=True))
    for place in sorted(nodes, reverse=True):
        node = nodes[place]
        for parent, slope in node.parents:
            more = slopes[node] * slope
            slopes[parent] = slopes[parent] + more if parent in slopes else more
    return slopes
