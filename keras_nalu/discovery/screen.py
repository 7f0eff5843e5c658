"""Forward selection of columns by F tests, for tables of many columns."""

import numpy as np
from scipy import stats

from keras_nalu.discovery.powers import line, power_laws

#: Up to this many columns, all are kept.
FEW = 8


def screen(problem, most=None):
    """Sorted indices of the columns that y depends on.

    A column is tested with its powers up to the fourth and its products with the chosen
    columns. It may explain y, log|y| or the square of the residual.
    """
    d = problem.X.shape[1]
    if d <= (most or FEW):
        return np.arange(d)
    few = min(most or d, len(problem.y) // 4)
    for form in line(problem), *power_laws(problem):
        if problem.exact(form) and len(form.used) <= few:
            return form.used
    rows = np.linspace(0, len(problem.y) - 1, min(len(problem.y), 4000)).astype(int)
    small = problem.rows(np.unique(rows))
    root = np.sqrt(small.weight)[:, None]
    X = small.X / np.maximum(np.abs(small.X).max(axis=0), 1e-300)
    X = (X - X.mean(axis=0)) / np.maximum(X.std(axis=0), 1e-12)
    targets = [small.y / problem.scale]
    if (small.y != 0).all():
        targets.append(np.log(np.abs(small.y)))
    chosen: list[int] = []
    for _ in range(min(most or 12, d)):
        problem.clock.check()
        best = strongest(X, targets, chosen, root)
        if best is None:
            break
        chosen.append(best)
    return np.sort(np.array(chosen, int)) if chosen else np.arange(min(d, FEW))


def features(X, i, chosen):
    """Powers of column i and its products with the chosen ones."""
    powers = [X[:, i] ** power for power in (1, 2, 3, 4)]
    return np.stack([*powers, *(X[:, i] * X[:, j] for j in chosen)], axis=1)


def strongest(X, targets, chosen, root):
    """The column that explains most of the residuals, or None if none explains any."""
    n, d = X.shape
    blocks = [features(X, i, chosen[:at]) for at, i in enumerate(chosen)]
    design = np.concatenate([np.ones((n, 1)), *blocks], axis=1) * root
    if n - design.shape[1] < 12 + len(chosen):
        return None
    Q = np.linalg.qr(design)[0]
    left = []
    for target in targets:
        target = target[:, None] * root
        left.append(target - Q @ (Q.T @ target))
    square = (left[0] / root) ** 2 * root
    left.append(square - Q @ (Q.T @ square))
    left = np.concatenate(left, axis=1)
    total = (left**2).sum(axis=0)
    if not (total > 1e-24 * n).any():
        return None
    best, most = None, 0.0
    for i in set(range(d)) - set(chosen):
        block = features(X, i, chosen) * root
        block = block - Q @ (Q.T @ block)
        basis, r = np.linalg.qr(block)
        basis = basis[:, np.abs(np.diag(r)) > 1e-9 * np.abs(r).max()]
        share = ((basis.T @ left) ** 2).sum(axis=0) / np.maximum(total, 1e-300)
        k = max(basis.shape[1], 1)
        free = n - design.shape[1] - k
        F = share / k / np.maximum((1 - share) / free, 1e-300)
        real = (stats.f.sf(F, k, free) < 1e-3 / d) & (total > 1e-24 * n)
        # The squared residual counts only if no other target is explained.
        real[-1] &= not real[:-1].any()
        gain = float(np.where(real, share, 0).max())
        if gain > most:
            best, most = i, gain
    return best
