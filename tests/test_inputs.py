"""Bad input to layers and what is around them: whatever comes, a right answer, or an
error that says what to type."""

import contextlib
import functools
import inspect
import math
import re

import keras
import numpy as np
import pytest
from hypothesis import assume
from hypothesis import strategies as st
from oracles import exact as arithmetic
from oracles.anything import (
    ANYTHING,
    BACKEND,
    DTYPES,
    FEWER,
    LARGEST,
    MODERATE,
    NO_NUMBERS,
    SOME,
    TEXT,
    answered_or_refused,
    arrays,
    at_least,
    cases,
    count,
    is_flag,
    is_integer,
    is_number,
    is_positive,
    is_seed,
    kept,
    make,
    never,
    refused,
    shapes,
)
from oracles.cases import CASES
from oracles.exact import EPS32

import keras_nalu
from keras_nalu import constraints, initializers, regularizers
from keras_nalu.datasets import OPERATIONS
from keras_nalu.layers import LAYERS

# Constructors.

#: What an argument may be; what is not here is Keras' own.
UNITS = {"units": count()}


ARGUMENTS = {
    **UNITS,
    "epsilon": is_positive,
    "omega": is_positive,
    "scale": is_positive,
    "redundancy": count(),
    # Of a layer it is that of a generator, an int32 on PyTorch.
    "seed": lambda v: is_seed(v) and (BACKEND != "torch" or v is None or v < 2**31),
    "noise_range": lambda value: (
        (isinstance(value, str) and value == "batch")
        or (
            isinstance(value, tuple | list)
            and len(value) == 2
            and all(map(is_number, value))
            and value[0] < value[1]
        )
    ),
}


PARTS = {
    f"{of}_{kind}": kind
    for of in ("kernel", "gate")
    for kind in ("initializer", "regularizer", "constraint")
}


@pytest.mark.parametrize("cls", LAYERS.values(), ids=LAYERS)
@cases(data=st.data(), value=ANYTHING)
def test_an_argument_of_a_layer(cls, data, value):
    names = [*inspect.signature(cls).parameters][:-1]
    name = data.draw(st.sampled_from(names))
    given = {"units": 2, name: value}
    if name in PARTS:
        if value is None:
            assert getattr(cls(**given), name) is None
        elif type(value) in (str, bool, int, float, list, tuple, set, complex):
            with refused(name):
                cls(**given)
        else:
            # A function or an array may be an initializer, and fails when it is built.
            with answered_or_refused():
                cls(**given)
    elif ARGUMENTS[name](value):
        kept(cls(**given), name, value)
    else:
        with refused(name):
            cls(**given)


