"""The class of formulas that the search covers.

    y = c * x^p * prod_b (sum_k c_bk x^p_bk)^q_b

The first coefficient of a bracket is 1; p and q are multiples of `exponent_step`.
"""

import dataclasses
import fractions
import math

import numpy as np


def monomials(X, exponents):
    """`prod_i X_i ^ exponents_ki`, of shape (rows, k)."""
    exponents = np.atleast_2d(exponents)
    result = np.ones((len(X), len(exponents)))
    with np.errstate(all="ignore"):
        for column, values in zip(exponents.T, X.T, strict=True):
            for power in np.unique(column[column != 0]):
                result[:, column == power] *= (values**power)[:, None]
    return result


@dataclasses.dataclass(frozen=True, eq=False)
class Bracket:
    """`(sum_k coefficients_k x^exponents_k) ^ power`; coefficients_0 is 1."""

    coefficients: np.ndarray
    exponents: np.ndarray
    power: float


@dataclasses.dataclass(frozen=True, eq=False)
class Form:
    """A formula: `constant * x^exponents *` its brackets."""

    constant: float
    exponents: np.ndarray
    brackets: tuple[Bracket, ...] = ()

    @property
    def parameters(self):
        """All free constants: the first one, and each bracket's but its leading 1."""
        inner = [bracket.coefficients[1:] for bracket in self.brackets]
        return np.concatenate([[self.constant], *inner])

    def replace(self, parameters):
        """The same structure with other constants."""
        brackets, at = [], 1
        for bracket in self.brackets:
            size = len(bracket.coefficients) - 1
            values = np.concatenate([[1.0], parameters[at : at + size]])
            brackets.append(dataclasses.replace(bracket, coefficients=values))
            at += size
        return Form(float(parameters[0]), self.exponents, tuple(brackets))

    @property
    def terms(self):
        """(bracket, term) of each of `parameters` after the first."""
        return [
            (b, k)
            for b, bracket in enumerate(self.brackets)
            for k in range(1, len(bracket.coefficients))
        ]

    def without(self, b, k):
        """The structure without term k of bracket b."""
        brackets = list(self.brackets)
        brackets[b] = dataclasses.replace(
            brackets[b],
            coefficients=np.delete(brackets[b].coefficients, k),
            exponents=np.delete(brackets[b].exponents, k, axis=0),
        )
        return build(self.constant, self.exponents, brackets)

    def __call__(self, X):
        """The values, (rows,); NaN outside of the formula's domain."""
        with np.errstate(all="ignore"):
            y = self.constant * monomials(X, self.exponents)[:, 0]
            for bracket in self.brackets:
                inner = monomials(X, bracket.exponents) @ bracket.coefficients
                y = y * inner**bracket.power
        return y

    def value_and_jacobian(self, X):
        """The values, (rows,), and their derivatives by `parameters`."""
        with np.errstate(all="ignore"):
            outer = monomials(X, self.exponents)[:, 0]
            parts = []
            for bracket in self.brackets:
                terms = monomials(X, bracket.exponents)
                inner = terms @ bracket.coefficients
                outer = outer * inner**bracket.power
                parts.append(bracket.power * terms[:, 1:] / inner[:, None])
            y = self.constant * outer
            columns = [outer[:, None], *(y[:, None] * part for part in parts)]
        return y, np.concatenate(columns, axis=1)

    @property
    def powers(self):
        """The exponents of all variables, and those of brackets that are not 1."""
        seen = [p for p in self.exponents if p]
        for bracket in self.brackets:
            seen += [p for p in bracket.exponents.ravel() if p]
            seen += [bracket.power] if bracket.power != 1 else []
        return seen

    @property
    def complexity(self):
        """The number of constants other than 1, of occurrences of variables, and of
        powers other than 1."""
        constants = np.sum(np.abs(self.parameters) != 1)
        return int(constants + sum(1 + (p != 1) for p in self.powers)) or 1

    @property
    def used(self):
        """Indices of the variables that the formula contains."""
        total = np.abs(self.exponents)
        for bracket in self.brackets:
            total = total + np.abs(bracket.exponents).sum(axis=0)
        return np.flatnonzero(total)

    def widen(self, columns, width):
        """The same form in `width` variables; its present ones become `columns`."""

        def spread(exponents):
            wide = np.zeros((*exponents.shape[:-1], width))
            wide[..., columns] = exponents
            return wide

        brackets = tuple(
            dataclasses.replace(bracket, exponents=spread(bracket.exponents))
            for bracket in self.brackets
        )
        return Form(self.constant, spread(self.exponents), brackets)

    def rescale(self, x_scale, y_scale):
        """The form that gives `y_scale * y` for `x_scale * x`."""
        brackets = [
            dataclasses.replace(
                bracket,
                coefficients=bracket.coefficients
                * np.exp2(-bracket.exponents @ np.log2(x_scale)),
            )
            for bracket in self.brackets
        ]
        constant = self.constant * y_scale
        constant *= np.exp2(-self.exponents @ np.log2(x_scale))
        return build(constant, self.exponents, brackets)

    def sympy(self, symbols, digits=None):
        """The SymPy expression; constants are rounded to `digits`."""
        result = number(self.constant, digits) * product(self.exponents, symbols)
        for bracket in self.brackets:
            inner = sum_of(bracket, 1.0, symbols, digits)
            result = result * inner ** rational(bracket.power)
        return result


