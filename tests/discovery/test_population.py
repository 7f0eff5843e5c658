"""Products of sums under different powers, by a population."""

import numpy as np
import pytest

from keras_nalu.discovery import population
from keras_nalu.discovery.powers import Reduction, identity
from keras_nalu.discovery.problem import Clock, Problem
from keras_nalu.discovery.selection import refit
from keras_nalu.discovery.tolerant import Task


def task(noise, reduction, law):
    X = np.random.default_rng(0).uniform(1, 5, (800, 4))
    y = law(*X.T)
    random = np.random.default_rng(1)
    noisy = y + noise * np.sqrt(np.mean(y**2)) * random.normal(size=len(y))
    problem = Problem(X, noisy, np.ones(len(y)), Clock(None))
    return X, y, problem, Task.of(problem, reduction)


@pytest.mark.parametrize("noise", [pytest.param(0, marks=pytest.mark.slow), 0.01])
def test_a_sum_times_the_root_of_another_is_among_its_forms(noise):
    # a (1 + b/a) d sqrt(1 + (c/d)^2)
    groups = np.array([[-1.0, 1, 0, 0], [0, 0, 1, -1]])
    X, y, problem, found = task(
        noise,
        Reduction(np.array([1.0, 0, 0, 1]), groups),
        lambda a, b, c, d: (a + b) * np.sqrt(c**2 + d**2),
    )
    forms = [refit(form, problem) for form in population.forms(found)]
    errors = [np.abs(form(X) - y).max() / y.max() for form in forms]
    assert min(errors) < (0.003 if noise else 1e-6)


def test_the_jacobian_is_the_derivative():
    _, _, _, found = task(0, identity(4), lambda a, b, c, d: a + b * c / d)
    members = population.Members(found, np.arange(50))
    y, jacobian = members.jacobian()
    parts = members.outputs(members.values)[1]
    # Where no bracket is held above 0, and not among the largest of numbers.
    smooth = (np.abs(y) < 1e3) & (np.min([part[2] for part in parts], axis=0) > 0.01)
    assert smooth.mean() > 0.3
    for j in np.flatnonzero(~members.fixed[0]):
        moved = members.values.copy()
        moved[:, j] += 1e-6
        difference = (members.outputs(moved)[0] - y) / 1e-6
        np.testing.assert_allclose(
            jacobian[..., j][smooth], difference[smooth], rtol=0.01, atol=0.1
        )


def test_rounding_keeps_what_was_rounded():
    _, _, _, found = task(0, identity(4), lambda a, b, c, d: a + b * c / d)
    members = population.Members(found, np.arange(50))
    for _ in range(12):
        members.round()
        members.step()
    exponents = members.values[:, members.exponents]
    np.testing.assert_array_equal(exponents, np.round(2 * exponents) / 2)


def test_nothing_where_powers_have_no_value():
    X = np.random.default_rng(0).uniform(-1, 1, (100, 2))
    problem = Problem(X, X[:, 0] * X[:, 1], np.ones(100), Clock(None))
    assert population.forms(Task.of(problem, identity(2))) == []
