import contextlib
import json
import os
import re
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import keras_nalu
from keras_nalu.benchmarks.notebook import Notebook
from keras_nalu.cli import main

COMMAND = [sys.executable, "-m", "keras_nalu"]
ROOT = hasattr(os, "geteuid") and os.geteuid() == 0
QUICK = ["train", "--epochs", "2", "--size", "300"]


def run(*options, **kwargs):
    return subprocess.run(
        [*COMMAND, *options], capture_output=True, text=True, timeout=120, **kwargs
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    result = run(*QUICK, "--output", str(folder / "logs"))
    (made,) = (folder / "logs").iterdir()
    return result, made


@pytest.mark.slow
def test_train_prints_what_it_learned_and_leaves_a_model_and_its_logs(trained):
    result, folder = trained
    lines = result.stdout.splitlines()
    assert result.returncode == 0
    line = r"epoch {}, loss: \d+(\.\d+)?, accuracy: [01]\.\d+"
    assert re.fullmatch(line.format(0), lines[0])
    assert re.fullmatch(line.format(1), lines[1])
    assert re.search(r"W +x0 [+-]\d\.\d{4} +x1 [+-]\d\.\d{4}\n", result.stdout)
    assert re.search(r"gate +\d\.\d{4} on average", result.stdout)
    assert re.search(
        r"formula +gate = sigmoid\(.*\)\n"
        r" +y = gate \* .* \+ \(1 - gate\) \* .*\n"
        r" +\(printed digits: up to \S+% off the trained model\)\n",
        result.stdout,
    )
    assert re.search(r"NALU, 6 weights +\S+% +\S+%\n", result.stdout)
    assert re.search(r"MLP, 337 weights +\S+% +\S+%\n", result.stdout)
    assert f"keras_nalu.load_model('{folder}/model.keras')" in result.stdout
    assert f"tensorboard --logdir {folder}" in result.stdout
    # Silent but for what takes seconds, and what PyTorch cannot.
    loading = "keras-nalu: loading Keras ...\n"
    warnings = (
        "keras-nalu: Training step by step, as Keras does: there is no loop on the "
        "device for the torch backend.\n"
        "keras-nalu: TensorBoard's Graphs tab stays empty: the torch backend keeps no "
        "name scopes to draw from. TensorFlow and JAX do: train an epoch with "
        "KERAS_BACKEND=tensorflow to see the graph.\n"
    )
    torch = keras.backend.backend() == "torch"
    assert result.stderr == loading + (warnings if torch else "")
    model = keras_nalu.load_model(folder / "model.keras")
    assert isinstance(model.layers[0], keras_nalu.NALU)
    settings = json.loads((folder / "config.json").read_text())
    assert settings["size"] == 300
    assert settings["operation"] == "multiply"
    assert list(folder.glob("train/*tfevents*"))


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() == "torch", reason="trains no populations")
def test_train_keeps_the_best_of_a_population(tmp_path, capsys):
    options = "--epochs 70 --population 5 --no-mlp --output".split()
    assert main(["train", *options, str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert re.search(r"Trained in \d+ s: 5 members, 70 epochs, seed 0\.\n", out)
    found = re.search(
        r"(\d) of 5 members reached accuracy 1\.0\n"
        r"  95% Wilson interval of the success rate 0\.\d\d to [01]\.\d\d\n"
        r"  first in epoch (\d+), half of them by (\d+), last (\d+)\n\nThe best\n",
        out,
    )
    assert 1 <= int(found[1]) <= 5
    assert 0 <= int(found[2]) <= int(found[3]) <= int(found[4]) < 70
    assert re.search(r"formula +y = x0 \* x1\n", out)
    assert "MLP" not in out
    (folder,) = tmp_path.iterdir()
    kept = keras_nalu.load_model(folder / "model.keras")
    assert kept.count_params() == 6
    assert json.loads((folder / "config.json").read_text())["population"] == 5


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() == "torch", reason="trains no populations")
def test_a_population_that_diverges_is_one_line(tmp_path, monkeypatch, capsys):
    X, Y = Notebook(size=300).data()
    monkeypatch.setattr(Notebook, "data", lambda run: (X, np.full(Y.shape, np.nan)))
    assert main([*QUICK, "--population", "2", "--output", str(tmp_path)]) == 1
    said = "keras-nalu: all members diverged. Try a smaller --learning-rate.\n"
    assert capsys.readouterr().err.endswith(said)


def test_a_population_that_cannot_be_is_one_line(tmp_path, capsys):
    if keras.backend.backend() != "torch":
        pytest.skip("trains populations")
    assert main([*QUICK, "--population", "5", "--output", str(tmp_path)]) == 1
    assert "A population trains on TensorFlow or JAX." in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "equal"), [("0", True), ("1", False)])