@dataclasses.dataclass(frozen=True, eq=False)
class Sum:
    """A sum of forms, such as a root plus a rational function."""

    parts: tuple[Form, ...]
    brackets = ()

    @property
    def parameters(self):
        """The free constants of all parts, in their order."""
        return np.concatenate([part.parameters for part in self.parts])

    def replace(self, parameters):
        """The same structure with other constants."""
        ends = np.cumsum([len(part.parameters) for part in self.parts])[:-1]
        split = np.split(parameters, ends)
        pairs = zip(self.parts, split, strict=True)
        return Sum(tuple(part.replace(values) for part, values in pairs))

    def __call__(self, X):
        """The values, (rows,)."""
        return sum(part(X) for part in self.parts)

    def value_and_jacobian(self, X):
        """The values, (rows,), and their derivatives by `parameters`."""
        pairs = [part.value_and_jacobian(X) for part in self.parts]
        values, columns = zip(*pairs, strict=True)
        return sum(values), np.concatenate(columns, axis=1)

    @property
    def powers(self):
        """The exponents of all parts."""
        return [power for part in self.parts for power in part.powers]

    @property
    def complexity(self):
        """The sum of the parts' complexities."""
        return sum(part.complexity for part in self.parts)

    def widen(self, columns, width):
        """As `Form.widen`."""
        return Sum(tuple(part.widen(columns, width) for part in self.parts))

    def rescale(self, x_scale, y_scale):
        """As `Form.rescale`."""
        return Sum(tuple(part.rescale(x_scale, y_scale) for part in self.parts))

    def sympy(self, symbols, digits=None):
        """The SymPy sum."""
        import sympy

        return sympy.Add(*(part.sympy(symbols, digits) for part in self.parts))


def product(exponents, symbols):
    """The SymPy monomial of these exponents."""
    import sympy

    pairs = zip(symbols, exponents, strict=True)
    return sympy.Mul(*(symbol ** rational(power) for symbol, power in pairs if power))


def sum_of(bracket, scale, symbols, digits=None):
    """`scale` times the SymPy sum inside a bracket."""
    import sympy

    pairs = zip(scale * bracket.coefficients, bracket.exponents, strict=True)
    return sympy.Add(*(number(c, digits) * product(p, symbols) for c, p in pairs))


def build(constant, exponents, brackets):
    """A `Form` in canonical order: common monomials and first coefficients move before
    the brackets, brackets of one term are multiplied out, equal brackets are joined."""
    exponents = np.array(exponents, float)
    merged: dict[bytes, Bracket] = {}
    for bracket in brackets:
        common = bracket.exponents.min(axis=0)
        inner = bracket.exponents - common
        order = np.lexsort([*inner.T, np.abs(inner).sum(axis=1)])
        inner, coefficients = inner[order], bracket.coefficients[order]
        if bracket.power % 1 and coefficients[0] < 0 < coefficients.max():
            # The first coefficient is taken out of the root, so it must be positive.
            leader = np.flatnonzero(coefficients > 0)[0]
            order = np.r_[leader, np.delete(np.arange(len(coefficients)), leader)]
            inner, coefficients = inner[order], coefficients[order]
        with np.errstate(all="ignore"):
            constant = constant * coefficients[0] ** bracket.power
            coefficients = coefficients / coefficients[0]
        exponents = exponents + common * bracket.power
        if len(coefficients) == 1:
            continue
        key = coefficients.tobytes() + inner.tobytes()
        power = bracket.power + (merged[key].power if key in merged else 0)
        merged[key] = Bracket(coefficients, inner, power)
    kept = tuple(bracket for bracket in merged.values() if bracket.power)
    return Form(float(constant), exponents, kept)


def rational(value):
    """A SymPy number for an exponent."""
    import sympy

    close = fractions.Fraction(float(value)).limit_denominator(24)
    return sympy.Rational(close.numerator, close.denominator)


def number(value, digits=None):
    """A SymPy number for a constant: an integer, a fraction of small numbers, or a
    float of `digits` digits."""
    import sympy

    close = simple(value)
    if close is not None and (close.denominator == 1 or close.denominator % 3 == 0):
        return sympy.Rational(close.numerator, close.denominator)
    if digits is None:
        return sympy.Float(float(value), 17)
    rounded = float(f"{value:.{digits}g}")
    if rounded == round(rounded) and abs(rounded) < 10**digits:
        return sympy.Integer(round(rounded))
    return sympy.Float(rounded, digits)


def simple(value, rtol=1e-12):
    """`value` as a fraction of small numbers, or None."""
    if not math.isfinite(value) or not 1e-3 < abs(value) < 1e4:
        return None
    close = fractions.Fraction(value).limit_denominator(12)
    return close if abs(close - value) <= rtol * abs(value) else None
