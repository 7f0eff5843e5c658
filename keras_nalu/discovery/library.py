"""Sparse sums of candidate columns, by beam search on their Gram matrix."""

import numpy as np


class Beam:
    """Best subsets of columns for least squares, size by size.

    Args:
        columns: Array (rows, columns).
        target: Array (rows,).
        root: Square roots of the rows' weights, (rows,).
    """

    def __init__(self, columns, target, root):
        weighted = columns * root[:, None]
        norm = np.linalg.norm(weighted, axis=0)
        self.norm = np.where(norm > 0, norm, 1)
        weighted = weighted / self.norm
        target = target * root
        self.gram = weighted.T @ weighted
        self.right = weighted.T @ target
        self.total = float(target @ target)
        self.empty = norm == 0

    def solve(self, support):
        """Coefficients of the scaled columns, the inverse Gram matrix, and the
        squared error."""
        chosen = list(support)
        gram = self.gram[np.ix_(chosen, chosen)]
        inverse = np.linalg.inv(gram + 1e-13 * np.eye(len(chosen)))
        found = inverse @ self.right[chosen]
        return found, inverse, self.total - float(found @ self.right[chosen])

    def grow(self, support):
        """The squared error after adding each column, (columns,); infinite for columns
        that depend linearly on the support."""
        chosen = list(support)
        if not chosen:
            gain = self.right**2
            error = self.total - gain
        else:
            found, inverse, error = self.solve(support)
            across = self.gram[:, chosen]
            rest = 1 - np.einsum("ij,jk,ik->i", across, inverse, across)
            left = self.right - across @ found
            with np.errstate(all="ignore"):
                error = error - np.where(rest > 1e-9, left**2 / rest, -np.inf)
        error = np.array(error, float)
        error[chosen] = np.inf
        error[self.empty] = np.inf
        return error

    def search(self, most, width, check=lambda: None):
        """{size: {support: squared error}} of the best supports up to `most` columns.

        The three best of each size are improved by `exchange`.
        """
        best: dict[int, dict[tuple, float]] = {0: {(): self.total}}
        states = [()]
        for size in range(1, most + 1):
            check()
            found: dict[tuple, float] = {}
            for support in states:
                error = self.grow(support)
                for j in np.argsort(error)[:width]:
                    if np.isfinite(error[j]):
                        found[tuple(sorted((*support, int(j))))] = float(error[j])
            for support, error in sorted(found.items(), key=lambda f: f[1])[:3]:
                improved, smaller = self.exchange(support, error)
                found[improved] = smaller
            best[size] = dict(sorted(found.items(), key=lambda f: f[1])[:width])
            states = list(best[size])
            if not states:
                break
        return best

    @np.errstate(over="ignore", invalid="ignore")  # of a nearly singular inverse
    def eliminate(self, most):
        """{size: {support: squared error}}, removing the least important column first.

        It finds supports that greedy growth misses if columns are correlated.
        """
        kept = np.flatnonzero(~self.empty)
        if not np.isfinite(self.gram).all():
            return {}
        inverse = np.linalg.pinv(self.gram[np.ix_(kept, kept)], rcond=1e-13)
        found = inverse @ self.right[kept]
        error = self.total - float(found @ self.right[kept])
        path = {}
        while len(kept) > 0:
            if len(kept) <= most:
                path[len(kept)] = {tuple(int(j) for j in kept): error}
            diagonal = np.maximum(np.diag(inverse), 1e-12)  # >= 1 without rounding
            cost = found**2 / diagonal
            i = int(np.argmin(cost))
            error += float(cost[i])
            if not np.isfinite(cost).all():
                return {}
            column = inverse[:, i] / diagonal[i]
            found = np.delete(found - column * found[i], i)
            inverse = inverse - np.outer(column, inverse[i])
            inverse = np.delete(np.delete(inverse, i, axis=0), i, axis=1)
            kept = np.delete(kept, i)
        return path

    def exchange(self, support, error):
        """The support after swapping single columns while the error falls."""
        while len(support) > 1:
            trials = []
            for i in support:
                rest = tuple(j for j in support if j != i)
                grown = self.grow(rest)
                j = int(np.argmin(grown))
                trials.append((float(grown[j]), tuple(sorted((*rest, j)))))
            smallest, improved = min(trials)
            if not smallest < error * (1 - 1e-9) or improved == support:
                break
            support, error = improved, smallest
        return support, error
