"""The result of a search: a table of formulas, their texts, and a verdict."""

import dataclasses
import math

import numpy as np
import pandas as pd

from keras_nalu.discovery.forms import Form, rational, sum_of
from keras_nalu.discovery.selection import UNDECIDED, depends, errors, linear, measured

#: The verdict if the residual still depends on X.
NOT_IN_CLASS = (
    "No formula of products, quotients, sums, powers and roots was found that fits: "
    "the residual still depends on X. The search does not know sin, exp and log."
)

#: Laws rarely have more constants that are not simple numbers.
MOST_CONSTANTS = 4


@dataclasses.dataclass
class Answer:
    """The formulas of one output, in the user's columns and units."""

    table: pd.DataFrame
    forms: list[Form]
    best: int
    undecided: list[str]
    extrapolation: float
    verdict: str


def quoted(names):
    """SymPy symbols of the names; those that are not identifiers are in backticks."""
    import sympy

    return [
        sympy.Symbol(name if name.isidentifier() else f"`{name}`") for name in names
    ]


def text(form, names, digits):
    """The form as text; the constant moves into a bracket if that is shorter."""
    import sympy

    symbols = quoted(names)
    found = [form.sympy(symbols, digits)]
    for b, bracket in enumerate(form.brackets):
        if abs(bracket.power) == 1 or (form.constant > 0 and abs(bracket.power) == 0.5):
            scale = form.constant ** (1 / bracket.power)
            power = rational(bracket.power)
            moved = sum_of(bracket, scale, symbols, digits) ** power
            others = form.brackets[:b] + form.brackets[b + 1 :]
            rest = Form(1.0, form.exponents, others)
            found.append(rest.sympy(symbols, digits) * moved)
    texts = [sympy.sstr(expression, full_prec=False) for expression in found]
    return min(texts, key=lambda t: (len(t), texts.index(t)))


def digits_known(form, problem):
    """How many digits of the constants the data determine, from 3 to 12."""
    error = errors(form, problem)
    with np.errstate(all="ignore"):
        share = error / np.abs(form.parameters)
    share = share[np.isfinite(share) & (share > 0)]
    if not share.size:
        return 12
    return int(np.clip(math.ceil(-math.log10(share.min())) + 1, 3, 12))


def verdict(form, problem):
    """A warning for the reader of the formula, or an empty text.

    `problem` has all rows, and the weights of `discover.rounded`.
    """
    constants, rows = int(measured(form).sum()), len(problem.y)
    if 2 * constants > rows:
        return (
            f"The formula has {constants} constants for {rows} rows: the data are too "
            "few to test it."
        )
    if problem.exact(form, problem.digits):
        return ""
    values = form(problem.X)
    left = problem.y - values
    # Noise that grows with y looks like a dependence, but not once it is clipped.
    clipped = np.clip(left, *(np.array([-2, 2]) * np.median(np.abs(left))))
    if all(depends(r, problem.X, problem.weight, values) for r in (left, clipped)):
        return NOT_IN_CLASS
    if constants > MOST_CONSTANTS and not (isinstance(form, Form) and linear(form)):
        return (
            f"The formula has {constants} constants that are not simple numbers: it "
            "may be an approximation that fails outside of these data."
        )
    return ""


def undecided(candidates, best):
    """The candidates that the data cannot distinguish from the best."""
    return [
        other
        for other in candidates
        if other is not best and other.length - best.length < UNDECIDED
    ]
