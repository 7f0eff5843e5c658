from typing import Any

import keras

from keras_nalu import expect, ops


def is_close(y_true: Any, y_pred: Any, rtol: float, atol: float) -> Any:
    """`numpy.isclose(y_true, y_pred)` on every backend, for infinities and NaN too."""
    y_pred = ops.widen(ops.floating("y_pred", y_pred))
    y_true, y_pred = ops.align_labels(y_true, y_pred)
    # keras.ops.isclose differs between the backends where both are infinite.
    near = keras.ops.abs(y_true - y_pred) <= atol + rtol * keras.ops.abs(y_pred)
    return (near & keras.ops.isfinite(y_pred)) | (y_true == y_pred)


@keras.saving.register_keras_serializable(package="keras_nalu")
class IsCloseAccuracy(keras.metrics.MeanMetricWrapper):
    """The share of predictions that are close to their labels.

        |y_true - y_pred| <= atol + rtol * |y_pred|

    This is `numpy.isclose(y_true, y_pred)`: the tolerance scales with the prediction,
    an infinity is close to the same infinity, and NaN is close to nothing.

    Labels and predictions must have the same shape; a last axis of length 1 may be
    missing.

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
    """The loss of the last batch, before the update that it causes.

    Keras logs the mean over the epoch so far, which lags behind while a model learns
    fast. Penalties of layers are left out.

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