THINGS = {
    "Clip low": (
        make(constraints.Clip, high=1.0),
        "low",
        lambda v: (is_number(v) and v < 1) or (isinstance(v, float) and v == -np.inf),
    ),
    "Clip high": (
        make(constraints.Clip, low=-1),
        "high",
        lambda v: (is_number(v) and v > -1) or (isinstance(v, float) and v == np.inf),
    ),
    "NACUniform seed": (make(initializers.NACUniform), "seed", is_seed),
    "NAUUniform seed": (make(initializers.NAUUniform), "seed", is_seed),
    "NMUUniform seed": (make(initializers.NMUUniform), "seed", is_seed),
    "UnitVector seed": (make(initializers.UnitVector), "seed", is_seed),
    "Orthogonal seed": (make(initializers.Orthogonal), "seed", is_seed),
    "Orthogonal gain": (make(initializers.Orthogonal), "gain", is_number),
    "LinearRamp value": (
        make(regularizers.LinearRamp, start=1, end=5),
        "value",
        is_number,
    ),
    "LinearRamp start": (
        make(regularizers.LinearRamp, value=1, end=5),
        "start",
        lambda v: is_number(v) and 0 <= v < 5,
    ),
    "LinearRamp end": (
        make(regularizers.LinearRamp, value=1, start=1),
        "end",
        lambda v: is_number(v) and v > 1,
    ),
    "StepwiseGrowth first": (
        make(regularizers.StepwiseGrowth, last=2.0),
        "first",
        lambda v: is_positive(v) and v <= 2,
    ),
    "StepwiseGrowth last": (
        make(regularizers.StepwiseGrowth, first=0.5),
        "last",
        lambda v: is_positive(v) and v >= 0.5,
    ),
    "StepwiseGrowth factor": (
        make(regularizers.StepwiseGrowth, first=1, last=2),
        "factor",
        lambda v: is_number(v) and np.float32(v) > 1,
    ),
    "StepwiseGrowth every": (
        make(regularizers.StepwiseGrowth, first=1, last=2),
        "every",
        at_least(1),
    ),
    "Sparsity low": (make(regularizers.Sparsity), "low", count(-1, 1)),
    "Sparsity squared": (make(regularizers.Sparsity), "squared", is_flag),
    "OutOfRange low": (
        make(regularizers.OutOfRange, high=1.0),
        "low",
        lambda v: is_number(v) and v <= 1,
    ),
    "OutOfRange high": (
        make(regularizers.OutOfRange, low=-1),
        "high",
        lambda v: is_number(v) and v >= -1,
    ),
    "OutOfRange squared": (make(regularizers.OutOfRange), "squared", is_flag),
    "INALUPenalty limit": (make(regularizers.INALUPenalty), "limit", is_number),
    **{
        f"{cls.__name__} coefficient": (make(cls), "coefficient", at_least(0))
        for cls in (
            regularizers.Sparsity,
            regularizers.OutOfRange,
            regularizers.INALUPenalty,
            regularizers.L1,
            regularizers.Discretization,
            regularizers.NegativeSquare,
        )
    },
    "IsCloseAccuracy rtol": (make(keras_nalu.IsCloseAccuracy), "rtol", at_least(0)),
    "IsCloseAccuracy atol": (make(keras_nalu.IsCloseAccuracy), "atol", at_least(0)),
    "SparsityError layer": (
        make(keras_nalu.SparsityError),
        "layer",
        lambda v: v is None or isinstance(v, str),
    ),
    "ArithmeticCell initial_state": (
        lambda **more: keras_nalu.ArithmeticCell(keras_nalu.NAU(1), **more),
        "initial_state",
        lambda v: v is None or is_number(v),
    ),
}


@pytest.mark.parametrize("thing", THINGS)
@cases(value=ANYTHING)
def test_an_argument_that_a_config_holds(thing, value):
    construct, name, valid = THINGS[thing]
    if valid(value):
        kept(construct(**{name: value}), name, value)
    else:
        with refused(name):
            construct(**{name: value})


OTHERS = {
    "L2Loss reduction": (
        make(keras_nalu.L2Loss),
        "reduction",
        lambda v: v is None or (isinstance(v, str) and v in ("sum", "none", "mean")),
    ),
    "LastBatchLoss loss": (make(keras_nalu.LastBatchLoss), "loss", never),
    "ArithmeticCell layer": (make(keras_nalu.ArithmeticCell), "layer", never),
    "generate_dataset size": (
        make(keras_nalu.generate_dataset),
        "size",
        lambda v: is_integer(v) and 0 <= v < 10**6,
    ),
    "generate_dataset seed": (
        make(keras_nalu.generate_dataset, size=3),
        "seed",
        is_seed,
    ),
    "generate_dataset operation": (
        make(keras_nalu.generate_dataset, size=3),
        "operation",
        lambda v: isinstance(v, str) and v in OPERATIONS,
    ),
    "generate_dataset low": (
        make(keras_nalu.generate_dataset, size=3),
        "low",
        lambda v: is_integer(v) and -(2**31) <= v < 9,
    ),
    "generate_dataset high": (
        make(keras_nalu.generate_dataset, size=3),
        "high",
        lambda v: is_integer(v) and 0 < v <= 2**31,
    ),
    "formula model": (make(keras_nalu.formula, x=[[1.0, 2.0]]), "model", never),
    "discretize model": (make(keras_nalu.discretize), "model", never),
}


