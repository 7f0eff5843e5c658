"""Reading a trained model as a formula, and rounding a model to one."""

import ast
import dataclasses
import functools
import keyword
import math
import re
from typing import Any

import keras
import numpy as np

from keras_nalu import layers
from keras_nalu.layers.base import ArithmeticLayer, walk_layers
from keras_nalu.layers.gnalu import LN_PHI

#: What a line may call, beside `pi`, `inf` and `nan`: named as in SymPy, but for abs.
FUNCTIONS = {
    "abs": np.abs,
    "cos": np.cos,
    "exp": np.exp,
    "log": np.log,
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
    "sign": np.sign,
    "tanh": np.tanh,
}
CONSTANTS = {"pi": np.pi, "inf": np.inf, "nan": np.nan}
#: A hidden unit that is used once is written where it is used, up to this length.
SHORT = 60
#: Weights near their targets are no formula if it is that far from the model.
FAR = 0.5
#: What is nearer to its target than that is not written with its digits.
STRICT = 1e-3
DRAWS = 1000
CHUNK = 8192
#: For z < 0, z = 0 and z > 0, whether the comparison of z with 0 holds.
COMPARISONS = {
    (1, 0, 0): "<",
    (1, 1, 0): "<=",
    (0, 1, 0): "==",
    (1, 0, 1): "!=",
    (0, 1, 1): ">=",
    (0, 0, 1): ">",
}


@dataclasses.dataclass(frozen=True)
class Formula:
    """What `formula` returns; printed, it is the text.

    Args:
        lines: The equations: hidden units and gates first, then the outputs.
        exact: Whether every number that acts in them was taken from a weight, or a
            gate, that is within the tolerance of it. Else they are rounded.
        not_discrete: Where it is not exact, the entries that are not within the
            tolerance of a target: (layer's name, kernel's name, index, value).
        holds: For which inputs the formula holds.
        error: How far the formula, in the digits that it prints, is from the model at
            most: on the data, and on 1000 rows drawn within the range of its columns,
            relative to the model's output or, where that is larger, to its mean
            magnitude. Left out are rows where the model gives NaN, or with a zero that
            is divided by.
        outputs: The names of the outputs.
    """

    lines: list
    exact: bool
    not_discrete: list
    holds: str
    error: float
    outputs: list

    @property
    def text(self):
        """The lines as one text: valid Python, but for `sigmoid` and its like."""
        return "\n".join(self.lines)

    def __str__(self):
        return self.text

    @property
    def expressions(self):
        """A SymPy expression of the inputs alone for every output."""
        try:
            import sympy
        except ImportError as error:
            raise ImportError(
                "SymPy holds the expressions, and is not installed. "
                'Try `pip install "keras-nalu[formula]"`.'
            ) from error
        trees = {name: tree for name, tree in map(_parse, self.lines)}
        values = {
            node.id: sympy.Symbol(node.id)
            for tree in trees.values()
            for node in ast.walk(tree)
            if isinstance(node, ast.Name)
        }
        values |= {"pi": sympy.pi, "inf": sympy.oo, "nan": sympy.nan}
        calls = {name: getattr(sympy, name, sympy.Abs) for name in FUNCTIONS}
        calls["sigmoid"] = lambda z: 1 / (1 + sympy.exp(-z))

        def compare(symbol, left, right):
            return sympy.Piecewise((1, sympy.Rel(left, right, symbol)), (0, True))

        for name, tree in trees.items():
            values[name] = sympy.sympify(_evaluate(tree, values, calls, compare))
        return [values[name] for name in self.outputs]


