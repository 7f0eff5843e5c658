"""Bad input to models, files and commands: whatever comes, a right answer, or an error
that says what to type."""

import contextlib
import functools
import io
import json
import math
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import assume, example
from hypothesis import strategies as st
from oracles.anything import (
    ANYTHING,
    BACKEND,
    FEW,
    FEWER,
    TEXT,
    cases,
    count,
    is_flag,
    is_integer,
    is_number,
    is_path,
    is_positive,
    make,
    never,
    refused,
)

import keras_nalu
from keras_nalu.cli import benchmark, export, main, train
from keras_nalu.datasets import COMPARISONS, OPERATIONS
from keras_nalu.experiments import engines, report, runner, tasks
from keras_nalu.experiments.experiment import Experiment
from keras_nalu.experiments.suites import SUITES
from keras_nalu.exporting import FORMATS
from keras_nalu.models import draws, fused


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def a_model():
    return keras.Sequential([keras.Input((2,)), keras_nalu.NAU(1)])


@functools.cache
def compiled():
    model = keras_nalu.Sequential([keras.Input((2,)), keras_nalu.NAU(1)])
    model.compile("sgd", "mse")
    return model


OTHERS = {
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
    "INALUReinitialize monitor": (
        make(keras_nalu.INALUReinitialize),
        "monitor",
        lambda v: isinstance(v, str),
    ),
    "INALUReinitialize every": (make(keras_nalu.INALUReinitialize), "every", count()),
    "INALUReinitialize losses": (make(keras_nalu.INALUReinitialize), "losses", count()),
    "INALUReinitialize threshold": (
        make(keras_nalu.INALUReinitialize),
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
    "export model": (make(keras_nalu.export, path="x"), "model", never),
    "export format": (
        lambda **more: keras_nalu.export(a_model(), "x", **more),
        "format",
        never,
    ),
    "load_model filepath": (make(keras_nalu.load_model), "filepath", never),
    "Experiment seeds": (None, "seeds", count()),
    "Experiment steps": (None, "steps", lambda v: count()(v) and int(v) % 1000 == 0),
    "Experiment log_every": (
        None,
        "log_every",
        lambda v: count()(v) and 2000 % int(v) == 0,
    ),
    "Experiment restarts": (None, "restarts", count()),
    "Experiment rules": (
        None,
        "rules|rule",
        lambda v: isinstance(v, list | tuple) and not v,
    ),
    "Experiment module": (None, "module", lambda v: isinstance(v, str)),
    "Experiment suite": (None, "suite", lambda v: isinstance(v, str)),
    "Experiment task": (None, "task", never),
    "Experiment layers": (None, "layers", lambda v: isinstance(v, list) and not v),
    "Experiment optimizer": (None, "optimizer", never),
    "SingleModule operation": (
        make(tasks.SingleModule),
        "operation",
        lambda v: isinstance(v, str) and v in tasks.arithmetic.FUNCTIONS,
    ),
    "SingleModule inputs": (
        make(tasks.SingleModule, operation="add"),
        "inputs",
        count(2, 2**31),
    ),
    "SingleModule threshold": (
        make(tasks.SingleModule, operation="add"),
        "threshold",
        lambda v: v is None or isinstance(v, str) or is_number(v),
    ),
    "SingleModule variants": (
        make(tasks.SingleModule, operation="add"),
        "variants",
        never,
    ),
    "Arithmetic subset": (
        make(tasks.Arithmetic, operation="add"),
        "subset",
        lambda v: is_number(v) and 0.01 <= v <= 1 and _two_subsets(v, 0.5),
    ),
    "Arithmetic overlap": (
        make(tasks.Arithmetic, operation="add"),
        "overlap",
        lambda v: is_number(v) and 0 <= v <= 1,
    ),
    "Comparison operation": (
        make(tasks.Comparison),
        "operation",
        lambda v: isinstance(v, str) and v in COMPARISONS,
    ),
    "Comparison digits": (
        make(tasks.Comparison, operation="less"),
        "digits",
        lambda v: (
            isinstance(v, list | tuple)
            and all(is_integer(n) and 1 <= n <= 7 for n in v)
        ),
    ),
    "Running operation": (
        make(tasks.Running),
        "operation",
        lambda v: isinstance(v, str) and v in ("add", "multiply"),
    ),
    "Uniform intervals": (make(tasks.Uniform), "intervals", never),
    "Normal mean": (make(tasks.Normal, deviation=1, low=0, high=1), "mean", is_number),
    "Normal deviation": (
        make(tasks.Normal, mean=0, low=0, high=1),
        "deviation",
        is_positive,
    ),
    "Normal low": (
        make(tasks.Normal, mean=0, deviation=1, high=1),
        "low",
        lambda v: is_number(v) and v < 1,
    ),
    "Exponential mean": (make(tasks.Exponential), "mean", is_positive),
    "Benford low": (
        make(tasks.Benford, high=10),
        "low",
        lambda v: is_positive(v) and v < 10,
    ),
    "Benford high": (
        make(tasks.Benford, low=10),
        "high",
        lambda v: is_number(v) and v > 10,
    ),
    "select suite": (
        make(runner.select),
        "suite",
        lambda v: isinstance(v, str) and v in SUITES,
    ),
    "completed workers": (
        lambda **more: next(engines.completed(len, ["a"], **more)),
        "workers",
        never,
    ),
    "read paths": (make(report.read), "paths|rows", never),
    "frame rows": (make(report.frame), "rows", never),
    "table rows": (make(report.table), "rows", never),
}


#: What is valid here, and not what the test is for.
SKIPPED = {
    "completed workers": is_integer,
    "load_model filepath": lambda v: isinstance(v, str),
    "read paths": lambda v: isinstance(v, str | list | tuple),
    "Experiment optimizer": lambda v: isinstance(v, str),
    "Experiment layers": lambda v: isinstance(v, str),
    "Sequential layers": lambda v: isinstance(v, list | tuple),
    "export format": lambda v: isinstance(v, str) and v in FORMATS,
    "select suite": lambda v: isinstance(v, str),
}


def _two_subsets(subset, overlap):
    size = math.floor(subset * 100)
    return 2 * size - math.floor(overlap * size) <= 100


def experiment(**more):
    given = {
        "module": "NAU",
        "task": tasks.SingleModule("add"),
        "layers": [],
        "optimizer": sgd(),
        "steps": 2000,
    }
    return Experiment(**given | more)


@functools.cache
def sgd():
    return keras.optimizers.SGD(0.1)


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


ROW = {
    "suite": "own",
    "inputs": 2,
    "operation": "add",
    "module": "NAU",
    "range": "[1,2]",
    "experiment": "x",
    "seed": 0,
    "backend": "jax",
    "steps": 1000,
    "solved": True,
    "solved_at": 1000,
    "extrapolation": 1e-7,
    "sparsity_error": 0.0,
    "diverged": False,
}


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXT),
    lambda inner: st.one_of(
        st.lists(inner, max_size=2), st.dictionaries(TEXT, inner, max_size=2)
    ),
    max_leaves=3,
)


