"""`from keras_nalu.quiet import keras`: TensorFlow loads without its notices.

It writes some of them to file descriptor 2 before it reads any log level. Where an
import fails, what was held back is shown.
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
    except OSError:  # There is none: a program without a console.
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

    # Keras imports it later, whatever it computes with.
    import tensorflow  # noqa: F401

# TensorFlow sets its own level. It warns of functions that are traced again, and here
# each loop is a function of its own.
logging.getLogger("tensorflow").setLevel(logging.ERROR)