def formula(model, x, names=None, tolerance=0.05):
    """The function that a trained model of arithmetic layers computes on such data.

    Where every weight that acts is near to one of its targets, such as -1, 0 and 1, it
    is taken for that: `y = x0 * x1`. Else the layer's equation is written with its
    weights rounded to three digits, and the formula says which are not discrete.

    A gate that depends on the inputs stands for one path if it takes the same side of
    1/2 on every row, and is near 0 or 1 on average. Else both paths are written, mixed
    by the gate, and no single operation holds.

    Args:
        model: An arithmetic layer, or a `Sequential` or functional chain of nothing
            else; a member of a population is one.
        x: Data of shape (..., features), as the model is used on: its range and its
            signs decide how the formula is written.
        names: Names of the features. `None` calls them `x0`, `x1` and so on.
        tolerance: How far from its target a weight, or the mean gate, may be.

    Returns:
        A `Formula`. `str(formula(model, x))` is its text, `.error` says how far it is
        from the model, `.expressions` are SymPy's.

    Raises:
        TypeError: the model is no chain of arithmetic layers.
        ValueError: `x` has no rows, or entries that are not finite; `names` has another
            number of names than `x` has features, or one that is no identifier, is
            there twice or has a meaning in formulas; there are about a thousand terms.

    Example:

    >>> layer = NMU(1)
    >>> layer.build((None, 2))
    >>> layer.set_weights([np.array([[1.0], [0.99]])])
    >>> print(formula(layer, np.array([[3, 4], [-5, 6]]), names=["length", "width"]))
    y = length * width
    """
    chain = _chain(model)
    rows = _rows(x)
    names = _check(names, rows.shape[-1])
    try:
        read = _read_chain(chain, rows, names, tolerance)
        if read.exact and not read.error <= FAR:
            # As with untrained weights, all near 0.
            nearer = _read_chain(chain, rows, names, STRICT)
            read = nearer if nearer.error < read.error / 2 else read
    except RecursionError:
        raise ValueError(
            "The formula has too many terms to be written. Received: a model of "
            f"{rows.shape[-1]} features. Look at `layer.kernels` instead."
        ) from None
    return read


def _read_chain(chain, rows, names, tolerance):
    letter = _letter(names)
    count = len(rows)
    values = _run(chain, np.concatenate([rows, _draw(rows)]))
    units = []
    inputs = names
    for depth, layer in enumerate(chain, 1):
        last = depth == len(chain)
        outputs = _enumerate(layer, letter if last else f"h{depth}_")
        gates = _enumerate(layer, "gate" if last else f"gate{depth}_")
        kernels = {name: _numpy(kernel) for name, kernel in layer.kernels.items()}
        signed = np.any(values[depth - 1] < 0, axis=0)
        zeros = np.any(values[depth - 1] == 0, axis=0)
        data = values[depth - 1][:count]
        # A row of zeros says nothing: it leaves every gate without a bias at one half.
        data = data[np.any(data != 0, axis=-1)] if np.any(data) else data
        gate = _run_gate(layer, data)
        for index, (output, mix) in enumerate(zip(outputs, gates, strict=True)):
            unit = _Unit(
                layer=layer,
                index=index,
                kernels=kernels,
                tolerance=tolerance,
                inputs=inputs,
                signed=signed,
                zeros=zeros,
                gates=None if gate is None else gate[:, index],
                output=output,
                mix=mix,
            )
            unit.lines[output] = _parse(f"{output} = {_read(layer, unit)}")[1]
            units.append(unit)
        inputs = outputs
    units = _that_act(units, outputs)
    lines = {name: tree for unit in units for name, tree in unit.lines.items()}
    error = _error(lines, outputs, names, values[0], values[-1])
    lines, gone = _inline(lines)
    not_discrete = [entry for unit in units for entry in unit.not_discrete]
    notes = "; ".join(note for unit in units for note in unit.notes())
    for name, tree in reversed(gone.items()):
        text = _unparse(tree)
        text = text if isinstance(tree, ast.Name) else f"({text})"
        notes = re.sub(rf"\b{name}\b(?!:)", text, notes)
    return Formula(
        lines=[f"{name} = {_unparse(tree)}" for name, tree in lines.items()],
        exact=not not_discrete,
        not_discrete=not_discrete,
        holds=notes or "for all inputs",
        error=error,
        outputs=outputs,
    )


def _chain(model):
    """The arithmetic layers that the model calls one after the other."""
    if isinstance(model, ArithmeticLayer):
        return [model]
    if isinstance(model, keras.Sequential):
        parts = model.layers
    elif hasattr(model, "operations") and len(model.inputs) == len(model.outputs) == 1:
        # Unary layers, called once each, on the way to one output: a chain.
        calls = [len(part["inbound_nodes"]) for part in model.get_config()["layers"]]
        parts = model.operations[1:] if calls[1:] == [1] * (len(calls) - 1) else [model]
    else:
        parts = [model]
    if parts == [model] or not all(isinstance(part, keras.Layer) for part in parts):
        raise TypeError(
            "Expected an arithmetic layer, or a Sequential or functional chain of "
            f"arithmetic layers alone. Received: {model!r}. Read its arithmetic layers "
            "one by one, each with its own inputs: `formula(layer, inputs)`; of a "
            "population read a member: `population.best(x, y)`."
        )
    return [layer for part in parts for layer in _chain(part)]


