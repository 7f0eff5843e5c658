"""`keras-nalu benchmark` and `keras-nalu report`."""

import gzip
import itertools
import os
import re
import sys
from pathlib import Path

import pytest
from oracles.experiments import BACKEND, TORCH, small, trains_populations

from keras_nalu.benchmarks import runner
from keras_nalu.benchmarks.experiment import Experiment
from keras_nalu.benchmarks.results import Results
from keras_nalu.benchmarks.suites import SUITES
from keras_nalu.cli import main

COMMITTED = Path(__file__).parents[2] / "notebooks" / "data" / "rows.jsonl.gz"
ROOT = hasattr(os, "geteuid") and os.geteuid() == 0
COMMAND = ["benchmark", "single-module", "--only", "NMU", "--operation", "mul"]
BRIEF = [*COMMAND, "--seeds", "1", "--steps", "1000", "--workers", "1"]


def test_the_list_of_suites(capsys):
    assert main(["benchmark", "--list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [
        *SUITES,
        "discovery",
    ]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "keras-nalu benchmark single-module`"),
        (["primer"], "no suite 'primer'. Expected one of single-module, "),
        (["division", "--only", "NMU"], "no module 'NMU' in division. Expected RealN"),
        (["division", "--operation", "add"], "no operation 'add' in division. Expect"),
        (["running", "--threshold", "1e-5"], "running has one threshold rule"),
        ([*COMMAND[1:], "--steps", "1500"], "whole thousands"),
    ],
)
def test_what_the_command_does_not_know(arguments, text, capsys, tmp_path):
    assert main(["benchmark", *arguments, "--output", str(tmp_path / "rows")]) == 2
    assert text in capsys.readouterr().err
    assert not (tmp_path / "rows").exists()


def test_the_plan(capsys, tmp_path):
    assert main([*COMMAND, "--list", "--output", str(tmp_path / "rows")]) == 0
    out = capsys.readouterr().out
    assert re.fullmatch(r"NMU +multiply +225 runs of 50000 steps\n", out)
    assert not (tmp_path / "rows").exists()


