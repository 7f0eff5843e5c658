"""What one unit of each kind of layer computes, as a text."""

import dataclasses
import math

import keras
import numpy as np

from keras_nalu import layers
from keras_nalu.layers.base import ArithmeticLayer
from keras_nalu.layers.gnalu import LN_PHI
from keras_nalu.reading.lines import faded, neat, number, product, rounded, sum_

#: What is nearer to its target than that is not written with its digits.
STRICT = 1e-3
#: For z < 0, z = 0 and z > 0, whether the comparison of z with 0 holds.
RELATIONS = {"100": "<", "110": "<=", "010": "==", "101": "!=", "011": ">=", "001": ">"}


def to_numpy(x):
    return np.asarray(keras.ops.convert_to_numpy(x), dtype=float)


def nearest(layer, name, w):
    """The targets that the entries are nearest to; powers may be any whole numbers."""
    powers = layers.NPU | layers.RealNPU | layers.NaiveNPU
    if isinstance(layer, powers) and name == "kernel":
        return np.round(w)
    targets = np.array(layer.targets[name], dtype=float)
    near = targets[np.argmin(np.abs(w[..., None] - targets), axis=-1)]
    return np.where(np.isnan(w), np.nan, near)


def slope(layer):
    """What the gate multiplies its weights with."""
    return LN_PHI if isinstance(layer, layers.GNALU) else 1


@dataclasses.dataclass
class Unit:
    """One unit while it is read: what it may ask, and what it says on the way."""

    layer: ArithmeticLayer
    index: int
    kernels: dict
    tolerance: float
    inputs: list
    signed: np.ndarray
    zeros: np.ndarray
    gates: np.ndarray | None
    output: str
    lines: dict = dataclasses.field(default_factory=dict)
    not_discrete: list = dataclasses.field(default_factory=list)
    conditions: list = dataclasses.field(default_factory=list)
    divisors: set = dataclasses.field(default_factory=set)
    mixed: bool = False

    def magnitude(self, i):
        return f"abs({self.inputs[i]})" if self.signed[i] else self.inputs[i]

    def weights(self, name="kernel", columns=None, acts=True):
        """The kernel's part that is the unit's: targets if all are near, else rounded.

        Entries where `acts` is false may be anything.
        """
        kernel = self.kernels[name]
        one = columns is None
        columns = [self.index] if one else columns
        w = kernel[:, columns] if kernel.ndim > 1 else kernel[:, None]
        targets = nearest(self.layer, name, w)
        acts = np.broadcast_to(acts, len(w))[:, None]
        for i, j in np.argwhere(~(np.abs(w - targets) <= self.tolerance) & acts):
            place = (int(i), int(columns[j])) if kernel.ndim > 1 else (int(i),)
            self.tell(name, place, w[i, j])
        limit = min(STRICT, self.tolerance) if self.mixed else self.tolerance
        if np.any(acts & ~(np.abs(w - targets) <= limit)):
            targets = np.vectorize(rounded, otypes=[float])(w)
        return targets[:, 0] if one else targets

    def powers(self, name="kernel"):
        """The weights, where negative ones divide."""
        weights = self.weights(name)
        self.divisors |= {*np.flatnonzero(weights < 0)}
        return weights

    def tell(self, name, place, value):
        self.not_discrete.append((self.layer.name, name, place, float(value)))

    def notes(self):
        """For which inputs its lines hold."""
        for condition in self.conditions:
            yield f"{self.output}: {condition}"
        for i in sorted(self.divisors):
            if self.zeros[i]:
                yield f"{self.output}: where {self.inputs[i]} is not 0"