def _numpy(x):
    return np.asarray(keras.ops.convert_to_numpy(x), dtype=float)


def _rows(x):
    x = _numpy(x)
    if x.size == 0:
        raise ValueError(f"Expected rows to read on. Received: x.shape={x.shape}.")
    if not np.all(np.isfinite(x)):
        raise ValueError(
            "Expected finite numbers. Received: NaN or infinite entries in `x`."
        )
    return x.reshape(-1, x.shape[-1])


def _letter(names):
    """What the outputs are called."""
    return "z" if "y" in names else "y"


def _check(names, features):
    names = [f"x{i}" for i in range(features)] if names is None else list(names)
    generated = rf"{_letter(names)}\d*|h\d+_\d+|gate(\d+_)?\d*"
    reserved = {*FUNCTIONS, *CONSTANTS}
    for name in names:
        if not isinstance(name, str) or not name.isidentifier():
            problem = f"{name!r}, which is no identifier"
        elif keyword.iskeyword(name) or name in reserved:
            problem = f"{name!r}, which means something else in formulas"
        elif re.fullmatch(generated, name):
            problem = f"{name!r}, which formulas call an output, hidden unit or gate"
        elif names.count(name) > 1:
            problem = f"{name!r} more than once"
        else:
            continue
        raise ValueError(
            f"Expected names of the features, such as 'length'. Received: {problem}."
        )
    if len(names) != features:
        raise ValueError(
            f"Expected a name for each of the {features} features of `x`. "
            f"Received: names={names}."
        )
    return names


def _draw(rows):
    """Rows within the range of the columns: whole numbers where these are whole."""
    low, high = rows.min(axis=0), rows.max(axis=0)
    random = np.random.default_rng(0)
    drawn = low + (high - low) * random.random((DRAWS, len(low)))
    whole = np.all(rows == np.round(rows), axis=0)
    drawn = np.where(whole, np.round(drawn), drawn)
    # Reciprocals are not tried nearer to 0 than the data goes.
    return drawn[np.all(np.abs(drawn) >= np.abs(rows).min(axis=0), axis=1)]


def _run(chain, rows):
    """The rows, and what every layer makes of them."""
    values = [rows]
    for layer in chain:
        values.append(_in_chunks(layer, values[-1]))
    return values


def _in_chunks(function, rows):
    chunks = [rows[i : i + CHUNK] for i in range(0, len(rows), CHUNK)]
    return np.concatenate([_numpy(function(chunk)) for chunk in chunks])


def _run_gate(layer, rows):
    if not hasattr(layer, "gate"):
        return None
    # One that does not depend on the inputs has no axis of rows.
    return _in_chunks(
        lambda chunk: keras.ops.broadcast_to(
            layer.gate(chunk), (len(chunk), layer.units)
        ),
        rows,
    )


def _enumerate(layer, prefix):
    if layer.units == 1 and "_" not in prefix:
        return [prefix]
    return [f"{prefix}{unit}" for unit in range(layer.units)]


@dataclasses.dataclass
class _Unit:
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
    mix: str
    lines: dict = dataclasses.field(default_factory=dict)
    not_discrete: list = dataclasses.field(default_factory=list)
    conditions: list = dataclasses.field(default_factory=list)
    divisors: list = dataclasses.field(default_factory=list)
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
        nearest = _nearest(self.layer, name, w)
        acts = np.broadcast_to(acts, len(w))[:, None]
        far = ~(np.abs(w - nearest) <= self.tolerance) & acts
        for i, j in zip(*np.nonzero(far), strict=True):
            place = (int(i), int(columns[j])) if kernel.ndim > 1 else (int(i),)
            self.tell(name, place, w[i, j])
        limit = min(STRICT, self.tolerance) if self.mixed else self.tolerance
        if np.any(acts & ~(np.abs(w - nearest) <= limit)):
            nearest = np.vectorize(_round, otypes=[float])(w)
        return nearest[:, 0] if one else nearest

    def tell(self, name, place, value):
        self.not_discrete.append((self.layer.name, name, place, float(value)))

    def notes(self):
        """For which inputs its lines hold."""
        for condition in self.conditions:
            yield f"{self.output}: {condition}"
        for i in sorted(set(self.divisors)):
            if self.zeros[i]:
                yield f"{self.output}: where {self.inputs[i]} is not 0"


