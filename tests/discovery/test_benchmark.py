"""The benchmark's own parts: what counts as exact, and its problems."""

from pathlib import Path

import numpy as np
import pytest
import sympy

from keras_nalu.discovery import benchmark

DATA = Path(__file__).parent / "data"
FEYNMAN = {law.name: law for law in benchmark.laws(DATA / "feynman.csv")}
CLASSIC = {law.name: law for law in benchmark.laws(DATA / "classic.csv")}


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
    assert benchmark.same(omega * c / (c - v), law)
    assert benchmark.same(1.0001 * omega * c / (c - 1.0001 * v), law)
    assert benchmark.same(2 * omega * c / (c - v) * 3, law)  # a constant ratio
    assert not benchmark.same(omega * c / (c - 1.01 * v), law)
    assert not benchmark.same(omega / (1 - v / c) ** 2, law)
    assert not benchmark.same(sympy.Float(2), law)


@pytest.mark.parametrize("name", ["I.16.6", "I.18.4", "II.2.42", "III.10.19", "I.10.7"])
@pytest.mark.parametrize("noise", [0, 0.001])
def test_laws_are_found(name, noise):
    row = benchmark.trial(FEYNMAN[name], 2000, 0, noise)
    assert row["exact"], row["formula"]


@pytest.mark.slow
@pytest.mark.parametrize("law", CLASSIC.values(), ids=CLASSIC)
def test_classics_are_found(law):
    row = benchmark.trial(law, 2000, 1)
    assert row["far"] < 1e-6, row["formula"]
