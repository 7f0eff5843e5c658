"""Data as people have them: a right formula, or an error that names the argument."""

import re
import time

import numpy as np
import pandas as pd
import pytest

from keras_nalu import ArithmeticRegressor


def sample(rows=300, columns=3, low=1.0, high=5.0, seed=0):
    return np.random.default_rng(seed).uniform(low, high, (rows, columns))


def error_far(model, law, low=1.0, high=25.0, columns=3):
    """The largest relative error up to five times outside."""
    X = sample(400, columns, low, high, seed=9)
    y = law(*X.T)
    return np.max(np.abs(model.predict(X) - y) / np.abs(y))


LAWS = {
    "a product": lambda a, b, c: a * b,
    "a quotient": lambda a, b, c: a / (b + c),
    "a line": lambda a, b, c: a + 2 * b - 3 * c + 40,
    "a root": lambda a, b, c: np.sqrt(a**2 + b * c),
    "a constant in it": lambda a, b, c: 9.81 * a / (1 + 0.37 * b),
    "a root and a term": lambda a, b, c: b + np.sqrt(a**2 + b * c),
    "two brackets": lambda a, b, c: (a + b) / (1 + a * b / c**2),
}


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_a_law_is_found_and_holds_far_outside(law):
    X = sample()
    model = ArithmeticRegressor().fit(X, law(*X.T))
    assert error_far(model, law) < 1e-6
    assert model.extrapolation_error_ < 1e-9
    assert model.undecided_ == []
    assert model.verdict_ == ""


@pytest.mark.parametrize("kind", [np.float32, np.int64])
def test_numbers_of_any_kind(kind):
    X = sample(high=50).astype(kind)
    model = ArithmeticRegressor(timeout=20).fit(X, X[:, 0] * X[:, 1] - X[:, 2])
    assert model.formula_ == "y = x0*x1 - x2"


def test_float32_answers_and_six_digits():
    X = sample()
    y = X[:, 0] / (X[:, 1] + X[:, 2])
    rounded = np.array([float(f"{value:.6g}") for value in y])
    for answers in y.astype(np.float32), rounded:
        model = ArithmeticRegressor(timeout=30).fit(X, answers)
        assert error_far(model, LAWS["a quotient"]) < 1e-4


@pytest.mark.parametrize("low", [-5, -0.5])
def test_negative_inputs(low):
    X = sample(low=low)
    law = X[:, 0] * X[:, 1] ** 2 - 2 * X[:, 2]
    model = ArithmeticRegressor().fit(X, law)
    np.testing.assert_allclose(model.predict(X), law, atol=1e-9)
    assert model.formula_ == "y = x0*x1**2 - 2*x2"


def test_signs_below_a_root():
    X = sample(low=1) * [1, 1, 2] - [0, 0, 6]
    law = X[:, 0] * np.sqrt(X[:, 2] ** 2 + X[:, 0] ** 2 * X[:, 1] ** 2)
    model = ArithmeticRegressor().fit(X, law)
    assert model.formula_ == "y = x0*sqrt(x0**2*x1**2 + x2**2)"


def test_zeros():
    X = sample(low=0).round()
    model = ArithmeticRegressor().fit(X, X[:, 0] * X[:, 1] + X[:, 2])
    assert model.formula_ == "y = x0*x1 + x2"


@pytest.mark.parametrize("unit", [1e-30, 1e30])
def test_units_of_physics(unit):
    X = sample() * [unit, 1 / unit, 1]
    y = X[:, 0] * X[:, 2] / X[:, 1] * unit
    model = ArithmeticRegressor().fit(X, y)
    np.testing.assert_allclose(model.predict(X), y, rtol=1e-9)
    assert re.search(r"x0\*x2/x1", model.formula_)
    y = unit * (X[:, 0] / unit + X[:, 1] * unit) * X[:, 2]
    model = ArithmeticRegressor().fit(X, y)
    np.testing.assert_allclose(model.predict(X), y, rtol=1e-9)


@pytest.mark.parametrize("low", [0.0, 1e3, 1e6])
def test_an_irrelevant_column_gets_no_term_of_the_size_of_rounding(low):
    X = sample(100, 4)
    X[:, 2:] += low
    model = ArithmeticRegressor().fit(X, X[:, 0] + 2 * X[:, 1] + 3)
    assert model.formula_ == "y = x0 + 2*x1 + 3"


def test_columns_that_say_nothing():
    X = sample(400, 2)
    noise = sample(400, 20, seed=1)
    constant, copy = np.full((400, 1), 3.0), X[:, :1]
    wide = np.hstack([noise, X, constant, copy])
    model = ArithmeticRegressor().fit(wide, X[:, 0] / X[:, 1])
    assert model.formula_ == "y = x20/x21"


