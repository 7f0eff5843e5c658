"""`keras-nalu benchmark discovery`: how often known laws are recovered."""

import argparse
import csv
import dataclasses
import importlib.util

from keras_nalu.benchmarks import discovery
from keras_nalu.benchmarks.workers import completed
from keras_nalu.cli.parsing import Failure, positive, share
from keras_nalu.cli.running import install, warnings_in_one_line

SUITE = "discovery"
DESCRIPTION = "ArithmeticRegressor on 81 laws of physics and 22 classic ones"
OPTIONS = ("noise", "columns", "digits", "rivals", "timeout", "set", "group")
#: Options that only the other suites have.
OTHERS = ("operation", "steps", "threshold", "scheduler")
ABSENT = argparse.SUPPRESS


def add_options(add):
    """Adds the options that only this suite has; untyped ones are absent."""
    each = {"nargs": "+", "default": ABSENT}
    add("--set", **each, choices=discovery.SETS, help="discovery: sets of laws")
    add("--group", **each, choices=("M", "R", "S"), help="discovery: groups of laws")
    add(
        "--noise",
        **each,
        type=share,
        help="discovery: noise as shares of the root mean square of y",
    )
    add("--columns", **each, type=int, help="discovery: irrelevant columns to add")
    add(
        "--digits",
        default=ABSENT,
        type=int,
        choices=(6, 32),
        help="discovery: round data to 6 digits, or to float32 (32)",
    )
    add(
        "--rivals",
        **each,
        choices=[*discovery.METHODS][1:],
        help="discovery: packages to compare with on the same rows",
    )
    add(
        "--timeout",
        default=ABSENT,
        type=positive,
        help="discovery: seconds per law and package (default: 60)",
    )


def refuse(options, names):
    """Raises Failure for an option of another suite."""
    for name in names:
        if vars(options).get(name):
            suites = "only applies" if name in OPTIONS else "does not apply"
            raise Failure(f"--{name} {suites} to the suite discovery", 2)


def run(options):
    """Runs the trials without rows, and prints the tables of all."""
    refuse(options, OTHERS)
    for rival in vars(options).get("rivals", []):
        if importlib.util.find_spec(rival) is None:
            raise Failure(f"{rival} is not installed. Try `{install(rival)}`")
    trials = asked(options)
    file = options.output / "discovery.csv"
    rows = [] if options.again else read(file)
    known = {trial_of(row): row for row in rows}
    due = [trial for trial in trials if trial not in known]
    if options.list or options.dry_run:
        for trial in due:
            print(f"{trial.method:12}{trial.set} {trial.law}, noise {trial.noise:g}")
        print(f"{len(trials) - len(due)} of {len(trials)} have rows")
        return
    if len(due) < len(trials):
        have = len(trials) - len(due)
        print(f"{have} of {len(trials)} have rows already; --again repeats them")
    workers = max(1, min(options.workers, len(due)))
    options.output.mkdir(parents=True, exist_ok=True)
    with warnings_in_one_line(), open(file, "a", newline="") as opened:
        writer = csv.DictWriter(opened, discovery.FIELDS)
        if not opened.tell():
            writer.writeheader()
        outcomes = completed(discovery.Trial.run, due, workers)
        for ended, (trial, row, error) in enumerate(outcomes, 1):
            if error:
                raise Failure(error.splitlines()[0])
            writer.writerow(row)
            opened.flush()
            known[trial] = row
            result = "exact" if row["exact"] else f"far error {row['far']:.1e}"
            print(
                f"{ended}/{len(due)}  {trial.law}, {trial.method}: {result}, "
                f"{row['seconds']:.2f} s",
                flush=True,
            )
    print()
    for line in discovery.table([known[trial] for trial in trials]):
        print(line)
    print(f"\nRows     {file}")


def asked(options):
    """The trials that the options ask for, in their order."""
    given = vars(options)
    trials = [
        discovery.Trial(law.name, name, method, seed, noise, columns)
        for noise in given.get("noise", [0.0])
        for columns in given.get("columns", [0])
        for seed in range(given.get("seeds", 1))
        for name in given.get("set", ["feynman"])
        for law in discovery.laws(discovery.FOLDER / f"{name}.csv")
        for method in ["keras_nalu", *given.get("rivals", [])]
        if not options.only or law.name in options.only
        if law.group in given.get("group", "MRS")
    ]
    if not trials:
        raise Failure(f"no law of these sets is called {' or '.join(options.only)}", 2)
    return [
        dataclasses.replace(
            trial,
            digits=given.get("digits", trial.digits),
            timeout=float(given.get("timeout", trial.timeout)),
        )
        for trial in trials
    ]


def read(file):
    """The rows of a CSV file, with the types of their values; none without a file."""
    if not file.exists():
        return []
    with open(file, newline="") as opened:
        return [{k: typed(v) for k, v in row.items()} for row in csv.DictReader(opened)]


def typed(text):
    if text in ("True", "False"):
        return text == "True"
    for kind in int, float:
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def trial_of(row):
    """The trial that gave the row."""
    fields = dataclasses.fields(discovery.Trial)
    return discovery.Trial(**{field.name: row[field.name] for field in fields})
