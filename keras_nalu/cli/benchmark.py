"""The commands of the published benchmarks: running them, and reading what came out."""

import argparse
import contextlib
import math
import os
import shlex
import sys
import time
from pathlib import Path

from keras_nalu.cli.parsing import Failure, command, path, positive
from keras_nalu.cli.running import (
    expect_populations,
    import_keras,
    progress_bar,
    warnings_in_one_line,
)
from keras_nalu.benchmarks.engines import EngineError

ROWS = Path("logs/benchmarks")
FORMATS = ("markdown", "csv", "latex")


def add_commands(commands):
    add = command(
        commands,
        "benchmark",
        _benchmark,
        "run a published benchmark",
        ": every module, operation, range and seed, as populations. Rows of what has "
        "ended are kept, and a second run goes on where the first one was.",
    )
    add("suite", nargs="?", help="its name; `--list` alone has them all")
    add("--list", action="store_true", help="say what there is, and run nothing")
    add("--dry-run", action="store_true", help="say what would run, and for how long")
    add("--only", nargs="+", metavar="MODULE", default=(), help="by name, such as NMU")
    add("--operation", nargs="+", default=(), help="by name, or how that begins")
    add("--seeds", type=positive, default=argparse.SUPPRESS, help="0, 1, ... of each")
    add("--steps", type=positive, default=argparse.SUPPRESS, help="of training")
    add(
        "--threshold",
        choices=("1e-5", "perturbed"),
        default=argparse.SUPPRESS,
        help="error that counts as solved: 1e-5, or that of a nearly exact solution",
    )
    add("--again", action="store_true", help="train what has rows, too")
    add(
        "--workers",
        type=positive,
        default=os.cpu_count() or 1,
        help="processes to train in",
    )
    add("--scheduler", metavar="ADDRESS", help="of a Dask cluster to train on")
    add("--output", type=path, default=ROWS, help="gets the rows")

    add = command(
        commands,
        "report",
        _report,
        "print the tables of benchmarks that have run",
        ", and what the papers printed beside them.",
    )
    add("suite", nargs="*", help="by name; none: all that have rows")
    add("--rows", type=path, default=ROWS, help="a folder or file of rows")
    add("--by-range", action="store_true", help="a line for every range")
    add("--format", choices=FORMATS, default=FORMATS[0], help="of the tables")
    add("--figures", type=path, metavar="FOLDER", help="gets pictures, too")
    add("--pack", type=path, metavar="FILE", help="gets all rows: .jsonl.gz, small")


def _benchmark(options):
    import_keras(options)
    import keras

    from keras_nalu.benchmarks import runner
    from keras_nalu.benchmarks.results import Results

    if options.suite is None:
        for name, suite in runner.SUITES.items():
            print(f"{name:24}{suite.description}")
        if not options.list:
            raise Failure("which suite? Try `keras-nalu benchmark single-module`", 2)
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
        print(f"{len(done)} of {len(experiments)} have rows already (or: --again)")
    workers = min(options.workers, len(due))
    failed = 0
    try:
        at_once = len(due) if options.scheduler else workers
        with warnings_in_one_line(), _steps(due, at_once) as (progress, say):
            outcomes = runner.run(due, results, workers, options.scheduler, progress)
            with contextlib.closing(outcomes):
                for experiment, rows, error in outcomes:
                    say(experiment, _told(rows) if rows else f"failed: {error}")
                    if error and not failed:
                        for note in getattr(error, "__notes__", ()):
                            print(note, file=sys.stderr)
                    failed += error is not None
    except EngineError as error:
        raise Failure(str(error)) from error
    except KeyboardInterrupt:
        message = "interrupted; without --again this goes on with what has not ended"
        raise Failure(message, 130) from None
    if failed:
        raise Failure(f"{failed} of {len(due)} experiments failed")
    suite = experiments[0].suite
    rows = (
        "" if options.output == ROWS else f" --rows {shlex.quote(str(options.output))}"
    )
    print(f"\nRows     {results.folder / suite}")
    print(f"Tables   keras-nalu report {suite}{rows}")


