"""Factoring brackets with rational coefficients, by SymPy."""

import dataclasses
import fractions
import functools

import numpy as np

from keras_nalu.discovery.forms import Bracket, build, monomials


def factored(form, X):
    """The form with brackets factored whose coefficients are ratios of small whole
    numbers. So sqrt((a - b)^2) becomes a - b, which may be negative."""
    brackets, constant = [], form.constant
    for bracket in form.brackets:
        parts = factors(bracket)
        if parts is None:
            brackets.append(bracket)
            continue
        scale, found = parts
        constant = constant * scale**bracket.power
        brackets += [positive(part, X) for part in found]
    return build(constant, form.exponents, brackets)


def positive(bracket, X):
    """The bracket, or minus it if it has a root and is negative on most rows."""
    if bracket.power % 1 == 0:
        return bracket
    inner = monomials(X, bracket.exponents) @ bracket.coefficients
    turn = -1.0 if np.median(inner) < 0 else 1.0
    return dataclasses.replace(bracket, coefficients=turn * bracket.coefficients)


def factors(bracket):
    """The absolute scale and the factors of a bracket, or None if it does not factor.
    From under a root only squares are taken."""
    import sympy

    exact = [ratio(c) for c in bracket.coefficients]
    if None in exact or len(exact) > 60 or (bracket.exponents % 1).any():
        return None
    if bracket.exponents.sum(axis=1).max() > 24:
        return None
    used = np.flatnonzero(bracket.exponents.any(axis=0))
    symbols = sympy.symbols(f"x:{len(used)}")
    terms = {
        tuple(int(p) for p in e[used]): c
        for e, c in zip(bracket.exponents, exact, strict=True)
    }
    poly = sympy.Poly.from_dict(terms, *symbols, domain="QQ")
    scale, found = poly.factor_list()
    rest, parts = sympy.Poly(1, *symbols, domain="QQ"), []
    for part, times in found:
        if (times * bracket.power) % 1:
            rest *= part**times
        else:
            parts.append((part, times * bracket.power))
    if not rest.is_ground:
        parts.append((rest, bracket.power))
    if len(parts) == 1 and parts[0][1] == bracket.power:
        return None
    brackets = []
    for part, power in parts:
        exponents = np.zeros((len(part.terms()), len(bracket.exponents[0])))
        exponents[:, used] = [e for e, _ in part.terms()]
        values = np.array([float(c) for _, c in part.terms()])
        brackets.append(Bracket(values, exponents, power))
    return abs(float(scale)), brackets


@functools.cache
def ratio(value):
    """A SymPy rational with a small denominator within 1e-9 of the value, or None."""
    import sympy

    close = fractions.Fraction(value).limit_denominator(1000)
    if not close or abs(close - value) > 1e-9 * abs(value):
        return None
    return sympy.Rational(close.numerator, close.denominator)
