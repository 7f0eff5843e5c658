"""What the commands share while they run: Keras itself, warnings, what to type next."""

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import warnings
from pathlib import Path

from keras_nalu.cli.parsing import BACKENDS, Failure

TRY_ANOTHER = f"Try --backend {BACKENDS[0]}"


def import_keras(options):
    """With the backend that the options ask for, and a first number computed by it."""
    if "backend" in options:
        os.environ["KERAS_BACKEND"] = options.backend
    if not os.environ.get("KERAS_BACKEND"):
        # Keras takes an empty one for none.
        os.environ.pop("KERAS_BACKEND", None)
    try:
        with _ended_by_interrupts():
            if "keras" not in sys.modules:
                print("keras-nalu: loading Keras ...", file=sys.stderr, flush=True)
            from keras_nalu.quiet import keras

            backend = keras.backend.backend()
            if backend in BACKENDS:
                keras.ops.zeros(1)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name in BACKENDS:
            said = f"{error.name} is not installed. Try `pip install {error.name}`, or"
        else:
            # JAX asserts that there is a device, without a word.
            said = f"{type(error).__name__} {error}".strip() + ". Try"
        raise Failure(
            f"Keras cannot compute as it is set to, by {_settings()}: {said} --backend "
            f"{BACKENDS[0]}, or other settings"
        ) from error
    if backend not in BACKENDS:
        raise Failure(
            f"Keras is set, by {_settings()}, to {backend}, which cannot train. "
            f"{TRY_ANOTHER}"
        )


@contextlib.contextmanager
def _ended_by_interrupts():
    """Meanwhile Ctrl-C ends the process at once, even within an import, where Python
    would notice it seconds later, and some libraries never."""
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def _settings():
    names = [n for n in ("KERAS_BACKEND", "JAX_PLATFORMS") if os.environ.get(n)]
    folder = os.environ.get("KERAS_HOME") or Path.home() / ".keras"
    file = Path(folder) / "keras.json"
    settings = [f"{name}={os.environ[name]}" for name in names]
    return " and ".join([*settings, *([str(file)] if file.exists() else [])])


def expect_populations():
    import keras

    if keras.backend.backend() == "torch":
        raise Failure(f"a population trains on TensorFlow or JAX. {TRY_ANOTHER}", 2)


def quoted(path):
    """A path as this system's shell reads it."""
    if os.name == "nt":
        return subprocess.list2cmdline([str(path)])
    return shlex.quote(str(path))


def command_line():
    """What to type for this very program."""
    return program("keras-nalu", "keras_nalu")


def program(name, module):
    """What to type for a program: it is beside Python where no venv is activated."""
    if found := shutil.which(name):
        if Path(found).parent == Path(sys.executable).parent:
            return name
    beside = shutil.which(name, path=str(Path(sys.executable).parent))
    if not beside:
        return f"{quoted(sys.executable)} -m {module}"
    with contextlib.suppress(ValueError):
        beside = Path(beside).relative_to(Path.cwd())
    return quoted(beside)


@contextlib.contextmanager
def warnings_in_one_line():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("once", UserWarning)
        warnings.showwarning = lambda message, *_: print(
            f"keras-nalu: {message}", file=sys.stderr
        )
        yield
