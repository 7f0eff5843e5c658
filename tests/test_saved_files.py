"""What every version saved is loaded by all later ones, and computes what it did.

`python tests/test_saved_files.py` writes the files of this version.
They are committed with it, and never change.
"""

import importlib.util
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from oracles.cases import CASES

import keras_nalu
from keras_nalu import constraints, initializers, regularizers
from keras_nalu.benchmarks.reinitialize import BatchLossDeviation
from keras_nalu.layers import LAYERS, NAC, NALU, NAU, NMU, ArithmeticCell, RealNPU

BACKEND = keras.backend.backend()
VERSION = keras_nalu.__version__
SAVED = Path(__file__).parent / "reference" / "saved"
FILES = sorted(SAVED.glob("*/*.keras"))
#: |difference| <= 1e-5 * (|y| + 0.1). float32 rounds at 6e-8, and each backend takes
#: logarithms, powers and sums in its own way: between any two of them 2e-6 in the place
#: of 1e-5 was the most that was seen.
RTOL, ATOL = 1e-5, 1e-6


def rows(*shape, low=-3):
    return np.random.default_rng(0).uniform(low, 3, shape).astype("float32")


def scatter(model):
    """All weights differ, and no constraint would change one."""
    rng = np.random.default_rng(1)
    for weight in model.trainable_weights:
        weight.assign(rng.uniform(0.1, 0.9, weight.shape))
    return model


def one_layer(cls):
    """As it is by default, and with all of its arguments."""
    inputs, case = keras.Input((3,)), CASES[cls.__name__]
    model = keras.Model(inputs, [cls(2)(inputs), case.varied()(inputs)])
    return scatter(model), rows(4, 3, low=-3 if case.bears_negative else 0.1)


def cell():
    inputs = keras.Input((None, 3))
    steps = keras.layers.RNN(ArithmeticCell(NAU(2)), return_sequences=True)
    return scatter(keras.Model(inputs, steps(inputs))), rows(4, 5, 3)


def trained(model, x):
    """With a state of the optimizer, of the schedules and of the seeds."""
    model.fit(x, x[:, :1] * x[:, 1:2], batch_size=2, shuffle=False, verbose=0)
    return model, x


def sequential():
    model = scatter(
        keras_nalu.Sequential([keras.Input((3,)), NAC(2), NALU(1, epsilon=1e-5)])
    )
    model.compile(keras.optimizers.Adam(0.01), "mse")
    return trained(model, rows(4, 3, low=1))


def functional():
    """Whatever else this package registers."""
    growth = regularizers.StepwiseGrowth(1e-3, 1e-1, every=1)
    penalty = (
        regularizers.Sparsity(regularizers.LinearRamp(10, 0, 4))
        + regularizers.L1(growth)
        + regularizers.OutOfRange()
        + regularizers.INALUPenalty()
        + regularizers.Discretization()
        + regularizers.NegativeSquare()
    )
    inputs = keras.Input((3,))
    a = NAU(
        2,
        kernel_initializer=initializers.NAUUniform(seed=1),
        kernel_regularizer=penalty,
        kernel_constraint=constraints.Clip(-2, 2),
    )(inputs)
    b = NMU(2, kernel_initializer=initializers.NMUUniform(seed=1))(inputs)
    c = NALU(
        2,
        kernel_initializer=initializers.NACUniform(seed=1),
        gate_initializer=initializers.Orthogonal(seed=1),
    )(inputs)
    together = keras.layers.Concatenate()([a, b, c])
    powers = RealNPU(1, gate_initializer=initializers.UnitVector(seed=1))
    model = scatter(keras_nalu.Model(inputs, powers(together)))
    loss = keras_nalu.L2Loss()
    model.compile(
        keras.optimizers.Adam(1e-3),
        loss,
        metrics=[
            keras_nalu.IsCloseAccuracy(rtol=10),
            keras_nalu.LastBatchLoss(loss),
            BatchLossDeviation(loss),
            keras_nalu.SparsityError(),
        ],
    )
    return trained(model, rows(4, 3, low=1))


def population():
    template = keras_nalu.Sequential([keras.Input((3,)), NAC(2), NALU(1)])
    model = scatter(keras_nalu.Population(template, 3, seed=0))
    model.compile(keras.optimizers.Adam(0.01), "mse")
    return trained(model, rows(4, 3, low=1))


def member():
    model, x = population()
    return model.member(1), x


MODELS = {name: lambda cls=cls: one_layer(cls) for name, cls in LAYERS.items()} | {
    make.__name__: make for make in (cell, sequential, functional, population, member)
}
POPULATIONS = {"population", "member"}


def answers(model, x):
    """What a model says, by name, as NumPy's."""
    said = {
        f"y{index}": keras.ops.convert_to_numpy(y)
        for index, y in enumerate(keras.tree.flatten(model(x)))
    }
    if model.compiled:
        y = x[:, :1] * x[:, 1:2]
        said |= model.evaluate(x, y, batch_size=2, verbose=0, return_dict=True)
        said["steps"] = keras.ops.convert_to_numpy(model.optimizer.iterations)
    return said


