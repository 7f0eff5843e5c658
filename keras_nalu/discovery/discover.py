"""The search for one output: it merges and scales the rows, holds out the outer tenth,
screens the columns, searches, and returns the formulas in the user's units."""

import dataclasses
import math

import numpy as np
import pandas as pd
from scipy import stats

from keras_nalu.discovery import answers
from keras_nalu.discovery.problem import Problem, TimeUpError, digits_of
from keras_nalu.discovery.screen import screen
from keras_nalu.discovery.search import search
from keras_nalu.discovery.selection import Pool, measured, refit_free

#: The search samples this many rows; the constants are then refitted on all.
MOST_ROWS = 10_000


@dataclasses.dataclass
class Settings:
    """What the user asked for."""

    noise: float
    selection: str
    step: float
    features: int | None
    random: np.random.RandomState


def discover(X, y, weight, names, settings, clock, tell):
    """The `Answer` for X (n, d), y (n,) and weights (n,)."""
    X, y, weight = merged(X, y, weight)
    x_scale, y_scale = scales(X), scales(y[:, None])
    d = X.shape[1]
    columns = distinct_columns(X)
    whole = Problem(
        X[:, columns] / x_scale[columns],
        y / y_scale[0],
        weight,
        clock,
        step=settings.step,
        digits=digits_of(y),
        noise=settings.noise,
    )
    inner = inner_rows(whole.X, whole.weight)
    problem = rounded(sampled(whole.rows(inner), settings.random))
    pool, columns = run(problem, whole, columns, settings, tell)
    asked = whole.columns(np.searchsorted(distinct_columns(X), columns))
    rest = asked.rows(~inner)
    chosen = listed(pool, asked)
    best = pick(chosen, settings.selection)
    grows = pool.problem.by_size_of_y and not problem.by_size_of_y
    whole = asked.by_size(chosen[best].form(asked.X)) if grows else asked
    extrapolation = relative_error(chosen[best].form, rest)
    rivals = answers.undecided(chosen, chosen[best])
    final = [refitted(candidate.form, whole) for candidate in chosen]
    digits = [answers.digits_known(form, whole) for form in final]
    losses = [asked.mse(form) * y_scale[0] ** 2 for form in final]
    forms = [
        form.widen(columns, d).rescale(x_scale, y_scale[0]) if d else form
        for form in final
    ]
    texts = [answers.text(f, names, n) for f, n in zip(forms, digits, strict=True)]
    verdict = answers.verdict(final[best], rounded(whole))
    others = dict.fromkeys(texts[chosen.index(rival)] for rival in rivals)
    undecided = [text for text in others if text != texts[best]]
    kept = firsts(texts, best)
    best = kept.index(best)
    forms, losses, texts = ([each[i] for i in kept] for each in (forms, losses, texts))
    table = pd.DataFrame(
        {
            "complexity": [form.complexity for form in forms],
            "loss": losses,
            "score": scores(forms, losses, whole.floor * whole.scale * y_scale[0]),
            "equation": texts,
        }
    )
    return answers.Answer(
        table=table,
        forms=forms,
        best=best,
        undecided=undecided,
        extrapolation=extrapolation,
        verdict=verdict,
    )


def firsts(texts, best):
    """The index of the first of each text, or the best: forms that differ in the last
    digits alone have one text."""
    first = {text: i for i, text in reversed([*enumerate(texts)])}
    return sorted((first | {texts[best]: best}).values())


def run(problem, whole, columns, settings, tell):
    """The pool of formulas, and the indices of the columns that they use."""
    try:
        kept = screen(problem, settings.features)
    except TimeUpError:
        kept = np.arange(problem.X.shape[1])
    except KeyboardInterrupt:
        kept = np.arange(problem.X.shape[1])
        problem.clock.stop()
    problem, whole = problem.columns(kept), whole.columns(kept)
    pools = [Pool(problem)]
    try:
        search(problem, whole, pools, tell)
    except TimeUpError:
        pass  # the pools keep what was found so far
    except KeyboardInterrupt:
        problem.clock.stop()
    return min(pools, key=lambda pool: pool.nats(problem)), columns[kept]


