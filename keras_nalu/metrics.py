import warnings
from typing import Any

import keras

from keras_nalu import expect, ops


def is_close(y_true: Any, y_pred: Any, rtol: float, atol: float) -> Any:
    """`numpy.isclose(y_true, y_pred)`, on infinities and NaN too, on every backend."""
    y_pred = ops.widen(ops.floating("y_pred", y_pred))
    y_true, y_pred = ops.align_labels(y_true, y_pred)
    # keras.ops.isclose differs between the backends where both are infinite.
    near = keras.ops.abs(y_true - y_pred) <= atol + rtol * keras.ops.abs(y_pred)
    return (near & keras.ops.isfinite(y_pred)) | (y_true == y_pred)


@keras.saving.register_keras_serializable(package="keras_nalu")
class IsCloseAccuracy(keras.metrics.MeanMetricWrapper):
    """The share of predictions that are right: close to the label, as NumPy says it.

        |y_true - y_pred| <= atol + rtol * |y_pred|

    The tolerance scales with the prediction, as in `numpy.isclose(y_true, y_pred)`. An
    infinite prediction is right where the label is the same infinity, NaN never.

    Labels and predictions must have the same shape, but for a last axis of length 1.

    Args:
        rtol: Relative tolerance, a share of the prediction.
        atol: Absolute tolerance.
        name: Name of the metric in the logs.
        dtype: Dtype of the result.

    Raises:
        ValueError: a tolerance is negative, or the shapes differ in any other way.

    Example:

    >>> metric = IsCloseAccuracy()
    >>> metric.update_state([[12], [15]], [[12.001], [15.1]])
    >>> print(float(metric.result()))
    0.5
    """

    def __init__(
        self,
        rtol: float = 1e-4,
        atol: float = 1e-4,
        name: str = "accuracy",
        dtype: Any = None,
    ) -> None:
        rtol = expect.not_negative("rtol", rtol, "1e-4")
        atol = expect.not_negative("atol", atol, "1e-4")
        super().__init__(is_close, name=name, dtype=dtype, rtol=rtol, atol=atol)
        self.rtol = rtol
        self.atol = atol

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        y_pred = ops.tensor("y_pred", y_pred)
        weights = ops.align_weights(sample_weight, y_pred.shape)
        return super().update_state(y_true, y_pred, weights)

    def get_config(self) -> dict[str, Any]:
        return {
            "rtol": self.rtol,
            "atol": self.atol,
            "name": self.name,
            "dtype": self.dtype,
        }


@keras.saving.register_keras_serializable(package="keras_nalu")
class LastBatchLoss(keras.metrics.Metric):
    """The loss of the last batch, from before its update.

    Keras' own logs hold the mean over the epoch so far, which lags behind while a
    model learns fast. Penalties that layers add are not counted.

    Args:
        loss: The loss object that the model is compiled with.
        name: Name of the metric in the logs.
        dtype: Dtype of the result.

    Raises:
        ValueError: `loss` is not a loss object.

    Example:

    >>> metric = LastBatchLoss(L2Loss())
    >>> metric.update_state(np.array([[1.0]]), np.array([[3.0]]))
    >>> metric.update_state(np.array([[1.0]]), np.array([[2.0]]))
    >>> print(float(metric.result()))
    0.5
    """

    def __init__(
        self, loss: Any, name: str = "last_batch_loss", dtype: Any = None
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        if isinstance(loss, dict):
            loss = keras.losses.get(loss)
        loss_object = keras.losses.Loss, "a loss object", "keras_nalu.L2Loss()"
        self.loss = expect.kind("loss", loss, *loss_object)
        self.value = self.add_variable((), initializer="zeros", name="value")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        self.value.assign(keras.ops.mean(self.loss(y_true, y_pred, sample_weight)))

    def result(self) -> Any:
        # A copy: TensorFlow's tensor of a variable changes with the variable.
        return keras.ops.copy(self.value)

    def get_config(self) -> dict[str, Any]:
        loss = keras.saving.serialize_keras_object(self.loss)
        return {**super().get_config(), "loss": loss}


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
            layer = layer.name if hasattr(layer, "sparsity_error") else None
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
        return float("nan") if _is_in_a_step_on_jax() else self.measure()

    def measure(self) -> Any:
        """The error of the weights as they are now."""
        errors = [layer.sparsity_error() for layer in self._layers()]
        errors = [keras.ops.cast(error, self.dtype) for error in errors]
        return keras.ops.stop_gradient(keras.ops.max(keras.ops.stack(errors)))

    def _layers(self):
        # The layers import this file, so that who loads one can load a metric.
        from keras_nalu.layers.base import ArithmeticLayer, walk_layers

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


def _is_in_a_step_on_jax():
    """Whether the weights are out of reach; Keras has no public word for it."""
    if keras.backend.backend() == "jax":
        try:
            keras.Variable(0.0)
        except ValueError:
            # No variable may be made where their values are passed in and out.
            return True
    return False
