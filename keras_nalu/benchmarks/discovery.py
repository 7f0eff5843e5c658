"""How often known laws are recovered, by SRBench's protocol (arXiv:2107.14351).

Three quarters of the rows train; noise is a share of the root mean square of y on them.
A formula is exact if SymPy, after rounding floats to three decimals, finds its
difference from the law or their ratio constant (SRBench's rule). `far` is the largest
relative error on 1,000 rows up to five times outside the range.

`laws/feynman.csv` has the 81 equations of the AI Feynman set that are arithmetic, in
three groups: M of one term, R rational, S with roots of sums; `laws/classic.csv` has
those of other papers.
"""

import csv
import dataclasses
import math
import signal
import time
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent / "laws"
SETS = ("feynman", "classic")


@dataclasses.dataclass
class Law:
    """A law: its formula as text, and the range of every variable."""

    name: str
    group: str
    formula: str
    ranges: dict[str, tuple[float, float]]

    def sample(self, rows, seed, far=1.0, columns=0):
        """X (rows, variables + columns), uniform in the ranges, and y (rows,).

        `far` stretches the ranges upwards; y does not depend on the further `columns`.
        """
        random = np.random.default_rng(seed)
        bounds = [*self.ranges.values(), *[(1.0, 5.0)] * columns]
        X = np.stack(
            [random.uniform(a, a + (b - a) * far, rows) for a, b in bounds], axis=1
        )
        names = dict(zip(self.ranges, X.T, strict=False))
        with np.errstate(all="ignore"):
            y = eval(self.formula, {"sqrt": np.sqrt, "pi": np.pi}, names)
        return X, y * np.ones(rows)

    def sympy(self):
        """The law as a SymPy expression of positive symbols x0, x1, ..."""
        import sympy

        names = {
            name: sympy.Symbol(f"x{i}", positive=True)
            for i, name in enumerate(self.ranges)
        }
        return sympy.sympify(self.formula, locals=names)


def laws(path):
    """Yields the laws of a CSV file: name, group, formula, ranges `x=1..5 y=0..1`."""
    with open(path, newline="") as file:
        for row in csv.DictReader(file):
            ranges = {}
            for part in row["ranges"].split():
                name, bounds = part.split("=")
                low, high = bounds.split("..")
                ranges[name] = float(low), float(high)
            yield Law(row["name"], row["group"], row["formula"], ranges)


@dataclasses.dataclass(frozen=True)
class Trial:
    """The settings of one row of results; `digits` is 64, 32 (float32) or 6."""

    law: str
    set: str = "feynman"
    method: str = "keras_nalu"
    seed: int = 0
    noise: float = 0.0
    columns: int = 0
    digits: int = 64
    rows: int = 10_000
    timeout: float = 60.0

    def data(self, law):
        """The training data: X (rows, features) and y (rows,)."""
        X, y = law.sample(self.rows, self.seed, columns=self.columns)
        random = np.random.default_rng(self.seed + 1)
        train = random.permutation(self.rows)[: round(0.75 * self.rows)]
        X, y = X[train], y[train]
        size = np.sqrt(np.mean(y**2))
        y = y + self.noise * size * random.normal(size=len(y))
        if self.digits == 32:
            return X.astype(np.float32), y.astype(np.float32)
        if self.digits < 32:
            few = np.vectorize(lambda value: float(f"{value:.{self.digits}g}"))
            return few(X), few(y)
        return X, y

    def run(self):
        """The row of results, as a dictionary."""
        law = next(x for x in laws(FOLDER / f"{self.set}.csv") if x.name == self.law)
        X, y = self.data(law)
        begin, cpu = time.perf_counter(), time.process_time()
        predict, formula, details = METHODS[self.method](X, y, self.timeout, self.seed)
        wall, cpu = time.perf_counter() - begin, time.process_time() - cpu
        far = far_error(predict, law, self.columns)
        # A formula that holds far outside is the law; else SymPy decides.
        clean = self.noise == 0 and self.digits == 64
        exact = far < (1e-6 if clean else 1e-9) or same(formula, law)
        measured = {"exact": bool(exact), "far": far, "seconds": wall, "cpu": cpu}
        return dataclasses.asdict(self) | {"group": law.group} | measured | details


FIELDS = [
    *(field.name for field in dataclasses.fields(Trial)),
    *("group", "exact", "far", "seconds", "cpu"),
    *("extrapolation", "undecided", "verdict", "formula"),
]


def ours(X, y, timeout, seed):
    """`ArithmeticRegressor` with its defaults."""
    from keras_nalu import ArithmeticRegressor

    model = ArithmeticRegressor(timeout=timeout, random_state=seed).fit(X, y)
    details = {
        "extrapolation": model.extrapolation_error_,
        "undecided": len(model.undecided_),
        "verdict": bool(model.verdict_),
        "formula": model.formula_.removeprefix("y = "),
    }
    return model.predict, model.sympy(), details


def operon(X, y, timeout, seed):
    """pyoperon with its defaults, but a square root, no limit except the time, and five
    local steps for constants, as in SRBench."""
    import sympy
    from pyoperon.sklearn import (  # pyright: ignore[reportMissingImports]
        SymbolicRegressor,
    )

    model = SymbolicRegressor(
        allowed_symbols="add,sub,mul,div,sqrt,constant,variable",
        optimizer_iterations=5,
        generations=1_000_000,
        max_evaluations=2_000_000_000,
        time_limit=int(timeout),
        random_state=seed,
        n_threads=1,
    ).fit(X, y)
    text = model.get_model_string(model.model_, 12)
    names = {f"X{i + 1}": sympy.Symbol(f"x{i}") for i in range(X.shape[1])}
    formula = sympy.sympify(text.replace("^", "**"), locals=names)
    return model.predict, formula, {"formula": text}


