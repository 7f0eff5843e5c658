"""Bad input: whatever comes, a right answer, or an error that says what to type.

Every generated case is one value of one argument, or one set of data. NumPy, a scalar
loop or a sentence on the argument says what is right. `pytest -n auto
tests/test_inputs.py --hypothesis-profile nightly` tries more than 100,000 cases;
conftest.py has the number of each profile, and prints how many there were.
"""

import contextlib
import decimal
import fractions
import functools
import inspect
import io
import json
import math
import os
import re
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from test_equations import LOOPS, number, numbers

import keras_nalu
from keras_nalu import constraints, initializers, regularizers
from keras_nalu.datasets import OPERATIONS
from keras_nalu.layers import LAYERS
from keras_nalu.training import draws, fused

BACKEND = keras.backend.backend()
EPS32 = np.finfo("float32").eps
LARGEST = float(np.finfo("float32").max)
COUNT = {"cases": 0}
#: Of tests whose cases take more than some milliseconds.
SOME = settings(max_examples=max(1, settings().max_examples // 4))
FEWER = settings(max_examples=max(1, settings().max_examples // 20))
FEW = settings(max_examples=max(1, settings().max_examples // 200))


@pytest.fixture(autouse=True)
def _counted(record_property):
    COUNT["cases"] = 0
    yield
    record_property("cases", COUNT["cases"])


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def cases(limit=None, **strategies):
    """`hypothesis.given`, that counts the cases that came to their end."""

    def decorate(test):
        @functools.wraps(test)
        def counted(*args, **kwargs):
            test(*args, **kwargs)
            COUNT["cases"] += 1

        return (limit or (lambda f: f))(given(**strategies)(counted))

    return decorate


# Values of every kind.


class Thing:
    def __repr__(self):
        return "<thing>"


class Unspeakable:
    def __repr__(self):
        raise RuntimeError


TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=6)
REALS = st.one_of(
    st.integers(-3, 12),
    st.integers(),
    st.floats(-3, 3),
    st.floats(),
    st.sampled_from(
        [
            *(2**31, 2**32 - 1, 2**32, 2**40, 2**63, 10**30, 10**400, -(10**5000)),
            *(np.int64(3), np.uint8(5), np.float32(0.5), np.float64(2), np.float16(1)),
            *(fractions.Fraction(1, 3), 1e-45, 5e-324, 1e38, LARGEST, 2 * LARGEST),
        ]
    ),
)
ODD = st.one_of(
    TEXT,
    st.binary(max_size=4),
    st.complex_numbers(),
    st.sampled_from(
        [
            *(None, True, False, np.True_, Thing(), Unspeakable(), object, len, Thing),
            *(decimal.Decimal("0.5"), range(3), slice(1, 2), np.datetime64("2020")),
            *(np.array(3), np.array([1, 2]), np.array([]), np.array("a"), Ellipsis),
            np.array([None, 1], object),
        ]
    ),
    st.lists(st.one_of(st.integers(-2, 3), st.floats(), TEXT, st.none()), max_size=3),
    st.tuples(st.integers(-2, 3), st.floats()),
    st.dictionaries(TEXT, st.integers(), max_size=2),
    st.sets(st.integers(), max_size=2),
)
ANYTHING = st.one_of(REALS, ODD)


@contextlib.contextmanager
def refused(*names):
    """One of these is named, and it is said what came and what to do."""
    with pytest.raises((ValueError, TypeError)) as caught:
        yield
    text = str(caught.value)
    assert any(re.search(rf"\b{name}\b", text) for name in names), text
    assert re.search(r"[Rr]eceived", text), text
    assert re.search(r"[Ee]xpected|must|needs|Try|instance of", text), text
    assert len(text) < 1000, text


@contextlib.contextmanager
def answered_or_refused():
    """What Keras itself refuses is said in its words."""
    said = "at length, as no error was"
    try:
        yield
    except (ValueError, TypeError) as error:
        said = str(error)
    assert len(said) > 15, said


def is_number(value):
    kinds = int, float, np.integer, np.floating, fractions.Fraction
    if not isinstance(value, kinds) or isinstance(value, bool):
        return False
    try:
        return abs(float(value)) <= LARGEST
    except OverflowError:
        return False


def is_integer(value):
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def is_seed(value):
    return value is None or (is_integer(value) and 0 <= value < 2**32)


def is_positive(value):
    return is_number(value) and np.float32(value) > 0


def is_flag(value):
    return isinstance(value, bool | np.bool_) or (is_integer(value) and value in (0, 1))


def at_least(low):
    return lambda value: is_number(value) and value >= low


def count(low=1, high=2**63):
    return lambda value: is_integer(value) and low <= value < high


def is_path(value):
    return isinstance(value, str | Path) and "\0" not in str(value)


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


def kept(thing, name, value):
    """The argument is in a config that is JSON, and makes the same thing again."""
    config = json.loads(json.dumps(thing.get_config()))
    if isinstance(value, np.generic | fractions.Fraction):
        value = int(value) if is_integer(value) else float(value)
    value = list(value) if isinstance(value, tuple) else value
    # A layer keeps a float, of the nearest value.
    assert config[name] == value or config[name] == float(value)
    assert type(thing).from_config(config).get_config() == thing.get_config()


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


def make(cls, **given):
    return lambda **more: cls(**given | more)


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
        f"{cls.__name__} coefficient": (make(cls), "coefficient", is_number)
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


def never(value):
    return False


def a_model():
    return keras.Sequential([keras.Input((2,)), keras_nalu.NAU(1)])


@functools.cache
def compiled():
    model = keras_nalu.Sequential([keras.Input((2,)), keras_nalu.NAU(1)])
    model.compile("sgd", "mse")
    return model


OTHERS = {
    "L2Loss reduction": (
        make(keras_nalu.L2Loss),
        "reduction",
        lambda v: v is None or (isinstance(v, str) and v in ("sum", "none", "mean")),
    ),
    "LastBatchLoss loss": (make(keras_nalu.LastBatchLoss), "loss", never),
    "ArithmeticCell layer": (make(keras_nalu.ArithmeticCell), "layer", never),
    "EpochLine write": (make(keras_nalu.EpochLine), "write", callable),
    "StopWhenSolved monitor": (
        make(keras_nalu.StopWhenSolved),
        "monitor",
        lambda v: isinstance(v, str),
    ),
    "StopWhenSolved threshold": (
        make(keras_nalu.StopWhenSolved),
        "threshold",
        is_number,
    ),
    "BackupAndRestore path": (make(keras_nalu.BackupAndRestore), "path", is_path),
    "BackupAndRestore callbacks": (
        make(keras_nalu.BackupAndRestore, path="x"),
        "callbacks",
        lambda v: v is None or (isinstance(v, list) and not v),
    ),
    "BackupAndRestore every": (
        make(keras_nalu.BackupAndRestore, path="x"),
        "every",
        lambda v: v is None or count()(v),
    ),
    "BackupAndRestore delete": (
        make(keras_nalu.BackupAndRestore, path="x"),
        "delete",
        is_flag,
    ),
    "TensorBoard log_dir": (make(keras_nalu.TensorBoard), "log_dir", is_path),
    "TensorBoard histogram_freq": (
        make(keras_nalu.TensorBoard),
        "histogram_freq",
        count(0),
    ),
    "TensorBoard write_graph": (make(keras_nalu.TensorBoard), "write_graph", is_flag),
    "TensorBoard kernel_freq": (make(keras_nalu.TensorBoard), "kernel_freq", count(0)),
    "TensorBoard config": (
        make(keras_nalu.TensorBoard),
        "config",
        lambda v: v is None or isinstance(v, dict),
    ),
    "Sequential layers": (
        make(keras_nalu.Sequential),
        "layers",
        lambda v: v is None or (isinstance(v, list | tuple) and not v),
    ),
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
    "load_model filepath": (make(keras_nalu.load_model), "filepath", never),
}
#: What is valid here, and not what the test is for.
SKIPPED = {
    # It fits the memory, and takes all of it.
    "generate_dataset size": count(10**6, 2**36),
    "load_model filepath": lambda v: isinstance(v, str),
    "Sequential layers": lambda v: isinstance(v, list | tuple),
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


# Data.

FLOATS = st.one_of(
    st.floats(-3, 3, width=32),
    st.floats(width=32),
    st.sampled_from([0.0, -0.0, 1.0, -1.0, 1e-45, 1e-38, 1e30, 3e38, np.inf, np.nan]),
)
DTYPES = "float16 float32 float64 int8 int32 int64 uint8 uint64 bool".split()
#: What is no array of real numbers, in the place of one.
NO_NUMBERS = st.one_of(
    TEXT,
    st.sampled_from(
        [
            *(None, Thing(), object, len, {"a": [1.0]}, {1.0}, b"x", Ellipsis),
            *(np.array([["a", "b"]]), np.array([["2020", "2021"]], "datetime64[D]")),
            *(np.array([[None, 1]], object), np.array([[1j, 2]]), 1j, [[1j, 2]]),
            *([[1.0, 2.0], [3.0]], [["a", 1.0]], [[None, 1.0]], [Thing()]),
        ]
    ),
)


def arrays(shape, elements=FLOATS):
    return st.lists(elements, min_size=math.prod(shape), max_size=math.prod(shape)).map(
        lambda values: np.array(values, "float32").reshape(shape)
    )


def shapes(rank=3, most=3):
    return st.lists(st.integers(0, most), min_size=0, max_size=rank).map(tuple)


def numpy(y):
    return keras.ops.convert_to_numpy(y)


@functools.cache
def built(name, seed):
    """A layer with weights of two decimals, and what its scalar loop takes of them."""
    layer = LAYERS[name](2)
    layer.build((None, 2))
    rng = np.random.default_rng(seed)
    low = 0 if name in ("NMU", "SNMU", "NMRU") else -1
    for weight in layer.trainable_variables:
        weight.assign(np.round(rng.uniform(low, 1, weight.shape), 2))
    weights = {w.name: numbers(numpy(w)) for w in layer.trainable_variables}
    named = inspect.signature(LOOPS[name]).parameters
    options = ("epsilon", "omega", "scale")
    given = {o: getattr(layer, o, None) for o in options if o in named}
    if "training" in named:
        given["training"] = False
    return layer, functools.partial(LOOPS[name], **weights, **given)


def exact(loop, row):
    """Of each unit the value, and the bound of its rounding; NaN, if it overflows."""
    found = []
    for unit in range(2):
        try:
            y = number(loop(numbers(row), unit))
            found.append((y.value, y.error))
        except (OverflowError, ValueError, ZeroDivisionError):
            found.append((np.nan, np.nan))
    return np.array(found).T


@pytest.mark.parametrize("name", LAYERS)
@cases(
    SOME,
    rows=st.integers(0, 2).flatmap(lambda n: arrays((n, 2))),
    seed=st.integers(0, 3),
    dtype=st.sampled_from(DTYPES),
)
def test_a_layer_on_numbers(name, rows, seed, dtype):
    layer, loop = built(name, seed)
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
            value, error = exact(loop, row)
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
    inputs=st.sampled_from([2, 2**20, 2**31, 2**40, 2**62]),
    units=st.sampled_from([2**31, 2**33, 2**40, 2**62]),
    name=st.sampled_from([*LAYERS]),
)
def test_a_layer_beyond_the_memory_is_refused(name, inputs, units):
    assume(inputs * units > 2**40)
    with refused("units"):
        LAYERS[name](units).build((None, inputs))


@cases(
    name=st.sampled_from([*initializers.__dict__]).filter(lambda n: n in INITIALIZERS),
    shape=st.one_of(shapes(3, 4), ANYTHING, st.tuples(REALS, REALS)),
    seed=st.integers(0, 2**32 - 1),
)
def test_an_initializer_on_a_shape(name, shape, seed):
    low, high, ranks = INITIALIZERS[name]
    initializer = getattr(initializers, name)(seed=seed)
    listed = isinstance(shape, tuple | list | range) or np.ndim(shape) == 1
    sizes = listed and all(map(count(0), shape))
    total = math.prod(max(int(size), 1) for size in shape) if sizes else 0
    assume(not 1000 < total < 2**36)  # It fits the memory, and takes all of it.
    if not sizes or len(shape) not in ranks or total > 1000:
        if name == "Orthogonal" and sizes:
            with answered_or_refused():
                initializer(shape)
        else:
            with refused("shape"):
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


MODERATE = st.one_of(
    st.floats(-1e4, 1e4, width=32), st.sampled_from([0.0, 1.0, np.inf, -np.inf, np.nan])
)
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


@cases(size=st.sampled_from([2**36, 2**40, 2**62, 2**63, 10**30, 10**400]))
def test_data_beyond_the_memory_is_refused(size):
    with refused("size"):
        keras_nalu.generate_dataset(size)


# Models.


@example(value=-1, name="seed")
@cases(value=ANYTHING, name=st.sampled_from(["size", "seed", "model"]))
def test_an_argument_of_a_population(value, name):
    if BACKEND == "torch":
        pytest.skip("trains no populations")
    given = {"model": template(), "size": 1, name: value}
    # One that is right is made in test_population.py: it takes a second.
    right = count(1, 2**36)(value) if name == "size" else value is None
    assume(not right and not (name == "seed" and is_integer(value) and value >= 0))
    with refused(name):
        keras_nalu.Population(**given)


def test_a_population_beyond_the_memory_is_refused():
    numbers = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(100)])
    with refused("size"):
        keras_nalu.Population(model, numbers // 100)


@functools.cache
def template():
    return a_model()


@cases(value=ANYTHING)
def test_steps_per_execution(value):
    model = keras_nalu.Sequential([keras.Input((2,)), keras_nalu.NAU(1)])
    if count()(value) or (isinstance(value, str) and value == "auto"):
        model.compile("sgd", "mse", steps_per_execution=value)
    else:
        with refused("steps_per_execution"):
            model.compile("sgd", "mse", steps_per_execution=value)


SIZES = {
    "batch_size": lambda v: v is None or count()(v),
    "epochs": count(0),
    "validation_split": lambda v: is_number(v) and 0 <= v <= 1,
    "steps_per_epoch": lambda v: v is None or count()(v),
    "validation_batch_size": lambda v: v is None or count()(v),
    "validation_steps": lambda v: v is None or count()(v),
}


@pytest.mark.parametrize("name", SIZES)
@cases(value=ANYTHING)
def test_a_size_in_fit(name, value):
    model, seen = compiled(), {}
    with pytest.MonkeyPatch.context() as patch:

        @functools.wraps(keras.Model.fit)
        def fit(self, **call):
            seen.update(call)

        patch.setattr(keras.Model, "fit", fit)
        patch.setattr(fused.Fused, "_fuses", lambda self: False)
        if SIZES[name](value):
            model.fit(np.ones((4, 2)), np.ones((4, 1)), **{name: value})
            plain = seen[name]
            assert plain is value is None or plain == type(plain)(value)
        else:
            assume(not (name in ("epochs", "validation_split") and value is None))
            with refused(name):
                model.fit(np.ones((4, 2)), np.ones((4, 1)), **{name: value})


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


# Files.


@functools.cache
def saved():
    content = io.BytesIO()
    with pytest.MonkeyPatch.context() as patch:
        path = Path("whole.keras").resolve()
        patch.chdir(path.parent)
        keras_nalu.Sequential([keras.Input((2,)), keras_nalu.NAU(1)]).save(path)
        content.write(path.read_bytes())
    return content.getvalue()


@cases(
    FEWER,
    at=st.integers(0, 10**6),
    cut=st.booleans(),
    noise=st.binary(min_size=1, max_size=20),
    part=st.sampled_from(["whole", "config.json", "metadata.json", "model.weights.h5"]),
)
def test_a_model_file_that_is_damaged(at, cut, noise, part):
    content = saved()

    def damage(data):
        place = at % len(data)
        rest = b"" if cut else data[place + len(noise) :]
        return data[:place] + noise + rest

    path = Path("damaged.keras")
    if part == "whole":
        path.write_bytes(damage(content))
    else:
        with (
            zipfile.ZipFile(io.BytesIO(content)) as old,
            zipfile.ZipFile(path, "w") as new,
        ):
            for name in old.namelist():
                data = old.read(name)
                new.writestr(name, damage(data) if name == part else data)
    said = ""
    try:
        model = keras_nalu.load_model(path)
        # The damage is where it does not matter, as in a date.
        assert model.name
    except (ValueError, TypeError) as error:
        said = str(error)
    assert said == "" or said.startswith("Could not load 'damaged.keras': ")
    assert "\n" not in said


@cases(FEWER, content=st.one_of(st.binary(max_size=60), st.just(b"PK\5\6" + bytes(18))))
def test_a_backup_that_is_no_backup(content):
    Path("training.backup").write_bytes(content)
    backup = keras_nalu.BackupAndRestore("training.backup")
    backup.set_model(compiled())
    backup.set_params({"epochs": 1})
    with refused("path"):
        backup.on_train_begin()
    assert Path("training.backup").read_bytes() == content


@cases(FEW, steps=ANYTHING)
def test_a_function_draws_a_number_of_batches(steps):
    assume(steps is not None and not count()(steps))
    with refused("steps", "steps_per_epoch"):
        draws.Draws(
            lambda stream: (stream.uniform((2, 2)), stream.uniform((2, 1))), steps
        )
