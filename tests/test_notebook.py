"""The notebook runs from top to bottom, and shows what it gives today.

After a change to the notebook, or to anything that it shows, write its outputs anew
(the package's `dev` extra has what this needs), and look at them:

    python tests/test_notebook.py

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

NOTEBOOK = Path(__file__).parent.parent / "notebooks" / "nalu.ipynb"
PICTURE = NOTEBOOK.parent / "images" / "extrapolation.png"  # README's
METADATA = {
    "kernelspec": {
        "display_name": "Python 3",
        "language": "python",
        "name": "python3",
    },
    "language_info": {"name": "python"},
}
EPOCH_LINE = re.compile(r"epoch (\d+), loss: (\S+), accuracy: (\S+)")
NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d*)?(?:e[+-]?\d+)?(?![\w.])")

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


def text(lines):
    """A text of the notebook format, which is one string or a list of lines."""
    return "".join(lines)


def code_cells(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def printed(notebook, cell_id):
    """The output of a cell that is its printed text."""
    (cell,) = (cell for cell in notebook["cells"] if cell["id"] == cell_id)
    (output,) = (output for output in cell["outputs"] if "text" in output)
    return output


def picture(notebook):
    """The plot of the extrapolation, as PNG."""
    (cell,) = (cell for cell in notebook["cells"] if cell["id"] == "extrapolation")
    return base64.b64decode(text(cell["outputs"][0]["data"]["image/png"]))


def execute(folder):
    """The notebook, executed on TensorFlow in a copy of its folder below `folder`."""
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    # Imported here so that its first import, which is slow, logs nothing in a cell.
    pytest.importorskip("matplotlib.font_manager")
    nbformat = pytest.importorskip("nbformat")
    here, scratch = folder / "notebooks", folder / "tmp"
    shutil.copytree(NOTEBOOK.parent, here)
    scratch.mkdir()
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]]),
        "KERAS_BACKEND": "tensorflow",
        "TMPDIR": str(scratch),
        "IPYTHONDIR": str(folder / "ipython"),
    }
    environment.pop("MPLBACKEND", None)
    notebook = nbformat.read(here / NOTEBOOK.name, as_version=4)
    nbclient.NotebookClient(
        notebook,
        timeout=900,
        kernel_name="python3",
        coalesce_streams=True,
        record_timing=False,
        resources={"metadata": {"path": str(here)}},
    ).execute(env=environment)
    notebook["metadata"] = METADATA
    return notebook


def differences(committed, fresh):
    """What of the committed outputs another run does not confirm, as lines of text."""
    found = []
    for old, new in zip(code_cells(committed), code_cells(fresh), strict=True):
        for what, a, b in [
            ("execution count", old["execution_count"], new["execution_count"]),
            ("outputs", kinds(old), kinds(new)),
        ]:
            if a != b:
                found.append(f"{old['id']}: {what}: {a}, now {b}")
        for a, b in zip(old["outputs"], new["outputs"], strict=False):
            found += [f"{old['id']}: {line}" for line in differ(a, b)]
    return found


def kinds(cell):
    """The kinds of a cell's outputs: which stream, or which MIME types."""
    return [
        output.get("name") or sorted(output.get("data", {})) or output["output_type"]
        for output in cell["outputs"]
    ]


def differ(old, new):
    if "text" in old and "text" in new:
        yield from differ_in_text(text(old["text"]), text(new["text"]))
    pair = old.get("data", {}), new.get("data", {})
    if all("text/plain" in data for data in pair):
        yield from differ_in_text(*(text(data["text/plain"]) for data in pair))
    if all("image/png" in data for data in pair):
        yield from differ_in_picture(*(text(data["image/png"]) for data in pair))


def differ_in_text(old, new):
    old, new = old.splitlines(), new.splitlines()
    if len(old) != len(new):
        yield f"{len(old)} lines, now {len(new)}"
    for a, b in zip(old, new, strict=False):
        if not same_line(a, b):
            yield f"{a!r}, now {b!r}"


def same_line(old, new):
    """Whether two lines agree, but for what another processor's rounding changes."""
    epochs = EPOCH_LINE.fullmatch(old), EPOCH_LINE.fullmatch(new)
    if all(epochs):
        (i, loss, accuracy), (j, new_loss, new_accuracy) = (e.groups() for e in epochs)
        return (
            i == j
            and math.isclose(float(accuracy), float(new_accuracy), abs_tol=0.003)
            # The loss goes down to 1e-11, where it is rounding alone.
            and math.isclose(float(loss), float(new_loss), rel_tol=0.01, abs_tol=1e-5)
        )
    return NUMBER.sub("#", old) == NUMBER.sub("#", new) and all(
        a == b or ("." in a + b and math.isclose(float(a), float(b), abs_tol=0.003))
        for a, b in zip(NUMBER.findall(old), NUMBER.findall(new), strict=True)
    )


