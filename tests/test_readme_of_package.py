"""What `keras_nalu/README.md` names exists."""

import re
from pathlib import Path

import pytest
from oracles.conformance import Conformance

import keras_nalu
from keras_nalu.layers import base

PACKAGE = Path(keras_nalu.__file__).parent
SECTION = (PACKAGE / "README.md").read_text().split("## How to add a layer")[1]
#: But for what the reader adds.
NAMED = [
    word
    for word in re.findall(r"`([^`\n]+)`", SECTION.split("\n## ")[0])
    if "square_nmu" not in word and "SquareNMU" not in word
]
FILES = [word for word in NAMED if re.fullmatch(r"[\w/]+\.pyi?|tests/\w+", word)]
NAMES = [
    found[1]
    for word in NAMED
    if (found := re.fullmatch(r"@?(?:self\.)?(\w+)(?:\(.*\))?", word))
]


@pytest.mark.parametrize("file", FILES)
def test_its_files_exist(file):
    root = PACKAGE.parent if file.startswith(("tests", "keras_nalu")) else PACKAGE
    assert (root / file).exists()


@pytest.mark.parametrize("name", NAMES)
def test_its_names_exist(name):
    words = re.findall(r"\w+", (PACKAGE / "layers" / "__init__.py").read_text())
    known = {
        *vars(base),
        *dir(base.GatedLayer),
        *dir(keras_nalu.NMU),
        *dir(Conformance),
        *words,
    }
    assert name in known | {"Facts", "build"}


def test_it_names_something():
    assert len(FILES) > 9
    assert {"stored", "read", "snap", "ideal", "equation", "effective"} <= {*NAMES}