def _plan(runner, results, experiments, done, options):
    """Prints what there is; for a dry run, how long it would take."""
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


def _told(rows):
    """What one experiment came to, in a few words."""
    diverged = sum(row["diverged"] for row in rows)
    if rows[0]["solved"] is None:
        errors = sorted(
            math.inf if row["extrapolation"] is None else row["extrapolation"]
            for row in rows
        )
        told = f"median error {errors[len(errors) // 2]:.2g}"
    else:
        told = f"{sum(row['solved'] for row in rows)} of {len(rows)} solved"
    told += f", {diverged} diverged" if diverged else ""
    return f"{told}, {_duration(rows[0]['seconds'])}"


@contextlib.contextmanager
def _steps(experiments, at_once):
    """Shows how far the training is: a function for steps, one for what has ended."""
    total = sum(experiment.batch_steps for experiment in experiments)
    started, ended, trained = time.perf_counter(), 0, 0
    waiting = list(experiments)

    def line(experiment, told):
        nonlocal ended, trained
        ended += 1
        trained += experiment.batch_steps
        waiting.remove(experiment)
        seconds = time.perf_counter() - started
        left = _duration(seconds * (total - trained) / trained)
        rest = f"; about {left} left" if waiting else ""
        return f"{ended}/{len(experiments)}  {_name(experiment)}: {told}{rest}"

    def running():
        # They begin in their order.
        names = [_name(experiment) for experiment in waiting[:at_once]]
        more = f" and {len(names) - 2} more" if len(names) > 2 else ""
        return "; ".join(names[:2]) + more

    if not sys.stdout.isatty():
        yield None, lambda *ended: print(line(*ended), flush=True)
        return
    with progress_bar() as bar:
        task = bar.add_task(running(), total=total)

        def say(*ended):
            text = line(*ended)
            bar.console.print(text, highlight=False)
            # What a cluster's workers train is told by its end alone.
            done = max(trained, bar.tasks[0].completed)
            bar.update(task, completed=done, description=running())

        yield lambda steps: bar.update(task, advance=steps), say


def _name(experiment):
    return f"{experiment.module}, {experiment.task.operation}"


def _report(options):
    try:
        _tables(options)
    except ImportError as error:
        missing = str(error).rstrip(".")
        raise Failure(
            f'the tables need more: {missing}. Try `pip install ".[experiments]"`'
        ) from error


def _tables(options):
    from keras_nalu.benchmarks import report

    try:
        rows = report.read(options.rows)
        known = list(rows["suite"].unique())
        if unknown := [name for name in options.suite if name not in known]:
            raise ValueError(
                f"No rows of {unknown[0]!r} in {options.rows}. There are some of "
                f"{', '.join(known)}"
            )
    except ValueError as error:
        raise Failure(str(error).rstrip("."), 2) from error
    except OSError as error:
        raise Failure(f"cannot read: {error}") from error
    if options.pack:
        with _writing("--pack"):
            report.pack(options.rows, options.pack)
    write = getattr(report, f"to_{options.format}")
    for name in options.suite or known:
        chosen = rows[rows["suite"] == name]
        inputs = chosen["inputs"].unique()
        same = ["suite", "inputs"] if len(inputs) == 1 else ["suite"]
        if options.format == "csv":
            print(report.to_csv(report.table(chosen, not options.by_range)), end="")
        else:
            if options.format == "markdown":
                print(f"## {name}, {' and '.join(map(str, inputs))} inputs\n")
            table = report.table(chosen, pooled=not options.by_range)
            print(write(table.drop(columns=same)))
            if report.has_published(chosen):
                print(write(report.side_by_side(chosen).drop(columns=same)))
        if options.figures:
            try:
                with _writing("--figures"):
                    _draw(chosen, options.figures / name)
            except ValueError as error:
                raise Failure(f"no pictures of {name}: {error}".rstrip(".")) from error


@contextlib.contextmanager
def _writing(option):
    try:
        yield
    except OSError as error:
        raise Failure(f"cannot write: {error}. Try another {option}") from error


def _draw(rows, folder):
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
