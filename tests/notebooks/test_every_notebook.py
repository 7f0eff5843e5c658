"""What holds for every notebook: it was run, is small, and uses public names."""

import ast
import json
import re
from pathlib import Path

import pytest

import keras_nalu
from oracles.notebooks import METADATA, code_cells, noise, text

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
#: What a page may import from beside the public names.
ROOMS = ("keras_nalu.benchmarks", "keras_nalu.layers", "keras_nalu.quiet")


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request):
    return request.param


@pytest.fixture
def notebook(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_every_code_cell_was_run_once_in_order(notebook):
    counts = [cell["execution_count"] for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))


def test_outputs_are_text_pictures_and_tables_alone(notebook):
    others = [o for o in noise(notebook) if "text/markdown" not in o.get("data", {})]
    assert others == []


def test_outputs_name_no_path_of_a_machine(notebook):
    outputs = json.dumps([cell["outputs"] for cell in code_cells(notebook)])
    assert not re.search(r"(?<![\w/])/(tmp|root|home|Users|work|var)/", outputs)


def test_it_is_valid_and_small_with_ids_and_minimal_metadata(path, notebook):
    nbformat = pytest.importorskip("nbformat")
    nbformat.validate(notebook)
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert notebook["metadata"] == METADATA
    assert [cell["metadata"] for cell in notebook["cells"] if cell["metadata"]] == []
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[a-z-]{1,64}", name) for name in ids), "ids are names"
    assert path.stat().st_size < 1_500_000


def test_code_uses_public_names_alone(notebook):
    for cell in code_cells(notebook):
        source = text(cell["source"]).replace("%matplotlib inline\n", "")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom) and node.module == "keras_nalu":
                names = {alias.name for alias in node.names}
                assert names <= {*keras_nalu.__all__}
            elif isinstance(node, ast.ImportFrom):
                ours = node.module.startswith(("keras_nalu", "keras.src"))
                assert not ours or node.module.startswith(ROOMS)
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    assert not alias.name.startswith(("keras_nalu", "keras.src"))
            elif isinstance(node, ast.Attribute):
                assert not node.attr.startswith("_"), node.attr
