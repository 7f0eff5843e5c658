"""The command line: `keras-nalu`, also `python -m keras_nalu`.

Keras is imported only once the options are read: `--help` answers at once, and
`--backend` can still choose.
"""

import argparse
import contextlib
import dataclasses
import functools
import json
import math
import os
import shlex
import shutil
import signal
import sys
import time
import warnings
from pathlib import Path

import keras_nalu
from keras_nalu.datasets import OPERATIONS
from keras_nalu.experiments.engines import EngineError, without_notices

TRY_A_SMALLER_RATE = "Try a smaller --learning-rate"
BACKENDS = ("tensorflow", "jax", "torch")
ROWS = Path("logs/benchmarks")
FORMATS = ("markdown", "csv", "latex")


class Failure(Exception):
    """Ends the command with one line and a non-zero exit status."""

    def __init__(self, message, status=1):
        super().__init__(message)
        self.status = status


def main(argv=None) -> int:
    sys.stdout = sys.stdout or open(os.devnull, "w")
    try:
        options = _parser().parse_args(argv)
        options.run(options)
        sys.stdout.flush()
        return 0
    except BrokenPipeError:
        # The reader of our output is gone, as with `| head`: nothing to say to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        failure = Failure("interrupted", 130)
    except MemoryError:
        failure = Failure("not enough memory. Try a smaller --size or --batch-size")
    except OSError as error:
        failure = Failure(f"cannot write: {error}. Try another --output")
    except Failure as error:
        failure = error
    print(f"keras-nalu: {failure}.", file=sys.stderr)
    return failure.status


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        raise Failure(f"{message}. See `{self.prog} --help`", 2)


class _Version(argparse.Action):
    def __call__(self, parser, *_):
        print("keras-nalu", keras_nalu.__version__)
        parser.exit()


