"""The command that writes a model for other programs."""

import argparse
import warnings

from keras_nalu.cli.parsing import BACKENDS, Failure, command, path
from keras_nalu.cli.running import import_keras
from keras_nalu.benchmarks.engines import without_notices

#: Format -> how its files end. `keras_nalu.exporting` has them, too, but loads Keras.
SUFFIXES = {"saved_model": ".saved_model", "onnx": ".onnx", "litert": ".tflite"}


def add_commands(commands):
    add = command(
        commands,
        "export",
        _export,
        "write a saved model for other programs",
        ", and compare what was written with it: TensorFlow's SavedModel, ONNX or "
        "LiteRT, for batches of any size.",
    )
    add("model", type=path, help="the file that model.save wrote")
    add(
        "--format",
        choices=SUFFIXES,
        required=True,
        default=argparse.SUPPRESS,
        help="what to write",
    )
    add(
        "--output",
        type=path,
        default=argparse.SUPPRESS,
        help="a new file or folder (default: beside the model)",
    )


def _export(options):
    import_keras(options)
    import keras_nalu
    from keras_nalu.exporting import ROWS, TOLERANCE, export

    try:
        model = keras_nalu.load_model(options.model, compile=False)
        beside = options.model.with_suffix(SUFFIXES[options.format])
        written = getattr(options, "output", beside)
        with warnings.catch_warnings(), without_notices():
            warnings.simplefilter("ignore")
            found = export(model, written, options.format)
    except NotImplementedError as error:
        message = f"{error}, as --backend {BACKENDS[0]} does"
        raise Failure(message, 2) from error
    except FileExistsError as error:
        raise Failure(f"{error}. Try another --output") from error
    except (ImportError, TypeError, ValueError) as error:
        raise Failure(str(error).rstrip(".")) from error
    print(f"{options.model} is now {written}, too ({options.format}).\n")
    print(f"Largest difference from the model, on {ROWS:,} inputs of each kind")
    for kind, difference in found.items():
        off = f"{difference:.1e}" if difference <= TOLERANCE else "NOT THE SAME"
        print(f"  {kind:10}{off}")
