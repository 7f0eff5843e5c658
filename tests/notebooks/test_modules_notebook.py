"""The notebook of all modules runs, and shows what it gives today.

After a change to it, or to anything that it shows, write its outputs anew (the
package's `dev` extra has what this needs), and look at them:

    PYTHONPATH=tests python tests/notebooks/test_modules_notebook.py
"""

import ast
import base64
import copy
import itertools
import json
import re
import tempfile
from pathlib import Path

import pytest
import keras_nalu
from keras_nalu.layers import LAYERS
from oracles.notebooks import (
    differences,
    execute,
    noise,
    printed,
    replace_text,
    text,
    tree,
)

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "modules.ipynb"
PICTURE = NOTEBOOK.parent / "images" / "modules.png"  # README's
@pytest.fixture(scope="module")
def committed():
    return json.loads(NOTEBOOK.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    folder = tmp_path_factory.mktemp("modules")
    return folder, execute(NOTEBOOK, folder)


def picture(notebook):
    """The planes of the whole family, as PNG."""
    (cell,) = (cell for cell in notebook["cells"] if cell["id"] == "family-planes")
    return base64.b64decode(text(cell["outputs"][0]["data"]["image/png"]))


def sections(notebook):
    """Of every module: the Markdown with its heading, and the cell that shows it."""
    found = {}
    cells = notebook["cells"]
    for cell, following in itertools.pairwise(cells):
        source = text(cell["source"])
        for name in re.findall(r"^### (\w+)$", source, re.MULTILINE):
            found[name] = source, following
    return found


def test_committed_outputs_are_those_of_a_run_today(committed, fresh):
    _, notebook = fresh
    found = differences(committed, notebook)
    advice = "Stale outputs. Write them anew: python tests/notebooks/test_modules_notebook.py"
    assert not found, "\n".join([advice, *found])


def test_run_gives_printed_text_and_pictures_alone(fresh):
    _, notebook = fresh
    assert noise(notebook) == []


def test_run_writes_no_file_beside_the_notebook(fresh):
    folder, _ = fresh
    assert tree(folder / "notebooks") == tree(NOTEBOOK.parent)


@pytest.mark.parametrize(
    ("old", "new"), [("5 of 5", "4 of 5"), ("x0 * x1", "x0 / x1"), ("y =", "z =")]
)
def test_the_comparison_finds_another(old, new, committed):
    stale = copy.deepcopy(committed)
    replace_text(stale, "nmu", old, new)
    assert differences(committed, committed) == []
    assert differences(committed, stale)


def test_every_module_has_a_section_with_its_equation(committed):
    found = sections(committed)
    assert found.keys() == LAYERS.keys()
    for name, (source, _) in found.items():
        assert source.count("$$") == 2, name


@pytest.mark.parametrize("name", LAYERS)
def test_a_section_shows_an_operation_of_its_module(name, committed):
    _, cell = sections(committed)[name]
    call = ast.parse(text(cell["source"])).body[0].value
    assert call.func.id == "show"
    module, operation = (argument.value for argument in call.args)
    assert module == name
    assert operation in LAYERS[name].operations
    printed, figure = cell["outputs"]
    solved, formula = text(printed["text"]).splitlines()
    assert re.fullmatch(r"[0-5] of 5 seeds solved it", solved)
    assert formula.startswith("y = ")
    assert "image/png" in figure["data"]


def test_the_overview_has_the_facts_of_every_layer(committed):
    lines = text(printed(committed, "overview")["text"]).splitlines()
    for line, (name, layer) in zip(lines, LAYERS.items(), strict=True):
        assert line.split()[0] == name
        assert layer.reference in line
        assert line.endswith(layer.domain)


def test_every_module_that_the_advice_names_exists(committed):
    (advice,) = (cell for cell in committed["cells"] if cell["id"] == "choose")
    for name in re.findall(r"`(\w+)`", text(advice["source"])):
        known = name in LAYERS or name in keras_nalu.__all__
        assert known or hasattr(keras_nalu.regularizers, name), name


def test_the_picture_in_readme_is_the_notebooks(committed):
    assert PICTURE.read_bytes() == picture(committed)


if __name__ == "__main__":
    import nbformat

    with tempfile.TemporaryDirectory() as temporary:
        notebook = execute(NOTEBOOK, Path(temporary))
    nbformat.write(notebook, NOTEBOOK)
    PICTURE.write_bytes(picture(notebook))
    print(f"Wrote {NOTEBOOK} and {PICTURE}. Look at them before you commit them.")