# Texts of equations. Numbers come rounded: what is printed is what is evaluated.


def _round(value):
    """Three digits; what is that near to a whole number, or to 0, is that."""
    whole = np.round(value)
    return float(whole if abs(value - whole) < 1e-6 else f"{value:.3g}")


def _number(value):
    """Without the noise of `1 - 0.93`."""
    value = float(f"{value:.12g}")
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else str(value)


def _sum(weights, terms):
    """What is added first; what is not a number counts as added."""
    plus, minus = [], []
    for w, term in zip(weights, terms, strict=True):
        if w != 0:
            size = _number(abs(w))
            text = f"({term})" if size == "1" else f"{size} * ({term})"
            (minus if w < 0 else plus).append(text)
    if minus and not plus:
        return "-" + " - ".join(minus)
    return " - ".join([" + ".join(plus) or "0", *minus])


def _product(factors):
    """Of powers: pairs of a base and its exponent."""
    over, under = [], []
    for base, w in factors:
        if w != 0:
            size = _number(abs(w))
            text = f"({base})" if size == "1" else f"({base})**{size}"
            (under if w < 0 else over).append(text)
    return " / ".join([" * ".join(over) or "1", *under])


def _faded(w, *factors):
    """`w * product + 1 - w`."""
    if w == 1:
        return _product(factors)
    return f"{_product([(_number(w), 1), *factors])} + {_number(1 - w)}"


# What each kind of layer computes.


@functools.singledispatch
def _read(layer, unit) -> str:
    raise TypeError(
        "Expected a layer of `keras_nalu`, or of a class derived from one. "
        f"Received: {layer!r}."
    )


@_read.register(layers.NAC | layers.NAU | layers.MCFC)
def _(layer, unit):
    return _sum(unit.weights(), unit.inputs)


@_read.register(layers.NACMul)
def _(layer, unit):
    return _log_space(unit, "kernel")


@_read.register(layers.MulMCFC)
def _(layer, unit):
    bias = _numpy(layer.bias)[unit.index]
    factor = _round(math.exp(bias))
    powers = list(zip(unit.inputs, unit.weights(), strict=True))
    if np.any(unit.signed):
        unit.conditions.append("where no input is negative")
    return _product([(_number(factor), float(factor != 1)), *powers])


@_read.register(layers.NALU | layers.GNALU)
def _(layer, unit):
    return _mix_by_input(unit, "kernel", "kernel")


@_read.register(layers.SeparateNALU)
def _(layer, unit):
    return _mix_by_input(unit, "kernel_add", "kernel_mul")


@_read.register(layers.INALU)
def _(layer, unit):
    return _mix(unit, "kernel_add", "kernel_mul", _signed_log_space)


@_read.register(layers.SharedINALU)
def _(layer, unit):
    return _mix(unit, "kernel", "kernel", _signed_log_space)


@_read.register(layers.NMU | layers.SNMU)
def _(layer, unit):
    return _product(
        (_faded(w, (name, 1)), 1)
        for w, name in zip(unit.weights(), unit.inputs, strict=True)
        if w != 0
    )


@_read.register(layers.NRU)
def _(layer, unit):
    factors = []
    for i, w in enumerate(unit.weights()):
        if w < 0:
            unit.divisors.append(i)
        if w in (-1, 0, 1):
            factors.append((unit.inputs[i], w))
        else:
            sign = (f"sign({unit.inputs[i]})", float(unit.signed[i]))
            factors.append((_faded(abs(w), sign, (unit.magnitude(i), w)), 1))
    return _product(factors)


@_read.register(layers.NMRU)
def _(layer, unit):
    weights = unit.weights()
    factors, turns, turned = [], [], []
    for i, (w, v) in enumerate(np.reshape(weights, (2, -1)).T):
        if v != 0:
            unit.divisors.append(i)
        if w == v == 1:
            continue
        for weight, sign in ((w, 1), (v, -1)):
            if weight in (0, 1):
                factors.append((unit.inputs[i], sign * weight))
                continue
            factors.append((_faded(weight, (unit.magnitude(i), sign)), 1))
            if unit.signed[i]:
                turns.append(weight)
                turned.append(f"pi * ({unit.inputs[i]} < 0)")
    return _product([*factors, *_turn(turns, turned)])


