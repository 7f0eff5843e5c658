"""`keras-nalu benchmark` and `keras-nalu report`: the published benchmarks."""

import argparse
import contextlib
import math
import os
import sys
import time
from pathlib import Path

from keras_nalu.benchmarks.workers import WorkersError
from keras_nalu.cli import laws
from keras_nalu.cli.parsing import Failure, command, path, positive
from keras_nalu.cli.running import (
    command_line,
    expect_populations,
    import_keras,
    install,
    quoted,
    warnings_in_one_line,
)

ROWS = Path("logs/benchmarks")


def add_commands(commands):
    add = command(
        commands,
        "benchmark",
        _benchmark,
        "run a published benchmark",
        ": every module, operation, range and seed, trained as populations. Each "
        "experiment's rows are kept once it has ended, and a second run does the rest.",
    )
    add("suite", nargs="?", help="name of a suite; `--list` alone prints them")
    add("--list", action="store_true", help="print the experiments, run nothing")
    add("--dry-run", action="store_true", help="also estimate how long they take")
    add("--only", nargs="+", metavar="MODULE", default=(), help="modules, such as NMU")
    add("--operation", nargs="+", default=(), help="operations, or their first letters")
    add("--seeds", type=positive, default=argparse.SUPPRESS, help="runs per experiment")
    add("--steps", type=positive, default=argparse.SUPPRESS, help="steps of training")
    add(
        "--threshold",
        choices=("1e-5", "perturbed"),
        default=argparse.SUPPRESS,
        help="solved is an error below 1e-5, or below that of near-exact weights",
    )
    add("--again", action="store_true", help="train again what has rows")
    add(
        "--workers",
        type=positive,
        default=os.cpu_count() or 1,
        help="number of processes",
    )
    add("--scheduler", metavar="ADDRESS", help="a Dask scheduler to train on")
    add("--output", type=path, default=ROWS, help="folder for the rows")
    laws.add_options(add)

    add = command(
        commands,
        "report",
        _report,
        "print the tables of benchmarks that have run",
        ", beside the numbers of the papers.",
    )
    add("suite", nargs="*", help="names; without any, all that have rows")
    add("--rows", type=path, default=ROWS, help="folder or file of rows")
    add("--by-range", action="store_true", help="print a line for every range")
    add("--figures", type=path, metavar="FOLDER", help="folder for pictures")
    add("--pack", type=path, metavar="FILE", help="file for all rows (.jsonl.gz)")


def _benchmark(options):
    if options.suite == laws.SUITE:
        return laws.run(options)
    laws.refuse(options, laws.OPTIONS)
    import_keras(options)
    import keras

    from keras_nalu.benchmarks import runner
    from keras_nalu.benchmarks.results import Results

    if options.suite is None:
        for name, suite in runner.SUITES.items():
            print(f"{name:24}{suite.description}")
        print(f"{laws.SUITE:24}{laws.DESCRIPTION}")
        if not options.list:
            command = f"{command_line()} benchmark single-module"
            raise Failure(f"expected the name of a suite. Try `{command}`", 2)
        return
    given = vars(options)
    threshold = given.get("threshold")
    try:
        experiments = runner.select(
            options.suite,
            options.only,
            options.operation,
            threshold=float(threshold) if threshold == "1e-5" else threshold,
            seeds=given.get("seeds"),
            steps=given.get("steps"),
        )
    except ValueError as error:
        raise Failure(str(error).rstrip("."), 2) from error
    results = Results(options.output)
    backend = keras.backend.backend()
    done = [e for e in experiments if results.has(e, backend) and not options.again]
    due = [e for e in experiments if e not in done]
    if not options.list:
        expect_populations()
    if options.list or options.dry_run:
        _plan(runner, results, experiments, done, options)
        return
    if done:
        have = f"{len(done)} of {len(experiments)} have rows already"
        print(f"{have}; --again repeats them")
    workers = max(1, min(options.workers, len(due)))
    try:
        with warnings_in_one_line():
            failed = _run(runner.run(due, results, workers, options.scheduler), due)
    except WorkersError as error:
        raise Failure(str(error)) from error
    except KeyboardInterrupt:
        message = "interrupted. The same command without --again does the rest"
        raise Failure(message, 130) from None
    if failed:
        raise Failure(f"{failed} of {len(due)} experiments failed")
    suite = experiments[0].suite
    rows = "" if options.output == ROWS else f" --rows {quoted(options.output)}"
    print(f"\nRows     {results.folder / suite}")
    print(f"Tables   {command_line()} report {suite}{rows}")


