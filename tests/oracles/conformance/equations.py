"""The layer against its equation, and against the authors' code."""

import functools
import inspect

import keras
import numpy as np
import pytest
from oracles import exact
from oracles.conformance.facts import (
    SLOW,
    Facts,
    assert_near,
    numpy,
    only_tensorflow,
)
from oracles.exact import EPS32
from oracles.gradients import Trained, differentiate
from oracles.vectors import vectors


class Equation(Facts):
    """The layer agrees with its equation."""

    @pytest.mark.parametrize("values", ["default", "second"])
    def test_against_the_equation(self, form, values):
        """With the default arguments, and with other ones."""
        layer, x = self.drawn(**self.second if values == "second" else {})
        c = np.random.default_rng(1).normal(size=(len(x), 3))
        expected = self.exact(layer, x, c, form)
        y, gradients = differentiate(Trained(layer, form), np.float32(x), np.float32(c))
        for name, got in {"y": numpy(y), **gradients}.items():
            value, error = expected[name]
            assert (np.abs(got - value) <= EPS32 * error).all(), name

    @SLOW
    @only_tensorflow
    def test_against_the_equation_in_float64(self, form):
        layer, x = self.drawn(dtype="float64")
        c = np.random.default_rng(1).normal(size=(len(x), 3))
        expected = self.exact(layer, x, c, form)
        y, gradients = differentiate(Trained(layer, form), x, c)
        assert y.dtype == "float64"
        assert {w.dtype for w in layer.trainable_weights} == {"float64"}
        assert {value.dtype.name for value in layer.kernels.values()} == {"float64"}
        for name, got in {"y": y, **gradients}.items():
            assert_near(got, expected[name][0], 1e-10, name)

    @SLOW
    @pytest.mark.parametrize(
        ("policy", "eps"), [("mixed_float16", 2**-10), ("mixed_bfloat16", 2**-7)]
    )
    def test_half_precision_against_the_equation(self, policy, eps):
        """Most is computed in float32: the largest error is an eighth of the bound."""
        layer, x = self.drawn(dtype=policy)
        x = np.sign(x + 1e-9) * np.sqrt(np.abs(x) + 0.1)  # In the range of float16.
        value, error = self.exact(layer, x, np.ones((len(x), 3)))["y"]
        y = layer(x.astype("float32"))
        assert keras.backend.standardize_dtype(y.dtype) == layer.compute_dtype
        assert (np.abs(numpy(y) - value) <= eps / 4 * error).all()

    @pytest.mark.only("jax", reason="cannot be told by the product")
    def test_no_matrix_product_is_rounded_by_a_gpu(self):
        import jax

        layer = self.layer(2)
        layer.build((None, 3))

        def total(weights, x):
            y, _ = layer.stateless_call(weights, layer.non_trainable_variables, x)
            return y.sum()

        weights = [variable.value for variable in layer.trainable_variables]
        jaxpr = str(jax.make_jaxpr(jax.grad(total, (0, 1)))(weights, np.ones((4, 3))))
        products = jaxpr.count("dot_general[")
        assert jaxpr.count("precision=(Precision.HIGHEST,") == products


class Authors(Facts):
    """The layer agrees with the authors' code."""

    @classmethod
    def of_the_authors(cls, file, dtype="float32"):
        """The layer with the weights and arguments of a file."""
        data, meta = vectors(file)
        # An epsilon of 0 in a file means that it has no effect.
        epsilon = "epsilon" in cls.arguments() and meta["eps"]
        given = {"epsilon": epsilon} if epsilon else {}
        layer = cls.layer(data["y"].shape[-1], dtype=dtype, **given)
        layer.build(data["x"].shape)
        for variable in layer.trainable_variables:
            variable.assign(data[variable.name])
        if "noise" in data:
            layer.noise = lambda x: layer.cast(data["noise"])
        return Trained(layer, meta.get("training", True))

    @classmethod
    @functools.cache
    def exact_of(cls, file, **more):
        """The equation on the data of a file."""
        data, meta = vectors(file)
        given = {
            "epsilon": meta.get("eps"),
            "omega": 20.0,
            "training": meta.get("training", True),
            "noise": data.get("noise"),
        }
        named = inspect.signature(cls.equation).parameters
        given = {
            name: v for name, v in given.items() if name in named and v is not None
        }
        weights = {name: data[name] for name in meta["params"]}
        equation = cls.equation
        return exact.evaluate(equation, data["x"], data["c"], weights, **given, **more)

    def test_the_equation_is_what_the_authors_compute(self, file):
        data, meta = vectors(file)
        bound = 1e-10 if meta["dtype"] == "float64" else 1e-5
        for name, (value, error) in self.exact_of(file).items():
            theirs = data["y" if name == "y" else f"d_{name}"]
            assert_near(value, theirs, bound, name, error)

    def test_the_layer_is_what_the_authors_compute(self, file):
        """Within the error of float32 arithmetic; the largest error is half of it."""
        data, _ = vectors(file)
        x, c = np.float32(data["x"]), np.float32(data["c"])
        y, gradients = differentiate(self.of_the_authors(file), x, c)
        expected = self.exact_of(file)
        for name, value in {"y": numpy(y), **gradients}.items():
            difference = np.abs(value - data["y" if name == "y" else f"d_{name}"])
            assert (difference <= EPS32 * expected[name][1]).all(), name

    @SLOW
    @only_tensorflow
    def test_the_layer_is_what_the_authors_compute_in_float64(self, file):
        data, meta = vectors(file)
        if meta["dtype"] != "float64":
            return
        layer = self.of_the_authors(file, "float64")
        y, gradients = differentiate(layer, data["x"], data["c"])
        for name, value in {"y": np.array(y), **gradients}.items():
            assert_near(value, data["y" if name == "y" else f"d_{name}"], 1e-10, name)