@_read.register(layers.NPU | layers.RealNPU | layers.NaiveNPU)
def _(layer, unit):
    nothing = np.zeros(len(unit.inputs))
    gate = unit.weights("relevance") if "relevance" in unit.kernels else nothing + 1
    real = unit.weights(acts=gate != 0)
    imaginary = nothing
    if "kernel_im" in unit.kernels:
        imaginary = unit.weights("kernel_im", acts=gate != 0)
    factors, turns, turned = [], [], []
    for i, (c, w, v) in enumerate(zip(gate, real, imaginary, strict=True)):
        name, signed = unit.inputs[i], unit.signed[i]
        if c == 0 or w == v == 0:
            continue
        if w < 0:
            unit.divisors.append(i)
        if c == 1 and v == 0 and (not signed or float(w).is_integer()):
            factors.append((name, w))
            continue
        r = _faded(c, (unit.magnitude(i), 1))
        factors.append((r, w))
        turns.append(v)
        turned.append(f"log({r})")
        if signed:
            factors.append((f"exp({_sum([-c * v], [f'pi * ({name} < 0)'])})", v != 0))
            turns.append(c * w)
            turned.append(f"pi * ({name} < 0)")
    return _product([*factors, *_turn(turns, turned)])


@_read.register(layers.NSR)
def _(layer, unit):
    columns = unit.index + layer.units * np.arange(layer.redundancy)
    told = len(unit.not_discrete)
    left = unit.weights("kernel_1", columns)
    right = unit.weights("kernel_2", columns)
    signs, zeros = (_numpy(w)[:, unit.index] for w in (layer.W_s, layer.W_0))
    b = _numpy(layer.b)[unit.index]
    if len(unit.not_discrete) == told:
        compared = _comparison(unit, left, right, signs, zeros, b)
        if compared is not None:
            return compared
        unit.tell("b", (unit.index,), b)
    terms, weights = [_number(_round(b))], [float(_round(b) != 0)]
    for r in range(layer.redundancy):
        d = _sum(left[:, r] - right[:, r], unit.inputs)
        sign = f"tanh({_sum([_round(layer.scale)], [d])})"
        terms += [sign, f"1 - 2 * {sign}**2"]
        weights += [_round(signs[r]), _round(zeros[r])]
    return f"sigmoid({_sum(weights, terms)})"


def _comparison(unit, left, right, signs, zeros, b):
    """The one comparison that decides, whatever the others say; None if none does."""
    pairs = {}
    for i, j, s, z in zip(
        left.argmax(axis=0), right.argmax(axis=0), signs, zeros, strict=True
    ):
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
        holds = tuple((lowest > 0).astype(int).tolist())
        constant = len(set(holds)) == 1
        if constant and off.max() > unit.tolerance:
            continue
        if off.max() > unit.tolerance:
            unit.tell("output", (unit.index,), outputs[off.argmax()])
        if constant:
            return str(holds[0])
        margin = _number(_round(1 / unit.layer.scale))
        unit.conditions.append(
            f"where inputs are equal, or differ by much more than {margin}"
        )
        names = [unit.inputs[i] for i in pair]
        return f" {COMPARISONS[holds]} ".join(names)
    return None


def _turn(weights, terms):
    """A cosine as a factor, if there is an angle."""
    return [(f"cos({_sum(weights, terms)})", 1)] if np.any(weights) else []


def _log_space(unit, name):
    weights = unit.weights(name)
    unit.divisors += np.nonzero(weights < 0)[0].tolist()
    return _product((unit.magnitude(i), w) for i, w in enumerate(weights))


def _signed_log_space(unit, name):
    factors = []
    weights = unit.weights(name)
    unit.divisors += np.nonzero(weights < 0)[0].tolist()
    for i, w in enumerate(weights):
        if w in (-1, 0, 1):
            factors.append((unit.inputs[i], w))
            continue
        factors.append((unit.magnitude(i), w))
        if unit.signed[i]:
            factors.append((_faded(abs(w), (f"sign({unit.inputs[i]})", 1)), 1))
    limit = f"{math.exp(min(unit.layer.omega, 700)):.3g}"
    unit.conditions.append(f"where the product is below {limit}")
    return _product(factors)


