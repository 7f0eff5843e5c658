"""What README's table says of every module, and the command that makes it."""

import re
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_nalu.benchmarks.modules import Claim, claims, head, row
from keras_nalu.cli import main
from keras_nalu.layers import LAYERS

README = (Path(__file__).parent.parent / "README.md").read_text()
TORCH = keras.backend.backend() == "torch"
trains_populations = pytest.mark.skipif(TORCH, reason="trains no populations")


def counts_in_readme(name):
    cell = re.search(rf"^\| `{name}` \| (.*?) \|", README, re.M)[1]
    return {operation: int(n) for operation, n in re.findall(r"(\w+) (\d+)", cell)}


def test_the_table_of_readme_has_every_layer_as_the_command_writes_it():
    lines = [head(20)]
    for name, layer in LAYERS.items():
        counts = counts_in_readme(name)
        assert tuple(counts) == layer.operations
        assert max(counts.values()) <= 20
        lines.append(row(name, counts))
    assert "\n".join(lines) in README


def test_every_operation_is_a_claim():
    for name, layer in LAYERS.items():
        assert [claim.operation for claim in claims(name)] == list(layer.operations)


@trains_populations
@pytest.mark.parametrize("claim", [Claim("NAC", "add"), Claim("NSR", "equal")], ids=str)
def test_what_is_drawn_and_what_is_judged(claim):
    population = claim.population()
    x, y = claim.extrapolation()
    np.testing.assert_array_equal(y, keras.ops.convert_to_numpy(claim.answer(x)))
    assert 0 < np.mean(y) != 1
    solved = claim.solved(population)
    assert solved.shape == (claim.seeds,)
    assert not solved.all()  # a comparison may be right by chance before training


@trains_populations
def test_the_command_writes_the_table(capsys):
    assert main(["modules", "--only", "NMU", "--seeds", "3", "--steps", "2000"]) == 0
    out, err = capsys.readouterr()
    solved = int(re.search(r"NMU, multiply: (\d) of 3, \d+ s", err)[1])
    assert out == f"{head(3)}\n{row('NMU', {'multiply': solved})}\n"


def test_the_command_knows_its_modules(capsys):
    assert main(["modules", "--only", "NMU", "NUM"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("keras-nalu: no module 'NUM'. Expected one of NAC, NACMul,")


@pytest.mark.only("torch", reason="elsewhere it trains")
def test_the_command_says_what_pytorch_cannot(capsys):
    assert main(["modules", "--only", "NMU"]) == 2
    out, err = capsys.readouterr()
    assert "a population trains on TensorFlow or JAX" in err
    assert not out


@pytest.mark.slow
@pytest.mark.only("tensorflow", reason="README's figures are TensorFlow's")
@pytest.mark.parametrize(
    ("module", "operation"),
    [("NAU", "subtract"), ("NMU", "multiply"), ("NPU", "divide")],
)
def test_figures_of_readme(module, operation):
    """Another machine may round a seed or two to the other side."""
    claim = Claim(module, operation)
    solved = sum(claim.solved(claim.train()))
    assert abs(solved - counts_in_readme(claim.module)[claim.operation]) <= 2