def run_main(*argv):
    """The status, and what was written; on an error, one line."""
    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main([*argv])
    out.flush()
    said = err.getvalue()
    assert isinstance(status, int)
    assert 0 <= status < 256
    if status:
        assert said.startswith("keras-nalu: "), said
        assert said.endswith(".\n"), said
        assert len(said.splitlines()) == 1, said
        assert "Traceback" not in said
    return status, out.buffer.getvalue().decode(), said


@cases(
    FEWER,
    name=st.sampled_from([*ROW]),
    value=JSON,
    more=st.lists(st.sampled_from(["--by-range", "--format=csv", "--format=latex"])),
)
def test_a_report_of_any_rows(name, value, more):
    pytest.importorskip("pandas")
    Path("rows.jsonl").write_text(json.dumps(ROW | {name: value}) + "\n")
    run_main("report", "--rows", "rows.jsonl", *more)


@cases(content=st.binary(max_size=40), name=st.sampled_from(["a.jsonl", "a.jsonl.gz"]))
def test_a_report_of_any_file(content, name):
    pytest.importorskip("pandas")
    Path(name).write_bytes(content)
    status, _, _ = run_main("report", "--rows", name)
    assert status == 2


# The command line.

COMMANDS = {
    "train": (
        train,
        "_train",
        {
            "--operation": lambda t: t in OPERATIONS,
            "--size": None,
            "--epochs": None,
            "--batch-size": None,
            "--learning-rate": None,
            "--seed": None,
            "--population": None,
            "--output": None,
            "--resume": None,
            "--no-mlp": "flag",
            "--backend": lambda t: t in ("tensorflow", "jax", "torch"),
        },
    ),
    "seeds": (
        train,
        "_seeds",
        {
            "--operation": lambda t: t in OPERATIONS,
            "--size": None,
            "--epochs": None,
            "--batch-size": None,
            "--learning-rate": None,
            "--count": None,
        },
    ),
    "modules": (train, "_modules", {"--only": "any", "--seeds": None, "--steps": None}),
    "export": (
        export,
        "_export",
        {
            "--format": lambda t: t in ("saved_model", "onnx", "litert"),
            "--output": None,
        },
    ),
    "benchmark": (
        benchmark,
        "_benchmark",
        {
            "--list": "flag",
            "--dry-run": "flag",
            "--again": "flag",
            "--only": "any",
            "--operation": "any",
            "--seeds": None,
            "--steps": None,
            "--threshold": lambda t: t in ("1e-5", "perturbed"),
            "--workers": None,
            "--scheduler": "any",
            "--output": None,
        },
    ),
    "report": (
        benchmark,
        "_report",
        {
            "--rows": None,
            "--by-range": "flag",
            "--format": lambda t: t in ("markdown", "csv", "latex"),
            "--figures": None,
            "--pack": None,
        },
    ),
}