#: What is valid here, and not what the test is for.
SKIPPED = {
    "generate_dataset size": count(10**6, math.inf),
    "L2Loss reduction": lambda v: isinstance(v, str),
    "LastBatchLoss loss": lambda v: isinstance(v, dict),
}


@pytest.mark.parametrize("thing", OTHERS)
@cases(value=ANYTHING)
def test_an_argument_of_anything_else(thing, value):
    construct, name, valid = OTHERS[thing]
    argument = thing.split()[1]
    if valid(value):
        construct(**{argument: value})
        return
    assume(not SKIPPED.get(thing, never)(value))
    with refused(*name.split("|")):
        construct(**{argument: value})


def numpy(y):
    return keras.ops.convert_to_numpy(y)


@functools.cache
def built(name, seed):
    """A layer with weights of two decimals, and its equation with these."""
    layer = LAYERS[name](2)
    layer.build((None, 2))
    rng = np.random.default_rng(seed)
    low = 0 if name in ("NMU", "SNMU", "NMRU") else -1
    for weight in layer.trainable_variables:
        weight.assign(np.round(rng.uniform(low, 1, weight.shape), 2))
    weights = {w.name: arithmetic.numbers(numpy(w)) for w in layer.trainable_variables}
    case = CASES[name]
    options = case.options_of(layer)
    return layer, functools.partial(case.equation, arithmetic, **weights, **options)


def exact(equation, row):
    """Of each unit the value, and the bound of its rounding; NaN, if it overflows."""
    try:
        (units,) = equation(arithmetic.numbers(row)[None])
    except (OverflowError, ValueError, ZeroDivisionError):
        return np.full((2, 2), np.nan)
    return np.array([(y.value, y.error) for y in units]).T


@pytest.mark.parametrize("name", LAYERS)
@cases(
    SOME,
    rows=st.integers(0, 2).flatmap(lambda n: arrays((n, 2))),
    seed=st.integers(0, 3),
    dtype=st.sampled_from(DTYPES),
)
def test_a_layer_on_numbers(name, rows, seed, dtype):
    layer, equation = built(name, seed)
    with np.errstate(all="ignore"):
        x = rows.astype(dtype)
        seen = x.astype("float32")
    if BACKEND == "torch" and dtype == "uint64":
        # Keras has no tensor of them there.
        with pytest.raises(ValueError, match="Unsupported dtype for PyTorch: uint64"):
            layer(x)
        return
    y = numpy(layer(x))
    assert y.shape == (len(x), 2)
    assert y.dtype == np.float32
    for i, row in enumerate(seen):
        np.testing.assert_allclose(numpy(layer(x[i : i + 1]))[0], y[i], rtol=1e-5)
        # Elsewhere NaN, infinity and what rounding makes 0 are the layer's own words.
        if np.all((np.abs(row) > 1e-6) & (np.abs(row) < 1e6)):
            value, error = exact(equation, row)
            known = np.abs(value) + error < 1e30
            bound = 2 * EPS32 * error + 1e-37
            assert (np.abs(y[i] - value) <= bound)[known].all(), (y[i], value)


@pytest.mark.parametrize("name", LAYERS)
@cases(x=NO_NUMBERS, fresh=st.booleans())
def test_a_layer_on_what_is_no_numbers(name, x, fresh):
    # Keras on JAX has made numbers of dates and of None before a layer sees them.
    kind = getattr(getattr(x, "dtype", None), "kind", "")
    assume(not (BACKEND == "jax" and kind in ("M", "O")))
    layer = LAYERS[name](2) if fresh else built(name, 0)[0]
    with pytest.raises((ValueError, TypeError)) as caught:
        layer(x)
    words = "received|should|expect|unsupported|passed|invalid|could not|not a valid"
    assert re.search(words, str(caught.value), re.I)