def read(unit):
    match unit.layer:
        case layers.NAC() | layers.NAU() | layers.MCFC():
            return sum_(unit.weights(), unit.inputs)
        case layers.NACMul():
            return _log_space(unit, "kernel")
        case layers.MulMCFC():
            return _positive_product(unit)
        case layers.NALU() | layers.GNALU() | layers.SeparateNALU():
            return _two_paths(unit, _log_space)
        case layers.INALU() | layers.SharedINALU():
            return _two_paths(unit, _signed_log_space)
        case layers.NMU() | layers.SNMU():
            return _gated_product(unit)
        case layers.NRU():
            return _gated_powers(unit)
        case layers.NMRU():
            return _gated_reciprocals(unit)
        case layers.NPU() | layers.RealNPU() | layers.NaiveNPU():
            return _complex_powers(unit)
        case layers.NSR():
            return _registers(unit)
    raise TypeError(
        "Expected a layer of `keras_nalu`, or of a class derived from one. "
        f"Received: {unit.layer!r}."
    )


def _log_space(unit, name):
    weights = unit.powers(name)
    return product((unit.magnitude(i), w) for i, w in enumerate(weights))


def _positive_product(unit):
    factor = rounded(math.exp(to_numpy(unit.layer.bias)[unit.index]))
    powers = zip(unit.inputs, unit.weights(), strict=True)
    if np.any(unit.signed):
        unit.conditions.append("where no input is negative")
    return product([(number(factor), float(factor != 1)), *powers])


def _signed_log_space(unit, name):
    factors = []
    for i, w in enumerate(unit.powers(name)):
        if w in (-1, 0, 1):
            factors.append((unit.inputs[i], w))
            continue
        factors.append((unit.magnitude(i), w))
        if unit.signed[i]:
            factors.append((faded(abs(w), (f"sign({unit.inputs[i]})", 1)), 1))
    limit = f"{math.exp(min(unit.layer.omega, 700)):.3g}"
    unit.conditions.append(f"where the product is below {limit}")
    return product(factors)


def _two_paths(unit, multiplied):
    """One path, or both where the gate does not decide."""
    names = list(unit.kernels)
    add, multiply = names[0], names[-1]
    gates, mean = unit.gates, unit.gates.mean()
    gate = None
    if hasattr(unit.layer, "G"):
        G = slope(unit.layer) * to_numpy(unit.layer.G)[:, unit.index]
        gate = neat(sum_([rounded(value) for value in G], unit.inputs))
    is_open = gates.min() > 0.5 and mean >= 1 - unit.tolerance
    if is_open or (gates.max() < 0.5 and mean <= unit.tolerance):
        if gate:
            side = f"{gate} {'>' if is_open else '<'} 0"
            unit.conditions.append(f"where {side}, as on every row of the data")
        if is_open:
            return sum_(unit.weights(add), unit.inputs)
        return multiplied(unit, multiply)
    unit.tell("gate", (unit.index,), mean)
    unit.mixed = True
    # A kernel of both paths is told of once.
    told = len(unit.not_discrete)
    paths = [f"({sum_(unit.weights(add), unit.inputs)})"]
    if add == multiply:
        del unit.not_discrete[told:]
    paths.append(f"({multiplied(unit, multiply)})")
    if gate is None:
        mean = rounded(mean)
        return sum_([mean, 1 - mean], paths)
    low, high = number(rounded(gates.min())), number(rounded(gates.max()))
    unit.conditions.append(f"a mixture, its gate is between {low} and {high}")
    mix = f"gate{unit.output[1:]}"
    unit.lines[mix] = f"sigmoid({gate})"
    return f"{mix} * {paths[0]} + (1 - {mix}) * {paths[1]}"


def _gated_product(unit):
    pairs = zip(unit.weights(), unit.inputs, strict=True)
    return product((faded(w, (name, 1)), 1) for w, name in pairs if w != 0)


def _gated_powers(unit):
    factors = []
    for i, w in enumerate(unit.powers()):
        if w in (-1, 0, 1):
            factors.append((unit.inputs[i], w))
        else:
            sign = (f"sign({unit.inputs[i]})", float(unit.signed[i]))
            factors.append((faded(abs(w), sign, (unit.magnitude(i), w)), 1))
    return product(factors)