@trains_populations
def test_the_command_keeps_rows_and_trains_nothing_twice(capsys, tmp_path):
    output = ["--output", str(tmp_path)]
    assert main([*BRIEF, *output]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^1/1  NMU, multiply: \d of 9 solved, \d+ s$", out, re.M)
    (path,) = tmp_path.rglob("*.jsonl")
    before = path.stat().st_mtime_ns
    assert len(path.read_text().splitlines()) == 9
    assert main([*BRIEF, *output]) == 0
    assert "1 of 1 have rows already" in capsys.readouterr().out
    assert path.stat().st_mtime_ns == before
    assert main([*BRIEF, *output, "--dry-run"]) == 0
    assert "has rows" in capsys.readouterr().out
    assert main(["report", "--rows", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("## single-module, 2 inputs\n\n| operation |")
    assert "| NMU | 9 |" in out


@pytest.mark.slow
@trains_populations
def test_a_dry_run_measures_what_has_not_run(capsys, tmp_path):
    assert main([*COMMAND, "--dry-run", "--output", str(tmp_path / "rows")]) == 0
    out = capsys.readouterr().out
    assert re.search(r"50000 steps, about \d+ (s|min)\n", out)
    assert "All in one process: about" in out
    assert not (tmp_path / "rows").exists()


@pytest.mark.slow
@trains_populations
def test_one_that_fails_stops_no_other(monkeypatch, tmp_path):
    good, bad = small(), small(seeds=3)
    run = Experiment.run

    def fails(experiment):
        if experiment.seeds == 3:
            raise RuntimeError("no luck")
        return run(experiment)

    monkeypatch.setattr(Experiment, "run", fails)
    results = Results(tmp_path)
    outcomes = [*runner.run([bad, good], results)]
    (_, _, error), (_, rows, none) = outcomes
    assert error.startswith("RuntimeError: no luck\nTraceback")
    assert none is None
    assert len(rows) == 4
    assert results.has(good, BACKEND)
    assert not results.has(bad, BACKEND)


@pytest.mark.skipif(ROOT, reason="root may write anywhere")
def test_without_permission_nothing_is_trained(capsys, tmp_path):
    tmp_path.chmod(0o500)
    assert main([*BRIEF, "--output", str(tmp_path)]) == 1
    assert "cannot write" in capsys.readouterr().err


def test_a_file_where_the_folder_should_be(capsys, tmp_path):
    if TORCH:
        pytest.skip("trains no populations")
    (tmp_path / "rows").write_text("mine")
    assert main([*BRIEF, "--output", str(tmp_path / "rows")]) == 1
    assert "cannot write" in capsys.readouterr().err
    assert (tmp_path / "rows").read_text() == "mine"


def test_a_report_of_nothing(capsys, tmp_path):
    assert main(["report", "--rows", str(tmp_path)]) == 2
    assert "Try `keras-nalu benchmark single-module`" in capsys.readouterr().err


@pytest.mark.only("torch", reason="elsewhere it trains")
def test_the_command_says_what_pytorch_cannot(capsys, tmp_path):
    assert main([*BRIEF, "--output", str(tmp_path)]) == 2
    assert "a population trains on TensorFlow or JAX" in capsys.readouterr().err


def test_rows_in_one_small_file(capsys, tmp_path):
    row = {"suite": "own", "inputs": 2, "operation": "mine", "module": "NAU"}
    row |= {"range": "[1,2]", "seed": 0, "experiment": "0", "backend": "jax"}
    row |= {"steps": 1000, "extrapolation": 0.0}
    row |= {"solved": True, "solved_at": 10, "sparsity_error": 0.0, "diverged": False}
    Results(tmp_path / "rows").write(small(), "jax", [row])
    packed = tmp_path / "rows.jsonl.gz"
    command = ["report", "--rows", str(tmp_path / "rows"), "--pack", str(packed)]
    assert main(command) == 0
    printed = capsys.readouterr().out
    before = packed.read_bytes()
    assert main(["report", "--rows", str(packed)]) == 0
    assert capsys.readouterr().out == printed
    assert main(command) == 0
    assert packed.read_bytes() == before


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """Some of the committed rows: all of them take seconds to read."""
    path = tmp_path_factory.mktemp("few") / "rows.jsonl"
    with gzip.open(COMMITTED, "rt") as lines:
        chosen = (line for line in lines if '"beyond"' in line)
        path.write_text("".join(itertools.islice(chosen, 20)))
    return str(path)


@pytest.mark.parametrize("package", ["pandas", "scipy.stats", "matplotlib.figure"])
def test_a_report_without_a_package_that_it_needs(
    package, few, monkeypatch, capsys, tmp_path
):
    monkeypatch.setitem(sys.modules, package, None)
    figures = ["--figures", str(tmp_path)]
    assert main(["report", "beyond", "--rows", few, *figures]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert package in line
    assert 'pip install "keras-nalu[benchmarks]"`' in line


@pytest.mark.parametrize("option", ["--pack", "--figures"])
def test_a_report_that_cannot_be_written(option, few, capsys, tmp_path):
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "below"
    assert main(["report", "beyond", "--rows", few, option, str(path)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot write: [Errno 20] Not a directory" in line
    assert line.endswith(f"Try another {option}.")


@pytest.mark.slow
def test_tables_and_pictures(capsys, tmp_path):
    pytest.importorskip("matplotlib")
    report = ["report", "single-module-later", "--rows", str(COMMITTED)]
    assert main([*report, "--figures", str(tmp_path / "pictures")]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("## single-module-later, 2 inputs\n\n| operation | module |")
    pictures = sorted((tmp_path / "pictures" / "single-module-later").iterdir())
    assert [path.stem for path in pictures] == ["add", "divide", "heat-map", "multiply"]
    assert sorted(err.split()) == [str(path) for path in pictures]
