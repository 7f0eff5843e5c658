from typing import Any

import keras

from keras_nalu import expect, ops


@keras.saving.register_keras_serializable(package="keras_nalu")
class L2Loss(keras.losses.Loss):
    """Half the sum of squared errors over the whole batch: TensorFlow's `l2_loss`.

        loss = sum((y_pred - y_true) ** 2) / 2

    As a sum, it grows with the batch size, and so does its gradient. With another batch
    size, tune the learning rate again. Keras reports the mean over the batches, which
    can be compared only between runs of one batch size.

    Labels and predictions must have the same shape; a last axis of length 1 may be
    missing.

    Args:
        reduction: How the samples' losses are reduced, as in any Keras loss.
        name: Name of the loss.
        dtype: Dtype it is computed in.

    Raises:
        ValueError: the shapes differ in any other way.

    Example:

    >>> print(float(L2Loss()(np.array([[1], [2]]), np.array([[2], [4]]))))
    2.5
    """

    def __init__(
        self,
        reduction: str | None = "sum",
        name: str | None = "l2_loss",
        dtype: Any = None,
    ) -> None:
        # Keras would raise a TypeError about hashing for a list, for example.
        expect.kind("reduction", reduction, str | None, "a name or None", "'sum'")
        super().__init__(name=name, reduction=reduction, dtype=dtype)

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        y_true, y_pred = ops.tensor("y_true", y_true), ops.tensor("y_pred", y_pred)
        shape = tuple(y_pred.shape)
        weights = ops.align_weights(sample_weight, shape[:-1] or shape)
        return super().__call__(y_true, y_pred, weights)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        y_true, y_pred = ops.align_labels(y_true, y_pred)
        squares = keras.ops.square(y_pred - y_true) / 2
        # Sample weights have all axes of the labels but the last.
        return keras.ops.sum(squares, axis=-1) if len(squares.shape) > 1 else squares

    def get_config(self) -> dict[str, Any]:
        # Keras' config leaves the dtype out.
        return {**super().get_config(), "dtype": self.dtype}
