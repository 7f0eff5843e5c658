"""How far a model's kernels are from their targets, as a metric."""

import warnings
from typing import Any

import keras

from keras_nalu import expect, private
from keras_nalu.layers.base import ArithmeticLayer, walk_layers


class _Hidden:
    """Keras looks through a metric's attributes for what to save; not into this."""

    def __init__(self, model):
        self.model = model


@keras.saving.register_keras_serializable(package="keras_nalu")
class SparsityError(keras.metrics.Metric):
    """How far the worst entry of the effective weights is from its target value.

    The targets are those of each arithmetic layer, such as -1, 0 and 1. It looks at no
    gate, and counts an NPU's exponent of 2 as an error of 1. It does not depend on the
    data, and is that of the weights after the last step.

    A `keras_nalu.Sequential`, `Model` or `Population` that is compiled with it tells it
    where to look, after loading, too. For any other Keras model give the model or
    layer itself; a file or a copy does not hold it: compile that anew. Where it knows
    no model, it is NaN, and warns.

    On JAX a step of any other Keras model does not see the weights: within an epoch,
    and from `train_on_batch`, it is NaN. At the end of an epoch it is right.

    Args:
        layer: An arithmetic layer or a model. `None` takes all the layers of the model
            that is compiled with it, a name one of them.
        name: Name of the metric in the logs.
        dtype: Dtype of the result.

    Raises:
        ValueError: `layer` is none of these; when it is read, there is no such layer in
            the model.

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
        """Looks at this model or layer from now on."""
        self._watched = _Hidden(model)

    def watched(self) -> keras.layers.Layer | None:
        """The model or layer that it looks at."""
        return self._watched.model

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        pass

    def result(self) -> Any:
        if self.watched() is None:
            warnings.warn(
                f"The metric {self.name!r} knows no model, and is NaN. Give it one: "
                "`SparsityError(model)`, and compile anew.",
                stacklevel=2,
            )
            return float("nan")
        on_jax = keras.backend.backend() == "jax"
        if on_jax and private.in_stateless_scope():
            return float("nan")
        return self.measure()

    def measure(self) -> Any:
        """The error of the weights as they are now."""
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
                f"{', '.join(layer.name for layer in found) or 'none'}."
            )
        return asked

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "layer": self.layer}
