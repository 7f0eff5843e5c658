"""Models for other programs: written by Keras' exporters, and compared with the model.

`model.export(path, format=...)` writes the same files. This also refuses what is known
to fail, leaves nothing half written behind, and tries what it has written.
"""

import importlib.util
import os
import tempfile
import typing
from pathlib import Path

import keras
import numpy as np

from keras_nalu import expect

ROWS = 1000
#: How far an answer may be from the model's, as `differences` has it. The rounding of
#: float32 adds up to less, 1e-7 times the exponents and the factors that multiply it.
TOLERANCE = 1e-3


class Format(typing.NamedTuple):
    """What Keras calls it, how its files end, who can write it, and what that needs."""

    keras_name: str
    suffix: str
    backends: tuple
    extra: str = ""
    modules: tuple = ()


FORMATS = {
    "saved_model": Format("tf_saved_model", ".saved_model", ("tensorflow", "jax")),
    "onnx": Format(
        "onnx",
        ".onnx",
        ("tensorflow", "torch"),
        "onnx",
        ("onnx", "onnxruntime", "onnxscript", "tf2onnx"),
    ),
    "litert": Format(
        "litert", ".tflite", ("tensorflow",), "litert", ("ai_edge_litert",)
    ),
}

#: Inputs to compare on: name -> values of a shape.
KINDS = {
    "positive": lambda rng, shape: rng.uniform(0.1, 10, shape),
    "negative": lambda rng, shape: rng.uniform(-10, -0.1, shape),
    "mixed": lambda rng, shape: rng.uniform(-10, 10, shape),
    "zeros": lambda rng, shape: rng.uniform(-2, 2, shape) * rng.integers(0, 2, shape),
    "integers": lambda rng, shape: rng.integers(-9, 10, shape),
    # The least that is no subnormal number: some runtimes read those as zeros.
    "tiny": lambda rng, shape: _signed(rng, shape) * 1.2e-38,
    "huge": lambda rng, shape: _signed(rng, shape) * 1e37,
}
#: On the others a format may be unlike the model: README says where.
ORDINARY = "positive", "negative", "mixed", "zeros", "integers"


def _signed(rng, shape):
    return rng.uniform(1, 10, shape) * rng.choice([-1, 1], shape)


def export(model, path, format="saved_model"):
    """Writes a model for other programs, and compares what was written with it.

    Args:
        model: A built model that knows its inputs, as one that `load_model` returned.
        path: A new file, or folder for a SavedModel.
        format: `"saved_model"`, `"onnx"` or `"litert"`.

    Returns:
        A dictionary: kind of inputs -> the largest difference on 1,000 of them, as
        `differences` has it.

    Raises:
        ValueError: the format is none of these, the model does not know its inputs, or
            what was written answers otherwise than the model, and was not kept.
        FileExistsError: there is something at `path`.
        ModuleNotFoundError: a package of the format's extra is missing.
        NotImplementedError: the backend cannot write the format.
    """
    path = Path(expect.path("path", path, "'exported.onnx'"))
    expect.choice("format", format, FORMATS)
    if not isinstance(model, keras.Model):
        loaded = "keras_nalu.load_model('model.keras')"
        raise expect.invalid("model", model, "a Keras model", loaded)
    if not getattr(model, "inputs", None):
        raise ValueError(
            f"{type(model).__name__} {model.name!r} does not know the shapes of its "
            "inputs. Begin it with `keras.Input((features,))`; of a population, export "
            "`best(x, y)`."
        )
    chosen = _expect(format)
    if os.path.lexists(path):
        raise FileExistsError(f"{path} exists, and is not overwritten")
    rng = np.random.default_rng(0)
    # Keras exports to ONNX only what was called.
    _answers(model, _inputs(model, KINDS["positive"], rng, rows=2))
    options = {}
    if chosen.keras_name == "tf_saved_model" and keras.backend.backend() == "jax":
        # The gradient of a product cannot be traced for a batch of any size.
        options = {"jax2tf_kwargs": {"with_gradient": False}}
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as new:
        made = Path(new) / f"model{chosen.suffix}"
        model.export(made, format=chosen.keras_name, verbose=False, **options)
        names = [given.name for given in model.inputs]
        found = differences(model, runner(made, format, names))
        if wrong := [kind for kind in found if not _is_right(kind, found[kind])]:
            raise ValueError(
                f"The export to {format} answers otherwise than the model, by "
                f"{found[wrong[0]]:.1e} of the answer on {wrong[0]} inputs, and was "
                "not kept. Try another format: " + ", ".join({*FORMATS} - {format})
            )
        if os.path.lexists(path):
            raise FileExistsError(f"{path} exists, and is not overwritten")
        made.rename(path)
    return found


