"""What a unit of a layer computes, as a line of Python; `ops` has the same in numbers.

Numbers are written with the digits that their dtype carries, since the printed line is
also evaluated. A `unit` is that of `keras_nalu.formulas.unit`: it has the names of the
inputs, and the weights.
"""

import ast
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from keras_nalu import ops

#: The relative rounding error of a weight by dtype: four steps where the effective
#: weights are computed in it; half a step in half precision, which only stores them.
NOISE = {"bfloat16": 2**-9, "float16": 2**-12, "float32": 2**-21, "float64": 2**-49}


def digits(value: Any, dtype: str = "float32") -> float:
    """The value in the digits that its dtype carries: 0.5 for 0.49999997."""
    shorter = (float(f"{value:.{count}g}") for count in range(1, 17))
    noise = NOISE.get(dtype, 2**-21) * abs(value)
    return next((n for n in shorter if abs(n - value) <= noise), float(value))


def rounded(value: Any, dtype: str = "float32") -> float:
    """The nearest whole number if only rounding is between, else `digits`."""
    whole = np.round(value)
    near = abs(value - whole) <= 2 * NOISE.get(dtype, 2**-21)
    return float(whole) if near else digits(value, dtype)


def number(value: float) -> str:
    """The number as text, without the rounding noise of `1 - 0.93`."""
    value = float(f"{value:.15g}")
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else str(value)


def _signed(pairs, operator):
    """The texts of the positive terms, and those of the negative ones."""
    texts = [], []
    for term, w in pairs:
        if w != 0:
            size = number(abs(w))
            text = operator(f"({term})", size) if size != "1" else f"({term})"
            texts[int(w < 0)].append(text)
    return texts


def sum_(weights: Iterable[float], terms: Iterable[str]) -> str:
    """A weighted sum, with the positive terms first."""
    pairs = zip(terms, weights, strict=True)
    plus, minus = _signed(pairs, lambda term, size: f"{size} * {term}")
    if minus and not plus:
        return "-" + " - ".join(minus)
    return " - ".join([" + ".join(plus) or "0", *minus])


def product(factors: Iterable[tuple[str, float]]) -> str:
    """A product of powers, given as pairs of a base and its exponent."""
    over, under = _signed(factors, lambda base, size: f"{base}**{size}")
    return " / ".join([" * ".join(over) or "1", *under])


def faded(w: float, *factors: tuple[str, float]) -> str:
    """`w * product + 1 - w`."""
    if w == 1:
        return product(factors)
    return f"{product([(number(w), 1), *factors])} + {number(round(1 - w, 15))}"


def neat(text: str) -> str:
    """The text without the brackets that it does not need."""
    return ast.unparse(ast.parse(text, mode="eval")).replace(" ** ", "**")


def linear(unit: Any, name: str = "kernel") -> str:
    """The sum of the inputs, each times its weight."""
    return sum_(unit.weights(name), unit.inputs)


def log_space_product(unit: Any, name: str = "kernel") -> str:
    """The product of the inputs' magnitudes, each to the power of its weight."""
    weights = unit.powers(name)
    return product((unit.magnitude(i), w) for i, w in enumerate(weights))


def gated_product(unit: Any, name: str = "kernel") -> str:
    """The product of the inputs whose weight is 1; see `ops.gated_product`."""
    pairs = zip(unit.weights(name), unit.inputs, strict=True)
    return product((faded(w, (x, 1)), 1) for w, x in pairs if w != 0)


def signed_product(unit: Any, omega: float, name: str = "kernel") -> str:
    """The product of powers with the inputs' signs, below `exp(omega)`."""
    factors = []
    for i, w in enumerate(unit.powers(name)):
        if w in (-1, 0, 1):
            factors.append((unit.inputs[i], w))
            continue
        factors.append((unit.magnitude(i), w))
        if unit.signed[i]:
            factors.append((faded(abs(w), (f"sign({unit.inputs[i]})", 1)), 1))
    limit = f"{math.exp(min(omega, 700)):.3g}"
    unit.conditions.append(f"where the product is below {limit}")
    return product(factors)


def complex_powers(
    unit: Any, gate: str | None = None, imaginary: str | None = None
) -> str:
    """The real part of a product of complex powers, of the kernels of these names."""
    g, im = np.ones(len(unit.inputs)), np.zeros(len(unit.inputs))
    if gate:
        g = unit.weights(gate)
    re = unit.weights(acts=g != 0)
    if imaginary:
        im = unit.weights(imaginary, acts=g != 0)
    factors, turns = [], []
    for i, (c, w, v) in enumerate(zip(g, re, im, strict=True)):
        name, signed = unit.inputs[i], unit.signed[i]
        if c == 0 or w == v == 0:
            continue
        if w < 0:
            unit.divisors.add(i)
        if c == 1 and v == 0 and (not signed or float(w).is_integer()):
            factors.append((name, w))
            continue
        r = faded(c, (unit.magnitude(i), 1))
        factors.append((r, w))
        turns.append((v, f"log({r})"))
        if signed:
            factors.append((f"exp({sum_([-c * v], [half_turn(name)])})", v != 0))
            turns.append((c * w, half_turn(name)))
    return product([*factors, *turn(turns)])


def half_turn(name: str) -> str:
    """The angle of a number: pi if it is negative."""
    return f"pi * ({name} < 0)"


def turn(turns: list[tuple[float, str]]) -> Iterator[tuple[str, float]]:
    """A cosine as a factor, if there is an angle."""
    if any(w != 0 for w, _ in turns):
        yield f"cos({sum_(*zip(*turns, strict=True))})", 1


def mix(
    unit: Any,
    add: Callable[[Any], str],
    multiply: Callable[[Any], str],
    G: Any = None,
) -> str:
    """The line of one path, or of both if the gate does not decide.

    `add` and `multiply` write the paths of a unit. `G` are the weights of a gate that
    depends on the inputs.
    """
    gates = unit.gates()
    mean, gate = gates.mean(), None
    if G is not None:
        weights = [unit.rounded(value) for value in ops.to_numpy(G)[:, unit.index]]
        gate = neat(sum_(weights, unit.inputs))
    is_open = gates.min() > 0.5 and mean >= 1 - unit.tolerance
    if is_open or (gates.max() < 0.5 and mean <= unit.tolerance):
        if gate:
            side = f"{gate} {'>' if is_open else '<'} 0"
            unit.conditions.append(f"where {side}, as on every row of the data")
        return add(unit) if is_open else multiply(unit)
    unit.record("gate", (unit.index,), mean)
    unit.mixed = True
    paths = [f"({path(unit)})" for path in (add, multiply)]
    if gate is None:
        mean = unit.rounded(mean)
        return sum_([mean, round(1 - mean, 15)], paths)
    low, high = gates.min(), gates.max()
    unit.conditions.append(f"a mixture, its gate is between {low:.3g} and {high:.3g}")
    name = f"gate{unit.output[1:]}"
    unit.lines[name] = f"sigmoid({gate})"
    return f"{name} * {paths[0]} + (1 - {name}) * {paths[1]}"
