"""`ArithmeticRegressor`: arrays in, formulas out."""

import numbers

import numpy as np
import threadpoolctl
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import (
    _check_sample_weight,
    check_is_fitted,
    validate_data,
)

from keras_nalu.discovery.answers import quoted
from keras_nalu.discovery.discover import Settings, discover
from keras_nalu.discovery.problem import Clock
from keras_nalu.discovery.progress import progress


class ArithmeticRegressor(MultiOutputMixin, RegressorMixin, BaseEstimator):
    """Finds the formula of products, quotients, sums, powers and roots behind data.

        y = c x^p prod_b (sum_k c_bk x^p_bk)^q_b

    In data without noise, exact linear algebra finds it, and also a root plus a
    rational function. In data with noise, sparse regression proposes formulas, and the
    shortest description chooses one. The search does not know sin, exp and log; if no
    formula fits, `verdict_` says so. If noise that grows with y explains the residual
    far better, the search weighs the rows by about `1 / y**2`.

    Args:
        timeout: Seconds that `fit` may search, for all outputs together; it returns
            the best formula so far. `None` sets no limit. Ctrl-C ends the search, too.
        noise: The noise of y as a share of its root mean square, if you know it: the
            search explains no smaller error. `None` estimates it.
        model_selection: `"best"` takes the shortest description, `"accuracy"` the
            smallest loss.
        exponent_step: Exponents are multiples of it: 1, 1/2, 1/3, ..., 1/12.
        max_features: The most columns that the formula may use; `None` keeps at most 12
            if there are more than 8.
        random_state: Seed for sampling rows, if there are more than 10,000.
        verbose: 1 shows the stage of the search in a terminal.

    Attributes:
        formula_: The chosen formula as text, one line per output.
        equations_: A DataFrame of complexity, loss (mean square), score and equation,
            the simplest first; a list of them for several outputs.
        undecided_: Texts of the formulas that the data cannot distinguish from the
            chosen one; a list of such lists for several outputs.
        extrapolation_error_: Relative error on the outer tenth of the data of the
            formula that was fitted to the inner rows; NaN with fewer than 30 rows. An
            array for several outputs.
        verdict_: A warning about the formula, or an empty text; one line per output.
        n_features_in_, feature_names_in_: As in scikit-learn.

    Raises:
        ValueError: A parameter, X, y or the weights are out of range.

    Example:

    >>> X = np.random.default_rng(0).uniform(1, 5, (100, 2))
    >>> model = ArithmeticRegressor().fit(X, 0.5 * X[:, 0] * X[:, 1] ** 2)
    >>> model.formula_
    'y = 0.5*x0*x1**2'
    """

    def __init__(
        self,
        *,
        timeout=60,
        noise=None,
        model_selection="best",
        exponent_step=0.5,
        max_features=None,
        random_state=None,
        verbose=0,
    ):
        self.timeout = timeout
        self.noise = noise
        self.model_selection = model_selection
        self.exponent_step = exponent_step
        self.max_features = max_features
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X, y, sample_weight=None):
        """Search for a formula for each output.

        Args:
            X: Array or DataFrame, (rows, features), of finite numbers.
            y: (rows,) or (rows, outputs), finite.
            sample_weight: (rows,); a weight of 2 equals the row twice.

        Returns:
            The estimator.
        """
        check(self)
        target = y.name if hasattr(y, "name") else None
        X, y = validate_data(
            self, X, y, multi_output=True, y_numeric=True, ensure_min_samples=2
        )
        X, y = X.astype(np.float64), y.astype(np.float64)
        weight = _check_sample_weight(sample_weight, X, dtype=np.float64)
        if (weight < 0).any() or np.sum(weight > 0) < 2:
            raise ValueError(
                "sample_weight must be 0 or more, and more than 0 for two rows at "
                f"least. Received: a minimum of {weight.min()}, and "
                f"{np.sum(weight > 0)} rows above 0."
            )
        outputs = y.reshape(len(y), -1)
        self._single, self._flat = outputs.shape[1] == 1, y.ndim == 1
        self._names = [str(name) for name in self._column_names()]
        clock = Clock(self.timeout)
        settings = Settings(
            noise=self.noise or 0.0,
            selection=self.model_selection,
            step=self.exponent_step,
            features=self.max_features,
            random=check_random_state(self.random_state),
        )
        with threadpoolctl.threadpool_limits(1, "blas"), progress(self.verbose) as tell:
            self._answers = [
                discover(
                    X,
                    column,
                    weight,
                    self._names,
                    settings,
                    clock.share(outputs.shape[1] - i),
                    tell,
                )
                for i, column in enumerate(outputs.T)
            ]
        self._publish(target)
        return self

    def _publish(self, target):
        answers = self._answers
        labels = [str(target or "y")] if self._single else self._labels()
        self.formula_ = "\n".join(
            f"{label} = {answer.table.equation[answer.best]}"
            for label, answer in zip(labels, answers, strict=True)
        )
        self.verdict_ = "\n".join(answer.verdict for answer in answers)
        self.equations_ = self._each(lambda answer: answer.table)
        self.undecided_ = self._each(lambda answer: answer.undecided)
        errors = self._each(lambda answer: answer.extrapolation)
        self.extrapolation_error_ = errors if self._single else np.array(errors)

    def _labels(self):
        return [f"y{i}" for i in range(len(self._answers))]

    def _column_names(self):
        if hasattr(self, "feature_names_in_"):
            return self.feature_names_in_
        return [f"x{i}" for i in range(self.n_features_in_)]

    def _each(self, read):
        """`read(answer)` of the one output, or a list for several."""
        values = [read(answer) for answer in self._answers]
        return values[0] if self._single else values

    def _forms(self, index):
        check_is_fitted(self)
        chosen = []
        for answer in self._answers:
            at = answer.best if index is None else index
            if not -len(answer.forms) <= at < len(answer.forms):
                raise ValueError(
                    f"index is {index}, but equations_ has {len(answer.forms)} rows."
                )
            chosen.append(answer.forms[at])
        return chosen

    def predict(self, X, index=None):
        """The formula's values, (rows,) or (rows, outputs); NaN outside its domain.

        Args:
            X: Array or DataFrame, (rows, features).
            index: Row of `equations_`; `None` takes the chosen one.
        """
        forms = self._forms(index)
        X = validate_data(self, X, reset=False).astype(np.float64)
        y = np.stack([form(X) for form in forms], axis=1)
        return y[:, 0] if self._flat else y

    def get_best(self):
        """The chosen row of `equations_`, or a list of them."""
        check_is_fitted(self)
        return self._each(lambda answer: answer.table.iloc[answer.best])

    def sympy(self, index=None):
        """The formula as a SymPy expression of the column names, or a list of them."""
        import sympy

        symbols = [sympy.Symbol(name) for name in self._fitted_names()]
        found = [form.sympy(symbols) for form in self._forms(index)]
        return found[0] if self._single else found

    def latex(self, index=None):
        """The formula in LaTeX, or a list of them."""
        import sympy

        names = self._fitted_names()
        symbols = quoted(names)
        shown = {
            symbol: rf"\text{{{escaped(name)}}}"
            for symbol, name in zip(symbols, names, strict=True)
            if not name.isidentifier()
        }
        found = [
            sympy.latex(form.sympy(symbols, 6), symbol_names=shown)
            for form in self._forms(index)
        ]
        return found[0] if self._single else found

    def to_keras(self, index=None, dtype=None):
        """A `keras_nalu.Model` of `RealNPU` and `Dense` that computes the formula.

        It predicts the same up to the rounding of its dtype, can be trained, saved and
        exported like any other, and takes inputs of shape (batch, features).

        Args:
            index: Row of `equations_`; `None` takes the chosen one.
            dtype: Keras dtype; `None` takes Keras' default. `predict` casts its inputs
                to it, a call of the model does not.
        """
        from keras_nalu.discovery.to_keras import model

        return model(self._forms(index), self.n_features_in_, dtype)

    def _fitted_names(self):
        check_is_fitted(self)
        return self._names

    def __repr__(self, N_CHAR_MAX=700):
        if not hasattr(self, "equations_"):
            return super().__repr__(N_CHAR_MAX=N_CHAR_MAX)
        parts = [super().__repr__(N_CHAR_MAX=N_CHAR_MAX)]
        for answer in self._answers:
            table = answer.table.copy()
            marks = ["    "] * len(table)
            marks[answer.best] = ">>>>"
            table.insert(0, "", marks)
            parts.append(
                table.to_string(max_colwidth=100, float_format="{:.4g}".format)
            )
            if answer.undecided:
                others = "; ".join(answer.undecided)
                parts.append(f"The data cannot distinguish it from: {others}")
            parts += [answer.verdict] if answer.verdict else []
        return "\n".join(parts)


