"""What the commands share while they run: Keras itself, a bar, warnings."""

import contextlib
import os
import signal
import sys
import warnings

from keras_nalu.cli.parsing import BACKENDS, Failure
from keras_nalu.benchmarks.engines import without_notices


def import_keras(options):
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


def expect_populations():
    import keras

    if keras.backend.backend() == "torch":
        raise Failure(
            "a population trains on TensorFlow or JAX. Try --backend tensorflow", 2
        )


def progress_bar():
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = BarColumn(), TimeRemainingColumn(), TextColumn("{task.description}")
    return Progress(*columns)


@contextlib.contextmanager
def warnings_in_one_line():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("once", UserWarning)
        warnings.showwarning = lambda message, *_: print(
            f"keras-nalu: {message}", file=sys.stderr
        )
        yield
