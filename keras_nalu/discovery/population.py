"""The search by a population for products of sums under different powers, in noise,
which linear algebra does not reach.

    g = c u^p prod_b (1 + sum_k c_bk u^p_bk)^q_b

Levenberg-Marquardt with an analytic Jacobian trains all members at once. They differ in
their initial values and in the powers q, which stay fixed. Then, in several rounds, the
exponents nearest to multiples of `exponent_step` are rounded and fixed, and the rest is
trained again.
"""

import numpy as np

from keras_nalu.discovery.forms import Bracket, build

BRACKETS, TERMS = 2, 1
MEMBERS, ROWS, STEPS, ROUNDS, STEPS_A_ROUND = 96, 500, 30, 6, 10
#: Share of the free exponents that each round fixes.
ROUNDED = 0.45
LARGEST = 6.0


def forms(task):
    """At most four forms with the lowest loss for a task; none unless u is positive."""
    if not (task.u > 0).all():
        return []
    rows = np.random.default_rng(0).permutation(len(task.g))[:ROWS]
    members = Members(task, rows)
    for _ in range(STEPS):
        members.step()
    for _ in range(ROUNDS):
        members.round()
        for _ in range(STEPS_A_ROUND):
            members.step()
    found = [members.form(i) for i in np.argsort(members.loss)[:8]]
    step = task.problem.step  # the power of a power may not be a multiple of it
    return [form for form in found if not (form.exponents / step % 1).any()][:4]


