"""The exact search: a rational function is a linear relation of monomials.

N(u) - z D(u) = 0 for z = g or g^2: its coefficients span the null space of the columns
[monomials, -z monomials]. The columns are taken in the order of their degree; the
first that depends on those before it gives the relation of the lowest degree, in which
N and D have no common factor. Likewise C + g B + g^2 A = 0 gives the sums of a root and
a rational function.
"""

import functools

import numpy as np

from keras_nalu.discovery.factoring import factored
from keras_nalu.discovery.forms import Bracket, Form, Sum, build, monomials, simple
from keras_nalu.discovery.powers import (
    count,
    identity,
    kinds,
    reductions,
    total_degree,
)

#: A relation of more terms, or of more constants that are not simple numbers, is taken
#: for an approximation: eleven such constants give exp(x) on 0..1 to 13 digits.
MOST_TERMS = 30
MOST_CONSTANTS = 6


def relations(problem):
    """Yields forms that are exact on every row of the problem.

    Small sets of exponents come first, so that no approximation of high degree is
    found before the law.
    """
    few = problem.rows(spread_rows(len(problem.y), 1500))
    d = problem.X.shape[1]
    stages = [lambda: [identity(d)]]
    stages += [functools.partial(reductions, few, kind) for kind in kinds(few)]
    tasks = []
    for i, stage in enumerate(stages):
        new = [
            (len(box), j, box, reduction)
            for j, reduction in enumerate(stage())
            for box in boxes(len(reduction.groups), len(few.y))
        ]
        new.sort(key=lambda task: task[:2])
        tasks += new
        for size, _, box, reduction in new:
            if i == 0 and size > 40:
                break  # try the fast ones first
            yield from exact(problem, solutions(few, reduction, box))
    if problem.step < 1:
        for size, _, box, reduction in sorted(tasks, key=lambda task: task[:2]):
            if 3 * size <= min(len(few.y) // 3, 300):
                yield from exact(problem, quadratics(few, reduction, box))


def exact(problem, forms):
    """Yields the forms that are exact and have few constants that are not simple."""
    for form in forms:
        measured = [c for c in form.parameters if simple(c, 1e-7) is None]
        if len(measured) <= MOST_CONSTANTS and problem.exact(form):
            yield form


def solutions(problem, reduction, exponents):
    """Yields the forms that one set of exponents gives."""
    applied = reduction.apply(problem)
    if applied is None:
        return
    u, g, _ = applied
    roots = [1, round(1 / problem.step)] if problem.step < 1 else [1]
    for root in roots:
        problem.clock.check()
        for numerator, denominator in null_vectors(u, [1, -(g**root)], exponents):
            form = reduction.form(numerator, denominator, 1 / root)
            form = factored(form, problem.X)
            yield signed(form, problem)


def quadratics(problem, reduction, exponents):
    """Yields the sums of a root and a rational function of one set of exponents."""
    applied = reduction.apply(problem)
    if applied is None:
        return
    u, g, _ = applied
    problem.clock.check()
    for C, B, A in null_vectors(u, [1, g, g**2], exponents):
        # g = -B / 2A +- sqrt(B^2 / 4 - A C) / A
        inner = added(times(B, B, 0.25), times(A, C, -1.0))
        one = np.ones(1), np.zeros_like(A[1][:1])
        first = reduction.form((-B[0] / 2, B[1]), A, 1)
        root = reduction.form(inner, one, 0.5)
        below = Bracket(A[0], A[1] @ reduction.groups, -1.0)
        for sign in 1.0, -1.0:
            brackets = [*root.brackets, below]
            second = build(sign * root.constant, root.exponents, brackets)
            yield Sum((first, second))


def times(first, second, scale):
    """The scaled product of two polynomials, each (coefficients, exponents)."""
    width = first[1].shape[1]
    exponents = (first[1][:, None] + second[1]).reshape(-1, width)
    return scale * np.outer(first[0], second[0]).ravel(), exponents


def added(first, second):
    """The sum of two polynomials; terms of the size of rounding are dropped."""
    both = np.concatenate([first[1], second[1]])
    exponents, at = np.unique(both, axis=0, return_inverse=True)
    total = np.bincount(at.ravel(), weights=np.r_[first[0], second[0]])
    kept = np.abs(total) > 1e-9 * np.abs(total).max()
    return total[kept], exponents[kept]


def boxes(k, rows):
    """Sets of exponents of k variables, the smallest first."""
    limit = min(rows // 2, 1400) // 2
    found = []
    for degree in range(1, 9):
        if count(k, degree) <= limit:
            found.append(total_degree(k, degree))
    for most in 1, 2, 3:
        if (most + 1) ** k <= limit and k > 1:
            grid = np.indices((most + 1,) * k).reshape(k, -1).T.astype(float)
            found.append(grid[np.argsort(grid.sum(axis=1), kind="stable")])
    return sorted(found, key=len)


def null_vectors(u, factors, exponents):
    """Yields the relations sum_j factor_j P_j(u) = 0, the simplest first.

    Each is a list of (coefficients, exponents), one for every P_j. No P_j is zero, and
    the last is positive on most rows.
    """
    columns = monomials(u, exponents)
    both = np.concatenate([np.c_[factor] * columns for factor in factors], axis=1)
    k = len(exponents)
    degrees = exponents.sum(axis=1)
    # Among columns of the same degree, those of the first polynomial come first.
    steps = np.arange(len(factors)) / len(factors)
    order = np.argsort((degrees + steps[:, None]).ravel(), kind="stable")
    norm = np.sqrt((both**2).mean(axis=0))
    if not (np.isfinite(norm).all() and norm.all()):
        return
    rows = spread_rows(len(u), 2 * both.shape[1] + 40)
    scaled = both / norm
    R = np.linalg.qr(scaled[np.ix_(rows, order)])[1]
    size = np.linalg.norm(R, axis=0)
    dependent = np.flatnonzero(np.abs(np.diag(R)) < 1e-12 * size)
    for j in dependent[:3]:
        before = np.setdiff1d(np.arange(j), dependent)
        vector = np.linalg.lstsq(R[:, before], R[:, j], rcond=None)[0]
        chosen = np.r_[order[before], order[j]]
        pruned = sparsest(scaled[rows], chosen, np.r_[-vector, 1.0])
        if pruned is None:
            continue
        support, vector = pruned
        coefficients = vector / norm[support]
        parts = [support // k == j for j in range(len(factors))]
        if not all(part.any() for part in parts):
            continue
        # The denominator must be positive, as a root is taken of it.
        below = columns[:, support[parts[-1]] % k] @ coefficients[parts[-1]]
        coefficients = coefficients * np.sign(np.median(below))
        yield [(coefficients[part], exponents[support[part] % k]) for part in parts]


def spread_rows(n, wanted):
    """About `wanted` of n rows, evenly spread."""
    return np.arange(n) if n <= wanted else np.linspace(0, n - 1, wanted).astype(int)


def sparsest(scaled, support, vector):
    """The relation with as many small entries dropped as it allows, or None."""
    for threshold in 1e-7, 1e-5, 1e-9, 1e-3:
        kept, found = support, vector
        while True:
            small = np.abs(found) < threshold * np.abs(found).max()
            if not small.any():
                break
            kept = kept[~small]
            _, s, Vt = np.linalg.svd(scaled[:, kept], full_matrices=False)
            found = Vt[-1]
        if len(kept) == len(support):
            _, s, Vt = np.linalg.svd(scaled[:, kept], full_matrices=False)
            found = Vt[-1]
        if s[-1] < 1e-11 * s[0] and len(kept) <= MOST_TERMS:
            return kept, found
    return None


def signed(form, problem):
    """The form or its negative, whichever has the sign of y."""
    values = form(problem.X)
    if np.nansum(values * problem.y) < 0:
        return Form(-form.constant, form.exponents, form.brackets)
    return form
