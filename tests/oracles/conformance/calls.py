"""Calls of a layer: shapes, modes, dtypes."""

import keras
import numpy as np
import pytest
from oracles.conformance.facts import BACKEND, SLOW, Facts, numpy, step
from oracles.gradients import differentiate

SHAPES = [(4, 3), (4, 5, 3), (2, 4, 5, 3)]


class Calls(Facts):
    """Shapes and modes."""

    def test_ranks(self):
        layer = self.layer(2)
        for shape in SHAPES:
            x = self.sample(shape)
            y = numpy(layer(x))
            assert y.shape == layer.compute_output_shape(shape) == (*shape[:-1], 2)
            rows = numpy(layer(x.reshape(-1, 3))).reshape(y.shape)
            np.testing.assert_allclose(y, rows, rtol=1e-5, atol=1e-6)
            for batch in (shape, (None,) * (len(shape) - 1) + (3,)):
                symbolic = self.layer(2)(keras.KerasTensor(batch))
                assert symbolic.shape == (*batch[:-1], 2)
                assert symbolic.dtype == "float32"
        assert layer(np.zeros((0, 3), "float32")).shape == (0, 2)

    def test_symbolic_eager_and_jitted_agree(self):
        layer, x = self.layer(2), self.sample()
        eager = numpy(layer(x))
        if BACKEND == "tensorflow":
            import tensorflow as tf

            compiled = tf.function(layer, jit_compile=True)(x)
        elif BACKEND == "jax":
            import jax

            weights = [v.value for v in layer.trainable_variables]
            others = [v.value for v in layer.non_trainable_variables]
            compiled, _ = jax.jit(layer.stateless_call)(weights, others, x)
        else:
            import torch

            compiled = torch.compile(layer, backend="aot_eager")(torch.as_tensor(x))
        inputs = keras.Input((3,))
        functional = keras.Model(inputs, layer(inputs))
        np.testing.assert_allclose(numpy(compiled), eager, rtol=1e-5, atol=1e-6)
        predicted = functional.predict_on_batch(x)
        np.testing.assert_allclose(predicted, eager, rtol=1e-5, atol=1e-6)

    def test_masks_pass_through_steps_of_unknown_number(self):
        steps = np.array([[[1.0], [2], [0]], [[3], [0], [0]]], "float32")
        layer = self.layer(1)
        model = keras.Sequential(
            [
                keras.Input((None, 1)),
                keras.layers.Masking(),
                keras.layers.Activation("exponential"),
                layer,
                keras.layers.GlobalAveragePooling1D(),
            ]
        )
        y = numpy(layer(np.exp(steps))) * (steps != 0)
        expected = y.sum(axis=1) / (steps != 0).sum(axis=1)
        np.testing.assert_allclose(numpy(model(steps)), expected, rtol=1e-5)


class Dtypes(Facts):
    """Of inputs, weights and outputs."""

    @pytest.mark.parametrize(
        "dtype",
        ["int32", "float64", *(pytest.param(d, marks=SLOW) for d in ("uint8", "bool"))],
    )
    def test_inputs_of_any_dtype(self, dtype):
        x, layer = np.array([[0, 1, 3], [1, 0, 1]]), self.layer(2)
        x = (x + (not self.bears_zero)).astype(dtype)
        expected = numpy(layer(x.astype("float32")))
        assert np.isfinite(expected).all()
        np.testing.assert_array_equal(numpy(layer(x)), expected)
        if BACKEND != "jax" or not dtype.endswith("64"):  # JAX has 32 bits
            tensor = keras.ops.convert_to_tensor(x, dtype=dtype)
            np.testing.assert_array_equal(numpy(layer(tensor)), expected)
        if dtype != "float64":
            assert layer(keras.Input((3,), dtype=dtype)).dtype == "float32"

    def test_sparse_inputs(self):
        dense, layer = np.array([[0, 1, 3], [1, 0, 0]], "float32"), self.layer(2)
        expected = numpy(layer(dense))
        if BACKEND == "tensorflow":
            import tensorflow as tf

            sparse = tf.sparse.from_dense(dense)
        elif BACKEND == "jax":
            from jax.experimental.sparse import BCOO

            sparse = BCOO.fromdense(dense)
        else:
            return  # Keras has no sparse tensors for PyTorch.
        np.testing.assert_array_equal(numpy(layer(sparse)), expected)
        inputs = keras.Input((3,), sparse=True)
        model = keras.Model(inputs, layer(inputs))
        np.testing.assert_allclose(numpy(model(sparse)), expected, rtol=1e-6)

    @pytest.mark.filterwarnings("ignore:The dtype policy .* half precision")
    @pytest.mark.parametrize(
        "policy",
        [
            "mixed_float16",
            *(pytest.param(p, marks=SLOW) for p in ("mixed_bfloat16", "float16")),
        ],
    )
    def test_dtype_policies(self, policy):
        x = np.float32([[0, 0, 0], [1e-7, 0, 3], [100, -200, 150], [3e4, 3e4, 3e4]])
        if self.finite != (0, np.inf):  # products and quotients that float16 can hold
            x = np.float32([[1, 1, 1], [0.5, 1, 3], [2, -3, 1.5], [3, 3, 3]])
        x = x if self.bears_negative else np.abs(x)
        layer = self.layer(2, dtype=policy)
        layer.build(x.shape)
        y, gradients = differentiate(layer, x, np.ones((4, 2), "float32"))
        assert {w.dtype for w in layer.weights} == {layer.variable_dtype}
        output = policy.removeprefix("mixed_")
        assert keras.backend.standardize_dtype(y.dtype) == output
        assert np.isfinite(numpy(y)).all()
        for name, gradient in gradients.items():
            assert np.isfinite(np.float32(gradient)).all(), name
        assert layer(keras.Input((3,))).dtype == output
        step(layer, list(gradients.values())[1:])
        assert {w.dtype for w in layer.weights} == {layer.variable_dtype}
