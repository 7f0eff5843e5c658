"""What `export` writes answers as the model does."""

import importlib.util
import sys

import keras
import numpy as np
import pytest

import keras_nalu
from keras_nalu import INALU, NALU, NAU, NMU, NRU, export

BACKEND = keras.backend.backend()
#: Format -> who writes it, and what reads it.
FORMATS = {
    "tf_saved_model": (("tensorflow", "jax"), "tensorflow"),
    "onnx": (("tensorflow", "torch"), "onnxruntime"),
    "litert": (("tensorflow",), "ai_edge_litert"),
}

#: Keras', tf2onnx' and PyTorch's own.
pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{text}")
    for text in (
        "In the future `np.object` will be defined:FutureWarning",
        "The `native_serialization` parameter is deprecated:DeprecationWarning",
        "You are using the legacy TorchScript-based ONNX export:DeprecationWarning",
        "The feature will be removed. Please remove usage:DeprecationWarning",
        "Converting a tensor to a Python integer",
        "torch.as_tensor results are registered as constants in the trace",
    )
]


def pair():
    return keras.Input((3,), name="z"), keras.Input((3,), name="a")


def lone():
    return keras_nalu.Sequential([keras.Input((3,)), INALU(2), NALU(1)])


def listed():
    z, a = pair()
    return keras.Model([z, a], [NMU(1)(z), NAU(1)(a)])


def in_a_tuple():
    z, a = pair()
    return keras.Model((z, a), NMU(1)(z) + NAU(1)(a))


def by_name():
    z, a = pair()
    return keras.Model({"z": z, "a": a}, {"p": NMU(1)(z), "q": NAU(1)(a)})


def nested():
    z, a = pair()
    m = keras.Input((2,), name="m")
    return keras.Model({"l": [z, a], "m": m}, NMU(1)(z) + NAU(1)(a) + NAU(1)(m))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.product = NMU(1)

    def build(self, input_shape):
        self.product.build(input_shape)

    def call(self, x):
        return self.product(x)


def wide():
    """With as many weights as take another path."""
    z = keras.Input((4,), name="z")
    return keras.Model([z], [layer(256)(z) for layer in (NMU, NRU, INALU)])


def subclassed():
    model = Subclassed()
    model.build((None, 3))
    return model


def runner(path, format, names):
    """What was exported, as a function of arrays; `names` are those of the inputs."""
    if format == "tf_saved_model":
        import tensorflow as tf

        loaded = tf.saved_model.load(path)
        return lambda inputs: keras.tree.flatten(loaded.serve(inputs))
    if format == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        names = [given.name for given in session.get_inputs()]
        return lambda inputs: session.run(
            None, dict(zip(names, keras.tree.flatten(inputs), strict=True))
        )
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(path)
    signature = interpreter.get_signature_runner()

    def run(inputs, interpreter=interpreter):
        known = names if len(names) > 1 else [*signature.get_input_details()]
        flat = keras.tree.flatten(inputs)
        answers = signature(**dict(zip(known, flat, strict=True)))
        return [answers[name] for name in sorted(answers)]

    return run


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    "build",
    [lone, listed, in_a_tuple, by_name, nested, subclassed, wide],
    ids=lambda build: build.__name__,
)
def test_it_answers_as_the_model(build, format, tmp_path):
    backends, reader = FORMATS[format]
    if BACKEND not in backends:
        pytest.skip("the backend writes none")
    if importlib.util.find_spec(reader) is None:
        pytest.skip(f"{reader} is not installed")
    model = build()
    suffix = {"tf_saved_model": "", "onnx": ".onnx", "litert": ".tflite"}[format]
    path = str(tmp_path / f"model{suffix}")
    export(model, path, format)
    rng = np.random.default_rng(0)

    def rows(given):
        return rng.uniform(0.5, 2, (7, *given.shape[1:])).astype("float32")

    given = keras.KerasTensor((None, 3))
    if build is not subclassed:
        given = model.inputs[0] if build is lone else model.input
    inputs = keras.tree.map_structure(rows, given)
    expected = keras.tree.flatten(model(inputs))
    names = [tensor.name for tensor in keras.tree.flatten(given)]
    answers = runner(path, format, names)(inputs)
    for y, answer in zip(expected, answers, strict=True):
        y = keras.ops.convert_to_numpy(y)
        np.testing.assert_allclose(np.asarray(answer), y, rtol=1e-4)


def test_what_cannot_be_written_is_said(tmp_path):
    written = "onnx" if BACKEND == "torch" else "tf_saved_model"
    with pytest.raises(ValueError, match="does not know the shapes of its inputs"):
        export(keras.Sequential([NMU(1)]), tmp_path / "out", written)
    cannot = {"torch": ["tf_saved_model"], "jax": ["litert", "onnx"]}
    for format in cannot.get(BACKEND, []):
        with pytest.raises(ValueError, match="load and export that with KERAS_BACKEND"):
            export(lone(), tmp_path / "out", format)


@pytest.mark.skipif(BACKEND == "jax", reason="writes no ONNX")
def test_the_extra_that_writes_onnx_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ModuleNotFoundError, match=r'install "keras-nalu\[onnx\]"'):
        export(lone(), tmp_path / "out.onnx", "onnx")