def test_a_constant_answer():
    model = ArithmeticRegressor().fit(sample(), np.full(300, 2.5))
    assert model.formula_ == "y = 2.5"
    assert ArithmeticRegressor().fit(sample(), np.zeros(300)).formula_ == "y = 0"


def test_constant_columns_alone():
    model = ArithmeticRegressor().fit(np.ones((40, 2)), np.arange(40.0))
    np.testing.assert_allclose(model.predict(np.ones((1, 2))), 19.5)


def test_more_columns_than_rows():
    X = sample(10, 30)
    model = ArithmeticRegressor(timeout=10).fit(X, X[:, 0])
    assert np.isfinite(model.predict(X)).all()


def test_an_exact_fit_of_as_many_constants_as_rows_is_said():
    X, y = sample(5, 4), sample(5, 1, seed=1)[:, 0]
    verdict = ArithmeticRegressor().fit(X, y).verdict_
    assert "for 5 rows: the data are too few" in verdict


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("where", ["X", "y", "sample_weight"])
def test_what_is_not_finite_is_named(value, where):
    given = {"X": sample(), "y": np.ones(300), "sample_weight": np.ones(300)}
    given[where].flat[4] = value
    with pytest.raises(ValueError, match=where):
        ArithmeticRegressor().fit(**given)


def test_text_and_one_row_are_refused():
    with pytest.raises(ValueError, match="numeric values"):
        ArithmeticRegressor().fit([["a"], ["b"]], [1, 2])
    with pytest.raises(ValueError, match="minimum of 2 is required"):
        ArithmeticRegressor().fit([[1.0]], [1.0])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("timeout", -1),
        ("timeout", "long"),
        ("noise", -0.1),
        ("model_selection", "shortest"),
        ("exponent_step", 0.3),
        ("max_features", 0),
        ("max_features", 2.5),
    ],
)
def test_a_parameter_that_cannot_be_is_named(name, value):
    message = f"{name} must be .* Received: {re.escape(repr(value))}"
    with pytest.raises(ValueError, match=message):
        ArithmeticRegressor(**{name: value}).fit(sample(), np.arange(300.0))


def test_names_of_any_characters():
    frame = pd.DataFrame(sample(300, 2), columns=["net mass (kg)", "speed_%"])
    y = pd.Series(frame.iloc[:, 0] * frame.iloc[:, 1], name="p")
    model = ArithmeticRegressor().fit(frame, y)
    assert model.formula_ == "p = `net mass (kg)`*`speed_%`"
    assert model.latex() == r"\text{net mass (kg)} \text{speed\_\%}"
    assert {str(s) for s in model.sympy().free_symbols} == set(frame.columns)


def test_several_outputs():
    X = sample()
    Y = np.stack([X[:, 0] * X[:, 1], X[:, 2] ** 2], axis=1)
    model = ArithmeticRegressor().fit(X, Y)
    assert model.formula_ == "y0 = x0*x1\ny1 = x2**2"
    np.testing.assert_allclose(model.predict(X), Y)
    assert len(model.equations_) == len(model.sympy()) == len(model.latex()) == 2
    assert [row.equation for row in model.get_best()] == ["x0*x1", "x2**2"]
    np.testing.assert_allclose(model.extrapolation_error_, 0, atol=1e-12)


def test_weights_say_which_rows_count():
    X = sample()
    y = X[:, 0] * X[:, 1]
    spoilt = np.arange(300) % 3 == 0
    y[spoilt] = 100
    model = ArithmeticRegressor().fit(X, y, sample_weight=1.0 - spoilt)
    assert model.formula_ == "y = x0*x1"


@pytest.mark.parametrize("weight", [-np.ones(300), np.zeros(300)])
def test_weights_that_cannot_be_are_named(weight):
    with pytest.raises(ValueError, match=r"[Ss]ample.weight"):
        ArithmeticRegressor().fit(sample(), np.arange(300.0), sample_weight=weight)


def test_the_same_seed_gives_the_same_formula():
    X = sample(400)
    y = X[:, 0] / (X[:, 1] + X[:, 2]) + 0.01 * sample(400, 1, -1, 1, 5)[:, 0]
    first, second = (
        ArithmeticRegressor(random_state=3, timeout=None).fit(X, y) for _ in range(2)
    )
    pd.testing.assert_frame_equal(first.equations_, second.equations_)