def _mix(unit, add, multiply, product, gate=None):
    """One path, or both where the gate does not decide; `gate` is its text."""
    gates, mean = unit.gates, unit.gates.mean()
    if gates.min() > 0.5 and mean >= 1 - unit.tolerance:
        return _sum(unit.weights(add), unit.inputs)
    if gates.max() < 0.5 and mean <= unit.tolerance:
        return product(unit, multiply)
    unit.tell("gate", (unit.index,), mean)
    unit.mixed = True
    # A kernel of both paths is told of once.
    told = len(unit.not_discrete)
    paths = [f"({_sum(unit.weights(add), unit.inputs)})"]
    if add == multiply:
        del unit.not_discrete[told:]
    paths.append(f"({product(unit, multiply)})")
    if gate is None:
        mean = _round(mean)
        return _sum([mean, 1 - mean], paths)
    low, high = _number(_round(gates.min())), _number(_round(gates.max()))
    unit.conditions.append(f"a mixture, its gate is between {low} and {high}")
    unit.lines[unit.mix] = _parse(f"{unit.mix} = sigmoid({gate})")[1]
    return f"{unit.mix} * {paths[0]} + (1 - {unit.mix}) * {paths[1]}"


def _mix_by_input(unit, add, multiply):
    slope = LN_PHI if isinstance(unit.layer, layers.GNALU) else 1
    G = slope * _numpy(unit.layer.G)[:, unit.index]
    gate = _sum([_round(value) for value in G], unit.inputs)
    text = _mix(unit, add, multiply, _log_space, gate)
    if unit.mix not in unit.lines:
        side = ">" if unit.gates.mean() > 0.5 else "<"
        gate = _unparse(_parse(f"gate = {gate}")[1])
        unit.conditions.append(f"where {gate} {side} 0, as on every row of the data")
    return text


def _nearest(layer, name, w):
    """The targets that the entries are nearest to; powers may be any whole numbers."""
    powers = layers.NPU | layers.RealNPU | layers.NaiveNPU
    if isinstance(layer, powers) and name == "kernel":
        return np.round(w)
    targets = np.array(layer.targets[name], dtype=float)
    nearest = targets[np.argmin(np.abs(w[..., None] - targets), axis=-1)]
    return np.where(np.isnan(w), np.nan, nearest)


# Lines as trees of Python's grammar: substituted, written and evaluated.


def _parse(line):
    (assignment,) = ast.parse(line).body
    return assignment.targets[0].id, assignment.value


def _unparse(tree):
    return ast.unparse(tree).replace(" ** ", "**")


def _used(tree):
    return [node.id for node in ast.walk(tree) if isinstance(node, ast.Name)]


def _that_act(units, outputs):
    """Without the hidden units that nothing is made of."""
    used, kept = set(outputs), []
    for unit in reversed(units):
        if unit.output in used:
            used.update(name for tree in unit.lines.values() for name in _used(tree))
            kept.append(unit)
    return kept[::-1]


class _Substitute(ast.NodeTransformer):
    def __init__(self, name, tree):
        self.name, self.tree = name, tree

    def visit_Name(self, node):
        return self.tree if node.id == self.name else node


def _inline(lines):
    """The lines, and what is gone from them.

    A hidden unit is written where it is used, if that is once and stays short.
    """
    lines, gone = dict(lines), {}
    for name in [name for name in lines if name.startswith("h")]:
        uses = {
            other: count
            for other, tree in lines.items()
            if (count := _used(tree).count(name))
        }
        trivial = isinstance(lines[name], ast.Name)
        if not trivial and sum(uses.values()) > 1:
            continue
        replace = _Substitute(name, lines[name])
        inlined = {other: replace.visit(_copy(lines[other])) for other in uses}
        if trivial or all(len(_unparse(t)) <= SHORT for t in inlined.values()):
            lines |= inlined
            gone[name] = lines.pop(name)
    return lines, gone


def _copy(tree):
    return ast.parse(ast.unparse(tree), mode="eval").body


OPERATORS = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
    ast.Pow: lambda a, b: a**b,
}
RELATIONS = {
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.GtE: ">=",
    ast.Gt: ">",
}


def _evaluate(tree, values, calls, compare):
    def evaluate(node) -> Any:
        match node:
            case ast.Constant(value=value):
                return value
            case ast.Name(id=name):
                return values[name]
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -evaluate(operand)
            case ast.BinOp(left=left, op=op, right=right):
                return OPERATORS[type(op)](evaluate(left), evaluate(right))
            case ast.Call(func=ast.Name(id=name), args=[argument]):
                return calls[name](evaluate(argument))
            case ast.Compare(left=left, ops=[op], comparators=[right]):
                relation = RELATIONS[type(op)]
                return compare(relation, evaluate(left), evaluate(right))
        raise ValueError(f"no part of a formula: {ast.dump(node)}")

    return evaluate(tree)


