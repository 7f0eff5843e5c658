"""What scikit-learn asks of an estimator, and its tools around ours."""

import pickle

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import parametrize_with_checks

from keras_nalu import ArithmeticRegressor


@pytest.fixture
def energy():
    X = np.random.default_rng(0).uniform(1, 5, (200, 2))
    return X, 0.5 * X[:, 0] * X[:, 1] ** 2


@pytest.mark.filterwarnings("ignore")  # the checks' own, of their estimators' data
@parametrize_with_checks([ArithmeticRegressor(timeout=2)])
def test_estimator_checks(estimator, check):
    check(estimator)


def test_clone_keeps_what_was_asked():
    asked = dict(
        timeout=3,
        noise=0.1,
        model_selection="accuracy",
        exponent_step=1,
        max_features=4,
        random_state=7,
        verbose=0,
    )
    assert clone(ArithmeticRegressor(**asked)).get_params() == asked


def test_cross_validation_is_exact_on_rows_it_has_not_seen(energy):
    scores = cross_val_score(ArithmeticRegressor(), *energy, cv=4)
    np.testing.assert_allclose(scores, 1, atol=1e-12)


@pytest.mark.slow
def test_grid_search_finds_the_step_that_the_law_needs(energy):
    X, _ = energy
    grid = {"exponent_step": [1, 0.5]}
    search = GridSearchCV(ArithmeticRegressor(timeout=5), grid, cv=3)
    search.fit(X, np.sqrt(X[:, 0]) * X[:, 1])
    assert search.best_params_ == {"exponent_step": 0.5}


def test_a_pipeline_hands_names_on(energy):
    X, y = energy
    frame = pd.DataFrame(X, columns=["m", "v"])
    pipeline = make_pipeline(FunctionTransformer(), ArithmeticRegressor())
    pipeline.fit(frame, y)
    assert pipeline[-1].formula_ == "y = 0.5*m*v**2"
    np.testing.assert_allclose(pipeline.predict(frame), y)


@pytest.mark.parametrize("via", ["pickle", "joblib"])
def test_what_was_fitted_survives_a_file(energy, via, tmp_path):
    X, y = energy
    fitted = ArithmeticRegressor().fit(X, y)
    if via == "pickle":
        back = pickle.loads(pickle.dumps(fitted))
    else:
        joblib.dump(fitted, tmp_path / "model")
        back = joblib.load(tmp_path / "model")
    assert back.formula_ == fitted.formula_
    assert back.sympy() == fitted.sympy()
    np.testing.assert_array_equal(back.predict(X), fitted.predict(X))