@cases(shape=shapes(4, 4), name=st.sampled_from([*LAYERS]), fresh=st.booleans())
def test_a_layer_on_data_of_any_shape(name, shape, fresh):
    layer = LAYERS[name](2) if fresh else built(name, 0)[0]
    x = np.ones(shape, "float32")
    if len(shape) < 2 or (not fresh and shape[-1] != 2):
        with pytest.raises(ValueError, match=r"incompatible with the layer: expected"):
            layer(x)
        return
    y = numpy(layer(x))
    assert y.shape == (*shape[:-1], 2)
    assert np.isfinite(y).all()


@cases(
    shape=st.one_of(ANYTHING, st.lists(ANYTHING, min_size=2, max_size=2)),
    name=st.sampled_from([*LAYERS]),
)
def test_a_layer_is_built_for_a_shape(name, shape):
    layer = LAYERS[name](2)
    last = shape[-1] if isinstance(shape, list | tuple) and len(shape) >= 2 else None
    assume(not count(99, 2**36)(last))  # It fits the memory, and takes all of it.
    if count(0, 99)(last):
        layer.build(shape)
        assert layer(np.ones((1, int(last)), "float32")).shape == (1, 2)
    else:
        with refused("input_shape", "units"):
            layer.build(shape)


@cases(
    name=st.sampled_from([*initializers.__dict__]).filter(lambda n: n in INITIALIZERS),
    shape=shapes(3, 4),
    seed=st.integers(0, 2**32 - 1),
)
def test_an_initializer_on_a_shape(name, shape, seed):
    low, high, ranks = INITIALIZERS[name]
    initializer = getattr(initializers, name)(seed=seed)
    if len(shape) not in ranks:
        with answered_or_refused():
            initializer(shape)
        return
    w = numpy(initializer(shape))
    assert w.shape == tuple(shape)
    assert ((w >= low) & (w <= high)).all()
    np.testing.assert_array_equal(numpy(getattr(initializers, name)(seed)(shape)), w)


INITIALIZERS = {
    "NACUniform": (-10, 10, (2,)),
    "NAUUniform": (-0.5, 0.5, (2,)),
    "NMUUniform": (0.25, 0.75, (2,)),
    "UnitVector": (-1, 1, (1, 2, 3)),
    "Orthogonal": (-1.001, 1.001, ()),
}


# Losses and metrics.


def aligned(true, pred):
    """The shape that both have, if an axis of length one may come or go."""
    return pred if true == pred or (*true, 1) == pred or true == (*pred, 1) else None


def weighs(weights, shape):
    """Whether there is one weight a sample, or one for each of its values."""
    if len(weights) == len(shape) + 1 and weights[-1] == 1:
        weights = weights[:-1]
    return len(weights) <= len(shape) and all(
        a in (1, b) for a, b in zip(weights, shape, strict=False)
    )


def spread(weights, shape):
    if weights.ndim == len(shape) + 1:
        weights = weights[..., 0]
    weights = weights.reshape(weights.shape + (1,) * (len(shape) - weights.ndim))
    return np.broadcast_to(weights, shape)


#: Pairs of shapes, and of weights or none: most of them fit.
PAIRS = shapes().flatmap(
    lambda shape: st.tuples(
        st.one_of(
            st.just(shape),
            st.just(shape),
            st.just((*shape, 1)),
            st.just(shape[:-1]),
            shapes(),
        ),
        st.just(shape),
        st.one_of(
            st.none(),
            st.integers(0, 3).map(lambda n: shape[:n]),
            st.just((*shape, 1)),
            shapes(2),
        ),
    )
)


