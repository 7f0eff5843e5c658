"""`keras-nalu discover`: from a table in a file to a formula."""

import argparse
import difflib
import json
import math
import shlex
import time
import warnings
from pathlib import Path

from keras_nalu.cli.parsing import Failure, command, path, positive, share, whole
from keras_nalu.cli.running import import_keras, install, warnings_in_one_line
from keras_nalu.cli.train import new_folder


def add_commands(commands):
    add = command(
        commands,
        "discover",
        _discover,
        "find the formula behind the columns of a file",
        ": products, quotients, sums, powers and roots of them. It prints formulas and "
        "their errors, and writes the chosen one to a new folder as text, LaTeX, JSON, "
        "a Keras model and a plot.",
    )
    absent = argparse.SUPPRESS
    add("file", type=path, help="CSV with column names, or Parquet")
    add("--target", required=True, default=absent, help="column to explain")
    add(
        "--features",
        nargs="+",
        metavar="NAME",
        default=absent,
        help="columns that may explain it (default: all others)",
    )
    add("--timeout", type=positive, default=60, help="seconds to search at most")
    add(
        "--noise",
        type=share,
        default=absent,
        help="noise as a share of the target's root mean square (default: estimated)",
    )
    add("--seed", type=whole, default=0, help="the same seed repeats the search")
    add("--output", type=path, default=Path("logs"), help="parent of the new folder")


def _discover(options):
    print(f"Reading {options.file}", flush=True)
    try:
        X, y = columns(table(options.file), options)
        from keras_nalu import ArithmeticRegressor
    except ModuleNotFoundError as error:
        if error.name == "pyarrow":
            raise Failure(
                f"Parquet needs pyarrow. Try `{install('keras-nalu[parquet]')}`"
            ) from error
        command = install("keras-nalu[regressor]")
        raise Failure(f"{error.name} is not installed. Try `{command}`") from error
    print(
        f"{len(X)} rows; searching {y.name} = f({', '.join(X.columns)}) for at most "
        f"{options.timeout} s. Ctrl-C ends the search and keeps the best so far.\n",
        flush=True,
    )
    started = time.perf_counter()
    model = ArithmeticRegressor(
        timeout=options.timeout,
        noise=vars(options).get("noise"),
        random_state=options.seed,
        verbose=1,
    ).fit(X, y)
    seconds = time.perf_counter() - started
    inside = float(((model.predict(X) - y) ** 2).mean() ** 0.5)
    inside /= float((y**2).mean() ** 0.5) or 1.0
    outside = float(model.extrapolation_error_)  # pyright: ignore
    print(model)
    print(f"\nFormula  {model.formula_}")
    print(
        f"Error    {inside:.2g} of the root mean square of {y.name}"
        + ("" if math.isnan(outside) else f", {outside:.2g} on the outer tenth")
    )
    print(f"Time     {seconds:.1f} s\n", flush=True)
    stem = "".join(c if c.isalnum() else "-" for c in options.file.stem)
    folder = new_folder(options.output, stem)
    _write(model, X, y, inside, folder)
    _plot(model, X, y, folder / "predicted.png")
    import_keras(options)
    with warnings_in_one_line():
        model.to_keras().save(folder / "model.keras")
    print(f"Model    keras_nalu.load_model({str(folder / 'model.keras')!r})")


def _write(model, X, y, error, folder):
    outside = float(model.extrapolation_error_)  # pyright: ignore
    described = {
        "formula": model.formula_,
        "latex": model.latex(),
        "error": error,
        "extrapolation_error": None if math.isnan(outside) else outside,
        "undecided": model.undecided_,
        "verdict": model.verdict_,
        "equations": model.equations_.to_dict("records"),
        "target": y.name,
        "features": [*X.columns],
    }
    texts = {
        "txt": model.formula_,
        "tex": model.latex(),
        "json": json.dumps(described, indent=2),
    }
    for kind, text in texts.items():
        (folder / f"formula.{kind}").write_text(text + "\n", encoding="utf-8")
    print(f"Formula  {folder / 'formula.txt'}, .tex and .json", flush=True)


