"""Exactness with the ideal weights, and the formulas that are read."""

import numpy as np
import pytest
from oracles.conformance.facts import ROWS, Facts, integers, numpy, same
from oracles.exact import EPS32

import keras_nalu

RANGES = {"small": (1, 10), "trained on": (10, 100), "far outside": (10**3, 10**6)}
SUMS = {"add", "subtract"}


class Solutions(Facts):
    """With the ideal weights it computes its operations exactly."""

    def bounds(self, operation, high):
        """Relative and absolute. Sums of integers below 2**24 are exact in float32; an
        exponential is off by eps32 times its logarithm or more; a sigmoid of -20
        replaces 0."""
        if operation in keras_nalu.NSR.operations:
            return 0, 3e-9
        if operation in SUMS:
            return 0, 0
        return EPS32 * (4 if self.multiplies else 2 * np.log(high**2)), 0

    def assert_computes(self, layer, operation, X, rtol, atol):
        expected = self.answer(operation, X)
        for training in (False, True):
            y = numpy(layer(np.float32(X), training=training))
            np.testing.assert_allclose(y, expected, rtol=rtol, atol=atol)

    def test_every_operation_that_it_names_has_its_weights(self):
        assert {*self.ideal} == {*self.layer.operations}

    def test_exact(self, operation):
        layer = self.built(self.ideal[operation])
        for low, high in RANGES.values():
            for signed in (False, True):
                # NALU's gate changes with the signs of the inputs.
                if not signed or layer.domain.startswith("all reals"):
                    X = integers(low, high, signed)
                    bounds = self.bounds(operation, high)
                    self.assert_computes(layer, operation, X, *bounds)
        if layer.domain == "all reals" and operation != "divide":
            X = np.array([[0, 0], [0, -7], [7, 0], [-7, 0]])
            atol = self.bounds(operation, 10)[1]
            self.assert_computes(layer, operation, X, 0, atol)
        assert {*layer.kernels} == {*layer.targets}
        for kernel, value in layer.kernels.items():
            assert {*numpy(value).ravel().tolist()} <= {*layer.targets[kernel]}
        assert layer.is_discrete(0)

    def test_one_layer_computes_all_its_operations_at_once(self):
        X = integers(1, 1000)
        y = numpy(self.built(*self.ideal.values())(np.float32(X)))
        expected = [self.answer(operation, X) for operation in self.ideal]
        np.testing.assert_allclose(y, np.hstack(expected), rtol=1e-5, atol=3e-9)


class Reading(Facts):
    """The layer is read as a formula, and rounded to one."""

    def read(self, case):
        weights, rows, _ = case
        given = weights[-1] if isinstance(weights[-1], dict) else {}
        return self.made(*weights[: -1 if given else None], **given), ROWS[rows]

    def test_is_read_exactly(self, exactly):
        layer, X = self.read(exactly)
        read, text = keras_nalu.formula(layer, X), exactly[-1]
        assert (str(read), read.lines) == (f"y = {text}", [f"y = {text}"])
        assert read.exact
        assert read.not_discrete == []
        # NSR's 0 is a small probability, from which 0 has a large relative error.
        assert read.error < 1e-4 or text == "0"

    def test_what_is_not_discrete_is_the_equation_with_rounded_weights(self, rounded):
        layer, X = self.read(rounded)
        read = keras_nalu.formula(layer, X)
        assert str(read) == f"y = {rounded[-1]}"
        assert not read.exact
        assert read.error < 1e-3
        for name, kernel, index, value in read.not_discrete:
            assert name == layer.name
            if kernel != "gate":
                assert float(numpy(layer.kernels[kernel])[index]) == pytest.approx(
                    value
                )

    def test_is_made_discrete(self):
        weights, text = self.near
        layer, X = self.read((weights, "ordered", text))
        before = layer.get_weights()
        assert not keras_nalu.formula(layer, X).exact
        snapped = keras_nalu.discretize(layer, X)
        read = keras_nalu.formula(snapped, X, tolerance=1e-6)
        assert (str(read), read.exact) == (f"y = {text}", True)
        assert read.error < 1e-5
        assert same(before, layer.get_weights())
        if not self.layer.exponents:
            assert snapped.is_discrete(1e-6)
