"""The choice of a formula: it refits constants, prunes terms, makes constants simple,
and compares description lengths."""

import dataclasses
import itertools
import math

import numpy as np
from scipy import spatial, stats

from keras_nalu.discovery.factoring import factored
from keras_nalu.discovery.forms import Form, simple

#: Two formulas whose description lengths differ by less (in nats) are undecided.
UNDECIDED = 5.0


def refit(form, problem, steps=12):
    """The form with constants fitted to y by Levenberg-Marquardt."""
    best, loss, damping = form, problem.mse(form), 1e-6
    root = np.sqrt(problem.weight)[:, None]
    for _ in range(steps):
        problem.clock.check()
        y, jacobian = best.value_and_jacobian(problem.X)
        residual = problem.y - y
        if not (np.isfinite(jacobian).all() and np.isfinite(residual).all()):
            break
        jacobian = jacobian * root
        norm = np.linalg.norm(jacobian, axis=0)
        norm[norm == 0] = 1
        U, s, Vt = np.linalg.svd(jacobian / norm, full_matrices=False)
        target = U.T @ (residual * root[:, 0])
        before = loss
        for _ in range(6):
            step = Vt.T @ (s / (s**2 + damping) * target) / norm
            trial = best.replace(best.parameters + step)
            found = problem.mse(trial)
            if found < loss:
                best, loss, damping = trial, found, damping / 30
                break
            damping = max(damping, 1e-12) * 30
        if before - loss <= 1e-10 * before or loss < (1e-15 * problem.scale) ** 2:
            break
    return best


def errors(form, problem):
    """The standard error of each of `form.parameters`."""
    _, jacobian = form.value_and_jacobian(problem.X)
    jacobian = jacobian * np.sqrt(problem.weight)[:, None]
    mse = floored(problem.mse(form), problem)
    with np.errstate(all="ignore"):
        norm = np.linalg.norm(jacobian, axis=0)
        norm[norm == 0] = 1
        if not np.isfinite(jacobian).all():
            return np.full(len(norm), np.inf)
        inverse = np.linalg.pinv((jacobian / norm).T @ (jacobian / norm))
        return np.sqrt(np.maximum(mse * np.diag(inverse), 0)) / norm


def floored(mse, problem):
    """The mean square error, raised to that of rounding or of the known noise."""
    least = max(problem.floor, problem.noise) * problem.scale
    return max(mse, least**2, 1e-300)


def constant_cost(value, size):
    """Nats for one constant; a simple number costs less than a measured one."""
    close = simple(value)
    most = measured_cost(size)
    return most if close is None else min(fraction_cost(close), most)


def measured_cost(size):
    """Nats for a constant that is fitted to the data."""
    return 0.5 * math.log(size) + 1


def rooted(form):
    """Whether the form has a root; then the square of its constant may be simple."""
    return any(bracket.power % 1 for bracket in form.brackets)


def measured(form):
    """Mask of the `form.parameters` that are not simple numbers."""
    found = np.array([simple(value) is None for value in form.parameters])
    if rooted(form) and simple(form.constant**2) is not None:
        found[0] = False
    return found


def fraction_cost(fraction):
    """Nats for a fraction."""
    return math.log(1 + abs(fraction.numerator)) + math.log(fraction.denominator)


def description_length(form, problem):
    """`n/2 log mse` plus the costs of the structure and of its constants, in nats."""
    loss = floored(problem.mse(form), problem) / (problem.scale or 1) ** 2
    return 0.5 * problem.size * math.log(loss) + structure_cost(form, problem)


def structure_cost(form, problem):
    """Nats for the structure and the constants."""
    size = problem.size
    variables = math.log(problem.X.shape[1] + 1)
    cost = sum(constant_cost(value, size) for value in form.parameters)
    if rooted(form) and simple(form.constant) is None:
        cost += constant_cost(form.constant**2, size) - measured_cost(size)
    for power in form.powers:
        cost += variables + math.log(1 + 2 * abs(power)) + bool(power % 1)
    return cost


def surprise(form, problem, rows):
    """Minus the log likelihood of `rows` in nats, if the noise has the precision that
    the weights of `problem` have beside those of `rows`."""
    precision = np.log(problem.weight / rows.weight)
    loss = math.log(floored(problem.mse(form), problem))
    gain = float(np.average(precision, weights=rows.weight))
    return 0.5 * rows.size * (loss - gain)


def prune(form, problem):
    """Remove terms while the description length falls."""
    best, length = form, description_length(form, problem)
    while len(best.parameters) > 1:
        error = errors(best, problem)[1:]
        with np.errstate(all="ignore"):
            sure = np.abs(best.parameters[1:]) / error
        better = None
        leading = [(b, 0) for b in range(len(best.brackets))]
        for term in [*(best.terms[i] for i in np.argsort(sure)[:2]), *leading]:
            trial = refit(best.without(*term), problem)
            found = description_length(trial, problem)
            if found < length:
                better, length = trial, found
                break
        if better is None:
            return best
        best = better
    return best


