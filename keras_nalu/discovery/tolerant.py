"""The search if y carries noise, or fewer digits than float64.

    g = (sum_k c_k u^p_k)^q        and        g^s = N(u) / D(u)

Both are linear in their coefficients if a smooth fit of g replaces g where it is raised
to a power or multiplied (the working response of a generalized linear model). This
finds sparse sums of monomials of u, refits them in y, and prunes them by description
length. Their values are the next smooth fit.
"""

import itertools
import math

import numpy as np

from keras_nalu.discovery import population
from keras_nalu.discovery.forms import monomials
from keras_nalu.discovery.library import Beam
from keras_nalu.discovery.powers import (
    Smooth,
    count,
    identity,
    kinds,
    positive,
    reductions,
    total_degree,
)
from keras_nalu.discovery.selection import measured


def fill(problem, pool, tell):
    """Add the formulas that are found to the pool; yields after every stage.

    Once the best one is convincing, only plain sums and formulas of as few variables
    can still be better.
    """
    d = problem.X.shape[1]
    enough = d
    seen: set[tuple] = set()
    for slack in 0.0, 0.5:
        tasks = []
        for reduction in all_reductions(problem, slack, seen):
            task = None if pool.convincing else Task.of(problem, reduction)
            tasks += [task] if task is not None else []
        for part, name in PARTS:
            for task in tasks:
                groups = task.u.shape[1]
                tell(f"{name} of {groups} groups of variables")
                rival = groups <= enough or part is Task.products
                if rival and part(task, pool):
                    return
                if pool.convincing:
                    enough = min(enough, groups)
            yield
        if pool.convincing:
            break
    task = Task.of(problem, identity(d))
    if task is not None and pool.convincing:
        exponents = libraries(task.u)[0]
        any(task.bracket(link, exponents, pool) for link in links(problem.step)[:-2])


def all_reductions(problem, slack, seen):
    """The unseen reductions of all kinds of smooth fit, the fewest variables first."""
    rows = np.linspace(0, len(problem.y) - 1, min(len(problem.y), 5000)).astype(int)
    few = problem.rows(np.unique(rows))
    found = []
    for kind in kinds(few):
        for reduction in reductions(few, kind, slack):
            key = reduction.shared.tobytes(), reduction.groups.tobytes()
            if key not in seen:
                found.append(reduction)
            seen.add(key)
    return sorted(found, key=lambda r: len(r.groups))


def above(fit):
    """The fit clipped to positive values; None if it is negative on many rows."""
    if not np.isfinite(fit).all() or (fit > 0).mean() < 0.95:
        return None
    return np.maximum(fit, 0.05 * np.median(fit))


def links(step):
    """Powers that a bracket may have."""
    roots = [step, -step] if step < 1 else []
    return [1.0, -1.0, *roots, 2.0, -2.0]