COUNTS = "--size --epochs --batch-size --population --count --seeds --steps --workers"


PATHS = "--output --resume --rows --figures --pack"


ARGUMENT = st.one_of(
    TEXT,
    st.integers(-2, 20).map(str),
    st.integers().map(str),
    st.floats().map(str),
    st.sampled_from(
        ["", " ", "-", "--", "-1", "1e5", "0x10", "1_0", "9" * 5000, "a\nb", "a\0b"]
    ),
    st.sampled_from(
        [*OPERATIONS, "jax", "onnx", "NMU", "single-module", "csv", "\udcff"]
    ),
)


def reads(option, text):
    """Whether a text is right, as a sentence of Python says it."""
    if option in PATHS.split():
        with contextlib.suppress(UnicodeEncodeError):
            return "\0" not in text and text.encode() is not None
        return False
    kind = float if option == "--learning-rate" else int
    try:
        value = kind(text)
    except ValueError:
        return False
    if option == "--learning-rate":
        return 1e-38 < value < 1e38
    if option == "--seed":
        return 0 <= value < 2**32
    assert option in COUNTS.split()
    return 0 < value < 2**40


OPTIONS = [(name, option) for name in COMMANDS for option in COMMANDS[name][2]]


@pytest.mark.parametrize(("name", "option"), OPTIONS)
@cases(text=ARGUMENT)
def test_an_option(name, option, text):
    module, function, options = COMMANDS[name]
    read = []
    positional = ["model.keras", "--format=onnx"] if name == "export" else []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, function, read.append)
        if options[option] == "flag":
            # A name may stand behind it, where the command takes one.
            status, _, _ = run_main(name, *positional, option, text)
            assert status in ((0, 2) if name in ("benchmark", "report") else (2,))
            assert (status == 0) is bool(read)
            return
        typed = f"{option}={text}"
        status, _, said = run_main(name, *positional, typed)
    valid = options[option]
    if valid == "any":
        right = True
    else:
        right = valid(text) if valid else reads(option, text)
    right &= text != "--"
    assert status == (0 if right else 2), said
    if not right:
        assert option in said
    else:
        (options,) = read
        value = getattr(options, option[2:].replace("-", "_"))
        value = value[0] if isinstance(value, list) else value
        expected = type(value)(text)
        assert value == expected