class Members:
    """The parameters of all members, (members, parameters), in the order c, p, and for
    each bracket its c_k, p_k and q."""

    def __init__(self, task, rows):
        self.task = task
        self.L = np.log(task.u[rows])
        root = np.sqrt(task.weight[rows])
        self.size = np.sqrt(np.average(task.g[rows] ** 2, weights=root**2))
        self.root = root / np.sqrt(np.mean(root**2))
        self.y = task.g[rows] / self.size
        d, step = self.L.shape[1], task.problem.step
        random = np.random.default_rng(0)
        powers = [1.0, -1.0, *([step, -step] if step < 1 else [])]
        parts = [np.ones((MEMBERS, 1)), random.normal(0, 0.7, (MEMBERS, d))]
        kinds = [0, *[1] * d]  # 0: coefficient, 1: exponent, 2: fixed power
        for _ in range(BRACKETS):
            shape = MEMBERS, TERMS * d
            near = random.choice([-2, -1, 0, 0, 0, 1, 2], shape)
            parts.append(random.normal(0, 0.5, (MEMBERS, TERMS)))
            parts.append(near + random.normal(0, 0.2, shape))
            parts.append(random.choice(powers, (MEMBERS, 1)))
            kinds += [0] * TERMS + [1] * (TERMS * d) + [2]
        self.values = np.concatenate(parts, axis=1)
        self.exponents = np.array(kinds) == 1
        self.fixed = np.tile(np.array(kinds) == 2, (MEMBERS, 1))
        self.damping = np.full(MEMBERS, 1e-2)
        start = self.outputs(self.values)[0]
        with np.errstate(all="ignore"):
            scale = (start @ self.y) / (start**2).sum(axis=1)
        self.values[:, 0] = np.where(np.isfinite(scale) & (scale != 0), scale, 1.0)
        self.loss = self.losses(self.values)

    def split(self, values):
        """c (m, 1), p (m, d), and c_b (m, k), p_b (m, k, d), q_b (m, 1) per bracket."""
        d, k = self.L.shape[1], TERMS
        found = []
        for start in range(1 + d, values.shape[1], k + k * d + 1):
            inner = values[:, start + k : start + k + k * d]
            last = start + k + k * d
            found.append(
                (
                    values[:, start : start + k],
                    inner.reshape(-1, k, d),
                    values[:, last : last + 1],
                )
            )
        return values[:, :1], values[:, 1 : 1 + d], found

    def outputs(self, values):
        """The outputs (m, rows), and the parts of every bracket for the Jacobian."""
        c, p, found = self.split(values)
        y = c * np.exp(np.clip(p @ self.L.T, -50, 50))
        parts = []
        for coefficients, exponents, power in found:
            terms = np.exp(np.clip(exponents @ self.L.T, -50, 50))
            inner = 1 + np.einsum("mk,mkn->mn", coefficients, terms)
            inner = np.maximum(inner, 1e-3)  # a root needs a positive base
            y = y * inner**power
            parts.append((coefficients, terms, inner, power))
        return y, parts

    def losses(self, values):
        """The weighted mean square of the error, (members,)."""
        with np.errstate(all="ignore"):
            error = (self.outputs(values)[0] - self.y) * self.root
            loss = (error**2).mean(axis=1)
        return np.where(np.isfinite(loss), loss, np.inf)

    def jacobian(self):
        """The outputs, and their derivatives, (members, rows, parameters)."""
        y, parts = self.outputs(self.values)
        columns = [y[:, :, None] / self.values[:, None, :1], y[:, :, None] * self.L]
        for coefficients, terms, inner, power in parts:
            each = (y * power / inner)[:, None] * terms  # (members, terms, rows)
            columns.append(each.transpose(0, 2, 1))
            by_power = (coefficients[:, :, None] * each)[..., None] * self.L
            columns.append(by_power.transpose(0, 2, 1, 3).reshape(*y.shape, -1))
            columns.append(np.zeros((*y.shape, 1)))
        return y, np.concatenate(columns, axis=2)

    def step(self):
        """One Levenberg-Marquardt step of every member, with at most three dampings."""
        self.task.problem.clock.check()
        with np.errstate(all="ignore"):
            y, jacobian = self.jacobian()
            jacobian = jacobian * self.root[:, None] * ~self.fixed[:, None]
            left = np.nan_to_num((self.y - y) * self.root, posinf=0, neginf=0)
            jacobian = np.nan_to_num(jacobian, posinf=0, neginf=0)
            hessian = jacobian.transpose(0, 2, 1) @ jacobian
            slope = np.einsum("mnp,mn->mp", jacobian, left)
        diagonal = np.einsum("mpp->mp", hessian).copy()
        least = 1e-9 * diagonal.max(axis=1, keepdims=True) + 1e-30
        for _ in range(3):
            damped = hessian.copy()
            added = self.damping[:, None] * diagonal + least
            np.einsum("mpp->mp", damped)[...] += added
            change = np.linalg.solve(damped, slope[:, :, None])[:, :, 0]
            trial = np.clip(np.nan_to_num(self.values + change), -1e6, 1e6)
            loss = self.losses(trial)
            better = loss < self.loss
            self.values[better], self.loss[better] = trial[better], loss[better]
            factor = np.where(better, 0.2, 8.0)
            self.damping = np.clip(self.damping * factor, 1e-10, 1e8)
            if better.mean() > 0.7:
                break

    def round(self):
        """Fix the free exponents nearest to a multiple of the step at that multiple."""
        step = self.task.problem.step
        near = np.round(self.values / step) * step
        free = self.exponents & ~self.fixed
        far = np.where(free, np.abs(self.values - near), np.inf)
        rank = far.argsort(axis=1).argsort(axis=1)
        count = np.ceil(ROUNDED * free.sum(axis=1, keepdims=True))
        chosen = free & (rank < count)
        self.values = np.where(chosen, near, self.values)
        self.fixed |= chosen
        self.loss = self.losses(self.values)
        self.damping[:] = 1e-3

    def form(self, member):
        """The member as a form in the problem's columns."""
        step, reduction = self.task.problem.step, self.task.reduction
        values = self.values[member : member + 1]
        near = np.clip(np.round(values / step) * step, -LARGEST, LARGEST)
        values = np.where(self.exponents, near, values)
        c, p, found = self.split(values)
        brackets = [
            Bracket(
                np.r_[1.0, coefficients[0]],
                np.concatenate([0 * p, exponents[0]]) @ reduction.groups,
                float(power[0, 0]),
            )
            for coefficients, exponents, power in found
        ]
        shared = reduction.shared + p[0] @ reduction.groups
        return build(c[0, 0] * self.size, shared, brackets)