class Task:
    """One reduction of the problem, and the current smooth fit of g."""

    def __init__(self, problem, reduction, u, g, outer):
        self.problem, self.reduction = problem, reduction
        self.u, self.g, self.outer = u, g, outer
        self.weight = problem.weight * outer**2
        self.start = smooth_values(self)

    @classmethod
    def of(cls, problem, reduction):
        """The task, or None if the reduction has values that are not finite."""
        applied = reduction.apply(problem)
        return None if applied is None else cls(problem, reduction, *applied)

    def plain(self, pool):
        """Try sums of whole powers and rational functions of low degree; True if one is
        exact up to y's digits."""
        return self.sums(libraries(self.u)[:1], pool) or self.quotients((1, 2), pool)

    def products(self, pool):
        """Try products of two brackets by a population, unless the best formula is
        settled with one measured constant or none."""
        sure = measured(pool.best.form).sum() <= 1 and pool.settled
        if 2 <= self.u.shape[1] <= 4 and not sure:
            for form in population.forms(self):
                pool.add(form)
        return False

    def rest(self, pool):
        """Try sums of powers of both signs and rational functions of higher degree."""
        return self.sums(libraries(self.u)[1:], pool) or self.quotients((3, 4), pool)

    def sums(self, sets, pool):
        """Try one bracket of every power for each set of exponents."""
        return any(
            self.bracket(link, exponents, pool)
            for exponents in sets
            for link in links(self.problem.step)
        )

    def quotients(self, degrees, pool):
        """Try rational functions of these degrees that have few enough columns."""
        k = self.u.shape[1]
        return any(
            self.quotient(root, degree, pool)
            for degree in degrees
            if degree == 1 or count(k, degree) <= 28
            for root in {1, round(1 / self.problem.step)}
        )

    def bracket(self, link, exponents, pool):
        """Try sparse sums under one power; True if one is exact up to y's digits."""
        columns = monomials(self.u, exponents)
        if not np.isfinite(columns).all():
            return False
        power, seen = 1 / link, set()
        one = np.array([1.0]), np.zeros((1, self.u.shape[1]))
        for start in [self.g] if link == 1 else [self.start, self.g]:
            fit = start if link == 1 else above(start)
            for _ in range(1 if link == 1 else 3):
                if fit is None:
                    break
                # g = eta^q with eta = g^(1/q), linearised at the fit.
                slope = power * fit ** (power - 1)
                response = fit**power + slope * (self.g - fit)
                pairs = self.supports(columns, response, self.weight / slope**2, pool)
                forms = [
                    self.reduction.form((found, exponents[chosen]), one, link)
                    for chosen, found in pairs
                ]
                best, done = self.offer(forms, pool, seen)
                if done:
                    return True
                fit = None if best is None else above(best(self.problem.X) / self.outer)
        return False

    def quotient(self, root, degree, pool):
        """Try sparse rational functions; True if one is exact up to y's digits.

        The coefficients of N(u) - z D(u) = 0 are the smallest eigenvector of its
        columns' Gram matrix, after subtracting the contribution of z's noise.
        """
        exponents = total_degree(self.u.shape[1], degree)
        columns = monomials(self.u, exponents)
        fit = self.start if root == 1 else above(self.start)
        below, seen = 1.0, set()
        for _ in range(3):
            if fit is None or not np.isfinite(fit).all():
                return False
            slope = root * fit ** (root - 1)
            weight = self.weight / (slope * below) ** 2
            noise = (self.noise(pool) / self.outer) ** 2 * slope**2
            z = self.g**root - (noise / slope**2 if root == 2 else 0)
            paths = eliminate(columns, z, weight, noise)
            forms = []
            for top, upper, lower, down in paths:
                numerator, denominator = (
                    (upper, exponents[top]),
                    (down, exponents[lower]),
                )
                middle = np.median(columns[:, lower] @ down)
                if middle < 0:
                    numerator = -upper, exponents[top]
                    denominator = -down, exponents[lower]
                forms.append(self.reduction.form(numerator, denominator, 1 / root))
            best, done = self.offer(self.likeliest(forms, pool), pool, seen)
            if done:
                return True
            if best is None:
                return False
            fit = best(self.problem.X) / self.outer
            fit = fit if root == 1 else above(fit)
            below = 1.0
            for bracket in best.brackets:
                if bracket.power < 0:
                    inner = monomials(self.problem.X, bracket.exponents)
                    below = below * (inner @ bracket.coefficients)
        return False

    def noise(self, pool):
        """An estimate of the standard deviation of y's noise."""
        error = (self.g - self.start) * self.outer
        smooth = float(np.average(error**2, weights=self.problem.weight))
        return math.sqrt(min(smooth, pool.best.loss))

    def likeliest(self, forms, pool):
        """The three forms with the shortest descriptions before a refit."""
        most = len(pool.best.form.parameters) + 1 if pool.settled else 12
        forms = [form for form in forms if len(form.parameters) <= most]
        return sorted(forms, key=pool.length)[:3]

    def supports(self, columns, response, weight, pool):
        """Four pairs (columns, coefficients) at most, by the description length of the
        linear model."""
        usable = np.isfinite(response) & np.isfinite(weight) & (weight > 0)
        usable &= np.isfinite(columns).all(axis=1)
        if usable.sum() < 0.9 * len(response):
            return []
        size = self.problem.size
        root = np.sqrt(weight[usable])
        beam = Beam(columns[usable], response[usable], root)
        most = int(min(12, columns.shape[1], size // 4))
        if pool.settled:  # more terms could not shorten the description
            most = min(most, len(pool.best.form.parameters))
        grown = beam.search(most, 6, self.problem.clock.check)
        downwards = beam.eliminate(most) if columns.shape[1] <= size // 5 else {}
        floor = size * (self.problem.floor * self.problem.scale) ** 2
        cost = 0.5 * math.log(size) + 3
        ranked = {}
        for states in (*grown.values(), *downwards.values()):
            for support, error in states.items():
                error = max(error, floor) / size / self.problem.scale**2
                length = 0.5 * size * math.log(error) + cost * len(support)
                if support and error * self.problem.scale**2 < 3 * pool.best.loss:
                    ranked[support] = length
        pairs = []
        for support in sorted(ranked, key=ranked.__getitem__)[:4]:
            found = beam.solve(support)[0] / beam.norm[list(support)]
            pairs.append((np.array(support), found))
        return pairs

    def offer(self, forms, pool, seen):
        """Add the forms to the pool; return the best new one or None, and whether the
        pool's best is exact up to the digits of y."""
        best, length = None, np.inf
        for form in forms:
            key = tuple(bracket.exponents.tobytes() for bracket in form.brackets)
            if key in seen:
                continue
            seen.add(key)
            added = pool.add(form)
            found = pool.length(added)
            if found < length:
                best, length = added, found
        digits = self.problem.digits
        done = best is not None and digits > self.problem.floor and pool.convincing
        return best, done and self.problem.exact(pool.best.form, digits)


def eliminate(columns, z, weight, noise):
    """Yields relations N - z D = 0 while columns are removed: indices and coefficients
    of N, then of D."""
    k = columns.shape[1]
    root = np.sqrt(weight)[:, None]
    both = np.concatenate([columns, -z[:, None] * columns], axis=1) * root
    scale = np.linalg.norm(both, axis=0)
    if not (np.isfinite(scale).all() and scale.all()):
        return
    gram = (both / scale).T @ (both / scale)
    blurred = columns * root * np.sqrt(noise)[:, None] / scale[k:]
    gram[k:, k:] -= blurred.T @ blurred
    kept = np.arange(2 * k)
    vector = np.linalg.eigh(gram)[1][:, 0]
    while len(kept) > 2:
        trials = []
        for i in np.argsort(np.abs(vector))[:4]:
            rest = np.delete(kept, i)
            values, vectors = np.linalg.eigh(gram[np.ix_(rest, rest)])
            trials.append((values[0], rest, vectors[:, 0]))
        _, kept, vector = min(trials, key=lambda trial: trial[0])
        found = vector / scale[kept]
        top = kept < k
        if len(kept) <= 14 and top.any() and not top.all():
            yield kept[top], found[top], kept[~top] - k, found[~top]


def smooth_values(task):
    """g smoothed by a polynomial of u or of log u, whichever fits better."""
    problem, reduction = task.problem, task.reduction
    k = task.u.shape[1]
    found = []
    most = min(len(task.g) // 8, 150)
    degree = max((m for m in range(1, 7) if count(k, m) <= most), default=1)
    scale = np.maximum(np.abs(task.u).max(axis=0), 1e-300)
    design = monomials(task.u / scale, total_degree(k, degree))
    root = np.sqrt(task.weight)
    fit = np.linalg.lstsq(design * root[:, None], task.g * root, rcond=1e-10)[0]
    found.append(design @ fit)
    used = positive(problem)
    if used is not None and used[2].all() and (task.g > 0).all():
        smooth = Smooth(problem, used[0], "absolute", reduction)
        found.append(np.exp(np.clip(smooth.values, -600, 600)))
    errors = [float(((task.g - fit) ** 2 * task.weight).sum()) for fit in found]
    return found[int(np.argmin(errors))]


def libraries(u):
    """Sets of exponents for sparse sums: whole powers, then those of both signs if u
    has no zero. The more variables, the lower the degree."""
    k = u.shape[1]
    degree = {1: 4, 2: 4, 3: 3}.get(k, 2 if k <= 12 else 1)
    found = [total_degree(k, degree)]
    if (u != 0).all():
        found.append(laurent(k))
    return found


def laurent(k):
    """Exponents of both signs of k variables, up to a sum of magnitudes."""
    most = {1: 4, 2: 4, 3: 3, 4: 3, 5: 3}.get(k, 2 if k <= 12 else 1)
    rows = []
    for powers in total_degree(k, most):
        used = np.flatnonzero(powers)
        for sign in itertools.product(*[(1, -1)] * len(used)):
            row = powers.copy()
            row[used] *= sign
            rows.append(row)
    return np.array(rows)


#: The stages for every task, in this order, and their names in the status line.
PARTS = (
    (Task.plain, "simple formulas"),
    (Task.products, "a population of products of sums"),
    (Task.rest, "larger formulas"),
)