def _run(outcomes, due):
    """Prints a line for every experiment, and returns how many failed."""
    total = sum(experiment.batch_steps for experiment in due)
    started, trained, failed = time.perf_counter(), 0, 0
    for ended, (experiment, rows, error) in enumerate(outcomes, 1):
        trained += experiment.batch_steps
        result = _summary(rows) if rows else f"failed: {error.splitlines()[0]}"
        left = (time.perf_counter() - started) * (total - trained) / trained
        rest = f"; about {_duration(left)} left" if ended < len(due) else ""
        name = f"{experiment.module}, {experiment.task.operation}"
        print(f"{ended}/{len(due)}  {name}: {result}{rest}", flush=True)
        if error and not failed:
            print(error, file=sys.stderr)
        failed += error is not None
    return failed


def _plan(runner, results, experiments, done, options):
    """Prints the experiments and, for a dry run, how long they would take."""
    import keras

    rates = results.rates() if options.dry_run else {}
    total = 0.0
    for experiment in experiments:
        what = f"{experiment.module:24}{experiment.task.operation:14}"
        runs = f"{experiment.members} runs of {experiment.steps} steps"
        if options.dry_run and experiment not in done:
            operation = next(iter(experiment.task.measures()))
            names = experiment.suite, experiment.module, operation
            key = *names, keras.backend.backend(), experiment.members
            rate = rates.get(key) or runner.measured_rate(experiment)
            seconds = experiment.batch_steps / rate
            total += seconds
            runs += f", about {_duration(seconds)}"
        elif experiment in done:
            runs += ", has rows"
        print(what + runs, flush=True)
    if options.dry_run:
        workers = min(options.workers, max(1, len(experiments) - len(done)))
        each = f", less in {workers} processes" if workers > 1 else ""
        print(f"All in one process: about {_duration(total)}{each}")


def _duration(seconds):
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def _summary(rows):
    """The result of one experiment in a few words."""
    diverged = sum(row["diverged"] for row in rows)
    if rows[0]["solved"] is None:
        errors = sorted(
            math.inf if row["extrapolation"] is None else row["extrapolation"]
            for row in rows
        )
        result = f"median error {errors[len(errors) // 2]:.2g}"
    else:
        result = f"{sum(row['solved'] for row in rows)} of {len(rows)} solved"
    result += f", {diverged} diverged" if diverged else ""
    return f"{result}, {_duration(rows[0]['seconds'])}"


def _report(options):
    try:
        _tables(options)
    except ImportError as error:
        missing = str(error).rstrip(".")
        raise Failure(
            f"{missing}. Try `{install('keras-nalu[benchmarks]')}`"
        ) from error


def _tables(options):
    from keras_nalu.benchmarks import report

    try:
        rows = report.read(options.rows)
        known = list(rows["suite"].unique())
        if unknown := [name for name in options.suite if name not in known]:
            raise ValueError(
                f"no rows of {unknown[0]!r} in {options.rows}. Expected one of "
                f"{', '.join(known)}"
            )
    except ValueError as error:
        raise Failure(str(error).rstrip("."), 2) from error
    except OSError as error:
        raise Failure(f"cannot read: {error}") from error
    if options.pack:
        with _writing("--pack"):
            report.pack(options.rows, options.pack)
    for name in options.suite or known:
        chosen = rows[rows["suite"] == name]
        inputs = chosen["inputs"].unique()
        same = ["suite", "inputs"] if len(inputs) == 1 else ["suite"]
        print(f"## {name}, {' and '.join(map(str, inputs))} inputs\n")
        table = report.table(chosen, pooled=not options.by_range)
        print(report.to_markdown(table.drop(columns=same)))
        if report.has_published(chosen):
            table = report.side_by_side(chosen)
            print(report.to_markdown(table.drop(columns=same)))
        if options.figures:
            try:
                with _writing("--figures"):
                    _plot(chosen, options.figures / name)
            except ValueError as error:
                raise Failure(f"cannot plot {name}: {error}".rstrip(".")) from error


@contextlib.contextmanager
def _writing(option):
    try:
        yield
    except OSError as error:
        raise Failure(f"cannot write: {error}. Try another {option}") from error


def _plot(rows, folder):
    from keras_nalu.benchmarks import figures

    if rows["solved"].isna().any():
        return
    pictures = {"heat-map": figures.heat_map(rows)}
    for operation in rows["operation"].unique():
        pictures[operation] = figures.panels(rows, operation)
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in pictures.items():
        path = folder / f"{name}.png"
        figure.savefig(path, dpi=150)
        print(path, file=sys.stderr)
