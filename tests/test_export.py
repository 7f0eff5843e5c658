"""Models in other programs' formats answer as the models do, layer by layer.

`python tests/test_export.py` runs the whole matrix and prints README's table.
"""

import functools
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pytest
from oracles import exact
from oracles.cases import CASES
from oracles.exact import EPS32, numbers

from keras_nalu.cli import main
from keras_nalu.cli.export import SUFFIXES
from keras_nalu.exporting import (
    FORMATS,
    KINDS,
    ORDINARY,
    ROWS,
    differences,
    export,
    runner,
)
from keras_nalu.layers import LAYERS, NALU, NAU, NMU

README = (Path(__file__).parent.parent / "README.md").read_text()
BACKEND = keras.backend.backend()
BACKENDS = "tensorflow", "jax", "torch"
ALL, NALUS = set(LAYERS), {"NALU", "SeparateNALU", "GNALU"}
PRODUCTS = {"INALU", "SharedINALU", "NMU", "SNMU", "NRU", "NMRU"}
TURNS = {"NaiveNPU", "NPU"}
#: What fails upstream: README's mark -> format, backend, layers, and the error.
FAILURES = {
    "a": ("saved_model", "jax", PRODUCTS, "Error when tracing gradients for SavedMod"),
    "b": ("saved_model", "torch", ALL, "Detected mismatch between the structure of"),
    "c": ("onnx", "jax", ALL, "jax2onnx"),
    "d": ("litert", "jax", ALL, "LiteRT export requires TensorFlow or PyTorch backend"),
    "e": ("litert", "torch", ALL, "install the `litert-torch` package"),
}
#: What is another answer than the model's on some processors: mark -> format, layers,
#: kinds.
UNLIKE = {
    "f": ("litert", NALUS, {"huge"}),
}
#: The packages that the converters lack must be missing for the errors above.
NOT_EXTRAS = {"c": "jax2onnx", "e": "litert_torch"}

#: Keras', tf2onnx' and PyTorch's own.
noisy = [
    pytest.mark.filterwarnings(f"ignore:{text}")
    for text in (
        "In the future `np.object` will be defined:FutureWarning",
        "The `native_serialization` parameter is deprecated:DeprecationWarning",
        "You are using the legacy TorchScript-based ONNX export:DeprecationWarning",
        "The feature will be removed. Please remove usage:DeprecationWarning",
        "Converting a tensor to a Python integer",
        "torch.as_tensor results are registered as constants in the trace",
    )
]
pytestmark = noisy


def needs(format):
    for module in FORMATS[format].modules:
        pytest.importorskip(module, reason=f'needs pip install ".[{format}]"')


@functools.cache
def model_of(name):
    """A model of one layer, with weights that its constraint allows."""
    rng = np.random.default_rng(0)
    model = keras.Sequential([keras.Input((3,)), LAYERS[name](1)])
    for weight in model.trainable_variables:
        value = keras.ops.convert_to_tensor(rng.normal(size=weight.shape), "float32")
        weight.assign(weight.constraint(value) if weight.constraint else value)
    model(np.ones((1, 3), "float32"))  # Keras exports to ONNX only what was called.
    return model


@functools.cache
def cases(name):
    """Kind -> inputs, exact answers, and what roundings of float32 may add up to.

    To first order: the result of an operation is off by two units in its last place at
    most, as the worst exp or sigmoid of a runtime, and every later operation multiplies
    that by its slope. `exp(sum_i W_i log|x_i|)` has the slope `y`, so it is off by `|y|
    sum_i |W_i log|x_i||` times a rounding: exp and log multiply a relative error by the
    logarithm of what they compute. Two computations differ by twice as much.

    The error is NaN where there is no exact answer, or where it leaves float32.
    """
    layer, rng = model_of(name).layers[0], np.random.default_rng(1)
    case = CASES[name]
    options = case.options_of(layer)
    weights = {v.name: numbers(np.array(v)) for v in layer.trainable_variables}

    def error_of(x):
        try:
            with np.errstate(over="raise"):
                (y,) = case.equation(exact, numbers(x)[None], **weights, **options)[0]
        except (ArithmeticError, ValueError):
            return np.nan
        return y.error if y.error < float(np.finfo("float32").max) else np.nan

    found = {}
    for kind, draw in KINDS.items():
        x = draw(rng, (ROWS, 3)).astype("float32")
        found[kind] = x, np.array([[error_of(row)] for row in x])
    return found


def worst(name, run):
    """Kind -> the largest difference from the model, in units of its bound."""
    found = {}
    for kind, (x, error) in cases(name).items():
        y = keras.ops.convert_to_numpy(model_of(name)(x))
        (answer,) = run([x])
        assert answer.shape == y.shape
        # Terms and sums below the least normal number: some runtimes make them 0.
        bound = 2 * 2 * EPS32 * error + 4 * np.finfo("float32").tiny
        judged = np.isfinite(y) & np.isfinite(error)
        off = np.abs(np.float64(answer[judged]) - y[judged]) / bound[judged]
        found[kind] = float(np.nan_to_num(off, nan=np.inf).max(initial=0))
    return found


