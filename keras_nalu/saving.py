def load_model(filepath, custom_objects=None, compile=True, safe_mode=True):
    """Loads a `.keras` file, also where no layer of this package was imported yet.

    Keras' own loader knows the layers, the loss and the metrics of this package only
    once they are imported; otherwise it stops with "Could not locate class 'NALU'".

    Args:
        filepath: The file that `model.save` wrote.
        custom_objects: Classes of your own that the file names, by name.
        compile: Whether the model comes back compiled.
        safe_mode: Whether to refuse a file that would run code of its own.

    Returns:
        The model.
    """
    import keras

    import keras_nalu.layers  # noqa: F401 - registers everything that a file can name

    return keras.saving.load_model(filepath, custom_objects, compile, safe_mode)
