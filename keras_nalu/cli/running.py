"""What the commands share while they run: Keras itself, warnings, what to type next."""

import contextlib
import os
import shlex
import shutil
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
        import keras

        import keras_nalu.quiet  # noqa: F401

        backend = keras.backend.backend()
        if backend in BACKENDS:
            keras.ops.zeros(1)
    except ModuleNotFoundError as error:
        raise Failure(
            f"{error.name} is not installed, and Keras is to compute with it. "
            f'Try `pip install "keras-nalu[{error.name}]"`, or --backend {BACKENDS[0]}'
        ) from error
    except Exception as error:
        asked = os.environ.get("KERAS_BACKEND") or "what its keras.json asks for"
        raise Failure(
            f"Keras cannot compute with {asked}: {type(error).__name__}: {error}. "
            f"{TRY_ANOTHER}, or look at {_settings()}"
        ) from error
    if backend not in BACKENDS:
        raise Failure(
            f"Keras is set to the backend {backend}, which cannot train. {TRY_ANOTHER}"
        )


def _settings():
    folder = os.environ.get("KERAS_HOME") or Path.home() / ".keras"
    return f"the environment and {Path(folder) / 'keras.json'}"


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