def exported(name, format, folder):
    """By Keras' own export."""
    chosen = FORMATS[format]
    path = Path(folder) / f"{name}{chosen.suffix}"
    model_of(name).export(path, format=chosen.keras_name, verbose=False)
    return runner(path, format)


def cell(name, format, folder):
    """README's cell: how the layer fails, or where it is unlike the model, or yes."""
    try:
        run = exported(name, format, folder)
    except Exception as error:
        (mark,) = [
            mark
            for mark, (*pair, layers, text) in FAILURES.items()
            if pair == [format, BACKEND] and name in layers and text in str(error)
        ] or [f"{type(error).__name__}: {error}"]
        return f"no ({mark})"
    unlike = {kind for kind, off in worst(name, run).items() if not off <= 1}
    for mark, (unlike_format, layers, kinds) in UNLIKE.items():
        if format == unlike_format and name in layers and unlike <= kinds:
            return f"yes ({mark})"
    return f"unlike on {sorted(unlike)}" if unlike else "yes"


COLUMNS = [(format, backend) for format in FORMATS for backend in BACKENDS]


def table(cells):
    """README's, of cells by (layer, format, backend)."""
    head = [f"{format}, {backend}" for format, backend in COLUMNS]
    lines = [["layer", *head], ["---"] * (1 + len(head))]
    for name in LAYERS:
        lines.append([f"`{name}`", *(cells[name, *column] for column in COLUMNS)])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def cells_in_readme():
    found = {}
    for name in LAYERS:
        (line,) = re.findall(
            rf"^\| `{name}` ((?:\| (?:yes|no)[^|]*){{9}})\|$", README, re.M
        )
        cells = [text.strip() for text in line.strip("| ").split("|")]
        found |= {(name, *c): text for c, text in zip(COLUMNS, cells, strict=True)}
    return found


def test_the_table_of_readme_is_as_the_command_writes_it():
    cells = cells_in_readme()
    assert table(cells) in README
    for mark in {*FAILURES, *UNLIKE}:
        assert re.search(rf"^- {mark}: ", README, re.M)
        assert any(f"({mark})" in text for text in cells.values())


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", LAYERS)
def test_the_cells_of_readme(name, format, tmp_path):
    needs(format)
    expected = cells_in_readme()[name, format, BACKEND]
    absent = NOT_EXTRAS.get(re.sub(r"\W|no", "", expected))
    if absent and importlib.util.find_spec(absent):
        pytest.skip(f"{absent} is installed: README says how it fails where it is not")
    assert cell(name, format, tmp_path) == expected


def test_a_model_in_another_format_is_compared(tmp_path):
    if "saved_model" not in FORMATS or BACKEND not in FORMATS["saved_model"].backends:
        pytest.skip("PyTorch writes no SavedModel")
    model = model_of("NMU")
    found = export(model, tmp_path / "out", "saved_model")
    assert list(found) == list(KINDS)
    assert max(found.values()) < 1e-5
    (made,) = tmp_path.iterdir()
    assert made.name == "out"
    run = runner(made, "saved_model")
    for rows in 1, 7:
        (answer,) = run([np.full((rows, 3), 2, "float32")])
        assert answer.shape == (rows, 1)


def test_an_export_that_answers_otherwise_is_not_kept(tmp_path, monkeypatch):
    if BACKEND not in FORMATS["saved_model"].backends:
        pytest.skip("PyTorch writes no SavedModel")
    model = model_of("NAU")
    write = type(model).export

    def write_another(self, *args, **kwargs):
        other = keras.models.clone_model(model)
        other.set_weights([0.99 * w for w in model.get_weights()])
        write(other, *args, **kwargs)

    monkeypatch.setattr(type(model), "export", write_another)
    with pytest.raises(ValueError, match=r"by 1\.\de-02 of the answer on positive inp"):
        export(model, tmp_path / "out", "saved_model")
    assert not list(tmp_path.iterdir())


def test_differences_are_those_of_the_answers():
    """Also where terms cancel; and a number is not unlike itself where others end."""
    model = model_of("NAU")

    def run_off(factor):
        answer = lambda x: factor * keras.ops.convert_to_numpy(model(x[0]))  # noqa: E731
        return lambda x: [answer(x).astype("float32")]

    assert max(differences(model, run_off(1)).values()) == 0
    off = differences(model, run_off(1.001))
    assert 0.99e-3 < off["positive"] < 1.01e-3
    assert differences(model, run_off(np.nan))["zeros"] == np.inf
    assert differences(model, lambda x: [x[0]])["mixed"] == np.inf  # three columns
    with pytest.raises(ValueError, match="zip"):
        differences(model, lambda x: [])


@pytest.mark.parametrize("format", FORMATS)
def test_a_trained_nalu_is_within_the_tolerance(format, tmp_path):
    """Its gate is at 4e-8, where ONNX Runtime's sigmoid is off by as much."""
    needs(format)
    if BACKEND not in FORMATS[format].backends:
        pytest.skip("the backend writes none")
    model = keras.Sequential([keras.Input((2,)), NALU(1)])
    model.set_weights([np.full((2, 1), w, "float32") for w in (4.7, 7.5, -1.9)])
    assert max(export(model, tmp_path / "out", format).values()) < 1e-5


