"""The notebook of the benchmarks runs, and shows what its rows give today.

After a change to it, to the rows, or to anything that it shows, write its outputs anew
(the package's `dev` extra has what this needs), and look at them:

    PYTHONPATH=tests python tests/notebooks/test_benchmarks_notebook.py
"""

import ast
import base64
import copy
import itertools
import json
import re
import struct
import tempfile
from pathlib import Path

import pytest
from keras_nalu.benchmarks import published, report
from keras_nalu.benchmarks.suites import PAIRS
from oracles import notebooks
from oracles.notebooks import code_cells, execute, text, tree

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "benchmarks.ipynb"
PICTURE = NOTEBOOK.parent / "images" / "benchmark.png"  # README's
#: Cells that train: another machine may count otherwise.
TRAINED = "live", "own"


@pytest.fixture(scope="module")
def committed():
    return json.loads(NOTEBOOK.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmarks")
    return folder, execute(NOTEBOOK, folder)


@pytest.fixture(scope="module")
def rows():
    return report.read(NOTEBOOK.parent / "data" / "rows.jsonl.gz")


def outputs(notebook, cell_id):
    (cell,) = (cell for cell in notebook["cells"] if cell["id"] == cell_id)
    return cell["outputs"]


def picture(notebook):
    """The heat map of the whole grid, as PNG."""
    (output,) = outputs(notebook, "grid")
    return base64.b64decode(text(output["data"]["image/png"]))


def markdown(notebook, cell_id):
    data = (output.get("data", {}) for output in outputs(notebook, cell_id))
    return [text(each["text/markdown"]) for each in data if "text/markdown" in each]


def table(notebook, cell_id):
    """The lines of the one table of a cell, by the names of its columns."""
    (found,) = markdown(notebook, cell_id)
    names, _, *lines = (line[2:-2].split(" | ") for line in found.splitlines())
    return [dict(zip(names, line, strict=True)) for line in lines]


def differences(committed, fresh):
    """What of the committed outputs another run does not confirm, as lines of text."""
    found = notebooks.differences(committed, fresh)
    for cell in code_cells(committed):
        name = cell["id"]
        if name not in TRAINED:
            # To the digit: they are computed from rows that are here.
            old, new = ("\n".join(markdown(a, name)) for a in (committed, fresh))
            pairs = itertools.zip_longest(old.splitlines(), new.splitlines())
            found += [f"{name}: {a}, now {b}" for a, b in pairs if a != b]
    return found


def noise(notebook):
    """All outputs but text, pictures and tables: errors, stderr, stray displays."""
    return [
        output
        for output in notebooks.noise(notebook)
        if "text/markdown" not in output.get("data", {})
    ]


def test_committed_outputs_are_those_of_a_run_today(committed, fresh):
    _, notebook = fresh
    found = differences(committed, notebook)
    advice = "Stale outputs. Write them anew: python tests/notebooks/test_benchmarks_notebook.py"
    assert not found, "\n".join([advice, *found])


def test_run_writes_no_file_beside_the_notebook(fresh):
    folder, _ = fresh
    assert tree(folder / "notebooks") == tree(NOTEBOOK.parent)


def test_outputs_are_text_pictures_and_tables_alone(committed):
    assert noise(committed) == []


def test_run_gives_text_pictures_and_tables_alone(fresh):
    _, notebook = fresh
    assert noise(notebook) == []


@pytest.mark.parametrize(
    ("cell_id", "old", "new"),
    [
        ("pooled", "| NMU | 225 |", "| NMU | 224 |"),
        ("pooled", "0.969 (", "0.98 ("),
        ("published", "| inside |", "| above |"),
        ("published", "arXiv:2110.05177", "arXiv:2110.05178"),
    ],
)
def test_the_comparison_finds_another(cell_id, old, new, committed):
    stale = copy.deepcopy(committed)
    for output in outputs(stale, cell_id):
        before = text(output["data"]["text/markdown"])
        output["data"]["text/markdown"] = before.replace(old, new)
    assert differences(committed, committed) == []
    assert differences(committed, stale)


def test_the_rows_have_every_run_of_the_primer(rows):
    primer = rows[rows["suite"] == "single-module"]
    counts = primer.groupby(["operation", "module"]).size().to_dict()
    assert counts == dict.fromkeys(PAIRS, 9 * 25)


def test_the_pooled_table_counts_the_rows(committed, rows):
    primer = rows[rows["suite"] == "single-module"]
    counted = primer.groupby(["operation", "module"])["solved"].sum().to_dict()
    lines = table(committed, "pooled")
    assert len(lines) == len(counted)
    for line in lines:
        assert int(line["solved"]) == counted[line["operation"], line["module"]]
        assert line["runs"] == "225"


def test_every_published_number_that_there_are_rows_for_is_shown(committed, rows):
    chosen = rows[rows["suite"].isin(published.SUITES)]
    titles, tables = (markdown(committed, "published")[i::2] for i in (0, 1))
    names = [title.strip("*") for title in titles]
    assert names == sorted(chosen["suite"].unique())
    (cell,) = (cell for cell in committed["cells"] if cell["id"] == "published-text")
    for name in names:
        assert f"\n- `{name}`: " in text(cell["source"]), "the text says what it is"
    lines = [line for found in tables for line in found.splitlines()[2:]]
    assert len(lines) == len(report.side_by_side(chosen))


def test_a_slice_that_is_trained_here_comes_near_to_the_rows(fresh):
    """On other machines a few of the 45 runs may end otherwise: rounding decides."""
    _, notebook = fresh
    rates = {}
    for line in table(notebook, "live"):
        name = line["suite"], line["operation"], line["module"]
        rates[name] = int(line["solved"]) / int(line["runs"])
        assert line["runs"] == ("45" if line["suite"] == "here and now" else "225")
    for operation, module in [("add", "NAU"), ("subtract", "NAU"), ("multiply", "NMU")]:
        ours, theirs = (
            rates.pop((suite, operation, module))
            for suite in ("here and now", "single-module")
        )
        assert abs(ours - theirs) < 0.15
    assert not rates


def test_a_module_of_ones_own_solves_a_task_of_ones_own(fresh):
    _, notebook = fresh
    lines = table(notebook, "own")
    assert [line["seed"] for line in lines] == list("01234")
    assert [line["module"] for line in lines] == ["Powers"] * 5
    # The threshold is thousands of times what they come to.
    assert [line["solved"] for line in lines] == ["True"] * 5


def test_the_picture_in_readme_is_the_notebooks_and_as_wide_as_a_readme(committed):
    png = PICTURE.read_bytes()
    assert png == picture(committed)
    width, _ = struct.unpack(">II", png[16:24])
    assert 850 <= width <= 950


if __name__ == "__main__":
    import nbformat

    with tempfile.TemporaryDirectory() as temporary:
        notebook = execute(NOTEBOOK, Path(temporary))
    nbformat.write(notebook, NOTEBOOK)
    PICTURE.write_bytes(picture(notebook))
    print(f"Wrote {NOTEBOOK} and {PICTURE}. Look at them before you commit them.")