def _is_right(kind, difference):
    return kind not in ORDINARY or difference <= TOLERANCE


def _expect(format):
    """The format, if it can be written here."""
    chosen = FORMATS[format]
    backend = keras.backend.backend()
    if backend not in chosen.backends:
        raise NotImplementedError(
            f"Keras with {backend} cannot write {format} of every layer and for every "
            f"batch size; with {' or '.join(chosen.backends)} it can. Load and export "
            "the .keras file with KERAS_BACKEND=tensorflow"
        )
    for name in chosen.modules:
        if importlib.util.find_spec(name) is None:
            raise ModuleNotFoundError(
                f"{name} is not installed, and the format {format} needs it. "
                f'Try `pip install ".[{chosen.extra}]"`',
                name=name,
            )
    return chosen


def runner(path, format, names=()):
    """What was exported as a function of a list of arrays, by the format's runtime.

    Args:
        path: What was written.
        format: As for `export`.
        names: Those of the model's inputs, where it has several.

    Returns:
        A function of a list of arrays, which returns a list.
    """
    load = {"saved_model": _tensorflow, "onnx": _onnxruntime, "litert": _litert}
    return load[format](str(path), names)


def _tensorflow(path, _):
    import tensorflow as tf

    loaded = tf.saved_model.load(path)

    def run(inputs):
        answers = loaded.serve(inputs[0] if len(inputs) == 1 else inputs)
        return [np.asarray(answer) for answer in keras.tree.flatten(answers)]

    return run


def _onnxruntime(path, _):
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]
    return lambda inputs: session.run(None, dict(zip(names, inputs, strict=True)))


def _litert(path, names):
    from ai_edge_litert.interpreter import Interpreter

    # A signature belongs to an interpreter that must outlive it.
    interpreter = Interpreter(path)
    signature = interpreter.get_signature_runner()
    # They are in the order of their names.
    names = names if len(names) > 1 else [*signature.get_input_details()]
    outputs = sorted(signature.get_output_details())
    numbered = [f"output_{i}" for i in range(len(outputs))]
    outputs = numbered if {*numbered} == {*outputs} else outputs

    def run(inputs, interpreter=interpreter):
        answers = signature(**dict(zip(names, inputs, strict=True)))
        return [answers[name] for name in outputs]

    return run


def differences(model, run):
    """How far an export's answers are from the model's, at most, by kind of inputs.

    As a share of the answer, or of the kind's median one where that is greater: where
    terms cancel, or a runtime's sigmoid ends at 1e-7, what is left is rounding. It is
    infinite where the model's answer is a number and the other one is not.

    Args:
        model: A built model that knows its inputs.
        run: What `runner` returned.

    Returns:
        A dictionary: kind -> difference.
    """
    rng = np.random.default_rng(0)
    found = {}
    for kind, draw in KINDS.items():
        inputs = _inputs(model, draw, rng)
        pairs = zip(_answers(model, inputs), run(inputs), strict=True)
        found[kind] = max(_difference(y, answer) for y, answer in pairs)
    return found


def _difference(y, answer):
    judged = np.isfinite(y)
    if answer.shape != y.shape:
        return np.inf
    if not judged.any():
        return 0.0
    y, answer = np.float64(y[judged]), np.float64(answer[judged])
    scale = np.maximum(np.abs(y), np.median(np.abs(y)))
    # Subnormal numbers are zeros to some runtimes.
    off = np.abs(answer - y) / np.maximum(scale, np.finfo("float32").tiny / TOLERANCE)
    return float(np.nan_to_num(off, nan=np.inf).max())


def _inputs(model, draw, rng, rows=ROWS):
    """Of every input of the model; where a size is not known, it is 3."""
    found = []
    for given in model.inputs:
        shape = [rows, *(size or 3 for size in given.shape[1:])]
        x = draw(rng, shape)
        dtype = np.dtype(keras.backend.standardize_dtype(given.dtype))
        found.append(x.astype(dtype) if dtype.kind == "f" else (x > 0).astype(dtype))
    return found


def _answers(model, inputs):
    answers = model(inputs[0] if len(inputs) == 1 else inputs, training=False)
    return [
        np.array(keras.ops.convert_to_numpy(y)) for y in keras.tree.flatten(answers)
    ]
