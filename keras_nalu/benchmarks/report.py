"""Tables of result rows, beside the numbers of the papers.

`Experiment.run` returns a row for each trained model. All functions take a list of rows
or a pandas DataFrame of them.
"""

import gzip
import json
import math
import zlib
from pathlib import Path

from keras_nalu.benchmarks import published
from keras_nalu.benchmarks.statistics import (
    Interval,
    Spread,
    mean_deviation,
    mean_interval,
    median_deviation,
    wilson,
)
from keras_nalu.datasets import COMPARISONS, OPERATIONS

#: The columns that the runs of one cell of a table share.
CELL = ("suite", "inputs", "operation", "module", "range")
#: The columns in which experiments of one cell may differ.
APART = ("steps", "backend", "experiment")
_NAME, _COUNT, _ERROR = str, int, int | float | None
#: {column: type} that a row must have.
COLUMNS = {
    **{"suite": _NAME, "inputs": _COUNT, "operation": _NAME},
    **{"module": _NAME, "range": _NAME, "experiment": _NAME, "seed": _COUNT},
    **{"backend": _NAME, "steps": _COUNT, "solved": bool | None},
    **{"solved_at": int | None, "extrapolation": _ERROR},
    **{"sparsity_error": _ERROR, "diverged": bool},
}
#: The order of operations in a table; others come last.
ORDER = (*OPERATIONS, "square", "root", *COMPARISONS)

MAKE_SOME = "Try `keras-nalu benchmark single-module` to make some."


def read(paths):
    """The rows of files, and of all files in folders, as a DataFrame.

    Args:
        paths: One path or a list: files with a JSON row per line, `.jsonl` or
            `.jsonl.gz`, or folders of these.
    """
    return frame(_rows(paths))


def pack(paths, file):
    """Writes the rows of files and folders to one `.jsonl.gz` file."""
    text = "".join(json.dumps(row) + "\n" for row in _rows(paths))
    # Without a time stamp, so that the same rows give the same file.
    Path(file).write_bytes(gzip.compress(text.encode(), mtime=0))


def _rows(paths):
    rows = []
    paths = [paths] if isinstance(paths, str | Path) else paths
    if not isinstance(paths, list | tuple):
        raise ValueError(f"Expected one or more paths. Received: paths={paths!r}.")
    for path in paths:
        path = Path(path)
        files = sorted(path.rglob("*.jsonl*")) if path.is_dir() else [path]
        found = [row for file in files if file.exists() for row in _lines(file)]
        if not found:
            raise ValueError(
                f"No result rows in {path}. Expected a .jsonl or .jsonl.gz file, or a "
                f"folder of them. {MAKE_SOME}"
            )
        rows += found
    return rows


def _lines(file):
    text = file.read_bytes()
    if file.suffix == ".gz":
        try:
            text = gzip.decompress(text)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(
                f"Expected a whole gzip file. Received: {file}: {error}."
            ) from error
    for number, line in enumerate(text.decode(errors="replace").splitlines(), 1):
        try:
            row = json.loads(line)
            complete = _is_row(row)
        except (ValueError, RecursionError):
            complete = False
        if not complete:
            raise ValueError(
                f"Expected a result row in JSON in line {number} of {file}. "
                f"Received: {line.strip()[:40]!r}. Move the file away, and "
                "`keras-nalu benchmark` trains its runs again."
            )
        yield row


def _is_row(row):
    return isinstance(row, dict) and all(
        name in row and isinstance(row[name], kind) for name, kind in COLUMNS.items()
    )


def frame(rows):
    """Rows as a DataFrame in the order of a table, with the last row of each run."""
    import pandas

    if not isinstance(rows, pandas.DataFrame):
        rows = list(rows) if isinstance(rows, list | tuple) else [rows]
        if wrong := [row for row in rows if not _is_row(row)]:
            raise ValueError(
                "Expected result rows, as `Experiment.run` returns and `read` reads. "
                f"Received: {str(wrong[0])[:80]}."
            )
    rows = pandas.DataFrame(rows)
    if rows.empty:
        raise ValueError(f"Expected result rows. Received: none. {MAKE_SOME}")
    same = [*CELL, "experiment", "seed", "backend"]
    # Not sorted by range, which keep the order of the benchmark.
    return rows.drop_duplicates(same, keep="last").sort_values(
        [name for name in CELL if name != "range"],
        key=lambda a: a.map(_place) if a.name == "operation" else a,
        kind="stable",
        ignore_index=True,
    )


def _place(operation):
    return ORDER.index(operation) if operation in ORDER else len(ORDER)


def table(rows, pooled=False):
    """One line per cell: runs, success rate, and the solved runs' steps and sparsity.

    For a task without a threshold, the errors.

    Args:
        rows: The result rows.
        pooled: Whether to put the runs of all ranges into one cell.

    Returns:
        A DataFrame; some of its cells are an `Interval` or a `Spread`, which `text`
        formats: `table(rows).map(text).to_latex()`.
    """
    return _frame_of(key | _summary(runs) for key, runs in cells(frame(rows), pooled))


def has_published(rows):
    """Whether there are published numbers for any of these rows."""
    keys = rows[["suite", "module", "operation"]].drop_duplicates()
    return any(published.find(*key) for key in keys.itertuples(index=False))


