"""`model.export` for models that Keras does not export by itself."""

import importlib.util

import keras

from keras_nalu.graph import symbolic_inputs

#: What Keras imports to write ONNX.
ONNX = {"tensorflow": ("onnx", "tf2onnx"), "torch": ("onnx",)}


def export(model, path, format="tf_saved_model", **kwargs):
    """Writes a model for programs without Keras, as `model.export` does.

    It calls the model once first; a model that was loaded and never called would raise
    "The model provided has never called". On JAX it writes a SavedModel without
    gradients, because the gradient of a product cannot be traced for batches of any
    size.

    Args:
        model: A built model.
        path: A file, or a folder for a SavedModel.
        format: `"tf_saved_model"`, `"onnx"`, `"litert"` or another format of Keras.
        **kwargs: Further arguments of `model.export`.

    Raises:
        ValueError: the model does not know the shapes of its inputs, or the backend
            cannot write the format.
        ModuleNotFoundError: what writes ONNX is not installed.

    Example:

    ```python
    model = keras_nalu.load_model("model.keras")
    keras_nalu.export(model, "model.onnx", format="onnx")
    ```
    """
    backend = keras.backend.backend()
    refused = [("torch", "tf_saved_model"), ("jax", "litert"), ("jax", "onnx")]
    if (backend, format) in refused:
        raise ValueError(
            f"Keras with {backend} does not write {format} for batches of any size. "
            "Save the model as a .keras file, then load and export that with "
            "KERAS_BACKEND=tensorflow."
        )
    for name in ONNX.get(backend, ()) if format == "onnx" else ():
        if importlib.util.find_spec(name) is None:
            raise ModuleNotFoundError(
                f"Keras with {backend} writes ONNX with {name}, which is not "
                'installed. Try `pip install "keras-nalu[onnx]"`.',
                name=name,
            )
    args, inputs = symbolic_inputs(model)
    zeros = keras.tree.map_structure(
        lambda x: keras.ops.zeros([size or 1 for size in x.shape], x.dtype),
        (args, inputs),
    )
    model(*zeros[0], **zeros[1])
    if (backend, format) == ("jax", "tf_saved_model"):
        kwargs = {"jax2tf_kwargs": {"with_gradient": False}} | kwargs
    model.export(path, format=format, **({"verbose": False} | kwargs))
