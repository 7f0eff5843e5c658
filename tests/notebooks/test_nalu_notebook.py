"""The notebook runs from top to bottom, and shows what it gives today.

After a change to the notebook, or to anything that it shows, write its outputs anew
(the package's `dev` extra has what this needs), and look at them:

    PYTHONPATH=tests python tests/notebooks/test_nalu_notebook.py

Not `jupyter execute --inplace`: it cuts the printed lines into some 190 outputs, and
leaves timings and versions in the file.
"""

import ast
import base64
import copy
import io
import json
import math
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

import keras_nalu
from oracles.notebooks import (
    EPOCH_LINE,
    METADATA,
    code_cells,
    differences,
    execute,
    noise,
    printed,
    replace_text,
    same_line,
    text,
    tree,
)

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "nalu.ipynb"
PICTURE = NOTEBOOK.parent / "images" / "extrapolation.png"  # README's
# What the seed's notebook has, in its order; the four sections after it are our own.
SEED_SECTIONS = [
    "# Neural Arithmetic Logic Units",
    "### Helper function",
    "### Train NALU on generated data",
    "### Uncomment to run TensorBoard",
]
SEED_ORDER = [
    "https://arxiv.org/abs/1808.00508",
    "import keras\n",
    "](images/nac_nalu.png)",
    "**The Neural Accumulator (NAC)**",
    "**The Neural Arithmetic Logic Unit (NALU)**",
    "NALU(3",
    "### Helper function",
    "generate_dataset(4",
    "### Train NALU on generated data",
    "# Hyperparameters\nEPOCHS = 200\nLEARNING_RATE = 1e-3\nBATCH_SIZE = 10\n",
    "X_data, Y_data = generate_dataset()",
    "NALU(1)",
    "L2Loss()",
    "network.fit(",
    "### Uncomment to run TensorBoard",
    "# %tensorboard --logdir",
]


@pytest.fixture(scope="module")
def committed():
    return json.loads(NOTEBOOK.read_text(encoding="utf-8"))


def picture(notebook):
    """The plot of the extrapolation, as PNG."""
    (cell,) = (cell for cell in notebook["cells"] if cell["id"] == "extrapolation")
    return base64.b64decode(text(cell["outputs"][0]["data"]["image/png"]))


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    folder = tmp_path_factory.mktemp("notebook")
    notebook = execute(NOTEBOOK, folder)
    return folder, notebook


def test_committed_outputs_are_those_of_a_run_today(committed, fresh):
    _, notebook = fresh
    found = differences(committed, notebook)
    advice = "Stale outputs. Write them anew: python tests/notebooks/test_nalu_notebook.py"
    assert not found, "\n".join([advice, *found])


def test_run_gives_printed_text_and_pictures_alone(fresh):
    _, notebook = fresh
    assert noise(notebook) == []


def test_run_writes_tensorboard_files_in_a_folder_of_its_own_and_nothing_else(fresh):
    folder, _ = fresh
    (run,) = (folder / "tmp").glob("nalu-*")
    assert list(run.rglob("events.out.tfevents.*"))
    assert tree(folder / "notebooks") == tree(NOTEBOOK.parent)
    assert {path.name for path in folder.iterdir()} <= {"notebooks", "tmp", "ipython"}


def stale_formula(notebook):
    replace_text(notebook, "formula", "x0 * x1", "x0 + x1")


def stale_accuracy(notebook):
    replace_text(notebook, "fit", "accuracy: 1.0\n", "accuracy: 0.99\n")


def stale_first_loss(notebook):
    replace_text(notebook, "fit", "epoch 0, loss: ", "epoch 0, loss: 1")


def stale_number_of_epochs(notebook):
    replace_text(
        notebook, "fit", "epoch 0, ", "epoch 0, loss: 1, accuracy: 1\nepoch 0, "
    )


def stale_integer(notebook):
    replace_text(notebook, "network", "6 weights", "7 weights")


def stale_word(notebook):
    replace_text(notebook, "network", "weights", "parameters")


def missing_figure(notebook):
    notebook["cells"] = [
        {**cell, "outputs": []} if cell["id"] == "curves" else cell
        for cell in notebook["cells"]
    ]


def another_figure(notebook):
    pytest.importorskip("matplotlib")
    cells = {cell["id"]: cell for cell in notebook["cells"]}
    png = cells["weights"]["outputs"][0]["data"]["image/png"]
    cells["curves"]["outputs"][0]["data"]["image/png"] = png


def cell_that_was_not_run(notebook):
    code_cells(notebook)[-1]["execution_count"] = None


@pytest.mark.parametrize(
    "make_stale",
    [
        stale_formula,
        stale_accuracy,
        stale_first_loss,
        stale_number_of_epochs,
        stale_integer,
        stale_word,
        missing_figure,
        another_figure,
        cell_that_was_not_run,
    ],
)
def test_the_comparison_finds(make_stale, committed):
    stale = copy.deepcopy(committed)
    make_stale(stale)
    assert differences(committed, committed) == []
    assert differences(committed, stale)


def test_the_comparison_forgives_rounding():
    line = "epoch 30, loss: {}, accuracy: {}"
    assert same_line(line.format(0.0301, 0.3157), line.format(0.03011, 0.316))
    assert same_line(line.format(5e-11, 1.0), line.format(7e-11, 1.0))
    assert same_line("3 * -5 -> -2.0", "3 * -5 -> -2.001")
    assert not same_line("3 * -5 -> -2.0", "3 * -5 -> -2.1")
    assert not same_line("y = x0 * x1", "y = x1 * x0")


def test_sections_stand_in_the_order_of_the_seed(committed):
    source = "\n".join(text(cell["source"]) + "\n" for cell in committed["cells"])
    headings = re.findall(
        r"^#+ .*$",
        "\n".join(
            text(cell["source"])
            for cell in committed["cells"]
            if cell["cell_type"] == "markdown"
        ),
        re.MULTILINE,
    )
    assert headings[: len(SEED_SECTIONS)] == SEED_SECTIONS
    places = [source.find(piece) for piece in SEED_ORDER]
    assert -1 not in places, SEED_ORDER[places.index(-1)]
    assert places == sorted(places)


def test_two_hundred_epochs_are_printed_as_in_the_seed(committed):
    lines = text(printed(committed, "fit")["text"]).splitlines()
    epochs = [EPOCH_LINE.fullmatch(line) for line in lines]
    assert [int(epoch[1]) for epoch in epochs] == list(range(200))
    assert float(epochs[-1][3]) == 1.0


def test_linked_pictures_exist(committed):
    links = re.findall(
        r"!\[[^]]+\]\(([^)]+)\)",
        "\n".join(text(cell["source"]) for cell in committed["cells"]),
    )
    assert links
    assert [link for link in links if not (NOTEBOOK.parent / link).is_file()] == []


def test_the_picture_in_readme_is_the_notebooks(committed):
    assert PICTURE.read_bytes() == picture(committed)


if __name__ == "__main__":
    import nbformat

    with tempfile.TemporaryDirectory() as temporary:
        notebook = execute(NOTEBOOK, Path(temporary))
    nbformat.write(notebook, NOTEBOOK)
    PICTURE.write_bytes(picture(notebook))
    print(f"Wrote {NOTEBOOK} and {PICTURE}. Look at them before you commit them.")
