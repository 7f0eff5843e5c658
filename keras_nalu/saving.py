import json
import os
import zipfile

#: What Keras raises for a file that is cut off, changed or not its own.
_BROKEN = zipfile.BadZipFile, json.JSONDecodeError, UnicodeDecodeError, OSError
_INCOMPLETE = "There is no item", "Expected a model.weights", "Expected object to be"


def load_model(filepath, custom_objects=None, compile=True, safe_mode=True):
    """Loads a `.keras` file, and imports this package's classes for it.

    `keras.saving.load_model` finds them only if they were imported before; otherwise it
    raises "Could not locate class 'NALU'". If a file cannot be loaded, the error of
    this function says why in one sentence.

    A file runs no code unless `safe_mode` is off or a class in `custom_objects` runs
    it.

    Args:
        filepath: The file that `model.save` wrote.
        custom_objects: Your classes that the file names, by name.
        compile: Whether the model comes back compiled.
        safe_mode: Whether to refuse a file that contains code, such as a lambda.

    Returns:
        The model.

    Raises:
        TypeError: the file names a class that is neither imported nor given.
        ValueError: the file does not exist, is damaged, contains code, or cannot be
            loaded for another reason.
    """
    filepath = os.fspath(filepath)
    import keras

    import keras_nalu.benchmarks.inalu
    import keras_nalu.models  # noqa: F401 - registers everything that a file can name

    try:
        return keras.saving.load_model(filepath, custom_objects, compile, safe_mode)
    except (ImportError, MemoryError):
        raise
    except Exception as error:
        cause = _innermost(error)
        failed = f"Could not load {filepath!r}: "
        if fault := _fault(filepath, cause):
            raise ValueError(failed + fault) from None
        kind = TypeError if isinstance(cause, TypeError) else ValueError
        raise kind(failed + _reason(cause)) from cause


def _innermost(error):
    """The first error: Keras quotes it, and the config, once for every model and layer
    around. This package's layers name the argument, and Keras' error is the cause."""
    while first := error.__cause__ or error.__context__:
        quoted = not error.__suppress_context__ and str(first) in str(error)
        if not quoted and not error.__cause__:
            break
        error = first
    return error


def _words(error):
    """An error's text in one line, cut: the config that it quotes may be huge."""
    words = " ".join(str(error).split()).strip('"')
    return words.split(" Full object config:")[0][:500]


def _fault(path, error):
    """Why no part of the file can be read, or `None`."""
    words = _words(error)
    again = "Copy or download it again."
    if isinstance(error, _BROKEN) or words.startswith(_INCOMPLETE):
        return f"it is damaged, or `model.save` did not write it ({words}). {again}"
    if not words.startswith(("File not found", "File format not supported")):
        return None
    saved = "Type the path of a file that `model.save('model.keras')` wrote."
    if not os.path.exists(path):
        return f"there is no such file. {saved}"
    if os.path.isdir(path):
        return f"it is a folder. {saved}"
    if not path.endswith(".keras"):
        return f"its name does not end in '.keras'. {saved}"
    if not os.path.getsize(path):
        return f"it is empty. {saved}"
    return f"it is not a zip archive, or is cut off. {again}"


def _reason(error):
    """What Keras says about a part of the file, and what helps."""
    words = _words(error)
    if not isinstance(error, TypeError | ValueError):
        return f"{type(error).__name__}: {words}"
    if not words.startswith(("Could not locate", "Could not interpret")):
        return words
    return (
        f"{words.split('. Make sure')[0].rstrip('.')}. If it is your own, import the "
        "module that registers it first, or give it: "
        "`load_model(filepath, custom_objects={'Name': Name})`."
    )