def _gated_reciprocals(unit):
    factors, turns = [], []
    for i, (w, v) in enumerate(np.reshape(unit.weights(), (2, -1)).T):
        if v != 0:
            unit.divisors.add(i)
        if w == v == 1:
            continue
        for weight, sign in ((w, 1), (v, -1)):
            if weight in (0, 1):
                factors.append((unit.inputs[i], sign * weight))
                continue
            factors.append((faded(weight, (unit.magnitude(i), sign)), 1))
            if unit.signed[i]:
                turns.append((weight, _half_turn(unit.inputs[i])))
    return product([*factors, *_turn(turns)])


def _complex_powers(unit):
    gate, imaginary = np.ones(len(unit.inputs)), np.zeros(len(unit.inputs))
    if "relevance" in unit.kernels:
        gate = unit.weights("relevance")
    real = unit.weights(acts=gate != 0)
    if "kernel_im" in unit.kernels:
        imaginary = unit.weights("kernel_im", acts=gate != 0)
    factors, turns = [], []
    for i, (c, w, v) in enumerate(zip(gate, real, imaginary, strict=True)):
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
            factors.append((f"exp({sum_([-c * v], [_half_turn(name)])})", v != 0))
            turns.append((c * w, _half_turn(name)))
    return product([*factors, *_turn(turns)])


def _half_turn(name):
    return f"pi * ({name} < 0)"


def _turn(turns):
    """A cosine as a factor, if there is an angle."""
    if any(w != 0 for w, _ in turns):
        yield f"cos({sum_(*zip(*turns, strict=True))})", 1


def _registers(unit):
    layer = unit.layer
    columns = unit.index + layer.units * np.arange(layer.redundancy)
    told = len(unit.not_discrete)
    left = unit.weights("kernel_1", columns)
    right = unit.weights("kernel_2", columns)
    signs, zeros = (to_numpy(w)[:, unit.index] for w in (layer.W_s, layer.W_0))
    b = to_numpy(layer.b)[unit.index]
    if len(unit.not_discrete) == told:
        if compared := _comparison(unit, left, right, signs, zeros, b):
            return compared
        unit.tell("b", (unit.index,), b)
    terms, weights = [number(rounded(b))], [float(rounded(b) != 0)]
    for r in range(layer.redundancy):
        d = sum_(left[:, r] - right[:, r], unit.inputs)
        sign = f"tanh({sum_([rounded(layer.scale)], [d])})"
        terms += [sign, f"1 - 2 * {sign}**2"]
        weights += [rounded(signs[r]), rounded(zeros[r])]
    return f"sigmoid({sum_(weights, terms)})"


def _comparison(unit, left, right, signs, zeros, b):
    """The one comparison that decides, whatever the others say; None if none does."""
    pairs = {}
    sides = left.argmax(axis=0), right.argmax(axis=0)
    for i, j, s, z in zip(*sides, signs, zeros, strict=True):
        votes = np.array([-s - z, z, s - z]) if i != j else np.full(3, z)
        pair = (i, j) if i < j else (j, i)
        pairs[pair] = pairs.get(pair, 0) + (votes if i <= j else votes[::-1])
    for pair, votes in pairs.items():
        others = [v for other, v in pairs.items() if other != pair]
        lowest = b + votes + sum(v.min() for v in others)
        highest = b + votes + sum(v.max() for v in others)
        if not np.all((lowest > 0) | (highest < 0)):
            continue
        weakest = np.where(lowest > 0, lowest, highest)
        outputs = 1 / (1 + np.exp(-weakest))
        off = np.abs(outputs - np.round(outputs))
        holds = "".join(str(int(low > 0)) for low in lowest)
        constant = len(set(holds)) == 1
        if off.max() > unit.tolerance:
            if constant:
                continue
            unit.tell("output", (unit.index,), outputs[off.argmax()])
        if constant:
            return holds[0]
        much = f"much more than {number(rounded(1 / unit.layer.scale))}"
        unit.conditions.append(f"where inputs are equal, or differ by {much}")
        names = [unit.inputs[i] for i in pair]
        return f" {RELATIONS[holds]} ".join(names)
    return None
