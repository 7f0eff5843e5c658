"""How exact every layer is under every dtype policy, and where its numbers end.

`python tests/test_precision.py` measures all of it and prints README's table.
"""

import functools
import itertools
import json
import math
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pytest
from test_conformance import NO_NEGATIVE, NO_ZERO, REPRESENTATIVE
from test_equations import (
    EPS32,
    LOOPS,
    Trained,
    gradients,
    number,
    numbers,
    options_of,
)
from test_solutions import IDEAL, built, integers

import keras_nalu
from keras_nalu.layers import LAYERS, NAC, NALU

README = (Path(__file__).parent.parent / "README.md").read_text()
BACKEND = keras.backend.backend()
BACKENDS = "tensorflow", "jax", "torch"
POLICIES = "float32", "float64", "mixed_bfloat16", "mixed_float16"

slow = pytest.mark.slow


# How exact.


def saturated(weights):
    """What squashes to -1, 0 and 1 in float64, too."""
    return [np.where(np.abs(w) < 20, w, 2 * w) for w in weights]


def worst_error(name, policy):
    """Of the ideal solutions of all operations, on integers from 1 to 100: the largest
    share of the exact answer, or difference from an answer of 0."""
    X, errors = integers(1, 101), []
    for operation, weights in IDEAL[name].items():
        y = built(name, saturated(weights), dtype=policy)(X)
        wide = "float64" if policy == "float64" else "float32"
        y = keras.ops.convert_to_numpy(keras.ops.cast(y, wide))[:, 0]
        exact = np.float64(getattr(np, operation)(*np.float64(X.T)))
        errors.append(np.abs(y - exact) / np.where(exact == 0, 1, np.abs(exact)))
    return float(np.max(errors))


def cell(error):
    """One digit, rounded up."""
    if not error:
        return "0"
    unit = 10.0 ** math.floor(math.log10(error))
    return f"{math.ceil(error / unit) * unit:.0e}"


def table(cells):
    """README's, of cells by layer and policy: layers of the same cells in a row."""
    groups = {}
    for name in LAYERS:
        row = tuple(cells[name, policy] for policy in POLICIES)
        groups.setdefault(row, []).append(f"`{name}`")
    lines = [["layer", *POLICIES], ["---"] * (1 + len(POLICIES))]
    lines += [[", ".join(names), *row] for row, names in groups.items()]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def cells_in_readme():
    found = {}
    for names, texts in re.findall(
        rf"^\| (`[`\w, ]+)((?: \| [\de-]+){{{len(POLICIES)}}}) \|$", README, re.M
    ):
        row = texts.strip(" |").split(" | ")
        for name in re.findall(r"\w+", names):
            found |= {
                (name, policy): c for policy, c in zip(POLICIES, row, strict=True)
            }
    return found


def test_the_table_of_readme_is_as_the_command_writes_it():
    cells = cells_in_readme()
    assert {name for name, _ in cells} == set(LAYERS)
    assert table(cells) in README


@slow
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.filterwarnings("ignore:Explicitly requested dtype")  # JAX's, of float64
def test_the_cells_of_readme(name, policy):
    """Within the digits by which machines differ."""
    error, cells = worst_error(name, policy), cells_in_readme()
    if policy == "float64" and BACKEND != "tensorflow":
        # Keras' own operations compute in float32.
        policy = "float32"
    stated = float(cells[name, policy])
    assert error <= 2 * stated
    if BACKEND == "tensorflow":
        assert stated <= 8 * error


# What stores half precision.


@pytest.fixture
def policy():
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_pure_half_policy_warns_once(dtype, policy):
    from keras_nalu.layers import base

    base._warn_of_half.cache_clear()
    text = (
        rf"policy '{dtype}' stores weights in half precision: .* Use 'mixed_{dtype}', "
        rf".*`keras\.config\.set_dtype_policy\('mixed_{dtype}'\)`\."
    )

    def make():
        NALU(1, dtype=dtype)
        policy(dtype)
        NAC(1)

    with pytest.warns(UserWarning, match=text) as warned:
        make()
    assert len(warned) == 1


def test_a_mixed_policy_does_not_warn(policy):
    for name in POLICIES:
        NALU(1, dtype=name)
        policy(name)
        NALU(1)
        NALU(1, dtype="float32")


# Training.

X = np.random.default_rng(0).uniform(1, 2, (640, 2)).astype("float32")


@functools.cache
def train(cls, policy, names):
    """A model of layers side by side, and each one's error before and after."""
    keras.config.set_dtype_policy(policy)
    keras.utils.set_random_seed(1)
    inputs = keras.Input((2,))
    outputs = [LAYERS[name](1)(inputs) for name in names]
    model = cls(inputs, keras.layers.Concatenate()(outputs))
    model.compile(keras.optimizers.Adam(0.02), "mse")
    Y = np.stack([answer(LAYERS[name]) for name in names], axis=-1)

    def errors():
        y = np.float32(keras.ops.convert_to_numpy(model.predict_on_batch(X)))
        return np.mean((y - Y) ** 2, axis=0)

    before = errors()
    model.fit(X, Y, batch_size=32, epochs=15, verbose=0)
    return model, before, errors()


