"""How exact every layer is under every dtype policy, as a table.

python tests/benchmarks/precision.py
"""

import itertools
import json
import math
import os
import subprocess
import sys
import warnings
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.append(str(Path(__file__).parents[1]))

import keras
import numpy as np
from oracles.cases import CASES
from oracles.conformance.facts import integers

BACKENDS = "tensorflow", "jax", "torch"
POLICIES = "float32", "float64", "mixed_bfloat16", "mixed_float16"


def worst_error(name, policy):
    """Of the ideal solutions of all operations, on integers from 1 to 100: the largest
    share of the exact answer, or difference from an answer of 0."""
    X, errors, case = integers(1, 101), [], CASES[name]
    for operation, weights in case.ideal.items():
        # What squashes to -1, 0 and 1 in float64, too.
        weights = [np.where(np.abs(w) < 20, w, 2 * np.array(w)) for w in weights]
        y = case.built(weights, dtype=policy)(X)
        wide = "float64" if policy == "float64" else "float32"
        y = keras.ops.convert_to_numpy(keras.ops.cast(y, wide))
        exact = case.answer(operation, X)
        errors.append(np.abs(y - exact) / np.where(exact == 0, 1, np.abs(exact)))
    return float(np.max(errors))


def cell(error):
    """One digit, rounded up."""
    if not error:
        return "0"
    unit = 10.0 ** math.floor(math.log10(error))
    return f"{math.ceil(error / unit) * unit:.0e}"


def table(cells):
    """Of cells by layer and policy: layers of the same cells in a row."""
    groups = {}
    for name in CASES:
        row = tuple(cells[name, policy] for policy in POLICIES)
        groups.setdefault(row, []).append(f"`{name}`")
    lines = [["layer", *POLICIES], ["---"] * (1 + len(POLICIES))]
    lines += [[", ".join(names), *row] for row, names in groups.items()]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def measure():
    warnings.simplefilter("ignore")
    for name, policy in itertools.product(CASES, POLICIES):
        # Keras' own operations compute in float32 elsewhere.
        if policy != "float64" or keras.backend.backend() == "tensorflow":
            print(json.dumps([name, policy, worst_error(name, policy)]))


def main():
    worst = {}
    for backend in BACKENDS:
        lines = subprocess.run(
            [sys.executable, __file__, "--only-this-backend"],
            env={**os.environ, "KERAS_BACKEND": backend},
            stdout=subprocess.PIPE,
            check=True,
            text=True,
        ).stdout.splitlines()
        for line in filter(lambda line: line.startswith('["'), lines):
            *key, error = json.loads(line)
            worst[tuple(key)] = max(error, worst.get(tuple(key), 0))
    print(table({key: cell(error) for key, error in worst.items()}), end="")


if __name__ == "__main__":
    measure() if sys.argv[1:] == ["--only-this-backend"] else main()
