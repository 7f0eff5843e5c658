"""The benchmark's own parts: what counts as exact, and its problems."""

import numpy as np
import pytest
import sympy

from keras_nalu.benchmarks import discovery
from keras_nalu.cli import main

FEYNMAN, CLASSIC = (
    {law.name: law for law in discovery.laws(discovery.FOLDER / f"{name}.csv")}
    for name in discovery.SETS
)


def test_the_problems_are_those_of_the_table():
    groups = [law.group for law in FEYNMAN.values()]
    assert [groups.count(group) for group in "MRS"] == [38, 26, 17]
    assert len(CLASSIC) == 22


@pytest.mark.parametrize(
    "law", [*FEYNMAN.values(), *CLASSIC.values()], ids=lambda law: law.name
)
def test_every_law_has_values_in_its_ranges(law):
    X, y = law.sample(500, 0)
    assert X.shape == (500, len(law.ranges))
    assert np.isfinite(y).mean() > 0.99


def test_what_counts_as_exact():
    law = FEYNMAN["I.34.1"]  # omega_0 / (1 - v / c)
    omega, v, c = sympy.symbols("x0 x1 x2")
    assert discovery.same(omega * c / (c - v), law)
    assert discovery.same(1.0001 * omega * c / (c - 1.0001 * v), law)
    assert discovery.same(2 * omega * c / (c - v) * 3, law)  # a constant ratio
    assert not discovery.same(omega * c / (c - 1.01 * v), law)
    assert not discovery.same(omega / (1 - v / c) ** 2, law)
    assert not discovery.same(sympy.Float(2), law)


@pytest.mark.parametrize("name", ["I.16.6", "I.18.4", "II.2.42", "III.10.19", "I.10.7"])
@pytest.mark.parametrize("noise", [0, pytest.param(0.001, marks=pytest.mark.slow)])
def test_laws_are_found(name, noise):
    row = discovery.Trial(name, rows=2000, noise=noise).run()
    assert row["exact"], row["formula"]


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSIC)
def test_classics_are_found(name):
    row = discovery.Trial(name, "classic", seed=1, rows=2000).run()
    assert row["far"] < 1e-6, row["formula"]


@pytest.mark.parametrize(("digits", "error"), [(6, 5e-6), (32, 6e-8), (64, 0)])
def test_noise_is_in_the_answers_of_the_rows_that_train(digits, error):
    law = FEYNMAN["I.16.6"]
    X, y = discovery.Trial(law.name, digits=digits, rows=400).data(law)
    _, noisy = discovery.Trial(law.name, noise=0.1, digits=digits, rows=400).data(law)
    assert X.shape == (300, 3)
    right = (X[:, 0] + X[:, 1]) / (1 + X[:, 0] * X[:, 1] / X[:, 2] ** 2)
    np.testing.assert_allclose(y, right, rtol=6 * error + 1e-12)
    share = np.std(noisy - y) / np.sqrt(np.mean(y**2))
    assert 0.08 < share < 0.12


def test_the_command_keeps_rows_and_prints_their_table(tmp_path, capsys):
    asked = ["benchmark", "discovery", "--only", "I.12.1", "I.34.1", "--workers", "1"]
    asked += ["--timeout", "20", "--output", str(tmp_path)]
    assert main([*asked, "--dry-run"]) == 0
    assert "0 of 2 have rows" in capsys.readouterr().out
    assert main(asked) == 0
    out = capsys.readouterr().out
    assert "2/2  I.34.1, keras_nalu: exact" in out
    assert "| all | 2 of 2 | 34 to 100 | 2 | 2 |" in out
    assert main(asked) == 0
    again = capsys.readouterr().out
    assert "2 of 2 have rows already" in again
    assert again.partition("\n\n")[2] == out.partition("\n\n")[2]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ["discovery", "--steps", "4"],
            "--steps does not apply to the suite",
        ),
        (["division", "--noise", "0"], "--noise only applies to the suite"),
        (["discovery", "--only", "NMU"], "no law of these sets is called NMU"),
    ],
)
def test_options_of_other_suites(options, said, capsys):
    assert main(["benchmark", *options]) == 2
    assert said in capsys.readouterr().err


def test_a_rival_that_is_not_there(capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["benchmark", "discovery", "--rivals", "gplearn"]) == 1
    assert 'pip install "gplearn"`' in capsys.readouterr().err
