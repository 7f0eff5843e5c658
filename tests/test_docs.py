"""Every example of the docstrings and of README runs, and its links lead somewhere."""

import doctest
import importlib
import inspect
import pkgutil
import re
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_nalu

README = Path(__file__).parent.parent / "README.md"
TORCH = keras.backend.backend() == "torch"
MODULES = [
    module.name
    for module in pkgutil.walk_packages(keras_nalu.__path__, "keras_nalu.")
    if module.name != "keras_nalu.__main__"
]
#: Those whose examples train for seconds.
TRAIN = {
    *("keras_nalu.backup", "keras_nalu.callbacks"),
    *("keras_nalu.benchmarks.experiment", "keras_nalu.benchmarks.reinitialize"),
    "keras_nalu.models.population.population",
}


@pytest.mark.filterwarnings("ignore:Training step by step")
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in TRAIN else ())
        for name in MODULES
    ],
)
def test_the_examples_of_the_docstrings(name):
    if name.endswith((".backends.jax", ".backends.tensorflow")):
        pytest.importorskip(name.rpartition(".")[2])
    trains = "population.population", "benchmarks.experiment"
    if TORCH and name.endswith(trains):
        pytest.skip("trains no populations")
    public = {name: getattr(keras_nalu, name) for name in keras_nalu.__all__}
    globs = {"keras": keras, "keras_nalu": keras_nalu, "np": np, **public}
    module = importlib.import_module(name)
    assert doctest.testmod(module, extraglobs=globs).failed == 0


@pytest.mark.parametrize("name", keras_nalu.__all__)
def test_every_public_name_is_documented(name):
    thing = getattr(keras_nalu, name)
    if not callable(thing):
        return
    documented = set(re.findall(r"^ {4,8}\*{0,2}(\w+): ", thing.__doc__, re.M))
    arguments = set(inspect.signature(thing).parameters)
    assert arguments <= documented
    assert "Defaults to" not in thing.__doc__


#: Every name of the package in backquotes, in docstrings and comments.
NAMED = sorted(
    {
        name
        for path in Path(keras_nalu.__file__).parent.rglob("*.py")
        for name in re.findall(r"`(keras_nalu(?:\.\w+)+)", path.read_text())
    }
)


@pytest.mark.parametrize("name", NAMED)
def test_the_names_in_docstrings_exist(name):
    # Raises ImportError or AttributeError where there is no such thing.
    assert pkgutil.resolve_name(name) is not None


def test_there_are_names_in_docstrings():
    assert {"keras_nalu.formula", "keras_nalu.regularizers.Sparsity"} <= {*NAMED}


def examples():
    """README's Python blocks, each with what is shown below it as its output."""
    pattern = r"^```python\n(.*?)^```\n(?:\n```\n(.*?)^```)?"
    return re.findall(pattern, README.read_text("utf-8"), re.M | re.S)


def agree(printed, shown):
    """Whether two texts are the same but for a share of 1e-3 of their numbers."""
    number = r"(?<!\w)\d+\.\d+"
    assert re.sub(number, "#", printed) == re.sub(number, "#", shown)
    pairs = zip(re.findall(number, printed), re.findall(number, shown), strict=True)
    for ours, theirs in pairs:
        assert float(ours) == pytest.approx(float(theirs), rel=1e-3)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:TensorBoard's Graphs tab stays empty")
@pytest.mark.filterwarnings("ignore:Training step by step")
def test_the_python_of_readme_prints_what_it_shows(tmp_path, monkeypatch, capsys):
    pytest.importorskip("sklearn")
    shutil.copytree(README.parent / "notebooks" / "data", tmp_path / "notebooks/data")
    monkeypatch.chdir(tmp_path)
    names = {}
    for block, shown in examples():
        if TORCH and "Population" in block:
            continue
        exec(compile(block, "README.md", "exec"), names)
        agree(capsys.readouterr().out, shown)


@pytest.mark.parametrize("name", ["train", "test"])
def test_a_command_of_readme_is_one_line_below_its_marker(name):
    pattern = rf"<!-- ci:{name} -->\n```sh\n(.*?)```"
    (command,) = re.findall(pattern, README.read_text("utf-8"), re.S)
    assert command.count("\n") == 1


def test_the_links_of_readme_lead_somewhere():
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README.read_text("utf-8"))
    assert links
    for link in links:
        assert (README.parent / link).exists(), link


def test_the_options_that_readme_names_exist(capsys):
    from keras_nalu.cli import main

    options = re.findall(
        r"keras-nalu (\w+)((?: --[\w-]+(?: \w+)?)+)", README.read_text("utf-8")
    )
    assert options
    for command, given in options:
        with pytest.raises(SystemExit):
            main([command, "--help"])
        known = capsys.readouterr().out
        for option in re.findall(r"--[\w-]+", given):
            assert option in known