def test_the_same_seed_repeats_a_run_beside_the_first(trained, seed, equal, capsys):
    result, folder = trained
    before = set(folder.parent.iterdir())
    assert main([*QUICK, "--seed", seed, "--output", str(folder.parent)]) == 0
    lines = capsys.readouterr().out.splitlines()[:2]
    assert (lines == result.stdout.splitlines()[:2]) is equal
    assert len(set(folder.parent.iterdir()) - before) == 1


@pytest.mark.slow
def test_a_trained_formula_is_printed(tmp_path, capsys):
    options = "--epochs 4 --learning-rate 0.1 --output".split()
    assert main(["train", *options, str(tmp_path)]) == 0
    assert re.search(r"formula +y = x0 \* x1\n", capsys.readouterr().out)


@pytest.mark.skipif(ROOT, reason="root may write anywhere")
def test_a_folder_without_permission_is_one_line(tmp_path, capsys):
    tmp_path.chmod(0o500)
    assert main(["train", "--output", str(tmp_path)]) == 1
    assert "Permission denied" in capsys.readouterr().err


def test_a_size_beyond_memory_is_one_line(tmp_path, capsys):
    size = str(2**40 - 1)
    assert main(["train", "--size", size, "--output", str(tmp_path)]) == 1
    assert "not enough memory" in capsys.readouterr().err


@pytest.mark.slow
def test_the_backend_can_be_chosen(tmp_path):
    pytest.importorskip("jax")
    torch = {**os.environ, "KERAS_BACKEND": "torch"}
    options = [*QUICK, "--backend", "jax", "--output", str(tmp_path)]
    assert run(*options, env=torch).returncode == 0
    events = EventAccumulator(str(next(tmp_path.glob("*/model"))), {"tensors": 0})
    table = events.Reload().Tensors("configuration")[0].tensor_proto.string_val[0]
    assert b"| backend | jax |" in table


@pytest.mark.slow
def test_a_terminal_shows_a_bar(tmp_path):
    ours, theirs = os.openpty()
    options = [*QUICK, "--output", str(tmp_path)]
    process = subprocess.Popen(
        [*COMMAND, *options], stdout=theirs, env={**os.environ, "TERM": "xterm"}
    )
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # Linux says so that the other end is closed.
        while more := os.read(ours, 4096):
            shown += more
    assert process.wait(60) == 0
    assert "━".encode() in shown
    assert b"epoch 1, loss: " in shown
    assert b"formula" in shown


def test_an_unwritable_folder_is_one_line_before_any_training(tmp_path, capfd):
    (tmp_path / "file").touch()
    assert main(["train", "--output", str(tmp_path / "file")]) == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert re.fullmatch(r"keras-nalu: cannot write: .*Try another --output\.\n", err)


@pytest.mark.skipif(os.name == "nt", reason="no such signal there")
def test_ctrl_c_ends_it_while_it_loads(tmp_path):
    command = [*COMMAND, "train", "--output", str(tmp_path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr.readline() == "keras-nalu: loading Keras ...\n"
        process.send_signal(signal.SIGINT)
        assert process.stderr.read() == ""
    assert process.returncode in (-signal.SIGINT, 130)
    assert not [*tmp_path.iterdir()]


@pytest.mark.slow
def test_ctrl_c_saves_what_was_trained(tmp_path):
    process = subprocess.Popen(
        [*COMMAND, "train", "--output", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    first = process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert first.startswith("epoch 0, ")
    assert process.returncode == 130
    (saved,) = tmp_path.glob("*/model.keras")
    assert stderr.splitlines()[-1] == (
        f"keras-nalu: interrupted. The model so far is saved as {saved}."
    )
    weights = keras_nalu.load_model(saved).get_weights()
    assert abs(weights[0]).max() > 0.04  # beyond the initializer: trained


@pytest.mark.slow
def test_a_reader_that_leaves_is_no_error(tmp_path):
    command = " ".join([*COMMAND, *QUICK, "--output", str(tmp_path), "| head -n 1"])
    result = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert result.stdout.startswith("epoch 0, ")
    assert "Error" not in result.stderr
    assert list(tmp_path.glob("*/model.keras"))


def test_diverged_training_is_said(tmp_path, monkeypatch, capsys):
    data = np.ones((30, 2)), np.full((30, 1), np.inf)
    monkeypatch.setattr(Notebook, "data", lambda run: data)
    assert main([*QUICK, "--output", str(tmp_path)]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("keras-nalu: the training diverged: ")