def _plot(model, X, y, file):
    try:
        from keras_nalu.discovery.figure import predicted_against_true
    except ModuleNotFoundError:
        print(f"Plot     none; it needs `{install('matplotlib')}`")
        return
    predicted_against_true(model, X, y).savefig(file, dpi=150)
    print(f"Plot     {file}", flush=True)


def table(file):
    """The file's DataFrame.

    Raises:
        Failure: The file does not exist or is not a table.
    """
    import pandas as pd

    try:
        if file.suffix.lower() in (".parquet", ".pq"):
            import pyarrow  # pyright: ignore[reportMissingImports]

            try:
                return pd.read_parquet(file)
            except pyarrow.ArrowInvalid as error:
                raise Failure(f"{file} is not a Parquet file: {error}", 2) from error
        with open(file, encoding="utf-8-sig") as opened:
            names = opened.readline()
        separator = max(",;\t", key=names.count)
        with warnings.catch_warnings(category=pd.errors.ParserWarning, action="error"):
            frame = pd.read_csv(
                file,
                sep=separator,
                encoding="utf-8-sig",
                skipinitialspace=True,
                index_col=False,  # extra values must not become row labels
            )
    except FileNotFoundError as error:
        raise Failure(f"there is no file {file}", 2) from error
    except OSError as error:
        raise Failure(f"cannot read {file}: {error.strerror}", 2) from error
    except pd.errors.EmptyDataError as error:
        message = f"{file} is empty. Expected a line of names, then rows of numbers"
        raise Failure(message, 2) from error
    except pd.errors.ParserWarning as error:
        message = f"{file} has rows with more values than its first line has names"
        raise Failure(message, 2) from error
    except (pd.errors.ParserError, UnicodeDecodeError) as error:
        raise Failure(f"{file} is not a CSV file in UTF-8: {error}", 2) from error
    if all(number(name) for name in frame.columns):
        message = f"{file} begins with numbers. Expected column names in its first line"
        raise Failure(message, 2)
    return frame


def number(text):
    """Whether the text is a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def columns(frame, options):
    """The features as a DataFrame, and the target as a Series.

    Raises:
        Failure: A column does not exist or is not of finite numbers.
    """
    import numpy as np
    from pandas.api.types import is_bool_dtype, is_numeric_dtype

    frame.columns = [str(name).strip() for name in frame.columns]
    names = [*frame.columns]
    asked = vars(options).get("features")
    features = asked or [name for name in names if name != options.target]
    for option, name in [
        ("target", options.target),
        *(("features", n) for n in features),
    ]:
        if name not in names:
            lower = [n for n in names if n.lower() == name.lower()]
            near = lower or difflib.get_close_matches(name, names, 5, 0.4) or names[:20]
            raise Failure(
                f"--{option}: no column {name!r}. Expected one of {named(near)}", 2
            )
    if options.target in features:
        message = f"--features names the target {options.target!r}. Leave it out"
        raise Failure(message, 2)
    features = [*dict.fromkeys(features)]
    if not features:
        raise Failure("no column is left to explain --target. Try other --features", 2)
    if len(frame) < 2:
        raise Failure(f"expected 2 rows at least, received {len(frame)}", 2)
    used = frame[[*features, options.target]]
    texts = [n for n in used if not is_numeric_dtype(used[n]) or is_bool_dtype(used[n])]
    if options.target in texts:
        message = f"--target {options.target}: expected a column of numbers"
        raise Failure(message, 2)
    if texts:
        rest = " ".join(shlex.quote(n) for n in features if n not in texts)
        advice = f"Try --features {rest}" if rest else "No other column is left"
        raise Failure(f"the columns {named(texts)} are not numbers. {advice}", 2)
    for name in used:
        values = used[name].to_numpy(float, na_value=np.nan)
        wrong = np.flatnonzero(~np.isfinite(values))
        if len(wrong):
            raise Failure(
                f"column {name!r} has {len(wrong)} missing or infinite values, the "
                f"first in row {wrong[0] + 1}. Fill them, drop these rows, or choose "
                "other columns with --features",
                2,
            )
    used = used.astype(float)
    return used[features], used[options.target]


def named(names):
    return ", ".join(repr(name) for name in names)