@cases(pair=PAIRS, data=st.data(), reduction=st.sampled_from(["sum", "none", None]))
def test_the_loss_is_half_the_squares(pair, data, reduction):
    true_shape, shape, weights_shape = pair
    true, pred = (data.draw(arrays(s, MODERATE)) for s in (true_shape, shape))
    weights = None
    if weights_shape is not None:
        weights = data.draw(arrays(weights_shape, st.floats(0, 9, width=32)))
    loss = keras_nalu.L2Loss(reduction)
    samples = shape[:-1] or shape
    fits = aligned(true_shape, shape) is not None
    if not fits or (weights is not None and not weighs(weights.shape, samples)):
        with refused("y_true|y_true.shape", "sample_weight|sample_weight.shape"):
            loss(true, pred, weights)
        return
    with np.errstate(all="ignore"):
        squares = (np.float64(pred) - true.reshape(shape)) ** 2 / 2
        expected = squares.sum(-1) if len(shape) > 1 else squares
        if weights is not None:
            expected = expected * spread(np.float64(weights), samples)
        expected = expected if reduction != "sum" else expected.sum()
    np.testing.assert_allclose(
        numpy(loss(true, pred, weights)), expected, rtol=1e-5, atol=1e-30
    )


@cases(
    SOME,
    pair=PAIRS,
    data=st.data(),
    rtol=st.sampled_from([0, 1e-4, 0.1, 2]),
    atol=st.sampled_from([0, 1e-4, 1]),
)
def test_accuracy_is_numpys(pair, data, rtol, atol):
    true_shape, shape, weights_shape = pair
    pred = data.draw(arrays(shape, MODERATE))
    if math.prod(true_shape) == math.prod(shape):
        off = data.draw(arrays(true_shape, st.sampled_from([0, 1, 1.00005, 1.2])))
        with np.errstate(invalid="ignore"):
            true = pred.reshape(true_shape) * off
    else:
        true = data.draw(arrays(true_shape, MODERATE))
    weights = None
    if weights_shape is not None:
        weights = data.draw(arrays(weights_shape, st.floats(0, 9, width=32)))
    metric = keras_nalu.IsCloseAccuracy(rtol, atol)
    fits = aligned(true_shape, shape) is not None
    if not fits or (weights is not None and not weighs(weights.shape, shape)):
        with refused("y_true|y_true.shape", "sample_weight|sample_weight.shape"):
            metric.update_state(true, pred, weights)
        return
    metric.update_state(true, pred, weights)
    with np.errstate(all="ignore"):
        true = true.reshape(shape)
        bound = atol + rtol * np.abs(pred)
        edge = np.abs(np.abs(true - pred) - bound) <= 1e-5 * bound
        assume(not (edge & (true != pred)).any())
        right = np.isclose(true, pred, rtol, atol)
        share = np.ones(shape) if weights is None else spread(weights, shape)
        expected = (right * share).sum() / share.sum() if share.sum() else 0.0
    result = float(metric.result())
    assert result == pytest.approx(expected, rel=1e-5) or (
        math.isnan(result) > pred.size
    )


@cases(losses=st.lists(st.floats(0, 1e3, width=32), max_size=6))
def test_the_losses_of_batches(losses):
    metric = keras_nalu.LastBatchLoss(keras_nalu.L2Loss())
    for loss in losses:
        metric.update_state([[0.0]], [[math.sqrt(2 * loss)]])
    expected = losses[-1] if losses else 0.0
    assert float(metric.result()) == pytest.approx(expected, rel=1e-3, abs=1e-2)


@cases(
    given=NO_NUMBERS,
    place=st.sampled_from(["y_true", "y_pred", "sample_weight"]),
    kind=st.sampled_from(["L2Loss", "IsCloseAccuracy", "LastBatchLoss"]),
)
def test_what_is_no_numbers_is_no_label(given, place, kind):
    assume(not (place == "sample_weight" and given is None))
    call = {"y_true": np.ones((1, 2)), "y_pred": np.ones((1, 2)), place: given}
    loss = keras_nalu.L2Loss()
    thing = loss if kind == "L2Loss" else getattr(keras_nalu, kind)
    if kind != "L2Loss":
        thing = thing(loss) if kind == "LastBatchLoss" else thing()
        thing = thing.update_state
    with refused(place):
        thing(**call)


# Penalties, constraints and schedules.