@cases(argv=st.lists(st.one_of(ARGUMENT, st.sampled_from([*COMMANDS])), max_size=5))
def test_a_command_line_of_anything(argv):
    read = []
    with pytest.MonkeyPatch.context() as patch:
        for module, function, _ in COMMANDS.values():
            patch.setattr(module, function, read.append)
        asked_for_help = contextlib.suppress(SystemExit)
        with asked_for_help:
            status, _, _ = run_main(*argv)
            assert (status == 0) is bool(read)


@cases(
    content=st.one_of(
        st.binary(max_size=40), JSON.map(lambda v: json.dumps(v).encode())
    )
)
def test_a_run_whose_settings_are_damaged(content):
    folder = Path("run")
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_bytes(content)
    status, _, said = run_main("train", "--resume", "run")
    assert status == 1
    assert "is damaged" in said


@cases(name=st.sampled_from(["size", "epochs", "operation", "seed"]), value=JSON)
def test_a_run_one_of_whose_settings_is_damaged(name, value):
    whole = {
        "operation": "multiply",
        "size": 10,
        "epochs": 1,
        "batch_size": 10,
        "learning_rate": 1e-3,
        "seed": 0,
        "population": 1,
        "no_mlp": True,
        "backend": BACKEND,
    }
    right = {
        "size": count(1, 2**40),
        "epochs": count(1, 2**40),
        "seed": count(0, 2**32),
        "operation": lambda v: isinstance(v, str) and v in OPERATIONS,
    }
    assume(not right[name](value))
    folder = Path("run")
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(whole | {name: value}))
    status, _, said = run_main("train", "--resume", "run")
    assert status == 1
    assert "is damaged" in said


@cases(suite=ARGUMENT, modules=st.lists(ARGUMENT, max_size=2))
def test_a_benchmark_that_there_is_not(suite, modules):
    assume(suite not in SUITES)
    with refused_by("suite"):
        runner.select(suite, modules)


@cases(FEW, names=st.lists(ARGUMENT, min_size=1, max_size=2), kind=st.booleans())
def test_a_part_of_a_benchmark_that_there_is_not(names, kind):
    given = {"modules" if kind else "operations": names}
    known = ("NMU",) if kind else OPERATIONS
    assume(not any(known_name.startswith(n) for n in names for known_name in known))
    with refused_by("module|operation"):
        runner.select("single-module", **given)


@contextlib.contextmanager
def refused_by(word):
    with pytest.raises(ValueError, match=rf"no ({word}) .*Expected"):
        yield


@cases(FEWER, path=ARGUMENT, format=st.sampled_from(["saved_model", "onnx", "litert"]))
def test_the_export_of_what_is_no_model(path, format):
    status, _, _ = run_main("export", f"--format={format}", "--", path)
    assert status in (1, 2)


@cases(
    port=st.one_of(st.integers(-2, 2**20), st.just(1)),
    scheme=st.sampled_from(["tcp://", "", "tls://", "ucx://", "what://", "inproc://"]),
    host=st.sampled_from(["127.0.0.1", "", "[::1", "a" * 70, "\0", "127.0.0.1:"]),
)
def test_a_scheduler_that_there_is_not(port, scheme, host):
    pytest.importorskip("distributed")
    assume(not 2 <= port < 2**16)
    with pytest.raises(engines.EngineError, match="no Dask scheduler answers at"):
        next(engines.completed(len, ["a"], scheduler=f"{scheme}{host}:{port}"))


@cases(FEW, steps=ANYTHING)
def test_a_function_draws_a_number_of_batches(steps):
    assume(steps is not None and not count()(steps))
    with refused("steps", "steps_per_epoch"):
        draws.Draws(
            lambda stream: (stream.uniform((2, 2)), stream.uniform((2, 1))), steps
        )