def _parser():
    parser = _Parser(
        "keras-nalu", description=(keras_nalu.__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name, run, help, more):
        description = f"{help[0].upper()}{help[1:]}{more}"
        subparser = commands.add_parser(
            name,
            help=help,
            description=description,
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )
        subparser.set_defaults(run=run)
        subparser.add_argument(
            "--backend",
            choices=BACKENDS,
            default=argparse.SUPPRESS,
            help="what Keras computes with (default: as Keras is configured)",
        )
        return subparser.add_argument

    def of_the_notebook(add):
        add("--operation", choices=OPERATIONS, default="multiply", help="what to learn")
        add("--size", type=_positive, default=10000, help="rows of training data")
        add("--epochs", type=_positive, default=200, help="passes over the data")
        add("--batch-size", type=_positive, default=10, help="rows in a step")
        add("--learning-rate", type=_rate, default=1e-3, help="of Adam")

    add = command(
        "train",
        _train,
        "train a NALU as the notebook does, and say what it learned",
        ", how far it extrapolates beside an MLP, and how to look at it.",
    )
    of_the_notebook(add)
    add("--seed", type=_seed, default=0, help="the same seed repeats the run")
    add(
        "--population",
        type=_positive,
        default=1,
        metavar="SIZE",
        help="NALUs to train as one; the best is kept",
    )
    add("--no-mlp", action="store_true", help="leave the MLP out")
    add("--output", type=Path, default=Path("logs"), help="gets a new folder a run")

    add = command(
        "seeds",
        _seeds,
        "train with many seeds, and count those that reach accuracy 1.0",
        ", with the 95% Wilson interval of the success rate.",
    )
    of_the_notebook(add)
    add("--count", type=_positive, default=20, help="trains with the seeds 0, 1, ...")

    add = command(
        "modules",
        _modules,
        "train every module on what it claims, and count the seeds that learn it",
        ": README's table, in Markdown.",
    )
    add("--only", nargs="+", metavar="MODULE", help="by name, such as NMU")
    add("--seeds", type=_positive, default=20, help="trained as one population")
    add(
        "--steps",
        type=_positive,
        default=50_000,
        help="of training, rounded up to whole thousands",
    )

    add = command(
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
    add("--seeds", type=_positive, default=argparse.SUPPRESS, help="0, 1, ... of each")
    add("--steps", type=_positive, default=argparse.SUPPRESS, help="of training")
    add(
        "--threshold",
        choices=("1e-5", "perturbed"),
        default=argparse.SUPPRESS,
        help="error that counts as solved: 1e-5, or that of a nearly exact solution",
    )
    add("--again", action="store_true", help="train what has rows, too")
    add("--workers", type=_positive, default=_cores(), help="processes to train in")
    add("--scheduler", metavar="ADDRESS", help="of a Dask cluster to train on")
    add("--output", type=Path, default=ROWS, help="gets the rows")

    add = command(
        "report",
        _report,
        "print the tables of benchmarks that have run",
        ", and what the papers printed beside them.",
    )
    add("suite", nargs="*", help="by name; none: all that have rows")
    add("--rows", type=Path, default=ROWS, help="a folder or file of rows")
    add("--by-range", action="store_true", help="a line for every range")
    add("--format", choices=FORMATS, default=FORMATS[0], help="of the tables")
    add("--figures", type=Path, metavar="FOLDER", help="gets pictures, too")
    add("--pack", type=Path, metavar="FILE", help="gets all rows: .jsonl.gz, small")
    return parser


def _cores():
    return os.cpu_count() or 1


def _number(text, convert, accept, expected):
    with contextlib.suppress(ValueError):
        value = convert(text)
        if accept(value):
            return value
    raise argparse.ArgumentTypeError(f"expected {expected}, received {text!r}")


def _positive(text):
    return _number(text, int, lambda n: 0 < n < 2**40, "a positive whole number")


def _seed(text):
    return _number(text, int, lambda n: 0 <= n < 2**32, "a whole number below 2**32")


def _rate(text):
    return _number(text, float, lambda x: 0 < x < 1e38, "a positive number")


@contextlib.contextmanager
def _holding_interrupts():
    """Lets Ctrl-C wait: an import that it hits may swallow it, and go on."""
    held = []
    handler = signal.signal(signal.SIGINT, lambda *_: held.append(True))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
    if held:
        raise KeyboardInterrupt


def _import_keras(options):
    """With the backend that the options ask for."""
    if "backend" in options:
        os.environ["KERAS_BACKEND"] = options.backend
    backend = os.environ.get("KERAS_BACKEND", BACKENDS[0])
    if backend not in BACKENDS:
        raise Failure(
            f"the environment asks for KERAS_BACKEND={backend}, which cannot train. "
            f"Try --backend {BACKENDS[0]}"
        )
    try:
        with _holding_interrupts(), without_notices():
            import keras

            # It imports TensorFlow, too, where Keras computes with another backend.
            keras.utils.set_random_seed(0)
    except ModuleNotFoundError as error:
        raise Failure(
            f"{error.name} is not installed, and Keras is to compute with it. "
            f'Try `pip install ".[{error.name}]"`, or --backend {BACKENDS[0]}'
        ) from error


def _experiment(options, **changes):
    """The experiment that the options ask for."""
    _import_keras(options)
    from keras_nalu.experiments.notebook import Notebook

    given = {**vars(options), **changes}
    names = [field.name for field in dataclasses.fields(Notebook)]
    return Notebook(**{name: given[name] for name in names if name in given})


def _train(options):
    run = _experiment(options)
    many = options.population > 1
    try:
        model = run.population(options.population) if many else run.nalu()
    except ValueError as error:  # of a population, on PyTorch
        raise Failure(f"{error} Or try --backend {BACKENDS[0]}") from error
    config = dataclasses.asdict(run) | {"population": options.population}
    folder = _new_folder(options.output, options.operation)
    (folder / "config.json").write_text(json.dumps(config) + "\n")
    # Fifty pictures of the weights tell as much as one an epoch, in less time.
    board = keras_nalu.TensorBoard(
        folder, config=config, kernel_freq=-(-run.epochs // 50)
    )
    saved = folder / "model.keras"

    def save():
        try:
            kept = model.best(*run.data()) if many else model
        except ValueError as error:
            raise Failure(f"all members diverged. {TRY_A_SMALLER_RATE}") from error
        kept.save(saved)
        return kept

    started = time.perf_counter()
    try:
        with _warnings_in_one_line():
            with _progress(run.epochs) as shown:
                history = run.fit(model, [*shown, board])
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
    except KeyboardInterrupt:
        save()
        message = f"interrupted; what was trained so far is saved as {saved}"
        raise Failure(message, 130) from None
    print(f"\nModel    keras_nalu.load_model({str(saved)!r})")
    print(f"Graphs   {_tensorboard()} --logdir {shlex.quote(str(folder))}")


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
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = BarColumn(), TimeRemainingColumn(), TextColumn("{task.description}")
    with Progress(*columns) as bar:
        task = bar.add_task("compiling", total=epochs)
        yield [
            keras_nalu.EpochLine(
                lambda line: bar.update(task, advance=1, description=line)
            )
        ]


@contextlib.contextmanager
def _warnings_in_one_line():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("once", UserWarning)
        warnings.showwarning = lambda message, *_: print(
            f"keras-nalu: {message}", file=sys.stderr
        )
        yield


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
        with _warnings_in_one_line():
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
    _import_keras(options)
    import keras

    from keras_nalu.experiments import modules

    known = modules.LAYERS
    names = options.only or list(known)
    if unknown := [name for name in names if name not in known]:
        expected = ", ".join(known)
        raise Failure(f"no module {unknown[0]!r}. Expected one of {expected}", 2)
    if keras.backend.backend() == "torch":
        raise Failure(
            "a population trains on TensorFlow or JAX. Try --backend tensorflow", 2
        )
    print(modules.head(options.seeds), flush=True)
    for name in names:
        counts = {}
        for claim in modules.claims(name, seeds=options.seeds, steps=options.steps):
            started = time.perf_counter()
            with _warnings_in_one_line():
                counts[claim.operation] = int(sum(claim.solved(claim.train())))
            print(
                f"{name}, {claim.operation}: {counts[claim.operation]} of "
                f"{claim.seeds}, {time.perf_counter() - started:.0f} s",
                file=sys.stderr,
            )
        print(modules.row(name, counts), flush=True)


def _benchmark(options):
    _import_keras(options)
    import keras

    from keras_nalu.experiments import runner
    from keras_nalu.experiments.results import Results

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
    if backend == "torch" and not options.list:
        raise Failure(
            "a population trains on TensorFlow or JAX. Try --backend tensorflow", 2
        )
    if options.list or options.dry_run:
        _plan(runner, results, experiments, done, options)
        return
    if done:
        print(f"{len(done)} of {len(experiments)} have rows already (or: --again)")
    workers = min(options.workers, len(due))
    failed = 0
    try:
        with _warnings_in_one_line(), _steps(due) as (progress, say):
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
def _steps(experiments):
    """Shows how far the training is: a function for steps, one for what has ended."""
    total = sum(experiment.batch_steps for experiment in experiments)
    started, ended, trained = time.perf_counter(), 0, 0

    def line(experiment, told):
        nonlocal ended, trained
        ended += 1
        trained += experiment.batch_steps
        seconds = time.perf_counter() - started
        left = _duration(seconds * (total - trained) / trained)
        name = f"{experiment.module}, {experiment.task.operation}"
        rest = f"; about {left} left" if ended < len(experiments) else ""
        return f"{ended}/{len(experiments)}  {name}: {told}{rest}"

    if not sys.stdout.isatty():
        yield None, lambda *ended: print(line(*ended), flush=True)
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = BarColumn(), TimeRemainingColumn(), TextColumn("{task.description}")
    with Progress(*columns) as bar:
        task = bar.add_task("training", total=total)

        def say(*ended):
            text = line(*ended)
            bar.console.print(text, highlight=False)
            bar.update(task, completed=trained)

        yield lambda steps: bar.update(task, advance=steps), say


def _report(options):
    from keras_nalu.experiments import report

    try:
        rows = report.read(options.rows)
        known = list(rows["suite"].unique())
        if unknown := [name for name in options.suite if name not in known]:
            raise ValueError(
                f"No rows of {unknown[0]!r} in {options.rows}. There are some of "
                f"{', '.join(known)}"
            )
    except ModuleNotFoundError as error:
        raise Failure(
            f'{error.name} makes the tables. Try `pip install ".[experiments]"`'
        ) from error
    except ValueError as error:
        raise Failure(str(error).rstrip("."), 2) from error
    except (OSError, EOFError) as error:
        raise Failure(f"cannot read {options.rows}: {error}") from error
    if options.pack:
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
                _draw(chosen, options.figures / name)
            except ValueError as error:
                raise Failure(f"no pictures of {name}: {error}".rstrip(".")) from error


def _draw(rows, folder):
    from keras_nalu.experiments import figures

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
