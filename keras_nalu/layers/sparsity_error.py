"""The distance of a model's kernels from their targets, as a metric."""

import warnings
from typing import Any

import keras

from keras_nalu import expect, private
from keras_nalu.layers.base import ArithmeticLayer, walk_layers


class _Hidden:
    """Hides a model from Keras, which would save it as an attribute of the metric."""

    def __init__(self, model):
        self.model = model


@keras.saving.register_keras_serializable(package="keras_nalu")
class SparsityError(keras.metrics.Metric):
    """The largest distance of an effective weight from its nearest target value.

    The targets depend on the layer, such as -1, 0 and 1. Gates do not count, and an
    NPU's exponent of 2 counts as an error of 1. The metric does not depend on the data,
    and is computed from the weights after the last step.

    Compiled into a `keras_nalu.Sequential`, `Model` or `Population`, it looks at that
    model, also after loading. For any other Keras model, give it the model or layer;
    files and copies lose that, so compile them again. Without a model it is NaN, and
    warns.

    On JAX a step of any other Keras model does not see the weights: the metric is NaN
    within an epoch and from `train_on_batch`, and right at the end of an epoch.

    Args:
        layer: An arithmetic layer, a model, or the name of a layer of the model that is
            compiled with it. `None` takes all layers of that model.
        name: Name of the metric in the logs.
        dtype: Dtype of the result.

    Raises:
        ValueError: `layer` is none of these; or the result is read, and the model has
            no such layer.

    Example:

    >>> model = keras_nalu.Sequential([keras.Input((2,)), NAU(1)])
    >>> model.compile("adam", "mse", metrics=[SparsityError()])
    >>> model.layers[0].set_weights([np.array([[0.75], [-1]])])
    >>> X = np.ones((4, 2))
    >>> logs = model.evaluate(X, X[:, :1], verbose=0, return_dict=True)
    >>> print(logs["sparsity_error"])
    0.25
    """

    def __init__(
        self, layer: Any = None, name: str = "sparsity_error", dtype: Any = None
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        known = "a layer, a model, the name of a layer, or None"
        expect.kind("layer", layer, keras.layers.Layer | str | None, known, "None")
        self._watched = _Hidden(None)
        if isinstance(layer, keras.layers.Layer):
            self.watch(layer)
            layer = layer.name if isinstance(layer, ArithmeticLayer) else None
        self.layer = layer

    def watch(self, model: keras.layers.Layer) -> None:
        """Makes the metric look at this model or layer."""
        self._watched = _Hidden(model)

    def watched(self) -> keras.layers.Layer | None:
        """The model or layer that the metric looks at, or `None`."""
        return self._watched.model

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        pass

    def result(self) -> Any:
        if self.watched() is None:
            warnings.warn(
                f"The metric {self.name!r} knows no model, and is NaN. Compile again "
                "with `SparsityError(model)`.",
                stacklevel=2,
            )
            return float("nan")
        on_jax = keras.backend.backend() == "jax"
        if on_jax and private.in_stateless_scope():
            return float("nan")
        return self.measure()

    def measure(self) -> Any:
        """The error of the current weights."""
        errors = [layer.sparsity_error() for layer in self._layers()]
        errors = [keras.ops.cast(error, self.dtype) for error in errors]
        return keras.ops.stop_gradient(keras.ops.max(keras.ops.stack(errors)))

    def _layers(self):
        model: Any = self.watched()
        found = [
            layer for layer in walk_layers(model) if isinstance(layer, ArithmeticLayer)
        ]
        asked = [layer for layer in found if self.layer in (None, layer.name)]
        if not asked:
            raise ValueError(
                f"The metric {self.name!r} found no arithmetic layer "
                f"{'' if self.layer is None else repr(self.layer) + ' '}in "
                f"{model.name!r}. It has: "
                f"{', '.join(layer.name for layer in found) or 'none'}. Give it a "
                "model with arithmetic layers, or the name of one of them."
            )
        return asked

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "layer": self.layer}