def answer(cls):
    """Of the first operation that a layer claims."""
    return np.float32(getattr(np, cls.operations[0])(*X.T))


@pytest.mark.filterwarnings("ignore:Training step by step")  # On PyTorch.
@pytest.mark.filterwarnings("ignore:Explicitly requested dtype")  # On JAX.
@pytest.mark.parametrize(
    ("cls", "name", "names"),
    [
        (keras_nalu.Model, "mixed_float16", tuple(sorted(REPRESENTATIVE))),
        *(
            pytest.param(cls, name, tuple(LAYERS), marks=slow)
            for cls in (keras_nalu.Model, keras.Model)
            for name in POLICIES
        ),
    ],
)
@pytest.mark.usefixtures("policy")
def test_layers_train_under_every_policy(cls, name, names):
    model, before, after = train(cls, name, names)
    scaled = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert scaled == (name == "mixed_float16")
    stored = {"float64"} if name == "float64" else {"float32"}
    assert {weight.dtype for weight in model.weights} == stored
    for weight in model.get_weights():
        assert np.isfinite(weight).all()
    for layer, start, end in zip(names, before, after, strict=True):
        assert end < 0.7 * start, layer
    if name.startswith("mixed") and len(names) == len(LAYERS):
        # As exact as in float32, but for the rounding of the outputs.
        *_, wide = train(cls, "float32", names)
        np.testing.assert_array_less(after, 1.5 * wide + 2e-4)


# Where numbers end.

#: Two denormal numbers among them.
SIZES = [0.0, 1e-45, 1e-38, 1e-20, 1.0, 1e19, 1e38]
FEWER = [0.0, 1e-45, 8e37]
MOST, LEAST = float(np.finfo("float32").max), float(np.finfo("float32").tiny)
#: What says so in a docstring.
OVERFLOWS = (
    "Where a step overflows, the outputs and gradients that depend on it can be "
    "infinite or NaN, although the exact value may fit."
)
NAN_OF_NRU = (
    "On JAX the gradients of `W` in training are NaN also for inputs near 1e38."
)
#: That never are: their sums and bounded products end where the exact value does.
BOUNDED = {"NAC", "INALU", "SharedINALU", "NAU", "MCFC", "NSR"}


def says_so(cls):
    return OVERFLOWS in " ".join(cls.__doc__.split())


def exact(layer, row, training):
    """The output of a row, and its gradients, with all the steps that led there."""
    loop, x = LOOPS[type(layer).__name__], numbers(row)
    weights = {v.name: numbers(numpy(v)) for v in layer.trainable_variables}
    with np.errstate(all="ignore"):
        y = loop(x, 0, **weights, **options_of(layer, training))
        slopes = gradients([y], [number(1)])
    leaves = {"x": x, **weights}
    return {"y": [y]} | {
        name: [slopes.get(leaf, number(0)) for leaf in leaves[name].flat]
        for name in leaves
    }


def is_right(got, n, peak, says_so):
    """Whether float32 may have it for a number, with such a peak on the way there."""
    error = float(EPS32) * n.error
    low, high = n.value - error, n.value + error
    surely = low > MOST or high < -MOST
    if np.isfinite(got):
        return not surely
    if np.isinf(got) and (surely or not says_so):
        return high > MOST if got > 0 else low < -MOST
    return says_so and not max(n.peak, peak) < MOST * (1 - 1e-6)


def rows(cls, sizes, features):
    """All combinations, of both signs, but for what a layer is not for."""
    name, signs = cls.__name__, (1, -1)
    if name in NO_ZERO:
        sizes = [size for size in sizes if size >= LEAST]
    if name == "NMRU":  # Its reciprocals are numbers, too.
        sizes = [size for size in sizes if size <= 1 / LEAST]
    if name in NO_NEGATIVE:
        signs = (1,)
    values = {sign * size for size in sizes for sign in signs}
    return np.float32([*itertools.product(sorted(values), repeat=features)])


def layers(cls, dtype="float32"):
    """With the ideal weights, fresh ones, and ones, for three inputs."""
    name = cls.__name__
    for weights in IDEAL[name].values():
        yield built(name, weights, dtype=dtype)
    for features in (2, 3):
        layer = cls(1, dtype=dtype)
        layer.build((None, features))
        if features == 3:
            layer.set_weights([np.ones(w.shape) for w in layer.weights])
        yield layer


def numpy(y):
    return keras.ops.convert_to_numpy(y)


