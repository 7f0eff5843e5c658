"""Lines of Python: substitution, evaluation, and conversion to SymPy."""

import ast
import math
import re
from typing import Any

import numpy as np

from keras_nalu.lines import neat, number

#: The functions that a line may call; except `abs` they have SymPy's names.
FUNCTIONS = {
    "abs": np.abs,
    "cos": np.cos,
    "exp": np.exp,
    "log": np.log,
    "relu": lambda z: np.maximum(z, 0),
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
    "sign": np.sign,
    "tanh": np.tanh,
}
CONSTANTS = {"pi": np.pi, "inf": np.inf, "nan": np.nan}
#: The longest line that substituting a hidden unit may make.
SHORT = 60


def put(name, text, into):
    """Substitutes the text for the name, except in the label of a note, `h1_0: `."""
    text = text if text.isidentifier() else f"({text})"
    return re.sub(rf"\b{name}\b(?!:)", text, into)


def show(name, shown, text):
    """The text with the user's name in place of the name."""
    return re.sub(rf"\b{name}\b", lambda _: shown, text)


def words(text):
    return re.findall(r"\w+", text)


class _Flat(ast.NodeTransformer):
    """Removes the brackets of `a * (b * c)` and of sums, and computes `2 * 0.5`."""

    SAME = {ast.Mult: (ast.Mult, ast.Div), ast.Add: (ast.Add, ast.Sub)}

    def visit_BinOp(self, node):
        self.generic_visit(node)
        right = node.right
        same = self.SAME.get(type(node.op), ())
        if isinstance(right, ast.BinOp) and isinstance(right.op, same):
            first = self.visit_BinOp(ast.BinOp(node.left, node.op, right.left))
            return self.visit_BinOp(ast.BinOp(first, right.op, right.right))
        if isinstance(node.op, ast.Mult) and isinstance(node.left, ast.Constant):
            if isinstance(right, ast.Constant):
                product = node.left.value * right.value  # pyright: ignore
                return ast.Constant(float(number(product)))  # pyright: ignore
            return right if node.left.value == 1 else node
        return node


def flat(text):
    """`neat`, without the brackets that associativity makes needless."""
    return neat(ast.unparse(_Flat().visit(ast.parse(text, mode="eval"))))


def inline(lines):
    """The lines after substituting hidden units, and the lines of these.

    A hidden unit is substituted if it is used once and the line stays short.
    """
    lines, gone = dict(lines), {}
    for name in [name for name in lines if name.startswith("h")]:
        text = lines[name]
        trivial = text.isidentifier()
        uses = [other for other in lines for w in words(lines[other]) if w == name]
        if not trivial and len(uses) > 1:
            continue
        replaced = {other: flat(put(name, text, lines[other])) for other in uses}
        if trivial or all(len(line) <= SHORT for line in replaced.values()):
            lines |= replaced
            gone[name] = lines.pop(name)
    return lines, gone


def _evaluate(tree, values):
    code = compile(ast.fix_missing_locations(tree), "formula", "eval")
    return eval(code, {"__builtins__": {}}, values)


def values(lines, names, rows) -> dict[str, Any]:
    """The values of the names and of the lines on the rows."""
    values = FUNCTIONS | CONSTANTS | dict(zip(names, rows.T, strict=True))
    with np.errstate(all="ignore"):
        for name, text in lines.items():
            value = _evaluate(ast.parse(text, mode="eval"), values)
            values[name] = np.broadcast_to(value, len(rows)).astype(float)
    return values


def error(lines, outputs, names, values, predicted):
    """The largest relative error of the lines' values: see `Formula.model_error`."""
    read = np.stack([values[name] for name in outputs], axis=-1)
    zero = np.any([values[name] == 0 for name in [*names, *lines]], axis=0)[:, None]
    left_out = np.isnan(predicted) | ~np.isfinite(read) & zero
    size = np.where(np.isfinite(predicted), np.abs(predicted), 0)
    with np.errstate(all="ignore"):
        off = np.abs(read - predicted) / np.maximum(size, size.mean(axis=0))
    off = np.where(read == predicted, 0, np.where(np.isnan(off), np.inf, off))
    return float(off[~left_out].max()) if not left_out.all() else math.nan


class _CallsOfComparisons(ast.NodeTransformer):
    """Replaces comparisons by calls, as SymPy's are not numbers, and its `==` compares
    expressions."""

    def visit_Compare(self, node):
        self.generic_visit(node)
        sides = [node.left, *node.comparators]
        bare = ast.Compare(ast.Name("a"), node.ops, [ast.Name("b")])
        relation = ast.Constant(ast.unparse(bare)[2:-2])
        # No input can have the name of a keyword.
        return ast.Call(ast.Name("is", ast.Load()), [*sides, relation], [])


def expressions(lines, shown):
    """SymPy expressions of the inputs alone, by name.

    `shown` has the user's names of inputs that are not identifiers.
    """
    try:
        import sympy
    except ImportError as error:
        raise ImportError(
            "`expressions` needs SymPy, which is not installed. "
            'Try `pip install "keras-nalu[formula]"`.'
        ) from error
    used = {word for text in lines.values() for word in words(text)}
    values = {word: sympy.Symbol(shown.get(word, word)) for word in used}
    values |= {name: getattr(sympy, name, sympy.Abs) for name in FUNCTIONS}
    values |= {
        "pi": sympy.pi,
        "inf": sympy.oo,
        "nan": sympy.nan,
        "relu": lambda z: sympy.Max(0, z),
        "sigmoid": lambda z: 1 / (1 + sympy.exp(-z)),
        "is": lambda *of: sympy.Piecewise((1, sympy.Rel(*of)), (0, True)),
    }
    for name, text in lines.items():
        tree = _CallsOfComparisons().visit(ast.parse(text, mode="eval"))
        values[name] = sympy.sympify(_evaluate(tree, values))
    return {name: values[name] for name in lines}