def nearest(w, targets):
    return np.min([np.abs(w - target) for target in targets], axis=0)


PENALTIES = {
    "L1": (regularizers.L1(2), lambda w: 2 * np.abs(w).sum()),
    "Sparsity": (regularizers.Sparsity(2), lambda w: 2 * nearest(w, (-1, 0, 1)).mean()),
    "Sparsity 0": (
        regularizers.Sparsity(low=0),
        lambda w: nearest(w, (0, 1)).mean(),
    ),
    "Sparsity squared": (
        regularizers.Sparsity(squared=True),
        lambda w: ((np.abs(w) * (1 - np.abs(w))) ** 2).mean(),
    ),
    "Sparsity 0 squared": (
        regularizers.Sparsity(low=0, squared=True),
        lambda w: ((w * (1 - w)) ** 2).mean(),
    ),
    "OutOfRange": (
        regularizers.OutOfRange(3, -1, 2),
        lambda w: 3 * np.maximum(np.abs(w - 0.5) - 1.5, 0).mean(),
    ),
    "OutOfRange squared": (
        regularizers.OutOfRange(squared=True),
        lambda w: (np.maximum(np.abs(w) - 1, 0) ** 2).mean(),
    ),
    "INALUPenalty": (
        regularizers.INALUPenalty(1, 2),
        lambda w: np.maximum(2 - np.abs(w), 0).mean(),
    ),
    "Discretization": (
        regularizers.Discretization(),
        lambda w: np.abs(1 - np.abs(w)).mean(),
    ),
    "NegativeSquare": (regularizers.NegativeSquare(), lambda w: -(w**2).mean()),
    "Sum": (
        regularizers.L1(1) + regularizers.Discretization(2),
        lambda w: np.abs(w).sum() + 2 * np.abs(1 - np.abs(w)).mean(),
    ),
}


WEIGHTS = shapes(2).flatmap(lambda shape: arrays(shape, MODERATE))


@pytest.mark.parametrize("name", PENALTIES)
@cases(w=WEIGHTS)
def test_a_penalty_on_numbers(name, w):
    penalty, formula = PENALTIES[name]
    assume(w.size)
    with np.errstate(all="ignore"):
        expected = formula(np.float64(w))
    assert float(penalty(w)) == pytest.approx(expected, rel=1e-4, abs=1e-3, nan_ok=True)


@cases(
    w=WEIGHTS, low=st.sampled_from([-1, 0, -np.inf]), high=st.sampled_from([1, np.inf])
)
def test_a_constraint_on_numbers(w, low, high):
    clipped = numpy(constraints.Clip(low, high)(w))
    # What is below the smallest normal number may be taken for 0.
    np.testing.assert_allclose(clipped, np.clip(w, low, high), 0, 2e-38)


@cases(
    given=NO_NUMBERS,
    name=st.sampled_from([*PENALTIES, "Clip", "LinearRamp", "StepwiseGrowth"]),
)
def test_what_is_no_numbers_is_no_weight(given, name):
    others = {
        "Clip": constraints.Clip(),
        "LinearRamp": regularizers.LinearRamp(1, 0, 5),
        "StepwiseGrowth": regularizers.StepwiseGrowth(1, 2),
    }
    with refused("w", "step"):
        (others[name] if name in others else PENALTIES[name][0])(given)


@cases(
    step=st.one_of(st.integers(0, 10**6), st.floats(0, 1e6), st.just(2**31 - 1)),
    value=st.floats(-10, 10, width=32),
    start=st.integers(0, 1000),
    length=st.integers(1, 10**6),
)
def test_a_ramp(step, value, start, length):
    ramp = regularizers.LinearRamp(value, start, start + length)
    expected = value * np.clip((step - start) / length, 0, 1)
    assert float(ramp(step)) == pytest.approx(expected, rel=1e-4, abs=2e-6)


