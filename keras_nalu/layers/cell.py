from typing import Any

import keras

from keras_nalu import expect
from keras_nalu.layers.base import ArithmeticLayer

#: A state of 0 does not change a sum, and 1 does not change a product.
_SUMS = {"add", "subtract"}


@keras.saving.register_keras_serializable(package="keras_nalu")
class ArithmeticCell(keras.layers.Layer):
    """An arithmetic layer as a recurrent cell, for `keras.layers.RNN`.

        s_0 = initial_state                                                      (1)
        s_t = layer([x_t, s_t-1]),  y_t = s_t                                    (2)

    Use it for sums and products along a sequence. If the weights are exactly 1, it is
    right at any length; an error of the state's weight grows with every step.

    On JAX a layer with noise, such as `SNMU`, does not train as a cell.

    Args:
        layer: The arithmetic layer. Its `units` are the size of the state.
        initial_state: The number in which the state starts. `None` takes 0 for a layer
            that can add or subtract, else 1.
        **kwargs: `name`, `dtype` and the other arguments of any Keras layer.

    Input shape: `(batch, features)`, and `(batch, units)` for the state.

    Output shape: `(batch, units)`, for the output and the state.

    Raises:
        ValueError: `layer` is not an arithmetic layer, or `initial_state` not a number;
            a layer with noise is trained on JAX.

    Example:

    >>> total = keras.layers.RNN(ArithmeticCell(NAU(1)), return_sequences=True)
    >>> total.build((None, None, 1))
    >>> total.set_weights([np.array([[1], [1]])])
    >>> print(keras.ops.convert_to_numpy(total(np.array([[[1], [2], [3]]]))).ravel())
    [1. 3. 6.]

    Reference: Madsen and Johansen, Neural Arithmetic Units, ICLR 2020,
    arXiv:2001.05016, appendix on sequential MNIST.
    """

    def __init__(
        self,
        layer: ArithmeticLayer,
        initial_state: float | None = None,
        **kwargs: Any,
    ) -> None:
        arithmetic = "an arithmetic layer", "keras_nalu.NAU(1)"
        expect.kind("layer", layer, ArithmeticLayer, *arithmetic)
        if initial_state is not None:
            initial_state = expect.number(
                "initial_state", initial_state, "a finite number or None"
            )
        kwargs.setdefault("dtype", layer.dtype_policy)
        super().__init__(**kwargs)
        self.layer = layer
        self.initial_state = initial_state
        self.state_size = self.output_size = layer.units

    def build(self, input_shape: Any) -> None:
        *batch, features = input_shape
        if not self.layer.built:
            self.layer.build((*batch, features + self.state_size))

    def call(
        self, inputs: Any, states: Any, training: bool = False
    ) -> tuple[Any, list[Any]]:
        if training and keras.backend.backend() == "jax" and _is_random(self.layer):
            # The loop cannot return the new state of the layer's generator.
            raise ValueError(
                "On JAX a layer with noise does not train as a cell. Received: "
                f"{type(self.layer).__name__}. Set KERAS_BACKEND=tensorflow."
            )
        state = states[0] if isinstance(states, list | tuple) else states
        x = keras.ops.concatenate([inputs, state], axis=-1)
        y = keras.ops.cast(self.layer(x, training=training), self.compute_dtype)
        return y, [y]

    def get_initial_state(self, batch_size: int | None = None) -> Any:
        start = self.initial_state
        if start is None:
            start = 0 if _SUMS & {*self.layer.operations} else 1
        shape = (batch_size, self.state_size)
        return keras.ops.full(shape, start, self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "layer": keras.saving.serialize_keras_object(self.layer),
            "initial_state": self.initial_state,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "ArithmeticCell":
        layer = keras.saving.deserialize_keras_object(config["layer"])
        return cls(**{**config, "layer": layer})


def _is_random(layer):
    return any(isinstance(a, keras.random.SeedGenerator) for a in vars(layer).values())