def gplearn(X, y, timeout, seed):
    """gplearn with its defaults and a square root, until the CPU time is over."""
    import sympy
    from gplearn.genetic import (  # pyright: ignore[reportMissingImports]
        SymbolicRegressor,
    )

    end = time.process_time() + timeout
    functions = {
        "add": lambda a, b: a + b,
        "sub": lambda a, b: a - b,
        "mul": lambda a, b: a * b,
        "div": lambda a, b: a / b,
        "sqrt": sympy.sqrt,
    }
    model = SymbolicRegressor(
        generations=1,
        function_set=tuple(functions),
        warm_start=True,
        low_memory=True,
        random_state=seed,
    )
    while time.process_time() < end:
        model.fit(X, y)
        if model._program.raw_fitness_ == 0:
            break
        model.set_params(generations=model.generations + 1)
    text = str(model._program)
    names = {f"X{i}": sympy.Symbol(f"x{i}") for i in range(X.shape[1])}
    formula = sympy.sympify(text, locals=names | functions)
    return model.predict, formula, {"formula": text}


METHODS = {"keras_nalu": ours, "pyoperon": operon, "gplearn": gplearn}


def far_error(predict, law, columns=0):
    """The largest error, relative to |y| plus 0.1% of its root mean square, on rows up
    to five times outside the ranges on which the law has a value."""
    X, y = law.sample(1000, 90_001, far=5.0, columns=columns)
    defined = np.isfinite(y)
    if not defined.any():
        return math.nan
    X, y = X[defined], y[defined]
    error = np.abs(predict(X) - y)
    size = np.abs(y) + 1e-3 * np.sqrt(np.mean(y**2))
    return float(np.max(np.where(np.isnan(error), np.inf, error) / size))


def same(found, law, seconds=20):
    """Whether difference or ratio are constant after rounding, as SRBench asks."""
    import sympy

    with limited(seconds):
        positive = {s: sympy.Symbol(s.name, positive=True) for s in found.free_symbols}
        found, truth = rounded(found.subs(positive)), rounded(law.sympy())

        def constant(expression):
            return rounded(sympy.simplify(rounded(expression))).is_constant() is True

        if not found.free_symbols:
            return False
        difference = rounded(sympy.expand(sympy.together(truth - found)))
        if constant(difference):
            return True
        ratio = found / truth
        return constant(ratio) or constant(sympy.expand(sympy.together(ratio**2)))
    return False


def rounded(expression):
    """The expression with floats rounded to three decimals; exact numbers stay."""
    import sympy

    expression = sympy.N(expression.subs(sympy.pi, sympy.N(sympy.pi)))
    floats = expression.atoms(sympy.Float)
    return expression.xreplace({value: near(value) for value in floats})


def near(value):
    """The float rounded to three decimals, as an Integer if it is whole."""
    import sympy

    close = round(float(value), 3)
    return sympy.Integer(round(close)) if close == round(close) else sympy.Float(close)


class limited:
    """Ends a block after some seconds, if the system has SIGALRM."""

    def __init__(self, seconds):
        self.seconds = seconds

    def __enter__(self):
        if hasattr(signal, "SIGALRM"):
            signal.signal(signal.SIGALRM, self.stop)
            signal.alarm(self.seconds)

    def stop(self, *_):
        raise TimeoutError

    def __exit__(self, kind, *_):
        if hasattr(signal, "SIGALRM"):
            signal.alarm(0)
        return kind is TimeoutError


def table(rows):
    """Yields the lines of a table: for each method, condition and group, how many laws
    are exact (with the 95% Wilson interval), how many have `far` below 1e-6 and 1e-4,
    and the seconds."""
    from keras_nalu.benchmarks.statistics import wilson

    kinds = "method", "set", "noise", "columns", "digits", "rows"
    sets = {tuple(row[kind] for kind in kinds): [] for row in rows}
    for row in rows:
        sets[tuple(row[kind] for kind in kinds)].append(row)
    names = "group", "exact", "95 %", "far < 1e-6", "far < 1e-4", "median s", "worst s"
    yield "| " + " | ".join([*kinds, *names]) + " |"
    yield "|---" * (len(kinds) + len(names)) + "|"
    for key, all_of in sets.items():
        groups = sorted({row["group"] for row in all_of})
        for group in [*groups, "all"] if len(groups) > 1 else groups:
            chosen = [row for row in all_of if group in ("all", row["group"])]
            exact = sum(row["exact"] for row in chosen)
            rate = wilson(exact, len(chosen))
            seconds = [row["seconds"] for row in chosen]
            cells = [
                group,
                f"{exact} of {len(chosen)}",
                f"{100 * rate.low:.0f} to {100 * rate.high:.0f}",
                sum(row["far"] < 1e-6 for row in chosen),
                sum(row["far"] < 1e-4 for row in chosen),
                f"{np.median(seconds):.2f}",
                f"{max(seconds):.1f}",
            ]
            yield "| " + " | ".join(map(str, [*key, *cells])) + " |"