def simplify(form, problem):
    """Replace constants by simple numbers while the description length falls: all
    together, or else one after the other."""
    best, length = form, description_length(form, problem)
    fixed = np.zeros(len(best.parameters), bool)
    error = errors(best, problem)
    roots = rooted(form)
    near = [
        candidates(value, spread, problem.size, roots and i == 0)
        for i, (value, spread) in enumerate(zip(best.parameters, error, strict=True))
    ]
    together = np.array([bool(values) for values in near])
    if together.sum() > 1:
        parameters = best.parameters
        parameters[together] = [values[0] for values in near if values]
        trial = refit_free(best.replace(parameters), problem, together)
        found = description_length(trial, problem)
        if found < length:
            return trial
    order = np.argsort(error / np.maximum(np.abs(best.parameters), 1e-300))[::-1]
    for index in order:
        value = best.parameters[index]
        squared = roots and index == 0
        for trial_value in candidates(value, error[index], problem.size, squared):
            parameters = best.parameters
            parameters[index] = trial_value
            fixed[index] = True
            trial = refit_free(best.replace(parameters), problem, fixed)
            found = description_length(trial, problem)
            if found < length:
                best, length = trial, found
                break
            fixed[index] = False
    return best


def candidates(value, error, size, squared=False):
    """The two simplest numbers within four standard errors of `value` that cost less
    than a measured one; `squared` also allows square roots of simple numbers."""
    if not math.isfinite(error) or error > 0.25 * abs(value):
        return []
    near = {}
    if squared and value > 0:
        inside = candidates(value * value, 2 * value * error, size)
        near = {math.sqrt(v): constant_cost(v, size) + 0.5 for v in inside}
    for denominator in 1, 2, 3, 4, 5, 6, 8, 10, 12:
        close = round(value * denominator) / denominator
        if close and abs(close - value) <= max(4 * error, 1e-9 * abs(value)):
            fraction = simple(close)
            if fraction is not None and (
                fraction_cost(fraction) < 0.5 * math.log(size)
            ):
                near[close] = fraction_cost(fraction)
    return sorted(near, key=near.__getitem__)[:2]


def refit_free(form, problem, fixed):
    """The form after two Gauss-Newton steps in the constants that are not fixed."""
    root = np.sqrt(problem.weight)
    for _ in range(2):
        if fixed.all():
            break
        y, jacobian = form.value_and_jacobian(problem.X)
        if not (np.isfinite(jacobian).all() and np.isfinite(y).all()):
            break
        jacobian = jacobian[:, ~fixed] * root[:, None]
        norm = np.linalg.norm(jacobian, axis=0)
        norm[norm == 0] = 1
        step = np.linalg.lstsq(jacobian / norm, (problem.y - y) * root, rcond=1e-12)[0]
        parameters = form.parameters
        parameters[~fixed] += step / norm
        form = form.replace(parameters)
    return form


def depends(residual, X, weight, values):
    """Whether a residual, or its ratio to the formula's values, depends on X.

    F tests at 1e-6 of powers up to the sixth and of products, and `alike`.
    """
    n = len(X)
    spread = np.ptp(X, axis=0)
    X = 2 * (X[:, spread > 0] - X.min(axis=0)[spread > 0]) / spread[spread > 0] - 1
    powers = [np.polynomial.legendre.Legendre.basis(m)(X) for m in range(1, 7)]
    pairs = [X[:, i : i + 1] * X[:, i + 1 :] for i in range(X.shape[1] - 1)]
    design = np.concatenate([np.ones((n, 1)), *powers, *pairs], axis=1)
    if design.shape[1] > n // 3:
        return n > 30 and alike(residual, X)
    root = np.sqrt(weight)
    share = np.abs(values) / max(np.abs(values).max(), 1e-300)
    return (
        explained(design, residual, root)
        or explained(design * share[:, None], residual, root)
        or alike(residual, X)
    )


def alike(residual, X):
    """Whether neighbouring rows have correlated residuals, by five standard deviations.

    Neighbours are sought in each column, each pair of columns, and all columns.
    """
    n, d = X.shape
    few = np.linspace(0, n - 1, min(n, 1500)).astype(int)
    X, residual = X[few], residual[few]
    subsets = [[i] for i in range(d)] + [[*range(d)]] * (d > 2)
    subsets += [[*pair] for pair in itertools.combinations(range(d), 2)] * (d <= 8)
    for subset in subsets:
        near = spatial.cKDTree(X[:, subset]).query(X[:, subset], k=4)[1]
        pairs = np.repeat(np.arange(len(X)), 4), near.ravel()
        pairs = np.unique(np.sort(pairs, axis=0), axis=1)
        both = (residual[pairs[0]] * residual[pairs[1]])[pairs[0] != pairs[1]]
        if both.sum() > 5 * np.sqrt((both**2).sum()):
            return True
    return False