def assert_right(layer, x, training, differentiate, every):
    """Returns whether all is finite. The gradients of weights, which add up over the
    rows, are looked at for every so many of them."""
    trained, says = Trained(layer, training), says_so(type(layer))
    nru = BACKEND == "jax" and training and isinstance(layer, LAYERS["NRU"])
    assert NAN_OF_NRU in " ".join(LAYERS["NRU"].__doc__.split())
    y, found = differentiate(trained, x, np.ones((len(x), 1), "float32"))
    seen = [{"y": a, "x": b} for a, b in zip(numpy(y), found["x"], strict=True)]
    for i in range(0, len(x), every):
        _, seen[i] = differentiate(trained, x[i : i + 1], np.ones((1, 1), "float32"))
        seen[i]["y"] = numpy(y)[i]
    for row, values in zip(x, seen, strict=True):
        # Denormal numbers may count as 0.
        flushed = np.where(np.abs(row) < LEAST, 0, row)
        twins = [row] if (flushed == row).all() else [row, flushed]
        twins = [exact(layer, twin, training) for twin in twins]
        for name, got in values.items():
            for i, one in enumerate(np.ravel(got)):
                if nru and name == "W" and np.isnan(one):
                    assert np.max(np.abs(row)) > 1e37
                    continue
                assert any(
                    is_right(one, twin[name][i], twin["y"][0].peak, says)
                    for twin in twins
                ), (name, i, row, one)
    return all(np.isfinite(got).all() for values in seen for got in values.values())


FORMS = [(name, False) for name in LAYERS] + [("NRU", True), ("NMRU", True)]


each_form = pytest.mark.parametrize(("name", "training"), FORMS)


@each_form
def test_numbers_end_where_the_exact_ones_do(name, training, differentiate):
    first, *_, fresh, _ = layers(LAYERS[name])
    for layer in (first, fresh):
        x = rows(LAYERS[name], FEWER, 2)
        assert_right(layer, x, training, differentiate, every=4)


@slow
@each_form
def test_all_numbers_end_where_the_exact_ones_do(name, training, differentiate):
    """And the docstring says where it is otherwise."""
    cls, all_finite = LAYERS[name], True
    for layer in layers(cls):
        features = layer.input_spec.axes[-1]
        x = rows(cls, SIZES if features == 2 else FEWER, features)
        all_finite &= assert_right(layer, x, training, differentiate, every=5)
    assert says_so(cls) == (name not in BOUNDED)
    if BACKEND != "jax":  # Where the NMRU's in training are finite, all of them.
        assert not (says_so(cls) and all_finite)


@pytest.mark.only("tensorflow", reason="the others compute float64 in float32")
@each_form
def test_in_float64_nothing_overflows(name, training, differentiate):
    for layer in layers(LAYERS[name], "float64"):
        features = layer.input_spec.axes[-1]
        x = rows(LAYERS[name], SIZES if features == 2 else FEWER, features)
        x, c = np.float64(x), np.ones((len(x), 1))
        y, found = differentiate(Trained(layer, training), x, c)
        for values in (y, *found.values()):
            assert np.isfinite(numpy(values)).all()
        for row, *got in zip(x, numpy(y), numpy(found["x"]), strict=True):
            if name == "NSR" and len(set(row)) == 1:
                continue  # Its sign of their difference is that of a rounding.
            right = exact(layer, row, training)
            for one, n in zip(
                np.ravel(np.hstack(got)), right["y"] + right["x"], strict=True
            ):
                # What is exact here is float64, too.
                assert abs(one - n.value) <= 4 * np.finfo("float64").eps * n.error


@pytest.mark.parametrize("name", ["NMU", "SNMU"])
def test_a_product_of_which_a_part_overflows(name):
    layer = LAYERS[name](1, kernel_initializer="ones")
    y = numpy(layer(np.float32([[1e30, 1e30, 1e-30], [1e30, 1e30, 0]])))[:, 0]
    assert np.isinf(y[0])
    assert np.isnan(y[1])
    assert says_so(LAYERS[name])


def test_denormal_numbers_are_zeros_but_on_pytorch():
    torch = BACKEND == "torch"
    y = numpy(built("NMU", IDEAL["NMU"]["multiply"])(np.float32([[1e-40, 1]])))
    assert y == (np.float32(1e-40) if torch else 0)
    # The reciprocal of a huge one, too.
    nmru = LAYERS["NMRU"](1, kernel_initializer="ones")
    assert numpy(nmru(np.float32([[-1e38]]))) == pytest.approx(1 if torch else 0)
    said = "TensorFlow and JAX make 0 of the reciprocal of a number above 8.5e37."
    assert said in " ".join(LAYERS["NMRU"].__doc__.split())


def _errors_of_this_backend():
    warnings.simplefilter("ignore")
    for name, policy in itertools.product(LAYERS, POLICIES):
        if policy != "float64" or BACKEND == "tensorflow":
            print(json.dumps([name, policy, worst_error(name, policy)]))


if __name__ == "__main__":
    if sys.argv[1:] == ["--only-this-backend"]:
        _errors_of_this_backend()
        raise SystemExit
    worst = {}
    for backend in BACKENDS:
        lines = subprocess.run(
            [sys.executable, __file__, "--only-this-backend"],
            env={**os.environ, "KERAS_BACKEND": backend},
            stdout=subprocess.PIPE,
            check=True,
            text=True,
        ).stdout.splitlines()
        for line in filter(lambda line: line.startswith('["'), lines):
            *key, error = json.loads(line)
            worst[tuple(key)] = max(error, worst.get(tuple(key), 0))
    print(table({key: cell(error) for key, error in worst.items()}), end="")