def pack(path):
    """What Keras wrote, but compressed: it is mostly zeros."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, part in parts.items():
            archive.writestr(name, part)


def write(folder, names=MODELS):
    folder.mkdir(parents=True, exist_ok=True)
    expected = {}
    for name in names:
        if BACKEND == "torch" and name in POPULATIONS:
            continue
        keras.utils.set_random_seed(0)
        model, x = MODELS[name]()
        model.save(folder / f"{name}.keras")
        pack(folder / f"{name}.keras")
        expected |= {f"{name}/x": x}
        expected |= {f"{name}/{key}": said for key, said in answers(model, x).items()}
    np.savez_compressed(folder / "expected.npz", **expected)


def check(path):
    with np.load(path.with_name("expected.npz")) as file:
        known = {key: file[key] for key in file.files}
    expected = {
        key.removeprefix(f"{path.stem}/"): known[key]
        for key in known
        if key.startswith(f"{path.stem}/")
    }
    if BACKEND == "torch" and path.stem == "population":
        with pytest.raises(ValueError, match="trains on TensorFlow or JAX"):
            keras_nalu.load_model(path)
        return
    x = expected.pop("x")
    said = answers(keras_nalu.load_model(path), x)
    assert said.keys() == expected.keys() != set()
    for key, value in expected.items():
        np.testing.assert_allclose(
            said[key], value, rtol=RTOL, atol=ATOL, err_msg=f"{path.stem} {key}"
        )


@pytest.mark.filterwarnings("ignore:Training step by step")
@pytest.mark.parametrize(
    "path", FILES, ids=[f"{p.parent.name}-{p.stem}" for p in FILES]
)
def test_a_committed_file_computes_what_it_did(path):
    check(path)


def test_this_version_has_its_files():
    """Where it fails: `python tests/test_saved_files.py`, once the version is new."""
    names = {path.stem for path in FILES if path.parent.name == VERSION}
    assert names == {*MODELS}


def test_they_hold_every_name_that_the_package_registers():
    held = ""
    for path in FILES:
        with zipfile.ZipFile(path) as archive:
            held += archive.read("config.json").decode()
    names = {
        name
        for name, thing in keras.saving.get_custom_objects().items()
        if thing.__module__.startswith("keras_nalu.")
        and not thing.__module__.startswith("keras_nalu.benchmarks.")
    }
    # A base class: a file names what is derived from it, or `Functional`.
    names -= {"keras_nalu>Model"}
    assert len(names) > len(LAYERS)
    assert [name for name in sorted(names) if f'"{name}"' not in held] == []


def test_they_are_small():
    """They are in every clone, for ever."""
    assert sum(path.stat().st_size for path in SAVED.glob(f"{VERSION}/*")) < 400_000


def run(*arguments, backend=BACKEND):
    env = os.environ | {"KERAS_BACKEND": backend}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, env=env, capture_output=True, text=True)


@pytest.mark.slow
def test_they_load_where_nothing_was_imported():
    code = """
import sys
import keras_nalu
for path in sys.argv[1:]:
    keras_nalu.load_model(path)
"""
    readable = [p for p in FILES if (BACKEND, p.stem) != ("torch", "population")]
    result = run("-c", code, *readable)
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
def test_committed_files_are_not_written_again():
    before = {path: path.read_bytes() for path in SAVED.glob("*/*")}
    result = run(__file__)
    assert result.returncode == 1
    assert result.stderr.endswith(
        f"{SAVED / VERSION} has the files of version {VERSION}, which never "
        "change. Give keras_nalu/__init__.py a new version first.\n"
    )
    assert {path: path.read_bytes() for path in SAVED.glob("*/*")} == before


OTHERS = sorted({"jax", "tensorflow", "torch"} - {BACKEND})
#: Of every layer there are committed files, which all backends read.
SOME = ["NALU", "NSR", "cell", "functional", "population"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Training step by step")
# PyTorch's own: a plain Keras model that JAX wrote is compiled there, too.
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method.:DeprecationWarning")
@pytest.mark.parametrize("other", OTHERS)
def test_a_file_of_another_backend(other, tmp_path):
    if importlib.util.find_spec(other) is None:
        pytest.skip(f"{other} is not installed")
    result = run(__file__, tmp_path, *SOME, backend=other)
    assert result.returncode == 0, result.stderr
    files = sorted(tmp_path.glob("*.keras"))
    wrote = {*SOME} - (POPULATIONS if other == "torch" else set())
    assert {path.stem for path in files} == wrote
    for path in files:
        check(path)


if __name__ == "__main__":
    folder, *names = sys.argv[1:] or [SAVED / VERSION]
    folder = Path(folder)
    if (folder / "expected.npz").exists():
        sys.exit(
            f"{folder} has the files of version {VERSION}, which never change. "
            "Give keras_nalu/__init__.py a new version first."
        )
    write(folder, names or MODELS)