def differ_in_picture(old, new):
    """Compares two PNGs on a coarse grid, which fonts and rounding hardly change."""
    if old == new:
        return
    np = pytest.importorskip("numpy")
    image = pytest.importorskip("matplotlib.image")

    def coarse(png):
        pixels = image.imread(io.BytesIO(base64.b64decode(png)), format="png")
        gray = pixels[..., :3].mean(axis=-1)
        rows = np.array_split(gray, 20, axis=0)
        return gray.shape, np.array(
            [[tile.mean() for tile in np.array_split(row, 50, axis=1)] for row in rows]
        )

    (old_shape, old), (new_shape, new) = coarse(old), coarse(new)
    if not np.allclose(old_shape, new_shape, rtol=0.05):
        yield f"picture of {old_shape} pixels, now {new_shape}"
    off = np.abs(old - new).mean()
    if off > 0.01:
        yield f"another picture: on average {off:.3f} of the scale from white to black"


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    folder = tmp_path_factory.mktemp("notebook")
    notebook = execute(folder)
    return folder, notebook


def test_committed_outputs_are_those_of_a_run_today(committed, fresh):
    _, notebook = fresh
    found = differences(committed, notebook)
    advice = "Stale outputs. Write them anew: python tests/test_notebook.py"
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


def tree(folder):
    return {path.relative_to(folder) for path in folder.rglob("*")}


def noise(notebook):
    """All outputs but printed text and pictures: errors, stderr, stray displays."""
    return [
        output
        for cell in code_cells(notebook)
        for output in cell["outputs"]
        if output.get("name") != "stdout" and "image/png" not in output.get("data", {})
    ]


def replace_text(notebook, cell_id, old, new):
    output = printed(notebook, cell_id)
    before = text(output["text"])
    output["text"] = before.replace(old, new)
    assert output["text"] != before


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


def test_every_code_cell_was_run_once_in_order(committed):
    counts = [cell["execution_count"] for cell in code_cells(committed)]
    assert counts == list(range(1, len(counts) + 1))


def test_committed_outputs_are_printed_text_and_pictures_alone(committed):
    assert noise(committed) == []


def test_committed_outputs_name_no_path_of_a_machine(committed):
    outputs = json.dumps([cell["outputs"] for cell in code_cells(committed)])
    assert not re.search(r"(?<![\w/])/(tmp|root|home|Users|work|var)/", outputs)


def test_committed_notebook_is_valid_and_small_with_ids_and_minimal_metadata(committed):
    assert (committed["nbformat"], committed["nbformat_minor"]) == (4, 5)
    assert committed["metadata"] == METADATA
    assert [cell["metadata"] for cell in committed["cells"] if cell["metadata"]] == []
    ids = [cell["id"] for cell in committed["cells"]]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[a-z-]{1,64}", name) for name in ids), "ids are names"
    assert NOTEBOOK.stat().st_size < 500_000


def test_committed_notebook_follows_the_format():
    nbformat = pytest.importorskip("nbformat")
    nbformat.validate(json.loads(NOTEBOOK.read_text(encoding="utf-8")))


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


def test_code_uses_the_public_api_alone(committed):
    names, private = set(), []
    for cell in code_cells(committed):
        for node in ast.walk(ast.parse(text(cell["source"]))):
            if isinstance(node, ast.ImportFrom):
                if node.module == "keras_nalu":
                    names |= {alias.name for alias in node.names}
                elif node.module.startswith(("keras_nalu.", "keras.src")):
                    private.append(node.module)
            elif isinstance(node, ast.Import):
                private += [
                    alias.name
                    for alias in node.names
                    if alias.name.startswith(("keras_nalu.", "keras.src"))
                ]
            elif isinstance(node, ast.Attribute) and node.attr.startswith("_"):
                private.append(node.attr)
    assert names
    assert names <= set(keras_nalu.__all__)
    assert private == []


if __name__ == "__main__":
    import nbformat

    with tempfile.TemporaryDirectory() as temporary:
        notebook = execute(Path(temporary))
    nbformat.write(notebook, NOTEBOOK)
    PICTURE.write_bytes(picture(notebook))
    print(f"Wrote {NOTEBOOK} and {PICTURE}. Look at them before you commit them.")
