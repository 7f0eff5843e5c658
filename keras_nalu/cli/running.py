"""Importing Keras, printing warnings, and the commands to type next."""

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
    """Imports Keras with the backend of the options, and checks that it computes."""
    if "backend" in options:
        os.environ["KERAS_BACKEND"] = options.backend
    if not os.environ.get("KERAS_BACKEND"):
        # Keras would look for a backend with an empty name.
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
            extra = f"keras-nalu[{error.name}]".replace("[tensorflow]", "")
            reason = f"{error.name} is not installed. Try `{install(extra)}`, or"
        else:
            # The type counts, as JAX raises an AssertionError without a message.
            reason = f"{type(error).__name__} {error}".strip() + ". Try"
        raise Failure(
            f"Keras cannot compute with its settings ({_settings()}): {reason} "
            f"--backend {BACKENDS[0]}, or other settings"
        ) from error
    if backend not in BACKENDS:
        raise Failure(
            f"Keras is set ({_settings()}) to {backend}, which cannot train. "
            f"{TRY_ANOTHER}"
        )


@contextlib.contextmanager
def _ended_by_interrupts():
    """Lets Ctrl-C end the process at once: Python handles it only after an import has
    ended, and some libraries swallow it."""
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
    settings += [str(file)] if file.exists() else []
    return " and ".join(settings) or "the defaults"


def expect_populations():
    import keras

    if keras.backend.backend() == "torch":
        raise Failure(f"a population trains on TensorFlow or JAX. {TRY_ANOTHER}", 2)


def quoted(path):
    """The path, quoted for this system's shell."""
    if os.name == "nt":
        return subprocess.list2cmdline([str(path)])
    return shlex.quote(str(path))


def command_line():
    """The command that starts this program."""
    return program("keras-nalu", "keras_nalu")


def python():
    """The command that starts this Python."""
    return program(Path(sys.executable).name, "")


def install(requirement):
    """The command that installs a requirement for this Python."""
    return f'{program("pip", "pip")} install "{requirement}"'


def program(name, module):
    """The command for a program beside Python, with its path if it is not on PATH."""
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