def side_by_side(rows):
    """The published numbers for these rows, beside ours, with a verdict.

    Runs of all ranges are one cell, as in the published numbers. The verdicts are those
    of `published`; `expected` is the band of an error, `p` the p-value of a success
    rate. A cell with other ranges or steps than the paper says so instead.

    Returns:
        A DataFrame as of `table`.
    """
    rows = frame(rows)
    lines = []
    for key, runs in cells(rows, pooled=True):
        theirs = published.find(key["suite"], key["module"], key["operation"])
        if theirs:
            otherwise = _differs(theirs, runs)
            for line in _compared(theirs, _summary(runs)):
                if otherwise:
                    line |= {"verdict": otherwise, "p": None, "expected": None}
                lines.append(key | line | {"source": theirs.source})
    if not lines:
        raise ValueError(
            "There are no published numbers for these rows. Received: rows of "
            f"{', '.join(rows['suite'].unique())}. Expected modules and operations of "
            f"{', '.join(published.SUITES)}."
        )
    return _frame_of(lines)


def _differs(theirs, runs):
    """In words, how our runs differ from the paper's, or an empty text."""
    counts = {
        "ranges": (runs["range"].nunique(), theirs.ranges),
        "steps": (int(runs["steps"].max()), theirs.steps),
    }
    return ", ".join(
        f"{ours:,} of {all_:,} {what}"
        for what, (ours, all_) in counts.items()
        if ours != all_
    )


def _compared(theirs, ours):
    """Yields a line for every quantity of a published cell."""
    runs = ours["runs"]
    if theirs.error:
        median, mean = ours["error (median)"], ours["error (mean)"]
        verdicts = published.error_verdicts(
            theirs, median.estimate, mean.estimate, runs
        )
        for error, (kind, (expected, verdict)) in zip(
            (median, mean), verdicts.items(), strict=True
        ):
            yield {
                "quantity": f"error, as {kind}",
                "published": theirs.error,
                "ours": error,
                "runs": runs,
                "verdict": verdict,
                "expected": expected,
            }
        return
    verdict, p = published.rate_verdict(theirs, ours["solved"], runs)
    yield {
        "quantity": "success rate",
        "published": wilson(theirs.solved, theirs.runs),
        "ours": ours["success rate"],
        "runs": runs,
        "verdict": verdict,
        "p": p,
    }
    if theirs.solved_at_median and ours["solved"]:
        yield {
            "quantity": "solved at (median)",
            "published": theirs.solved_at_median,
            "ours": ours["solved at (median)"],
            "runs": ours["solved"],
        }


def cells(rows, pooled=False):
    """Yields the columns that the runs of a cell share, and these runs.

    If a cell has several experiments, it is split by the first columns of `APART` that
    distinguish them.
    """
    keys = [name for name in CELL if not (pooled and name == "range")]
    known = [*CELL]
    for name in APART:
        if (rows.groupby(known)[name].nunique() > 1).any():
            keys.append(name)
            known.append(name)
    for values, runs in rows.groupby(keys, sort=False, dropna=False):
        yield dict(zip(keys, values, strict=True)), runs


def _summary(runs):
    summary = {"runs": len(runs), "diverged": int(runs["diverged"].sum())}
    if runs["solved"].isna().any():
        errors = runs["extrapolation"].astype(float).fillna(math.inf)
        return summary | {
            "error (median)": median_deviation(errors),
            "error (mean)": mean_deviation(errors),
        }
    solved = runs[runs["solved"].astype(bool)]
    steps, sparsity = (
        solved[name].astype(float) for name in ("solved_at", "sparsity_error")
    )
    return summary | {
        "solved": len(solved),
        "success rate": wilson(len(solved), len(runs)),
        "solved at (median)": float(steps.median()) if len(solved) else None,
        "solved at (mean)": mean_interval(steps),
        "sparsity error": mean_interval(sparsity.dropna()),
    }


def _frame_of(lines):
    """A DataFrame without empty columns, in which whole numbers stay whole."""
    import pandas

    rows = pandas.DataFrame(list(lines), dtype=object).dropna(axis=1, how="all")
    if "source" in rows:
        rows["source"] = rows.pop("source")
    return rows.where(rows.notna(), None)


def to_markdown(rows):
    """A DataFrame of `table` or `side_by_side` as Markdown."""
    lines = [list(rows.columns), ["---"] * rows.shape[1]]
    lines += [[text(value) for value in row] for row in rows.itertuples(index=False)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def text(value):
    """A cell of a table as text, with three digits."""
    if isinstance(value, Interval):
        ends = f" ({text(value.low)} to {text(value.high)})"
        return text(value.estimate) + ("" if math.isnan(value.low) else ends)
    if isinstance(value, Spread):
        spread = "" if math.isnan(value.spread) else f" ± {text(value.spread)}"
        return text(value.estimate) + spread
    if isinstance(value, float):
        if math.isnan(value):
            return ""
        if math.isinf(value):
            return "not finite"
        short = f"{value:.3g}"
        return f"{float(short):,.0f}" if 1e3 <= abs(value) < 1e7 else short
    return "" if value is None else str(value)