def merged(X, y, weight):
    """Sorted distinct rows, each with the sum of its weights; weights of mean 1.

    A weight of 2 thus equals the row twice, and a weight of 0 drops the row.
    """
    both = np.c_[X, y][weight > 0]
    rows, at = np.unique(both, axis=0, return_inverse=True)
    total = np.bincount(at.ravel(), weights=weight[weight > 0])
    return rows[:, :-1], rows[:, -1], total / total.mean()


def scales(values):
    """A power of 2 for each column whose magnitude is far from 1, else 1."""
    with np.errstate(all="ignore"):
        logs = np.where(values != 0, np.log2(np.abs(values)), np.nan)
    counted = np.maximum(np.isfinite(logs).sum(axis=0), 1)
    mean = np.nansum(logs, axis=0) / counted
    return np.where(np.abs(mean) > 10, np.exp2(np.round(mean)), 1.0)


def distinct_columns(X):
    """Indices of the columns that are neither constant nor a copy of another."""
    seen: dict[bytes, int] = {}
    for i, column in enumerate(X.T):
        if (column != column[0]).any():
            seen.setdefault(column.tobytes(), i)
    return np.array(sorted(seen.values()), int)


def inner_rows(X, weight):
    """Mask of the rows that are not in the outer tenth, (rows,).

    The outer rows are those whose ranks are farthest from the middle of the columns.
    Fewer than 30 rows are all inner.
    """
    n, d = X.shape
    if n < 30 or d == 0:
        return np.ones(n, bool)
    far = np.abs((stats.rankdata(X, axis=0) - 1) / (n - 1) - 0.5)
    order = np.argsort((far**2).sum(axis=1), kind="stable")
    share = np.cumsum(weight[order]) / weight.sum()
    inner = np.zeros(n, bool)
    inner[order[share <= 0.9]] = True
    return inner


def sampled(problem, random):
    """At most `MOST_ROWS` of the rows."""
    n = len(problem.y)
    if n <= MOST_ROWS:
        return problem
    return problem.rows(np.sort(random.permutation(n)[:MOST_ROWS]))


def rounded(problem):
    """Weights by the rounding of each y, if y was rounded to few digits."""
    few = problem.digits > problem.floor and problem.scale
    return problem.by_size(problem.y) if few and not problem.by_size_of_y else problem


def listed(pool, whole):
    """The candidates of the table, the simplest first: the front, the best and its
    undecided rivals, a line and a power law."""
    distinct = [c for c in pool.distinct() if math.isfinite(whole.mse(c.form))]
    distinct = distinct or pool.distinct()
    best = distinct[0]
    kept = [best, *answers.undecided(distinct, best)]
    kept += [c for c in pool.front() if c in distinct]
    kept += [c for c in pool.simple() if c in distinct]
    unique = {id(c): c for c in kept}
    return sorted(unique.values(), key=lambda c: (c.form.complexity, c.loss))


def pick(candidates, selection):
    """The index of the chosen candidate."""
    if selection == "accuracy":
        return int(np.argmin([c.loss for c in candidates]))
    return int(np.argmin([c.length for c in candidates]))


def refitted(form, whole):
    """The form with its measured constants fitted to all rows."""
    trial = refit_free(form, whole, ~measured(form))
    return trial if whole.mse(trial) <= whole.mse(form) else form


def relative_error(form, problem):
    """The root mean square of the error divided by that of y; NaN without rows."""
    if not len(problem.y) or not problem.scale:
        return float("nan")
    return math.sqrt(problem.mse(form)) / problem.scale


def scores(forms, losses, floor):
    """PySR's score: the fall of the log loss per step of complexity."""
    result = [0.0]
    logs = np.log(np.maximum(losses, max(floor**2, 1e-300)))
    for i in range(1, len(forms)):
        step = max(forms[i].complexity - forms[i - 1].complexity, 1)
        result.append(float(max(logs[i - 1] - logs[i], 0) / step))
    return result
