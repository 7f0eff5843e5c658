import json
import os
import zipfile

#: Of files that are cut off or changed, or that something else wrote.
_BROKEN = zipfile.BadZipFile, json.JSONDecodeError, UnicodeDecodeError, OSError
_INCOMPLETE = "There is no item", "Expected a model.weights", "Expected object to be"


def load_model(filepath, custom_objects=None, compile=True, safe_mode=True):
    """Loads a `.keras` file, also where nothing of this package was imported yet.

    Keras' own loader knows the models, layers, losses and metrics of this package only
    once they are imported; otherwise it stops with "Could not locate class 'NALU'".
    Where a file cannot be loaded, this one says why in a sentence.

    A file from elsewhere runs no code, unless `safe_mode` is off or your own classes
    in `custom_objects` run it.

    Args:
        filepath: The file that `model.save` wrote.
        custom_objects: Classes of your own that the file names, by name.
        compile: Whether the model comes back compiled.
        safe_mode: Whether to refuse a file that would run code of its own.

    Returns:
        The model.

    Raises:
        TypeError: the file names a class that nobody imported.
        ValueError: there is no such file, it is not all of what `model.save` wrote, it
            would run code of its own, or cannot be loaded for another reason.
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
    """Keras quotes an error, and the config, once for every model and layer around;
    a layer of ours names the argument, and has Keras' reason as its cause."""
    while first := error.__cause__ or error.__context__:
        quoted = not error.__suppress_context__ and str(first) in str(error)
        if not quoted and not error.__cause__:
            break
        error = first
    return error


def _words(error):
    """An error's text in one line. There is no bound to the config that it may hold."""
    words = " ".join(str(error).split()).strip('"')
    return words.split(" Full object config:")[0][:500]


def _fault(path, error):
    """What is wrong with the file as a whole, if anything."""
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
    return f"it is no zip archive that can be read, or not all of one. {again}"


def _reason(error):
    """What Keras says of a part of the file, and what helps."""
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
