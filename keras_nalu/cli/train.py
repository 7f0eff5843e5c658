"""The commands that train: the notebook's NALU once or with many seeds, all modules."""

import argparse
import contextlib
import dataclasses
import functools
import json
import math
import os
import shlex
import shutil
import sys
import time
from pathlib import Path

import keras_nalu
from keras_nalu.cli.parsing import (
    BACKENDS,
    Failure,
    command,
    path,
    positive,
    rate,
    whole,
)
from keras_nalu.cli.running import (
    expect_populations,
    import_keras,
    progress_bar,
    warnings_in_one_line,
)
from keras_nalu.datasets import OPERATIONS

SETTINGS, MODEL, BACKUP = "config.json", "model.keras", "training.backup"
#: Of a run, beside its backend, what `--resume` takes from its folder.
_TYPED = "operation size epochs batch_size learning_rate seed population no_mlp".split()
_READ = dict.fromkeys(("size", "epochs", "batch_size", "population"), positive)
_READ |= {"learning_rate": rate, "seed": whole}
TRY_A_SMALLER_RATE = "Try a smaller --learning-rate"


class _Given(argparse.Action):
    """Remembers which options were typed: a default contradicts nothing."""

    def __call__(self, parser, namespace, values, option_string=None):
        setattr(namespace, self.dest, values)
        namespace.given = {*getattr(namespace, "given", ()), self.dest}


def add_commands(commands):
    add = command(
        commands,
        "train",
        _train,
        "train a NALU as the notebook does, and say what it learned",
        ", how far it extrapolates beside an MLP, and how to look at it.",
    )
    noted = functools.partial(add, action=_Given)
    _of_the_notebook(noted)
    noted("--seed", type=whole, default=0, help="the same seed repeats the run")
    noted(
        "--population",
        type=positive,
        default=1,
        metavar="SIZE",
        help="NALUs to train as one; the best is kept",
    )
    add("--no-mlp", action="store_true", help="leave the MLP out")
    noted("--output", type=path, default=Path("logs"), help="gets a new folder a run")
    add(
        "--resume",
        type=path,
        metavar="RUN",
        default=argparse.SUPPRESS,
        help="the folder of a run that was killed: go on with it, as it was begun",
    )

    add = command(
        commands,
        "seeds",
        _seeds,
        "train with many seeds, and count those that reach accuracy 1.0",
        ", with the 95% Wilson interval of the success rate.",
    )
    _of_the_notebook(add)
    add("--count", type=positive, default=20, help="trains with the seeds 0, 1, ...")

    add = command(
        commands,
        "modules",
        _modules,
        "train every module on what it claims, and count the seeds that learn it",
        ": README's table, in Markdown.",
    )
    add("--only", nargs="+", metavar="MODULE", help="by name, such as NMU")
    add("--seeds", type=positive, default=20, help="trained as one population")
    add(
        "--steps",
        type=positive,
        default=50_000,
        help="of training, rounded up to whole thousands",
    )


def _of_the_notebook(add):
    add("--operation", choices=OPERATIONS, default="multiply", help="what to learn")
    add("--size", type=positive, default=10000, help="rows of training data")
    add("--epochs", type=positive, default=200, help="passes over the data")
    add("--batch-size", type=positive, default=10, help="rows in a step")
    add("--learning-rate", type=rate, default=1e-3, help="of Adam")


def _train(options):
    if "resume" not in options:
        run, model = _begun(options)
        folder = _new_folder(options.output, options.operation)
        _write_settings(folder, run, options)
        with _alone_in(folder):
            _train_in(folder, options, run, model)
        return
    folder = options.resume
    with _alone_in(folder):
        if (folder / MODEL).exists() and not (folder / BACKUP).exists():
            print(f"The run in {folder} has ended: nothing to go on with.")
            return
        options = _options_of(folder, options)
        _train_in(folder, options, *_begun(options))


def _begun(options):
    run = _experiment(options)
    many = options.population > 1
    try:
        return run, run.population(options.population) if many else run.nalu()
    except MemoryError:
        raise
    except ValueError as error:  # of a population, on PyTorch
        raise Failure(f"{error} Or try --backend {BACKENDS[0]}") from error