@cases(
    step=st.integers(0, 2**31 - 1),
    first=st.sampled_from([1e-9, 1e-3, 1.0]),
    times=st.sampled_from([1, 7, 1e6]),
    factor=st.sampled_from([1.5, 10, 1e30]),
    every=st.sampled_from([1, 10, 10_000]),
)
def test_stepwise_growth(step, first, times, factor, every):
    growth = regularizers.StepwiseGrowth(first, first * times, factor, every)
    grown = first * factor ** min(step // every, 9 if factor > 1e9 else 40)
    assert float(growth(step)) == pytest.approx(min(grown, first * times), rel=1e-5)


@cases(
    operation=st.sampled_from([*OPERATIONS]),
    size=st.integers(0, 20),
    seed=st.integers(0, 2**32 - 1),
    low=st.integers(-(2**31) - 2, 2**31 + 2),
    length=st.one_of(st.integers(-2, 5), st.integers(-2, 2**32)),
)
def test_a_dataset(operation, size, seed, low, length):
    given = {"operation": operation, "low": low, "high": low + length}
    values = length - (operation == "divide" and low <= 0 < low + length)
    if not (-(2**31) <= low and low + length <= 2**31 and values > 0):
        with refused("low"):
            keras_nalu.generate_dataset(size, seed, **given)
        return
    X, Y = keras_nalu.generate_dataset(size, seed, **given)
    assert X.shape == (size, 2)
    assert Y.shape == (size, 1)
    for (a, b), (y,) in zip(X.tolist(), Y.tolist(), strict=True):
        assert low <= min(a, b) <= max(a, b) < low + length
        assert y == OPERATIONS[operation](a, b)
    again, _ = keras_nalu.generate_dataset(size, seed, **given)
    np.testing.assert_array_equal(again, X)


@cases(
    FEWER,
    name=st.sampled_from([*LAYERS]),
    seed=st.integers(0, 3),
    x=st.integers(1, 4).flatmap(lambda n: arrays((n, 2))),
    tolerance=st.sampled_from([0, 0.05, 0.5, 3]),
)
def test_a_formula_of_any_data(name, seed, x, tolerance):
    layer, _ = built(name, seed)
    if not (np.abs(x) <= LARGEST).all():
        with refused("x"):
            keras_nalu.formula(layer, x)
        return
    with np.errstate(all="ignore"):
        read = keras_nalu.formula(layer, x, tolerance=tolerance)
    assert read.outputs == ["y0", "y1"]
    assert all(line.partition(" = ")[2] for line in read.lines)
    assert read.exact is not bool(read.not_discrete)
    assert not read.error < 0


@cases(value=st.one_of(ANYTHING, NO_NUMBERS), place=st.sampled_from(["x", "y"]))
def test_what_is_no_numbers_is_not_read(value, place):
    layer, _ = built("NMU", 0)
    with np.errstate(all="ignore"):
        array = None
        with contextlib.suppress(ValueError, TypeError, OverflowError, RuntimeError):
            array = np.array(value)
    assume(array is None or array.dtype.kind not in "biuf" or not array.shape)
    assume(value is not None)
    given = {"x": [[1.0, 2.0]], place: value}
    with refused(place):
        keras_nalu.discretize(layer, **given)
    if place == "x":
        with refused("x"):
            keras_nalu.formula(layer, value)


@cases(
    FEWER,
    value=st.one_of(ANYTHING, st.lists(TEXT, min_size=2, max_size=2)),
    name=st.sampled_from(["names", "tolerance"]),
)
def test_an_argument_of_formula(value, name):
    layer, _ = built("NMU", 0)
    given = {name: value}
    if name == "tolerance":
        valid = at_least(0)(value)
    else:
        valid = value is None
    if valid:
        keras_nalu.formula(layer, [[1.0, 2.0]], **given)
        return
    # What no name may be is in test_reading.py; here, what is none.
    words = isinstance(value, list | tuple) and len(value) == 2
    words = words and all(isinstance(a, str) and a.isidentifier() for a in value)
    assume(not words)
    with refused(name):
        keras_nalu.formula(layer, [[1.0, 2.0]], **given)
