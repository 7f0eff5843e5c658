"""`keras-nalu train`: the notebook's NALU, with one seed or many."""

import contextlib
import dataclasses
import functools
import json
import math
import sys
import time
from pathlib import Path

import keras_nalu
from keras_nalu.cli.parsing import Failure, command, path, positive, rate, whole
from keras_nalu.cli.running import (
    import_keras,
    program,
    quoted,
    warnings_in_one_line,
)
from keras_nalu.datasets import OPERATIONS

SETTINGS, MODEL = "config.json", "model.keras"
TRY_A_SMALLER_RATE = "Try a smaller --learning-rate"


def add_commands(commands):
    add = command(
        commands,
        "train",
        _train,
        "train the notebook's NALU and print its formula",
        " and its errors inside and far outside of the training data, beside an MLP's.",
    )
    add("--operation", choices=OPERATIONS, default="multiply", help="what to learn")
    add("--size", type=positive, default=10000, help="rows of training data")
    add("--epochs", type=positive, default=200, help="passes over the data")
    add("--batch-size", type=positive, default=10, help="rows per step")
    add("--learning-rate", type=rate, default=1e-3, help="rate of Adam")
    add("--seed", type=whole, default=0, help="the same seed repeats the run")
    add(
        "--population",
        type=positive,
        default=1,
        metavar="SIZE",
        help="NALUs to train at once; the best is kept",
    )
    add("--no-mlp", action="store_true", help="do not train the MLP")
    add("--output", type=path, default=Path("logs"), help="parent of the new folder")


def _train(options):
    run = _experiment(options)
    many = options.population > 1
    try:
        model = run.population(options.population) if many else run.nalu()
    except MemoryError:
        raise
    except ValueError as error:  # PyTorch trains no populations
        raise Failure(f"{error} Or try --backend tensorflow") from error
    folder = new_folder(options.output, options.operation)
    config = dataclasses.asdict(run) | {"population": options.population}
    (folder / SETTINGS).write_text(json.dumps(config) + "\n")
    # A picture of the weights in every epoch would take most of the time.
    board = keras_nalu.TensorBoard(
        folder, config=config, kernel_freq=-(-run.epochs // 50)
    )
    saved = folder / MODEL

    def save():
        try:
            kept = model.best(*run.data()) if many else model
        except ValueError as error:
            raise Failure(f"all members diverged. {TRY_A_SMALLER_RATE}") from error
        kept.save(saved)
        return kept

    started = time.perf_counter()
    with warnings_in_one_line():
        try:
            with _progress(run.epochs) as shown:
                history = run.fit(model, [*shown, board])
            seconds = time.perf_counter() - started
            kept = save()
        except BrokenPipeError:
            save()
            raise
        except KeyboardInterrupt:
            save()
            message = f"interrupted. The model so far is saved as {saved}"
            raise Failure(message, 130) from None
        if any(math.isnan(weights.sum()) for weights in kept.get_weights()):
            raise Failure(
                f"the training diverged: some weights are NaN. {TRY_A_SMALLER_RATE}"
            )
        members = f"{options.population} members, " * many
        print(
            f"\nTrained in {seconds:.0f} s: {members}{run.epochs} epochs, "
            f"seed {run.seed}.\n"
        )
        for line in _solved(history) if many else ():
            print(line)
        for line in run.report(kept, not options.no_mlp):
            print(line, flush=True)
    print(f"\nModel    keras_nalu.load_model({str(saved)!r})")
    tensorboard = program("tensorboard", "tensorboard.main")
    print(f"Graphs   {tensorboard} --logdir {quoted(folder)}")


def _experiment(options):
    import_keras(options)
    from keras_nalu.benchmarks.notebook import Notebook

    names = [field.name for field in dataclasses.fields(Notebook)]
    return Notebook(**{name: getattr(options, name) for name in names})


def _solved(history):
    """Yields lines: how many members solved the task, and when."""
    from keras_nalu.benchmarks.statistics import wilson

    right = history.members["accuracy"] == 1
    solved = right.any(axis=0)
    count, size = int(sum(solved)), len(solved)
    rate = wilson(count, size)
    yield f"{count} of {size} members reached accuracy 1.0"
    yield f"  95% Wilson interval of the success rate {rate.low:.2f} to {rate.high:.2f}"
    if count:
        first = sorted(right.argmax(axis=0)[solved])
        median = first[count // 2]
        yield f"  first in epoch {first[0]}, half of them by {median}, last {first[-1]}"
    if diverged := history.history["diverged"][-1]:
        yield f"{diverged} of {size} members diverged"
    yield from ("", "The best")


def new_folder(output, name):
    """Makes a new folder, also for two runs that start in the same second."""
    stem = f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    for count in range(1, 1000):
        folder = output / (stem if count == 1 else f"{stem}-{count}")
        with contextlib.suppress(FileExistsError):
            folder.mkdir(parents=True)
            return folder
    raise Failure(f"cannot make the folder {output / stem}. Try another --output")


@contextlib.contextmanager
def _progress(epochs):
    """Yields callbacks: a progress bar on a terminal, else the notebook's lines."""
    if not sys.stdout.isatty():
        yield [keras_nalu.EpochLine(functools.partial(print, flush=True))]
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = BarColumn(), TimeRemainingColumn(), TextColumn("{task.description}")
    with Progress(*columns) as bar:
        task = bar.add_task("compiling", total=epochs)
        yield [
            keras_nalu.EpochLine(
                lambda line: bar.update(task, advance=1, description=line)
            )
        ]
