"""Running a notebook, and comparing its outputs with the committed ones."""

import base64
import io
import itertools
import json
import math
import os
import re
import shutil
import sys

import pytest

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


def text(lines):
    """A text of the notebook format, which is one string or a list of lines."""
    return "".join(lines)


def code_cells(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def cell(notebook, cell_id):
    (found,) = (cell for cell in notebook["cells"] if cell["id"] == cell_id)
    return found


def outputs(notebook, cell_id):
    return cell(notebook, cell_id)["outputs"]


def printed(notebook, cell_id):
    """The output of a cell that has its printed text."""
    (output,) = (o for o in outputs(notebook, cell_id) if "text" in o)
    return output


def markdown(notebook, cell_id):
    data = (output.get("data", {}) for output in outputs(notebook, cell_id))
    return [text(each["text/markdown"]) for each in data if "text/markdown" in each]


def table(notebook, cell_id):
    """The lines of a cell's only table, as {column: text}."""
    (found,) = markdown(notebook, cell_id)
    names, _, *lines = (line[2:-2].split(" | ") for line in found.splitlines())
    return [dict(zip(names, line, strict=True)) for line in lines]


def execute(path, folder):
    """A notebook, executed on TensorFlow in a copy of its folder below `folder`."""
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    # Imported here so that its first import, which is slow, logs nothing in a cell.
    pytest.importorskip("matplotlib.font_manager")
    nbformat = pytest.importorskip("nbformat")
    here, scratch = folder / "notebooks", folder / "tmp"
    shutil.copytree(path.parent, here)
    scratch.mkdir()
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]]),
        "KERAS_BACKEND": "tensorflow",
        "TMPDIR": str(scratch),
        "IPYTHONDIR": str(folder / "ipython"),
    }
    environment.pop("MPLBACKEND", None)
    notebook = nbformat.read(here / path.name, as_version=4)
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


def differences(committed, fresh, trained=()):
    """The differences of the committed outputs from a new run, as lines of text.

    The tables of the cells in `trained` are not compared.
    """
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
        if old["id"] not in trained:
            # To the digit, as they are computed from committed rows.
            tables = ("\n".join(markdown(n, old["id"])) for n in (committed, fresh))
            pairs = itertools.zip_longest(*(each.splitlines() for each in tables))
            found += [f"{old['id']}: {a}, now {b}" for a, b in pairs if a != b]
    return found


def kinds(cell):
    """The stream or the MIME types of each of a cell's outputs."""
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
    """Whether two lines agree up to the rounding of another processor."""
    epochs = EPOCH_LINE.fullmatch(old), EPOCH_LINE.fullmatch(new)
    if all(epochs):
        (i, loss, accuracy), (j, new_loss, new_accuracy) = (e.groups() for e in epochs)
        return (
            i == j
            and math.isclose(float(accuracy), float(new_accuracy), abs_tol=0.003)
            # A loss of 1e-11 is only rounding.
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


def tree(folder):
    return {path.relative_to(folder) for path in folder.rglob("*")}


def noise(notebook):
    """All outputs except printed text, pictures and tables."""
    return [
        output
        for cell in code_cells(notebook)
        for output in cell["outputs"]
        if output.get("name") != "stdout"
        and not {"image/png", "text/markdown"} & {*output.get("data", {})}
    ]


def replace(notebook, cell_id, old, new):
    """Replaces text in the outputs of a cell."""
    before = json.dumps(outputs(notebook, cell_id))
    after = before.replace(*(json.dumps(each)[1:-1] for each in (old, new)))
    assert before != after
    cell(notebook, cell_id)["outputs"] = json.loads(after)
