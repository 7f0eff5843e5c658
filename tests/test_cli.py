import json
import re
import signal
import subprocess
import sys

import keras
import pytest

import keras_nalu
from keras_nalu.cli import main
from keras_nalu.experiments.notebook import Notebook

COMMAND = [sys.executable, "-m", "keras_nalu"]
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


def test_train_prints_the_notebooks_lines_and_what_it_learned(trained):
    result, folder = trained
    lines = result.stdout.splitlines()
    assert result.returncode == 0
    line = r"epoch {}, loss: \d+\.\d+, accuracy: [01]\.\d+"
    assert re.fullmatch(line.format(0), lines[0])
    assert re.fullmatch(line.format(1), lines[1])
    assert re.search(r"W +x0 [+-]\d\.\d{4} +x1 [+-]\d\.\d{4}\n", result.stdout)
    assert re.search(r"gate +\d\.\d{4} on average", result.stdout)
    assert re.search(r"formula +y: no formula yet, W = ", result.stdout)
    assert re.search(r"NALU, 6 weights +\S+% +\S+%\n", result.stdout)
    assert re.search(r"MLP, 337 weights +\S+% +\S+%\n", result.stdout)
    assert f'keras_nalu.load_model("{folder}/model.keras")' in result.stdout
    assert f"tensorboard --logdir {folder}" in result.stdout


def test_train_is_silent_on_stderr_but_for_what_pytorch_cannot(trained):
    warning = (
        "keras-nalu: TensorBoard's Graphs tab stays empty: the torch backend keeps no "
        "name scopes to draw from. TensorFlow and JAX do: train an epoch with "
        "KERAS_BACKEND=tensorflow to see the graph.\n"
    )
    torch = keras.backend.backend() == "torch"
    assert trained[0].stderr == (warning if torch else "")


def test_train_leaves_a_model_its_settings_and_its_logs(trained):
    _, folder = trained
    model = keras_nalu.load_model(folder / "model.keras")
    assert isinstance(model.layers[0], keras_nalu.NALU)
    settings = json.loads((folder / "config.json").read_text())
    assert settings["size"] == 300
    assert settings["operation"] == "multiply"
    assert list(folder.glob("train/*tfevents*"))


@pytest.mark.parametrize(("seed", "equal"), [("0", True), ("1", False)])
def test_the_same_seed_repeats_a_run_beside_the_first(trained, seed, equal, capsys):
    result, folder = trained
    before = set(folder.parent.iterdir())
    assert main([*QUICK, "--seed", seed, "--output", str(folder.parent)]) == 0
    lines = capsys.readouterr().out.splitlines()[:2]
    assert (lines == result.stdout.splitlines()[:2]) is equal
    assert len(set(folder.parent.iterdir()) - before) == 1


def test_a_trained_formula_is_printed(tmp_path, capsys):
    options = "--epochs 4 --learning-rate 0.1 --output".split()
    assert main(["train", *options, str(tmp_path)]) == 0
    assert re.search(r"formula +y = x0 \* x1\n", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--epochs", "0"], "--epochs: expected a positive whole number, received '0'"),
        (["--size", "many"], "--size: expected a positive whole number"),
        (["--learning-rate", "nan"], "--learning-rate: expected a positive number"),
        (["--seed", "-1"], "--seed: expected a whole number below 2"),
        (["--operation", "power"], "--operation: invalid choice: 'power'"),
        (["--backend", "caffe"], "--backend: invalid choice: 'caffe'"),
        (["--colour", "red"], "unrecognized arguments: --colour red"),
    ],
)
def test_a_bad_option_is_one_line(options, said, capsys):
    assert main(["train", *options]) == 2
    stderr = capsys.readouterr().err
    assert said in stderr
    assert stderr.count("\n") == 1


def test_an_unwritable_folder_is_one_line_before_any_training(tmp_path, capfd):
    (tmp_path / "file").touch()
    assert main(["train", "--output", str(tmp_path / "file")]) == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert re.fullmatch(r"keras-nalu: cannot write: .*Try another --output\.\n", err)


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
        f"keras-nalu: interrupted; what was trained so far is saved as {saved}."
    )
    weights = keras_nalu.load_model(saved).get_weights()
    assert abs(weights[0]).max() > 0.04  # beyond the initializer: trained


def test_a_reader_that_leaves_is_no_error(tmp_path):
    command = " ".join([*COMMAND, *QUICK, "--output", str(tmp_path), "| head -n 1"])
    result = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert result.stdout.startswith("epoch 0, ")
    assert "Error" not in result.stderr


def test_diverged_training_is_said(tmp_path, monkeypatch, capsys):
    def diverge(run, model, callbacks):
        model.set_weights([weights * float("nan") for weights in model.get_weights()])

    monkeypatch.setattr(Notebook, "fit", diverge)
    assert main([*QUICK, "--output", str(tmp_path)]) == 1
    stderr = capsys.readouterr().err
    assert "diverged" in stderr
    assert stderr.count("\n") == 1


def test_help_and_version_load_no_framework():
    code = (
        "import sys; from keras_nalu.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "print({'keras', 'tensorflow', 'jax', 'torch'} & set(sys.modules))"
    )
    for option in "--help", "--version":
        result = subprocess.run(
            [sys.executable, "-c", code, option], capture_output=True, text=True
        )
        assert result.stdout.splitlines()[-1] == "set()"


def test_seeds_counts_the_successes(capsys):
    pytest.importorskip("scipy")
    backend = ["--backend", keras.backend.backend()]
    options = "seeds --count 2 --epochs 1 --size 100".split()
    assert main([*options, *backend]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(
        r"seed 1: first epoch .* none, last accuracy: 0\.\d{4}", lines[1]
    )
    assert lines[2].startswith("0 of 2 seeds reached accuracy 1.0 within 1 epochs")
    assert lines[2].endswith("(95% Wilson interval 0.00 to 0.66)")