COMPARE = {
    "<": np.less,
    "<=": np.less_equal,
    "==": np.equal,
    "!=": np.not_equal,
    ">=": np.greater_equal,
    ">": np.greater,
}


def _compute(lines, names, rows):
    """The value of every name on these rows, in float64."""
    values = CONSTANTS | dict(zip(names, rows.T, strict=True))
    with np.errstate(all="ignore"):
        for name, tree in lines.items():
            values[name] = np.broadcast_to(
                _evaluate(
                    tree,
                    values,
                    FUNCTIONS,
                    lambda relation, a, b: COMPARE[relation](a, b).astype(float),
                ),
                len(rows),
            ).astype(float)
    return values


def _error(lines, outputs, names, rows, predicted):
    values = _compute(lines, names, rows)
    read = np.stack([values[name] for name in outputs], axis=-1)
    zero = np.any([values[name] == 0 for name in [*names, *lines]], axis=0)[:, None]
    finite = np.isfinite(read)
    left_out = np.isnan(predicted) | ~finite & zero
    size = np.where(np.isfinite(predicted), np.abs(predicted), 0)
    with np.errstate(all="ignore"):
        off = np.abs(read - predicted) / np.maximum(size, size.mean(axis=0))
    off = np.where(read == predicted, 0, np.where(np.isnan(off), np.inf, off))
    return float(off[~left_out].max()) if not left_out.all() else math.nan


def discretize(model, x=None, y=None, tolerance=1e-5):
    """A copy of the model whose kernels are exactly on their targets.

    Every effective weight goes to the nearest of its targets, such as -1, 0 and 1 (the
    powers of an NPU to the nearest whole number, the inputs of an MCFC to one unit
    each), and the gates that do not depend on the inputs to the nearer side. With `x`
    the others are made steeper, until they are open or shut on every row.

    Args:
        model: An arithmetic layer, or a chain of them, as for `formula`. It stays as it
            is; the copy is compiled as it is.
        x: Data as the model is used on.
        y: The right answers. With them the copy must be as good as the model.
        tolerance: How much the mean absolute error may rise, as a share of the mean
            magnitude of `y`: rounding.

    Returns:
        The copy.

    Raises:
        TypeError: the model is no chain of arithmetic layers.
        ValueError: the copy is worse than the model on `x` and `y`; its weights are not
            finite; there is `y` without `x`.

    Example:

    >>> layer = NMU(1)
    >>> layer.build((None, 2))
    >>> layer.set_weights([np.array([[0.98], [0.04]])])
    >>> snapped = keras_nalu.discretize(layer)
    >>> print(keras.ops.convert_to_numpy(snapped.kernel))
    [[1.]
     [0.]]
    """
    originals = _chain(model)
    if y is not None and x is None:
        raise ValueError("Expected the inputs `x` of the labels `y`. Received: x=None.")
    for layer in originals:
        if not all(np.all(np.isfinite(weight)) for weight in layer.get_weights()):
            raise ValueError(
                f"Expected finite weights. Received: NaN or infinite weights in the "
                f"layer {layer.name!r}."
            )
    copy = _clone(model)
    values = None if x is None else _rows(x)
    for layer in _chain(copy):
        kernels = {
            name: _nearest(layer, name, _numpy(kernel))
            for name, kernel in layer.kernels.items()
        }
        _snap(layer, kernels)
        if values is not None:
            if hasattr(layer, "G"):
                _saturate(layer, values)
            values = _in_chunks(layer, values)
        for name, kernel in layer.kernels.items():
            w = _numpy(kernel)
            if np.max(np.abs(w - _nearest(layer, name, w))) > 1e-6:
                raise ValueError(
                    f"Expected a layer that can reach its targets. Received: "
                    f"{layer!r}, whose `{name}` stays away from them."
                )
    if y is not None:
        _refuse_if_worse(originals, values, _rows(x), y, tolerance)
    return copy


def _refuse_if_worse(originals, snapped, rows, y, tolerance):
    labels = _numpy(y)
    if labels.size != snapped.size:
        raise ValueError(
            f"Expected a label for each of the {snapped.size} outputs. "
            f"Received: y.shape={labels.shape}."
        )
    labels = labels.reshape(snapped.shape)
    before = np.mean(np.abs(_run(originals, rows)[-1] - labels))
    after = np.mean(np.abs(snapped - labels))
    if not after <= before + tolerance * np.mean(np.abs(labels)):
        raise ValueError(
            "The discrete model is worse than the one that was given: its mean "
            f"absolute error on `x` and `y` is {after:.3g}, not {before:.3g}. Train "
            "longer, with the layer's sparsity penalty, or look which entries are not "
            "discrete: `formula(model, x).not_discrete`."
        )


