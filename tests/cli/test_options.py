"""Whatever is typed, a command starts, or says in one line why not."""

import contextlib
import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_nalu.cli import benchmark, discover, main, train

COMMANDS = {
    "train": (train, "_train"),
    "discover": (discover, "_discover"),
    "benchmark": (benchmark, "_benchmark"),
    "report": (benchmark, "_report"),
}
OPTIONS = [
    *("--operation", "--size", "--epochs", "--batch-size", "--learning-rate"),
    *("--seed", "--population", "--output", "--no-mlp", "--backend", "--list"),
    *("--only", "--seeds", "--steps", "--threshold", "--workers", "--rows", "--pack"),
]
ARGUMENT = st.one_of(
    st.text(max_size=6),
    st.integers().map(str),
    st.floats().map(str),
    st.sampled_from(
        ["", " ", "-", "--", "1e5", "0x10", "1_0", "9" * 5000, "a\nb", "a\0b", "\udcff"]
    ),
)


def typed(*argv):
    """The status, and whether a command was started."""
    started, err = [], io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(err):
        for module, function in COMMANDS.values():
            patch.setattr(module, function, started.append)
        with contextlib.redirect_stdout(io.StringIO()):
            status = main([*argv])
    said = err.getvalue()
    assert status in (0, 2)
    assert (status == 0) is bool(started)
    if status:
        assert said.startswith("keras-nalu: "), said
        assert len(said.splitlines()) == 1, said
    return status


@given(
    command=st.sampled_from([*COMMANDS]),
    option=st.sampled_from(OPTIONS),
    text=ARGUMENT,
)
def test_an_option(command, option, text):
    typed(command, f"{option}={text}")


@given(
    st.lists(st.one_of(ARGUMENT, st.sampled_from([*COMMANDS, *OPTIONS])), max_size=5)
)
def test_a_command_line_of_anything(argv):
    with contextlib.suppress(SystemExit):  # Asked for help.
        typed(*argv)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_no_empty_default(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    out = capsys.readouterr().out
    assert "(default: logs" in out
    assert not re.search(r"default: (None|False|\(\))", out)


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_option_points_to_the_help_of_its_command(command, capsys):
    required = ["file", "--target", "y"] * (command == "discover")
    assert main([command, *required, "--nothing"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "unrecognized arguments: --nothing. See `" in line
    assert line.endswith(f" {command} --help`.")


@pytest.mark.parametrize(
    ("command", "option", "right", "wrong"),
    [
        ("train", "--size", "7", "0"),
        ("train", "--learning-rate", "1e-3", "nan"),
        ("train", "--seed", "0", "-1"),
        ("train", "--operation", "add", "power"),
        ("benchmark", "--workers", "2", "0"),
        ("benchmark", "--threshold", "perturbed", "1e-6"),
        ("report", "--rows", "logs", "\udcff"),
    ],
)
def test_what_an_option_takes(command, option, right, wrong):
    assert typed(command, option, right) == 0
    assert typed(command, f"{option}={wrong}") == 2
