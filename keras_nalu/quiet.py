"""`from keras_nalu.quiet import keras` loads TensorFlow without its notices.

TensorFlow writes some of them to file descriptor 2 before it reads any log level, so
this module redirects that. If an import fails, it prints what it held back.
"""

import contextlib
import logging
import os
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@contextlib.contextmanager
def _held_back():
    try:
        stderr = os.dup(2)
    except OSError:  # A program without a console has no stderr.
        yield
        return
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(stderr, held.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


with _held_back():
    import keras as keras

    # Keras would import it later, on every backend.
    import tensorflow  # noqa: F401

# TensorFlow resets this level on import. It would warn of retracing, because every loop
# here is a new function.
logging.getLogger("tensorflow").setLevel(logging.ERROR)
