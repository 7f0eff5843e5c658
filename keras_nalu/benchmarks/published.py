"""The numbers that the papers printed, and the comparison of ours with them.

Modules have this package's names: NACMul is the papers' NAC with a dot, NAC that with a
plus. In the iNALU's tables, SharedINALU and INALU have shared and independent weights,
and NALU is both of its NALUs, whose results are the same; the INALU of Heim et al. is
another. Linear, ReLU, ReLU6 and Dense are networks of Keras' layers. Modules that this
package lacks are left out, and so is the ablation of the NMU, whose number of runs the
paper does not give.
"""

import itertools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from keras_nalu.benchmarks.statistics import Interval, Spread, wilson


class Published(NamedTuple):
    """One cell of a published table.

    Attributes:
        runs: The number of runs, of all ranges together.
        ranges: The number of ranges.
        steps: The steps of training.
        source: The paper.
        solved: The number of runs that solved the task.
        solved_at_median: The median step at which these solved it.
        error: The error, and the number after the plus-minus sign.
    """

    runs: int
    ranges: int
    steps: int
    source: str
    solved: int | None = None
    solved_at_median: float | None = None
    error: Spread | None = None


def find(suite, module, operation):
    """The published cell, or `None`."""
    return PUBLISHED.get((suite, module, operation))


def rate_verdict(published, solved, runs):
    """Whether a success rate is inside the published one's 95% Wilson interval.

    Our rate is an estimate, too: with as many runs as theirs, an equally good module is
    outside in about one case of six, with fewer more often. So there is also the
    p-value of Fisher's exact test: how often two equally good modules differ so much.

    Returns:
        "inside", "below" or "above", and the p-value.
    """
    from scipy.stats import fisher_exact

    theirs = wilson(published.solved, published.runs)
    counts = [
        [solved, runs - solved],
        [published.solved, published.runs - published.solved],
    ]
    return _position(solved / runs, theirs), float(fisher_exact(counts).pvalue)


def error_verdicts(published, median, mean, runs):
    """Whether an error is inside the band that the published one leads to expect.

    Heim et al. print a number and a spread of 20 runs. Their caption calls them the
    median and the median absolute deviation; the script in their repository that writes
    the table computes the mean and its standard error. Both are judged.

    The band is 1.96 standard errors of the difference of ours and theirs, for runs from
    one normal distribution. The mean of n runs has the standard error s / sqrt(n), the
    median 1.2533 s / sqrt(n); s is 1.4826 times the median absolute deviation, or
    sqrt(20) times the standard error of their mean. As the spread is an estimate, too,
    about 92 of 100 medians and 93 of 100 means of an equally good module's 20 runs are
    inside; skewed errors may give other shares.

    Args:
        published: A cell with an error.
        median: The median error of our runs.
        mean: The mean error of our runs.
        runs: The number of our runs.

    Returns:
        For "median" and "mean" the band as an `Interval`, and "inside", "below" (which
        is better) or "above".
    """
    value, spread = published.error
    both = math.sqrt(1 / published.runs + 1 / runs)
    deviations = {
        "median": 1.2533 * 1.4826 * spread,
        "mean": math.sqrt(published.runs) * spread,
    }
    verdicts = {}
    for kind, ours in (("median", median), ("mean", mean)):
        half = 1.96 * deviations[kind] * both
        band = Interval(value, value - half, value + half)
        verdicts[kind] = band, _position(ours, band)
    return verdicts


def _position(value, interval):
    if value < interval.low:
        return "below"
    return "inside" if value <= interval.high else "above"


#: {suite: (runs of a cell, ranges, steps, paper)}.
SUITES = {
    "arithmetic": (100, 1, 5_000_000, "arXiv:2001.05016"),
    "arithmetic-simple": (100, 1, 200_000, "arXiv:2001.05016"),
    "arithmetic-gates": (100, 1, 5_000_000, "arXiv:2001.05016"),
    "division-10": (225, 9, 100_000, "arXiv:2110.05177"),
    "inalu-minimal": (70, 7, 100_000, "arXiv:2003.07629"),
    "inalu-simple": (70, 7, 100_000, "arXiv:2003.07629"),
    "npu-simple": (20, 1, 20_000, "arXiv:2006.01681"),
}