@pytest.mark.parametrize("format", FORMATS)
def test_two_inputs_and_two_outputs(format, tmp_path):
    """In the model's order, which is not the names'."""
    needs(format)
    if BACKEND not in FORMATS[format].backends:
        pytest.skip("the backend writes none")
    left, right = keras.Input((3,), name="z"), keras.Input((3,), name="a")
    model = keras.Model([left, right], [NMU(1)(left), NAU(1)(right)])
    found = export(model, tmp_path / "two", format)
    assert max(found[kind] for kind in ORDINARY) < 1e-5


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "model.keras"
    model_of("NMU").save(path)
    return path


def test_the_command(saved, capfd):
    if BACKEND not in FORMATS["saved_model"].backends:
        pytest.skip("PyTorch writes no SavedModel")
    command = ["export", str(saved), "--format", "saved_model"]
    assert main(command) == 0
    out, err = capfd.readouterr()
    made = saved.with_suffix(".saved_model")
    assert (made / "saved_model.pb").exists()
    assert out.startswith(f"{saved} is now {made}, too (saved_model).\n\nLargest diff")
    assert re.findall(r"^  (\w+) +\d\.\de-?\+?\d\d$", out, re.M) == list(KINDS)
    assert not err
    assert main(command) == 1
    said = f"keras-nalu: {made} exists, and is not overwritten. Try another --output.\n"
    assert capfd.readouterr().err == said


def refused(*options, status=1):
    assert main(["export", *map(str, options)]) == status


def test_what_is_no_model_is_one_line(tmp_path, capsys):
    refused(tmp_path / "none.keras", "--format", "saved_model")
    refused(__file__, "--format", "saved_model", "--output", tmp_path / "out")
    first, second = capsys.readouterr().err.splitlines()
    assert "there is no such file" in first
    assert "its name does not end in '.keras'" in second
    assert not list(tmp_path.iterdir())


def test_an_unknown_format_is_one_line(saved, capsys):
    refused(saved, "--format", "tflite", status=2)
    assert "--format: invalid choice: 'tflite'" in capsys.readouterr().err
    with pytest.raises(ValueError, match="Received: format='tflite'"):
        export(model_of("NMU"), "out", "tflite")


@pytest.mark.parametrize("format", ["onnx", "litert"])
def test_a_missing_extra_is_one_line(format, saved, tmp_path, monkeypatch, capsys):
    if BACKEND not in FORMATS[format].backends:
        pytest.skip("the backend writes none")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    refused(saved, "--format", format, "--output", tmp_path / "out")
    missing = FORMATS[format].modules[0]
    assert capsys.readouterr().err == (
        f"keras-nalu: {missing} is not installed, and the format {format} needs it. "
        f'Try `pip install ".[{format}]"`.\n'
    )


def test_a_backend_that_cannot_is_one_line(saved, tmp_path, capsys):
    cannot = [format for format in FORMATS if BACKEND not in FORMATS[format].backends]
    for format in cannot:
        refused(saved, "--format", format, "--output", tmp_path / "out", status=2)
        (line,) = capsys.readouterr().err.splitlines()
        assert f"Keras with {BACKEND} cannot write {format}" in line
        assert line.endswith("as --backend tensorflow does.")
    assert (not cannot) == (BACKEND == "tensorflow")


def test_a_folder_that_cannot_be_written_is_one_line(saved, tmp_path, capsys):
    if BACKEND not in FORMATS["saved_model"].backends:
        pytest.skip("PyTorch writes no SavedModel")
    (tmp_path / "file").touch()
    refused(saved, "--format", "saved_model", "--output", tmp_path / "file" / "out")
    assert re.fullmatch(
        r"keras-nalu: cannot write: .*Try another --output\.\n", capsys.readouterr().err
    )


def test_a_model_that_does_not_know_its_inputs(tmp_path):
    model = keras.Sequential([NMU(1)])
    with pytest.raises(ValueError, match="does not know the shapes of its inputs"):
        export(model, tmp_path / "out")


def test_suffixes_of_the_command_are_those_of_the_formats():
    assert {name: chosen.suffix for name, chosen in FORMATS.items()} == SUFFIXES


def _cells_of_this_backend():
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in LAYERS:
            for format in FORMATS:
                print(json.dumps([name, format, BACKEND, cell(name, format, folder)]))


if __name__ == "__main__":
    if sys.argv[1:] == ["--only-this-backend"]:
        _cells_of_this_backend()
        raise SystemExit
    found = {}
    for backend in BACKENDS:
        lines = subprocess.run(
            [sys.executable, __file__, "--only-this-backend"],
            env={**os.environ, "KERAS_BACKEND": backend},
            stdout=subprocess.PIPE,
            check=True,
            text=True,
        ).stdout.splitlines()
        for line in filter(lambda line: line.startswith('["'), lines):
            *key, text = json.loads(line)
            found[tuple(key)] = text
    print(table(found), end="")