def _train_in(folder, options, run, model):
    config = dataclasses.asdict(run) | {"population": options.population}
    many = options.population > 1
    # Fifty pictures of the weights tell as much as one an epoch, in less time.
    board = keras_nalu.TensorBoard(
        folder, config=config, kernel_freq=-(-run.epochs // 50)
    )
    backup = keras_nalu.BackupAndRestore(folder / BACKUP, [board], delete=False)
    saved, had_backup = folder / MODEL, backup.path.exists()
    again = f"keras-nalu train --resume {shlex.quote(str(folder))}"

    def save():
        try:
            kept = model.best(*run.data()) if many else model
        except ValueError as error:
            raise Failure(f"all members diverged. {TRY_A_SMALLER_RATE}") from error
        # Under another name first: what is there under its own is whole.
        partial = saved.with_suffix(".partial.keras")
        kept.save(partial)
        os.replace(partial, saved)
        return kept

    started = time.perf_counter()
    try:
        with warnings_in_one_line():
            with _progress(run.epochs) as shown:
                try:
                    history = run.fit(model, [*shown, backup])
                except ValueError as error:
                    if not had_backup:
                        raise
                    raise Failure(str(error).rstrip(".")) from error
            seconds = time.perf_counter() - started
            kept = save()
            if any(math.isnan(weights.sum()) for weights in kept.get_weights()):
                raise Failure(
                    "the training diverged: the weights are not numbers any more. "
                    f"{TRY_A_SMALLER_RATE}"
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
    except BrokenPipeError:
        save()
        raise
    except OSError as error:
        raise Failure(f"cannot write: {error}. Once that is mended: {again}") from error
    except KeyboardInterrupt:
        save()
        print(f"\nTo go on: {again}")
        message = f"interrupted; what was trained so far is saved as {saved}"
        raise Failure(message, 130) from None
    print(f"\nModel    keras_nalu.load_model({str(saved)!r})")
    print(f"Graphs   {_tensorboard()} --logdir {shlex.quote(str(folder))}")
    sys.stdout.flush()
    # Now the run has ended.
    backup.path.unlink()


def _write_settings(folder, run, options):
    import keras

    kept = {name: getattr(options, name) for name in _TYPED}
    kept |= dataclasses.asdict(run) | {"backend": keras.backend.backend()}
    (folder / SETTINGS).write_text(json.dumps(kept) + "\n")


def _options_of(folder, options):
    """The options that a run was begun with."""
    try:
        kept = json.loads((folder / SETTINGS).read_text())
        known = all(type(kept[n]) is type(getattr(options, n)) for n in _TYPED)
        known &= all(of(str(kept[name])) == kept[name] for name, of in _READ.items())
        known &= kept["backend"] in BACKENDS and kept["operation"] in OPERATIONS
    except (
        ValueError,
        TypeError,
        KeyError,
        RecursionError,
        argparse.ArgumentTypeError,
    ):
        known = False
    if not known:
        raise Failure(
            f"{folder / SETTINGS} is damaged, or of a version before --resume. "
            "Leave --resume out, to begin anew"
        )
    typed = {*getattr(options, "given", ())}
    typed |= {name for name in ("backend", "no_mlp") if getattr(options, name, False)}
    for name in sorted(typed):
        if kept.get(name) != getattr(options, name):
            option = f"--{name.replace('_', '-')}"
            has = f", which has {kept[name]}" if name in kept else ""
            raise Failure(
                f"{option} contradicts the run in {folder}{has}. "
                f"Leave {option} out: --resume takes the options of the run",
                2,
            )
    return argparse.Namespace(**(vars(options) | kept))


@contextlib.contextmanager
def _alone_in(folder):
    """Of two processes the second is refused. The system frees what a dead one held."""
    import fcntl

    try:
        file = open(folder / SETTINGS, "r+")
    except (FileNotFoundError, NotADirectoryError):
        raise Failure(
            f"{folder} is not the folder of a run: it has no {SETTINGS}. "
            "Leave --resume out, to begin one",
            2,
        ) from None
    except OSError as error:
        raise Failure(f"cannot write to {folder}: {error.strerror}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Failure(
                f"another process is training in {folder}. Wait for its end, or stop it"
            ) from None
        yield


def _experiment(options, **changes):
    """The experiment that the options ask for."""
    import_keras(options)
    from keras_nalu.benchmarks.notebook import Notebook

    given = {**vars(options), **changes}
    names = [field.name for field in dataclasses.fields(Notebook)]
    return Notebook(**{name: given[name] for name in names if name in given})


def _solved(history):
    """Lines: how many members solved the task, and when."""
    right = history.members["accuracy"] == 1
    solved = right.any(axis=0)
    first = sorted(right.argmax(axis=0)[solved])
    yield f"{sum(solved)} of {len(solved)} members reached accuracy 1.0"
    if first:
        median = first[len(first) // 2]
        yield f"  first in epoch {first[0]}, half of them by {median}, last {first[-1]}"
    if diverged := history.history["diverged"][-1]:
        yield f"{diverged} of {len(solved)} members diverged"
    yield from ("", "The best")


def _new_folder(output, name):
    """A folder of its own for every run, for two that start in one second too."""
    stem = f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    for count in range(1, 1000):
        folder = output / (stem if count == 1 else f"{stem}-{count}")
        with contextlib.suppress(FileExistsError):
            folder.mkdir(parents=True)
            return folder
    raise Failure(f"cannot make the folder {output / stem}. Try another --output")


@contextlib.contextmanager
def _progress(epochs):
    """Callbacks that show progress: a bar on a terminal, the notebook's lines else."""
    if not sys.stdout.isatty():
        yield [keras_nalu.EpochLine(functools.partial(print, flush=True))]
        return
    import keras

    with progress_bar() as bar:
        task = bar.add_task("compiling", total=epochs)
        yield [
            # A run that is resumed begins where it was.
            keras.callbacks.LambdaCallback(
                on_epoch_begin=lambda epoch, _: bar.update(task, completed=epoch)
            ),
            keras_nalu.EpochLine(
                lambda line: bar.update(task, advance=1, description=line)
            ),
        ]


def _tensorboard():
    """What to type for TensorBoard: it is beside Python where no venv is activated."""
    beside = Path(sys.executable).parent / "tensorboard"
    if shutil.which("tensorboard") or not beside.exists():
        return "tensorboard"
    with contextlib.suppress(ValueError):
        beside = beside.relative_to(Path.cwd())
    return str(beside)


def _seeds(options):
    try:
        from scipy.stats import binomtest
    except ModuleNotFoundError as error:
        raise Failure(
            'SciPy computes the interval. Try `pip install ".[experiments]"`'
        ) from error
    solved = 0
    for seed in range(options.count):
        run = _experiment(options, seed=seed)
        with warnings_in_one_line():
            accuracies = run.fit(run.nalu(), []).history["accuracy"]
        solved += max(accuracies) == 1
        first = accuracies.index(1.0) if max(accuracies) == 1 else "none"
        print(
            f"seed {seed}: first epoch with accuracy 1.0: {first}, "
            f"last accuracy: {accuracies[-1]:.4f}",
            flush=True,
        )
    low, high = binomtest(solved, options.count).proportion_ci(method="wilson")
    print(
        f"{solved} of {options.count} seeds reached accuracy 1.0 within "
        f"{options.epochs} epochs (95% Wilson interval {low:.2f} to {high:.2f})"
    )


def _modules(options):
    import_keras(options)
    from keras_nalu.benchmarks import modules

    known = modules.LAYERS
    names = options.only or list(known)
    if unknown := [name for name in names if name not in known]:
        expected = ", ".join(known)
        raise Failure(f"no module {unknown[0]!r}. Expected one of {expected}", 2)
    expect_populations()
    print(modules.head(options.seeds), flush=True)
    for name in names:
        counts = {}
        for claim in modules.claims(name, seeds=options.seeds, steps=options.steps):
            started = time.perf_counter()
            with warnings_in_one_line():
                counts[claim.operation] = int(sum(claim.solved(claim.train())))
            print(
                f"{name}, {claim.operation}: {counts[claim.operation]} of "
                f"{claim.seeds}, {time.perf_counter() - started:.0f} s",
                file=sys.stderr,
            )
        print(modules.row(name, counts), flush=True)
