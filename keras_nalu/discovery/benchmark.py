"""How often known laws are found: SRBench's protocol, on problems from a CSV file.

    python -m keras_nalu.discovery.benchmark problems.csv --noise 0 0.01 --seeds 1

Three quarters of the rows train, noise is a share of the root mean square of y on
them. A formula is exact as SRBench says it if SymPy, after floats are rounded to three
decimals, finds its difference from the law or their ratio constant; `far` is the
largest relative error of 1,000 rows up to five times outside the range.
"""

import argparse
import csv
import dataclasses
import json
import math
import signal
import sys
import time

import numpy as np


@dataclasses.dataclass
class Law:
    """One problem: its formula as text, and the range of every variable."""

    name: str
    group: str
    formula: str
    ranges: dict[str, tuple[float, float]]

    def sample(self, rows, seed, far=1.0, columns=0):
        """X (rows, variables + columns) and y, uniform in the ranges, which `far`
        stretches upwards; the columns more have nothing to do with y."""
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
        """The law as SymPy reads it, of positive symbols x0, x1, ..."""
        import sympy

        names = {
            name: sympy.Symbol(f"x{i}", positive=True)
            for i, name in enumerate(self.ranges)
        }
        return sympy.sympify(self.formula, locals=names)


def laws(path):
    """The problems of a CSV file: name, group, formula, ranges as `x=1..5 y=0..1`."""
    with open(path, newline="") as file:
        for row in csv.DictReader(file):
            ranges = {}
            for part in row["ranges"].split():
                name, bounds = part.split("=")
                low, high = bounds.split("..")
                ranges[name] = float(low), float(high)
            yield Law(row["name"], row["group"], row["formula"], ranges)


def far_error(model, law, columns=0):
    """The largest relative error (by |y| and the size of y) up to five times outside,
    where the law has a value."""
    X, y = law.sample(1000, 90_001, far=5.0, columns=columns)
    defined = np.isfinite(y)
    if not defined.any():
        return math.nan
    X, y = X[defined], y[defined]
    error = np.abs(model.predict(X) - y)
    size = np.abs(y) + 1e-3 * np.sqrt(np.mean(y**2))
    return float(np.max(np.where(np.isnan(error), np.inf, error) / size))


def same(found, law, seconds=20):
    """SRBench's symbolic solution: difference or ratio constant, after rounding."""
    import sympy

    positive = {s: sympy.Symbol(s.name, positive=True) for s in found.free_symbols}
    found, truth = rounded(found.subs(positive)), rounded(law.sympy())

    def constant(expression):
        return rounded(sympy.simplify(rounded(expression))).is_constant() is True

    if not found.free_symbols:
        return False
    with limited(seconds):
        difference = rounded(sympy.expand(sympy.together(truth - found)))
        if constant(difference):
            return True
        ratio = found / truth
        return constant(ratio) or constant(sympy.expand(sympy.together(ratio**2)))
    return False


def rounded(expression):
    """Floats to three decimals, as SRBench does; exact numbers stay."""
    import sympy

    expression = sympy.N(expression.subs(sympy.pi, sympy.N(sympy.pi)))
    floats = expression.atoms(sympy.Float)
    return expression.xreplace({value: near(value) for value in floats})


def near(value):
    """The float at three decimals, a whole number where it is one."""
    import sympy

    close = round(float(value), 3)
    return sympy.Integer(round(close)) if close == round(close) else sympy.Float(close)


class limited:
    """Ends a block after some seconds, where the system has SIGALRM."""

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


def trial(law, rows, seed, noise=0.0, columns=0, digits=None, timeout=60):
    """One row of results: a law, a seed, a noise; `digits` 32 is float32, 6 six."""
    from keras_nalu import ArithmeticRegressor

    X, y = law.sample(rows, seed, columns=columns)
    random = np.random.default_rng(seed + 1)
    train = random.permutation(rows)[: round(0.75 * rows)]
    X, y = X[train], y[train]
    y = y + noise * np.sqrt(np.mean(y**2)) * random.normal(size=len(y))
    if digits == 32:
        X, y = X.astype(np.float32), y.astype(np.float32)
    elif digits:
        X = np.vectorize(lambda v: float(f"{v:.{digits}g}"))(X)
        y = np.vectorize(lambda v: float(f"{v:.{digits}g}"))(y)
    begin, cpu = time.perf_counter(), time.process_time()
    model = ArithmeticRegressor(timeout=timeout, random_state=seed).fit(X, y)
    wall, cpu = time.perf_counter() - begin, time.process_time() - cpu
    far = far_error(model, law, columns)
    # What holds far outside is the law; SymPy is asked where that is open.
    least = 1e-6 if noise == 0 and digits is None else 1e-9
    exact = far < least or same(model.sympy(), law)
    return {
        "name": law.name,
        "group": law.group,
        "noise": noise,
        "columns": columns,
        "digits": digits or 64,
        "rows": rows,
        "seed": seed,
        "exact": bool(exact),
        "far": far,
        "extrapolation": model.extrapolation_error_,
        "undecided": len(model.undecided_),
        "seconds": wall,
        "cpu": cpu,
        "formula": model.formula_,
    }


def main(arguments=None):
    """Print a row of JSON for each trial, and a line of sums at the end."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("files", nargs="+")
    parser.add_argument("--noise", nargs="+", type=float, default=[0.0])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--columns", type=int, default=0)
    parser.add_argument("--digits", type=int)
    parser.add_argument("--groups", default="MRS")
    parser.add_argument("--timeout", type=float, default=60)
    asked = parser.parse_args(arguments)
    results = []
    for noise in asked.noise:
        for seed in range(asked.seeds):
            for path in asked.files:
                for law in laws(path):
                    if law.group in asked.groups:
                        row = trial(
                            law,
                            asked.rows,
                            seed,
                            noise,
                            asked.columns,
                            asked.digits,
                            asked.timeout,
                        )
                        print(json.dumps(row), flush=True)
                        results.append(row)
    for noise in asked.noise:
        rows = [row for row in results if row["noise"] == noise]
        exact = sum(row["exact"] for row in rows)
        median = float(np.median([row["seconds"] for row in rows]))
        print(f"noise {noise}: {exact} of {len(rows)}, median {median:.2f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