def _clone(model):
    known = {type(layer).__name__: type(layer) for layer in walk_layers(model)}
    with keras.saving.custom_object_scope(known):
        copy = type(model).from_config(model.get_config())
        if not copy.built:
            copy.build_from_config(model.get_build_config())
        copy.set_weights(model.get_weights())
        if getattr(model, "compiled", False):
            copy.compile_from_config(model.get_compile_config())
    return copy


@functools.singledispatch
def _snap(layer, kernels) -> None:
    """Assigns the stored weights that give these kernels."""
    raise TypeError(
        "Expected a layer of `keras_nalu`, or of a class derived from one. "
        f"Received: {layer!r}."
    )


@_snap.register(layers.NAC | layers.NACMul | layers.NALU)
def _(layer, kernels):
    _saturated(layer.W_hat, layer.M_hat, kernels["kernel"])


@_snap.register(layers.GNALU)
def _(layer, kernels):
    _saturated(layer.W_hat, layer.M_hat, kernels["kernel"], 100)


@_snap.register(layers.SeparateNALU)
def _(layer, kernels):
    _saturated(layer.W_hat_add, layer.M_hat_add, kernels["kernel_add"])
    _saturated(layer.W_hat_mul, layer.M_hat_mul, kernels["kernel_mul"])


@_snap.register(layers.INALU)
def _(layer, kernels):
    _saturated(layer.W_a_hat, layer.M_a_hat, kernels["kernel_add"])
    _saturated(layer.W_m_hat, layer.M_m_hat, kernels["kernel_mul"])
    _open_or_shut(layer.g, _numpy(layer.g) >= 0)


@_snap.register(layers.SharedINALU)
def _(layer, kernels):
    _saturated(layer.W_hat, layer.M_hat, kernels["kernel"])
    _open_or_shut(layer.g, _numpy(layer.g) >= 0)


@_snap.register(layers.NAU | layers.NMU | layers.SNMU | layers.NRU | layers.NMRU)
def _(layer, kernels):
    layer.W.assign(kernels["kernel"])


@_snap.register(layers.NPU | layers.RealNPU | layers.NaiveNPU)
def _(layer, kernels):
    layer.W_re.assign(kernels["kernel"])
    if "kernel_im" in kernels:
        layer.W_im.assign(kernels["kernel_im"])
    if "relevance" in kernels:
        layer.g.assign(kernels["relevance"])


@_snap.register(layers.MCFC | layers.MulMCFC)
def _(layer, kernels):
    # An input goes somewhere: to a unit that lets it out, or to one that is shut.
    lets_out = np.any(kernels["kernel"] == 1, axis=0)
    r = _numpy(layer.r)
    kept = np.any(kernels["kernel"] == 1, axis=1, keepdims=True)
    prefer = np.where(lets_out == kept, r, -np.inf)
    prefer = np.where(np.isfinite(prefer).any(axis=1, keepdims=True), prefer, r)
    layer.r.assign(100 * np.eye(layer.units)[prefer.argmax(axis=1)])
    _open_or_shut(layer.gate_w, lets_out, 100)
    layer.gate_b.assign(np.zeros(layer.units))


@_snap.register(layers.NSR)
def _(layer, kernels):
    for V in (layer.V_1, layer.V_2):
        chosen = _numpy(V).argmax(axis=0)
        V.assign(100 * np.eye(V.shape[0])[:, chosen])


def _saturated(W_hat, M_hat, kernel, size=40):
    # tanh(40) and sigmoid(40) are 1, also in float64.
    W_hat.assign(size * kernel)
    M_hat.assign(np.full(kernel.shape, size))


def _open_or_shut(g, is_open, size=40):
    g.assign(np.where(is_open, size, -size))


def _saturate(layer, rows):
    """Makes the gate so steep that no row is between."""
    slope = LN_PHI if isinstance(layer, layers.GNALU) else 1
    G = _numpy(layer.G)
    logits = np.abs(slope * rows @ G)
    nearest = np.where(logits > 0, logits, np.inf).min(axis=0)
    layer.G.assign(G * np.maximum(1, 40 / nearest))
