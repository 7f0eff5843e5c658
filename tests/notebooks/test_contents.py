"""What a notebook says is what the package and the rows say."""

import ast
import itertools
import json
import re
from pathlib import Path

import pytest

import keras_nalu
from keras_nalu.benchmarks import published, report
from keras_nalu.benchmarks.suites import PAIRS
from keras_nalu.layers import LAYERS
from oracles.notebooks import EPOCH_LINE, markdown, printed, table, text

FOLDER = Path(__file__).parents[2] / "notebooks"
#: What the seed's notebook has, in its order; the sections after it are our own.
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


def committed(name):
    path = FOLDER / f"{name}.ipynb"
    return pytest.fixture(lambda: json.loads(path.read_text("utf-8")), name=name)


nalu, modules, benchmarks = map(committed, ("nalu", "modules", "benchmarks"))


def test_sections_stand_in_the_order_of_the_seed(nalu):
    source = "\n".join(text(cell["source"]) + "\n" for cell in nalu["cells"])
    pages = [c["source"] for c in nalu["cells"] if c["cell_type"] == "markdown"]
    headings = re.findall(r"^#+ .*$", "\n".join(map(text, pages)), re.MULTILINE)
    assert headings[: len(SEED_SECTIONS)] == SEED_SECTIONS
    places = [source.find(piece) for piece in SEED_ORDER]
    assert -1 not in places, SEED_ORDER[places.index(-1)]
    assert places == sorted(places)


def test_some_of_two_hundred_epochs_are_printed_as_in_the_seed(nalu):
    lines = text(printed(nalu, "fit")["text"]).splitlines()
    epochs = [EPOCH_LINE.fullmatch(line) for line in lines]
    assert [int(epoch[1]) for epoch in epochs] == [*range(0, 200, 20), 199]
    assert float(epochs[-1][3]) == 1.0


def test_every_module_has_a_section_with_its_equation_and_an_operation(modules):
    """The Markdown with its heading, and the cell that shows it."""
    found = []
    for page, cell in itertools.pairwise(modules["cells"]):
        source = text(page["source"])
        for name in re.findall(r"^### (\w+)$", source, re.MULTILINE):
            found.append(name)
            assert source.count("$$") == 2, name
            call = ast.parse(text(cell["source"])).body[0].value
            assert call.func.id == "show"
            module, operation = (argument.value for argument in call.args)
            assert module == name
            assert operation in LAYERS[name].operations
            shown, figure = cell["outputs"]
            solved, formula = text(shown["text"]).splitlines()
            assert re.fullmatch(r"[0-5] of 5 seeds solved it", solved)
            assert formula.startswith("y = ")
            assert "image/png" in figure["data"]
    assert sorted(found) == sorted(LAYERS)


def test_the_overview_has_the_facts_of_every_layer(modules):
    lines = text(printed(modules, "overview")["text"]).splitlines()
    for line, (name, layer) in zip(lines, LAYERS.items(), strict=True):
        assert line.split()[0] == name
        assert layer.reference in line
        assert line.endswith(layer.domain)


def test_every_module_that_the_advice_names_exists(modules):
    (advice,) = (cell for cell in modules["cells"] if cell["id"] == "choose")
    for name in re.findall(r"`(\w+)`", text(advice["source"])):
        known = name in LAYERS or name in keras_nalu.__all__
        assert known or hasattr(keras_nalu.regularizers, name), name


PAGES = sorted(path.stem for path in FOLDER.glob("*.ipynb"))


def test_the_index_names_every_page():
    index = (FOLDER / "README.md").read_text("utf-8")
    assert sorted(re.findall(r"\((\w+)\.ipynb\)", index)) == PAGES


@pytest.mark.parametrize("name", PAGES)
def test_a_page_ends_with_where_to_go_next(name):
    *_, end = json.loads((FOLDER / f"{name}.ipynb").read_text("utf-8"))["cells"]
    assert "# Where to go next" in text(end["source"])
    for link in re.findall(r"\]\((\w+\.ipynb)\)", text(end["source"])):
        assert (FOLDER / link).exists()


@pytest.fixture(scope="module")
def rows():
    return report.read(FOLDER / "data" / "rows.jsonl.gz")


def test_the_pooled_table_counts_every_run_of_the_primer(benchmarks, rows):
    primer = rows[rows["suite"] == "single-module"]
    pairs = primer.groupby(["operation", "module"])
    assert pairs.size().to_dict() == dict.fromkeys(PAIRS, 9 * 25)
    counted = pairs["solved"].sum().to_dict()
    lines = table(benchmarks, "pooled")
    assert len(lines) == len(counted)
    for line in lines:
        assert int(line["solved"]) == counted[line["operation"], line["module"]]
        assert line["runs"] == "225"


def test_every_published_number_that_there_are_rows_for_is_shown(benchmarks, rows):
    chosen = rows[rows["suite"].isin(published.SUITES)]
    titles, tables = (markdown(benchmarks, "published")[i::2] for i in (0, 1))
    names = [title.strip("*") for title in titles]
    assert names == sorted(chosen["suite"].unique())
    (page,) = (c for c in benchmarks["cells"] if c["id"] == "published-text")
    for name in names:
        assert f"\n- `{name}`: " in text(page["source"]), "the text says what it is"
    lines = [line for found in tables for line in found.splitlines()[2:]]
    assert len(lines) == len(report.side_by_side(chosen))
