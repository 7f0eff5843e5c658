"""Whatever is typed or set: one line, and never a traceback."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from keras_nalu.cli import main
from keras_nalu.cli.running import program, quoted

COMMAND = [sys.executable, "-m", "keras_nalu"]
full_disk = pytest.mark.skipif(
    not Path("/dev/full").exists(), reason="no full disk at hand"
)


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


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["no", "dictionary"], "cannot compute with its settings ("),
        pytest.param(
            {"backend": "numpy"},
            "to numpy, which cannot train. Try --backend tensorflow",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"backend": "none of them"},
            "Unable to import backend : none of them. Try ",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_file_of_settings_that_does_not_train(settings, said, tmp_path):
    (tmp_path / "keras.json").write_text(json.dumps(settings))
    line = failed(KERAS_HOME=str(tmp_path), KERAS_BACKEND="")
    assert said in line
    assert str(tmp_path / "keras.json") in line


@pytest.mark.slow
def test_a_device_that_there_is_not():
    pytest.importorskip("jax")
    line = failed(KERAS_BACKEND="jax", JAX_PLATFORMS="none of them")
    assert "(KERAS_BACKEND=jax and JAX_PLATFORMS=none of them" in line


@pytest.mark.slow
def test_a_backend_that_is_not_installed():
    code = "import sys; sys.modules['jax'] = None; from keras_nalu.cli import main\n"
    code += "sys.exit(main(['train', '--backend', 'jax']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    _, line = done.stderr.splitlines()
    assert line.startswith("keras-nalu: Keras cannot compute ")


def failed(**settings):
    """The line that the command ends with."""
    done = subprocess.run(
        [*COMMAND, "train"],
        capture_output=True,
        text=True,
        env=os.environ | settings,
        check=False,
    )
    assert done.returncode == 1
    loading, line = done.stderr.splitlines()
    assert loading == "keras-nalu: loading Keras ..."
    assert line.startswith("keras-nalu: Keras ")
    return line


@pytest.mark.parametrize("name", ["\udcff", "a\0b", ""])
def test_names_that_no_folder_has(name, capsys):
    assert main(["train", "--output", name]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "--output: expected a path of " in line


@pytest.mark.skipif(os.name == "nt", reason="names are always Unicode there")
def test_a_name_that_the_locale_cannot_write():
    settings = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [*COMMAND, "train", "--output", "\u65e5"],
        capture_output=True,
        text=True,
        env=os.environ | settings,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("keras-nalu: argument --output: expected a path of ")


@full_disk
@pytest.mark.parametrize("option", ["--help", "--version"])
def test_a_full_disk(option):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*COMMAND, option], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("keras-nalu: cannot write: [Errno 28]")


def test_an_error_that_nobody_thought_of_is_one_line(monkeypatch, capsys):
    def breaks(options):
        raise ZeroDivisionError("of all things")

    monkeypatch.setattr("keras_nalu.cli.benchmark._report", breaks)
    assert main(["report"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("keras-nalu: ZeroDivisionError: of all things. For the ")


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


@pytest.mark.skipif(os.name == "nt", reason="another shell")
def test_printed_commands_are_found_by_the_shell(monkeypatch):
    monkeypatch.setenv("PATH", "")
    for name, module in [("keras-nalu", "keras_nalu"), ("no such", "tensorboard.main")]:
        program_path, *rest = shlex.split(program(name, module))
        assert Path(program_path).exists()
        assert rest in ([], ["-m", module])
    assert shlex.split(quoted("a folder's name")) == ["a folder's name"]