def test_the_table():
    X = sample()
    model = ArithmeticRegressor().fit(X, X[:, 0] / (X[:, 1] + X[:, 2]))
    table = model.equations_
    assert list(table.columns) == ["complexity", "loss", "score", "equation"]
    assert table.complexity.is_monotonic_increasing
    assert model.get_best().equation == "x0/(x1 + x2)"
    for index, row in table.iterrows():  # what the table says is what predict does
        missed = model.predict(X, index=index) - X[:, 0] / (X[:, 1] + X[:, 2])
        error = np.mean(missed**2)
        np.testing.assert_allclose(error, row.loss, rtol=1e-6, atol=1e-25)
    assert ">>>>" in repr(model)
    with pytest.raises(ValueError, match="index is 99"):
        model.predict(X, index=99)


def test_noise_that_hides_a_choice_leaves_it_undecided():
    X = sample(60, 2, 1, 1.3)
    noise = np.random.default_rng(1).normal(size=60)
    y = np.sqrt(X[:, 0] * X[:, 1]) + 0.05 * noise
    assert ArithmeticRegressor(timeout=20).fit(X, y).undecided_


@pytest.mark.parametrize("name", ["a product", "a quotient"])
def test_noise_that_is_a_share_of_y(name):
    law = {**LAWS, "a product": lambda a, b, c: 3 * a * b / c**2}[name]
    for seed in range(3):
        random = np.random.default_rng(seed)
        X = sample(200, 5, seed=seed)
        y = law(*X.T[:3]) * random.normal(1, 0.01, len(X))
        model = ArithmeticRegressor(timeout=30).fit(X, y)
        assert error_far(model, lambda *x: law(*x[:3]), columns=5) < 1e-9
        assert (model.verdict_, model.undecided_) == ("", [])


def test_no_text_is_there_twice():
    X = sample(100)
    model = ArithmeticRegressor(timeout=10).fit(X, np.sin(X[:, 0]))
    texts = [*model.equations_["equation"]]
    assert len({*texts}) == len(texts) > 1
    assert len({*model.undecided_, model.formula_.split(" = ")[1]}) == 1 + len(
        model.undecided_
    )


OUTSIDE = {
    "sin": lambda a, b, c: np.sin(3 * a),
    "exp": lambda a, b, c: np.exp(a),
    "log": lambda a, b, c: c * np.log(1 + a / b),
    "power": lambda a, b, c: a**b,
    "smooth max": lambda a, b, c: np.logaddexp(a, b * c),
    "planck": lambda a, b, c: a**3 / np.expm1(a * b),
    "cosine law": lambda a, b, c: np.sqrt(a**2 + b**2 - 2 * a * b * np.cos(c)),
    "tanh": lambda a, b, c: a * np.tanh(b),
    "cube root": lambda a, b, c: b * np.cbrt(a),
    "three roots": lambda a, b, c: np.sqrt(a) + np.sqrt(b + c) + np.sqrt(1 + a * c),
    "step": lambda a, b, c: (a > 2) * b,
    "arctan": lambda a, b, c: np.arctan2(a, b),
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name != "sin"))
        for name in OUTSIDE
    ],
)
def test_what_is_outside_the_class_is_said(name):
    X = sample()
    y = OUTSIDE[name](*X.T)
    model = ArithmeticRegressor(timeout=4).fit(X, y)
    warnings = "does not know sin, exp and log", "may be an approximation"
    assert any(text in model.verdict_ for text in warnings), model.formula_


def test_noise_alone_is_no_misfit():
    X = sample(1000)
    random = np.random.default_rng(2)
    y = X[:, 0] * X[:, 1] / X[:, 2]
    for noise in np.sqrt(np.mean(y**2)), y:  # of one size, and a share of y
        noisy = y + 0.05 * noise * random.normal(size=len(y))
        assert ArithmeticRegressor(timeout=10).fit(X, noisy).verdict_ == ""


def test_the_timeout_is_kept_and_gives_an_answer():
    X = sample(3000, 7)
    a, b, c, d, e, f, g = X.T
    y = np.sin(a * b) + np.exp(c / d) * e - f * g
    begin = time.monotonic()
    model = ArithmeticRegressor(timeout=2).fit(X, y)
    assert time.monotonic() - begin < 2 + 2
    assert np.isfinite(model.predict(X)).all()


def test_ctrl_c_keeps_the_best_so_far(monkeypatch):
    from keras_nalu.discovery import nullspace

    def interrupted(problem):
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(nullspace, "relations", interrupted)
    X = sample()
    y = X[:, 0] / (X[:, 1] + X[:, 2])
    model = ArithmeticRegressor().fit(X, y)
    assert 0.5 < model.score(X, y) < 1  # a line or a power law, which came before


def test_the_room_loads_no_framework():
    import subprocess
    import sys

    code = (
        "import sys, numpy as np, keras_nalu;"
        "X = np.random.default_rng(0).uniform(1, 5, (50, 2));"
        "keras_nalu.ArithmeticRegressor().fit(X, X[:, 0] * X[:, 1]);"
        "print([m for m in 'keras tensorflow jax torch'.split() if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
