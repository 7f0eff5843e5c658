"""The least-squares line and power law, and reductions of y to fewer variables."""

import dataclasses
import itertools

import numpy as np

from keras_nalu.discovery.forms import Bracket, Form, build, monomials


def line(problem):
    """y = b + sum_i a_i x_i by least squares, without the terms that are rounding.

    A term is rounding if it changes y by less than `problem.floor` of y's size; b
    absorbs the mean of its column.
    """
    d = problem.X.shape[1]
    design = np.c_[np.ones(len(problem.X)), problem.X]
    spread = np.r_[1.0, np.ptp(problem.X, axis=0)]
    root = np.sqrt(problem.weight)
    scale = np.abs(design).max(axis=0)
    scale[scale == 0] = 1
    kept = np.ones(d + 1, bool)
    found = np.zeros(d + 1)
    for _ in range(2):
        columns = design[:, kept] / scale[kept] * root[:, None]
        found[kept] = np.linalg.lstsq(columns, problem.y * root)[0] / scale[kept]
        kept &= np.abs(found) * spread > problem.floor * problem.scale
    if not kept.any():
        return Form(0.0, np.zeros(d))
    exponents = np.r_[np.zeros((1, d)), np.eye(d)][kept]
    return build(1.0, np.zeros(d), [Bracket(found[kept], exponents, 1.0)])


def power_laws(problem):
    """Yields y = c x^p by least squares of log|y| on log|x|; p is rounded to the step.

    The rows have equal weights (right for relative noise), then y^2 (additive noise).
    """
    used = positive(problem)
    if used is None:
        return
    L, target, rows = used
    design = np.c_[np.ones(len(L)), L]
    seen = set()
    for weight in problem.weight[rows], problem.weight[rows] * problem.y[rows] ** 2:
        root = np.sqrt(weight / weight.max())
        found = np.linalg.lstsq(design * root[:, None], target * root, rcond=1e-10)[0]
        for _ in range(5):  # reweighted, as the noise is added to y, not to log y
            mean = np.exp(np.clip(design @ found, -300, 300))
            answer = np.abs(problem.y[rows])
            response = design @ found + np.clip((answer - mean) / mean, -1, 1)
            if weight is problem.weight[rows]:
                break
            root = np.sqrt(problem.weight[rows]) * mean / mean.max()
            found = np.linalg.lstsq(design * root[:, None], response * root)[0]
        p = np.zeros(problem.X.shape[1])
        p[:] = np.round(found[1:] / problem.step) * problem.step
        signed = (problem.X < 0).any(axis=0)
        p[signed] = np.round(found[1:][signed])
        if p.tobytes() not in seen and np.abs(p).max() <= 12:
            seen.add(p.tobytes())
            m = monomials(problem.X, p)[:, 0]
            if np.isfinite(m).all() and m.any():
                w = problem.weight
                yield Form(float((w * m * problem.y).sum() / (w * m * m).sum()), p)


def positive(problem):
    """log|x|, log|y| and the mask of the rows where both are finite, or None if these
    are too few."""
    rows = (problem.y != 0) & (problem.X != 0).all(axis=1)
    if rows.sum() < problem.X.shape[1] + 2:
        return None
    return np.log(np.abs(problem.X[rows])), np.log(np.abs(problem.y[rows])), rows


@dataclasses.dataclass(frozen=True)
class Reduction:
    """y = x^shared * g(u), u_j = x^groups_j: g has fewer variables than y.

    A variable that only multiplies y by a power is in `shared` alone; variables that
    enter only as a product, as dimensional analysis makes them, form one u.
    """

    shared: np.ndarray
    groups: np.ndarray

    def apply(self, problem):
        """u (rows, k), g (rows,) and x^shared (rows,), or None if any is not finite."""
        u = monomials(problem.X, self.groups)
        outer = monomials(problem.X, self.shared)[:, 0]
        with np.errstate(all="ignore"):
            g = problem.y / outer
        if not (np.isfinite(u).all() and np.isfinite(g).all() and outer.all()):
            return None
        return u, g, outer

    def form(self, numerator, denominator, power):
        """x^shared * (numerator / denominator)^power as a form of x; each is a pair of
        coefficients (k,) and exponents of u (k, groups)."""
        brackets = [
            Bracket(np.asarray(c, float), np.asarray(e) @ self.groups, q)
            for (c, e), q in ((numerator, power), (denominator, -power))
        ]
        return build(1.0, self.shared, brackets)