#: The number of 100 runs that are solved, and their median step. From the authors'
#: function_task_static_all.tex (its other rows have no solved runs), simple_mul.tex,
#: which learns (x1 + x2) (x1 + x2 + x3 + x4), and function_task_static_nalu.tex, whose
#: first layer is a NAC. Not all of their fits converged: two solved runs of NALU on
#: roots cannot have a median of 2.6e6 and a mean of 3.3e6.
_MADSEN = """
arithmetic        NMU          multiply  98 1.4e6
arithmetic        NACMul       multiply  31 2.8e6
arithmetic        NAC          add      100 2.5e5
arithmetic        Linear       add      100 6.1e4
arithmetic        NALU         add       14 1.5e6
arithmetic        NAU          add      100 1.8e4
arithmetic        ReLU         add       62 6.2e4
arithmetic        NAC          subtract 100 9.0e3
arithmetic        Linear       subtract   7 3.3e6
arithmetic        NALU         subtract  14 1.9e6
arithmetic        NAU          subtract 100 5.0e3
arithmetic        NMU          subtract  56 1.0e6
arithmetic        NACMul       root       7 4.0e5
arithmetic        NALU         root       2 2.6e6
arithmetic        NACMul       square    77 3.3e6
arithmetic        NMU          square   100 1.2e6
arithmetic-simple NMU          multiply  94 1.4e4
arithmetic-simple NALU         multiply  26 7.0e4
arithmetic-simple NACMul       multiply  13 5.5e4
arithmetic-gates  SeparateNALU multiply  22 2.8e6
arithmetic-gates  NALU         multiply  24 2.9e6
arithmetic-gates  SeparateNALU add       51 1.4e5
arithmetic-gates  NALU         add       34 1.8e5
"""
_MODELS = ("NMU", "NACMul", "NALU", "NAC", "NAU", "Linear", "ReLU", "ReLU6")
_OPERATIONS = ("add", "subtract", "multiply", "divide", "square", "root")

#: The number of 225 runs (25 on each of nine ranges) that are solved: the only counts
#: that give 70.2%, 85.3% and 91.6%; the abstract has 15.1 points between the first two.
_MISTRY = {"RealNPU": 158, "RealNPU (modified)": 192, "NMRU": 206}

#: The number of 70 runs (10 on each of seven distributions) that extrapolate add,
#: subtract, multiply and divide, counted in the last epochs of the authors' exp1, exp2.
_SCHLOER = """
inalu-minimal NALU        30  0 33  0
inalu-minimal SharedINALU 60 53 34 24
inalu-minimal INALU       70 70 50 24
inalu-simple  NALU        27  1 17  0
inalu-simple  SharedINALU 70 38 60  3
inalu-simple  INALU       70 70 60  6
"""

#: The mean absolute error and its spread for add, multiply, divide and root.
_HEIM = """
NPU     0.2+-0.11   0.37+-0.23   0.23+-0.13    0.031+-0.025
RealNPU 0.08+-0.021 0.066+-0.026 0.085+-0.038  0.004+-0.001
NMU     0.2+-0.18   0.005+-0.004 11.399+-0.035 0.16+-0.002
NALU    2.69+-0.22  4.55+-0.2    3.33+-0.18    0.034+-0.006
INALU   2.18+-0.13  3.453+-0.065 2.54+-0.26    0.049+-0.011
Dense   2.103+-0.04 3.546+-0.035 14.16+-0.23   0.084+-0.007
"""


def _cells() -> Iterator[tuple[tuple[str, str, str], dict[str, Any]]]:
    """Yields ((suite, module, operation), fields of `Published`)."""
    for cell in itertools.product(("arithmetic",), _MODELS, _OPERATIONS):
        yield cell, {"solved": 0}
    for line in _MADSEN.strip().splitlines():
        suite, module, operation, solved, median = line.split()
        if suite == "arithmetic-gates":
            module += " behind NAC"
        known = {"solved": int(solved), "solved_at_median": float(median)}
        yield (suite, module, operation), known
    for module, solved in _MISTRY.items():
        yield ("division-10", module, "divide"), {"solved": solved}
    for line in _SCHLOER.strip().splitlines():
        suite, module, *counts = line.split()
        for operation, solved in zip(_OPERATIONS[:4], counts, strict=True):
            yield (suite, module, operation), {"solved": int(solved)}
    for line in _HEIM.strip().splitlines():
        module, *errors = line.split()
        names = ("add", "multiply", "divide", "root")
        for operation, error in zip(names, errors, strict=True):
            error = Spread(*map(float, error.split("+-")))
            yield ("npu-simple", module, operation), {"error": error}


#: {(suite, module, operation): cell}.
PUBLISHED = {cell: Published(*SUITES[cell[0]], **known) for cell, known in _cells()}
