"""`keras-nalu discover`: a file in, a formula and its folder out."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

import keras_nalu
from keras_nalu.cli import main


@pytest.fixture
def table():
    random = np.random.default_rng(0)
    frame = pd.DataFrame(random.uniform(1, 5, (120, 3)), columns=["m", "v", "r (m)"])
    return frame.assign(F=frame["m"] * frame["v"] ** 2 / frame["r (m)"])


@pytest.fixture
def typed(tmp_path, capsys):
    """Writes the table, runs the command, and gives its status, output and error."""

    def run(frame, *options, name="data.csv", **kwargs):
        if frame is not None:
            frame.to_csv(tmp_path / name, index=False, **kwargs)
        output = "--output", str(tmp_path / "logs")
        status = main(["discover", str(tmp_path / name), *options, *output])
        return status, *capsys.readouterr()

    return run


def test_a_formula_its_errors_and_its_folder(table, typed, tmp_path):
    status, out, err = typed(table, "--target", "F")
    assert (status, err) == (0, "")
    assert ">>>>           5" in out
    assert "\nFormula  F = m*v**2/`r (m)`\n" in out
    assert re.search(
        r"Error    \S+e-1\d of the root mean square of F, \S+e-1\d on", out
    )
    (folder,) = (tmp_path / "logs").iterdir()
    made = "formula.json", "formula.tex", "formula.txt", "model.keras", "predicted.png"
    assert {file.name for file in folder.iterdir()} == {*made}
    assert (folder / "formula.txt").read_text() == "F = m*v**2/`r (m)`\n"
    assert (folder / "formula.tex").read_text().startswith(r"\frac{m v^{2}}{")
    told = json.loads((folder / "formula.json").read_text())
    assert told["extrapolation_error"] < 1e-9
    assert told["features"] == ["m", "v", "r (m)"]
    assert [row["equation"] for row in told["equations"]].count("m*v**2/`r (m)`") == 1
    model = keras_nalu.load_model(folder / "model.keras")
    X = table[["m", "v", "r (m)"]].to_numpy()
    np.testing.assert_allclose(model.predict(X, verbose=0)[:, 0], table["F"], 1e-5)


def test_the_picture_shows_both_kinds_of_rows(table):
    from keras_nalu.discovery.figure import predicted_against_true

    X, y = table.drop(columns="F"), table["F"]
    model = keras_nalu.ArithmeticRegressor().fit(X, y)
    (axes,) = predicted_against_true(model, X, y).axes
    inside, outside = (points.get_offsets() for points in axes.collections)
    assert (len(inside), len(outside)) == (108, 12)
    assert inside[:, 0].max() < outside[:, 0].max()
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("F, true", "F, predicted")


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_separators_and_chosen_columns(table, typed, separator):
    table.insert(0, "who", "me")
    chosen = "--features", "m", "v", "r (m)"
    status, out, _ = typed(table, "--target", "F", *chosen, sep=separator)
    assert status == 0
    assert "Formula  F = m*v**2/`r (m)`" in out


def test_parquet(table, typed, tmp_path):
    pytest.importorskip("pyarrow")
    table.to_parquet(tmp_path / "data.parquet")
    status, out, _ = typed(None, "--target", "F", name="data.parquet")
    assert status == 0
    assert "Formula  F = m*v**2/`r (m)`" in out


def test_parquet_needs_pyarrow(typed, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    status, _, err = typed(None, "--target", "F", name="data.parquet")
    assert status == 1
    assert 'pip install "keras-nalu[parquet]"`' in err


@pytest.mark.parametrize(
    ("change", "options", "said"),
    [
        (None, ["--target", "F"], "there is no file "),
        ({}, ["--target", "f"], "no column 'f'. Expected one of 'F'."),
        (
            {},
            ["--target", "F", "--features", "r(m)"],
            "no column 'r(m)'. Expected one of 'r (m)'",
        ),
        (
            {},
            ["--target", "F", "--features", "m", "F"],
            "--features names the target 'F'. Leave it out.",
        ),
        ({"who": "me"}, ["--target", "F"], "Try --features m v 'r (m)'."),
        ({"F": "high"}, ["--target", "F"], "--target F: expected a column of numbers"),
        ({"m": np.nan}, ["--target", "F"], "column 'm' has 120 missing or infinite"),
        ({"v": np.inf}, ["--target", "F"], "column 'v' has 120 missing or infinite"),
        ({}, [], "required: --target"),
    ],
)
def test_what_cannot_be_is_one_line(change, options, said, table, typed, tmp_path):
    frame = None if change is None else table.assign(**change)
    status, _, err = typed(frame, *options)
    assert status == 2
    assert said in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "logs").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "is empty"),
        (b"a,y\n", "expected 2 rows at least, received 0"),
        (b"y\n1\n2\n", "no column is left to explain"),
        (b"1,2\n3,4\n5,6\n", "begins with numbers"),
        (b"a,y\n1,2,3\n5,6,7\n", "more values than its first line has names"),
        (b"\xff\xfe\x00a\n", "is not a CSV file in UTF-8"),
    ],
)
def test_files_that_are_no_tables(text, said, typed, tmp_path):
    (tmp_path / "data.csv").write_bytes(text)
    status, _, err = typed(None, "--target", "y")
    assert status == 2
    assert said in err


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="no SIGINT for one process alone")
def test_ctrl_c_keeps_the_best_so_far(tmp_path):
    random = np.random.default_rng(0)
    frame = pd.DataFrame(random.uniform(1, 5, (3000, 7)), columns=[*"abcdefg"])
    frame["y"] = np.sin(frame.a * frame.b) + np.exp(frame.c / frame.d) * frame.e
    frame.to_csv(tmp_path / "hard.csv", index=False)
    asked = ["--target", "y", "--timeout", "500", "--output", "logs"]
    running = subprocess.Popen(
        [sys.executable, "-m", "keras_nalu", "discover", "hard.csv", *asked],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    try:
        assert running.stdout.readline() == "Reading hard.csv\n"
        assert "3000 rows; searching y = f(a, b, c, d, e, f, g)" in (
            running.stdout.readline()
        )
        time.sleep(4)  # long enough to be searching, far from the end
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=100)
    finally:
        running.kill()
    assert running.returncode == 0, err
    assert "does not know sin, exp and log" in out
    (folder,) = (tmp_path / "logs").iterdir()
    assert (folder / "formula.txt").read_text().startswith("y = ")
    assert (folder / "model.keras").exists()