def explained(design, residual, root):
    """Whether the design explains the residual, by an F test at 1e-6."""
    n = len(design)
    left = residual * root
    total = float(left @ left)
    found = np.linalg.lstsq(design * root[:, None], left, rcond=1e-10)[0]
    error = left - design @ found * root
    k = design.shape[1] - 1
    F = (total - float(error @ error)) / max(k, 1)
    F = F / max(float(error @ error) / (n - k - 1), 1e-300)
    return total > 0 and bool(stats.f.sf(F, k, n - k - 1) < 1e-6)


@dataclasses.dataclass(eq=False)
class Candidate:
    """A form, its loss and its description length."""

    form: Form
    loss: float
    length: float


def linear(form):
    """Whether the form is linear in the variables."""
    if not form.brackets:
        return bool(np.abs(form.exponents).sum() == (form.exponents == 1).sum() <= 1)
    if len(form.brackets) > 1 or form.brackets[0].power != 1 or form.exponents.any():
        return False
    exponents = form.brackets[0].exponents
    return bool(((exponents == 0) | (exponents == 1)).all()) and bool(
        (exponents.sum(axis=1) <= 1).all()
    )


def rank(candidate):
    """Sort key: the description length, then the complexity."""
    return candidate.length, candidate.form.complexity


class Pool:
    """The formulas found so far, at first the mean of y; `best` has the shortest
    description."""

    def __init__(self, problem):
        self.problem = problem
        mean = Form(
            float(np.average(problem.y, weights=problem.weight)),
            np.zeros(problem.X.shape[1]),
        )
        length = description_length(mean, problem)
        self.best = Candidate(mean, problem.mse(mean), length)
        self.candidates = [self.best]
        self._judged: Candidate | None = None
        self._settled = False

    def add(self, form, exact=False):
        """Add a form after refitting, pruning and simplifying it, and return it.

        `exact` forms keep their terms.
        """
        if exact:
            form = simplify(form, self.problem)
        elif math.isfinite(self.problem.mse(form)):
            form = refit(form, self.problem)
            if self.hopeful(form):
                form = simplify(prune(form, self.problem), self.problem)
                form = self.in_factors(form)
        self.take(form)
        return form

    def in_factors(self, form):
        """The form with squares taken out of its roots, if it would be the best."""
        roots = any(bracket.power % 1 for bracket in form.brackets)
        if not roots or self.length(form) > self.best.length:
            return form
        parts = factored(form, self.problem.X)
        same = self.problem.mse(parts) <= self.problem.mse(form) * (1 + 1e-9)
        return parts if same else form

    def hopeful(self, form):
        """Whether pruning and simplifying could bring the form near the best."""
        error = floored(self.problem.mse(form), self.problem)
        least = 0.5 * self.problem.size * math.log(error / self.problem.scale**2)
        return least < self.best.length + UNDECIDED

    @property
    def settled(self):
        """Whether the residual of the best form does not depend on X."""
        best = self.best
        if best is not self._judged:
            problem = self.problem
            values = best.form(problem.X)
            residual = problem.y - values
            self._settled = not depends(residual, problem.X, problem.weight, values)
            self._judged = best
        return self._settled

    @property
    def convincing(self):
        """Whether the best form is settled and has few measured constants."""
        return measured(self.best.form).sum() <= 3 and self.settled

    def take(self, form):
        """Add a form as it is, if it has a value on every row."""
        loss = self.problem.mse(form)
        length = description_length(form, self.problem)
        if math.isfinite(loss) and np.isfinite(form.parameters).all():
            candidate = Candidate(form, loss, length)
            self.candidates.append(candidate)
            self.best = min(self.best, candidate, key=rank)

    def nats(self, rows):
        """The description length of the best form, comparable between pools whose
        problems weigh `rows` differently."""
        form = self.best.form
        return surprise(form, self.problem, rows) + structure_cost(form, rows)

    def length(self, form):
        """The description length of a form on the pool's problem."""
        return description_length(form, self.problem)

    def simple(self):
        """The best sum without products, and the best power law."""
        products = [c for c in self.candidates if isinstance(c.form, Form)]
        lines = [c for c in products if linear(c.form)]
        laws = [c for c in products if not c.form.brackets]
        return [min(kind, key=lambda c: c.length) for kind in (lines, laws) if kind]

    def distinct(self):
        """The candidates without equal functions, shortest description first."""
        kept: list[tuple[Candidate, np.ndarray]] = []
        order = sorted(self.candidates, key=rank)
        for candidate in order:
            values = candidate.form(self.problem.X)
            size = np.sqrt(np.mean(values**2))
            for other, known in kept:
                same = np.abs(values - known).max() <= 1e-9 * size
                if same and other.form.complexity <= candidate.form.complexity:
                    break
            else:
                kept.append((candidate, values))
        return [candidate for candidate, _ in kept]

    def front(self):
        """The distinct candidates that no simpler one beats, the simplest first."""
        front: list[Candidate] = []
        ranked = sorted(self.distinct(), key=lambda c: (c.form.complexity, c.loss))
        floor = floored(0.0, self.problem)
        for candidate in ranked:
            if not front or max(candidate.loss, floor) < 0.999999 * max(
                front[-1].loss, floor
            ):
                front.append(candidate)
        return front