def identity(d):
    """The reduction that keeps all d variables."""
    return Reduction(np.zeros(d), np.eye(d))


def kinds(problem):
    """The kinds of smooth fit: of log|y| with equal weights ("relative") or weights y^2
    ("absolute"), and of y itself if it has both signs ("signed")."""
    both = (problem.y > 0).any() and (problem.y < 0).any()
    return ("relative", "absolute", "signed") if both else ("relative", "absolute")


def reductions(problem, kind, slack=0.5):
    """Ways to write y with fewer variables, the fewest first, `identity` last.

    y (or log|y|) is fitted by a polynomial in log|x|. If sum_i a_i x_i dy/dx_i = b y,
    scaling x_i by t^a_i scales y by t^b, so that y needs one variable less: products of
    x that this scaling does not change. This is repeated with these products. A step is
    accepted by an F test, or if the error grows by less than the share `slack`, as the
    polynomial is not exact either. The reductions only order the search.
    """
    d = problem.X.shape[1]
    found = [identity(d)]
    used = positive(problem) if d > 1 else None
    if used is not None:
        L, _, rows = used
        found += deflations(problem.rows(rows), L, kind, slack)
    return found[::-1]


class Smooth:
    """A polynomial fit of log|g|, or of g if signed, and its gradient by log u.

    Its variables are log u, or u for those that have both signs.
    """

    def __init__(self, problem, L, kind, reduction, degree=None):
        self.logarithmic = kind != "signed"
        weight, outer = problem.weight, np.exp(L @ reduction.shared)
        if self.logarithmic:
            target = np.log(np.abs(problem.y)) - L @ reduction.shared
            weight = weight * problem.y**2 if kind == "absolute" else weight
        else:
            target, weight = problem.y / outer, weight * outer**2
        self.root = np.sqrt(weight / weight.max())
        u = monomials(problem.X, reduction.groups)
        scale = np.maximum(np.abs(u).mean(axis=0), 1e-300)
        both = (u < 0).any(axis=0)
        self.L = np.where(both, u / scale, L @ reduction.groups.T)
        self.slope = np.where(both, self.L, 1.0)  # d variable / d log u
        self.L = self.L - self.L.mean(axis=0)
        n, k = self.L.shape
        self.degree = degree or max(
            (m for m in range(1, 6) if count(k, m) <= min(n // 4, 330)), default=0
        )
        self.powers = total_degree(k, self.degree)
        design = monomials(self.L, self.powers)
        self.fit(design, target)
        sign = np.sign(problem.y @ weight)
        if kind == "absolute" and np.mean(np.sign(problem.y) == sign) > 0.7:
            for _ in range(3):  # reweighted, as the noise is added to y, not to log y
                mean = np.exp(np.clip(self.values, -300, 300))
                ratio = np.clip(sign * problem.y / outer / mean - 1, -1, 1)
                target = self.values + ratio
                size = mean * outer
                self.root = np.sqrt(problem.weight) * size / size.max()
                self.fit(design, target)
        self.rss = float((((target - self.values) * self.root) ** 2).sum())
        self.total = float(((target * self.root) ** 2).sum())
        self.free = n - len(self.powers)

    def fit(self, design, target):
        """Fit the target by weighted least squares."""
        weighted = design * self.root[:, None]
        self.found = np.linalg.lstsq(weighted, target * self.root, rcond=1e-10)[0]
        self.values = design @ self.found

    def gradient(self):
        """The derivatives by log u, (rows, k)."""
        columns = []
        for i, power in enumerate(self.powers.T):
            lower = self.powers.copy()
            lower[:, i] = np.maximum(power - 1, 0)
            columns.append(monomials(self.L, lower) @ (self.found * power))
        return np.stack(columns, axis=1) * self.slope

    def explains(self, full, slack):
        """Whether its error is about that of `full`, the fit with one variable more."""
        extra = max(self.free - full.free, 1)
        error = full.rss / max(full.free, 1)
        allowed = max(4 * extra * error, slack * full.rss, 2e-8 * slack * full.total)
        return self.rss - full.rss < allowed

    def invariances(self):
        """Pairs of whole numbers a, (k,), and b with sum_i a_i u_i dg/du_i = b g, the
        best and shortest first."""
        outer = np.abs(self.L / (self.L.std(axis=0) + 1e-300)).max(axis=1)
        inner = outer <= np.quantile(outer, 0.6)
        gradient, root = self.gradient()[inner], self.root[inner, None]
        mean = np.average(gradient, axis=0, weights=root[:, 0] ** 2)
        last = -np.ones(len(gradient)) if self.logarithmic else -self.values[inner]
        both = np.c_[gradient - mean if self.logarithmic else gradient, last] * root
        gram = both.T @ both / (both[:, -1] @ both[:, -1])
        found = []
        k = len(mean)
        for size in range(1, min(k, 3) + 1):
            for subset in itertools.combinations(range(k), size):
                chosen = [*subset] if self.logarithmic else [*subset, k]
                values, vectors = np.linalg.eigh(gram[np.ix_(chosen, chosen)])
                a = np.zeros(k)
                a[list(subset)] = vectors[:size, 0]
                b = a @ mean if self.logarithmic else vectors[size, 0]
                length = np.linalg.norm(a)
                if np.sqrt(max(values[0], 0)) < 0.2 * length:
                    whole = integers(a, 0.15)
                    if whole is not None and len(np.flatnonzero(whole)) == size:
                        b = b * (whole @ whole) / (a @ whole)
                        score = max(values[0] / length**2, 1e-8) * 16.0**size
                        found.append((score, tuple(whole), b))
        return [(np.array(a), b) for _, a, b in sorted(found)[:8]]


def deflations(problem, L, kind, slack):
    """Yields reductions, each with one variable less than the one before."""
    reduction = identity(L.shape[1])
    smooth = Smooth(problem, L, kind, reduction)
    while smooth.degree > 1 and len(reduction.groups) > 1:
        for a, b in smooth.invariances():
            problem.clock.check()
            trial = reduce(reduction, a, b, problem)
            if trial is None:
                continue
            if Smooth(problem, L, kind, trial, smooth.degree).explains(smooth, slack):
                reduction = trial
                break
        else:
            return
        yield reduction
        smooth = Smooth(problem, L, kind, reduction)


def reduce(reduction, a, b, problem):
    """The reduction with one variable less by the invariance (a, b), or None."""
    chosen = np.flatnonzero(a)
    signed = (problem.X < 0).any(axis=0)
    odd = (reduction.groups[chosen][:, signed] % 2).any(axis=1)
    pivot = chosen[(np.abs(a[chosen]) + 100 * odd).argmin()]
    rows = [np.eye(len(a))[i] for i in range(len(a)) if not a[i]]
    for i in chosen:
        if i != pivot:  # u_i^(a_pivot) / u_pivot^(a_i)
            row = np.zeros(len(a))
            row[i], row[pivot] = a[pivot], -a[i]
            rows.append(row / np.gcd.reduce(row[[i, pivot]].astype(int)))
    power = np.zeros(len(a))
    power[pivot] = np.round(b / a[pivot] / problem.step) * problem.step
    shared = reduction.shared + power @ reduction.groups
    groups = shortened(np.array(rows) @ reduction.groups, signed)
    if (shared[signed] % 1).any() or np.abs(shared).max() > 12:
        return None
    return Reduction(shared, groups)


def integers(vector, tolerance):
    """The multiple of the vector that is close to small whole numbers, or None."""
    for times in 1, 2, 3, 4, 6:
        scaled = vector / np.abs(vector).max() * times
        if np.abs(scaled - np.round(scaled)).max() < tolerance:
            return np.round(scaled)
    return None


def shortened(rows, signed):
    """A basis of the same lattice with shorter vectors, by sums and differences of
    pairs. The first entry of each is positive; entries of signed variables go first."""
    rows = np.array(rows)
    while True:
        length = np.abs(rows).sum(axis=1)
        best = None
        for i, j in itertools.permutations(range(len(rows)), 2):
            for sign in -1, 1:
                gain = length[i] - np.abs(rows[i] + sign * rows[j]).sum()
                if gain > 0 and (best is None or gain > best[0]):
                    best = gain, i, j, sign
        if best is None:
            break
        _, i, j, sign = best
        rows[i] = rows[i] + sign * rows[j]
    weight = (rows != 0) * (1 + 100 * signed)
    first = rows[np.arange(len(rows)), weight.argmax(axis=1)]
    return rows * np.sign(first)[:, None]


def total_degree(d, degree):
    """All exponents of d variables up to a total degree, the lowest first."""
    rows = []
    for total in range(degree + 1):
        for picked in itertools.combinations_with_replacement(range(d), total):
            rows.append(np.bincount(np.array(picked, int), minlength=d))
    return np.array(rows, float)


def count(d, degree):
    """The number of monomials of d variables up to a total degree."""
    result = 1
    for i in range(1, degree + 1):
        result = result * (d + i) // i
    return result