def check(asked):
    """Raise ValueError for the first invalid parameter of the estimator."""
    checks = {
        "timeout": (asked.timeout is None or real(asked.timeout, 0), "None or >= 0"),
        "noise": (asked.noise is None or real(asked.noise, 0), "None or >= 0"),
        "model_selection": (
            asked.model_selection in ("best", "accuracy"),
            '"best" or "accuracy"',
        ),
        "exponent_step": (
            real(asked.exponent_step, 1 / 12)
            and abs(1 / asked.exponent_step - round(1 / asked.exponent_step)) < 1e-9,
            "1 divided by a whole number up to 12, such as 0.5",
        ),
        "max_features": (
            asked.max_features is None or whole(asked.max_features),
            "None or a positive integer",
        ),
    }
    for name, (right, expected) in checks.items():
        if not right:
            raise ValueError(
                f"{name} must be {expected}. Received: {getattr(asked, name)!r}."
            )


def real(value, least):
    """Whether the value is a real number of at least `least`."""
    return isinstance(value, numbers.Real) and value >= least


def whole(value):
    """Whether the value is a positive integer."""
    return isinstance(value, numbers.Integral) and int(value) > 0


def escaped(name):
    special: dict[str, str] = {c: f"\\{c}" for c in "&%$#_{}"}
    special |= {"\\": r"\textbackslash{}", "^": r"\^{}", "~": r"\~{}"}
    return "".join(special[c] if c in special else c for c in name)
