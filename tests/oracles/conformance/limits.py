"""Overflow, underflow, and NaN."""

import itertools

import keras
import numpy as np
import pytest
from oracles import exact
from oracles.conformance.facts import BACKEND, LEAST, MOST, SLOW, Facts, numpy
from oracles.exact import EPS32
from oracles.gradients import Trained, differentiate

import keras_nalu

#: Magnitudes of inputs; two denormal numbers among them.
SIZES = [0.0, 1e-45, 1e-38, 1e-20, 1e-7, 1.0, 1e4, 1e19, 1e30, 1e38]
FEWER, MANY = [0.0, 1e-45, 8e37], [0.0, 1e-45, 1e-38, 1e-20, 1.0, 1e19, 1e38]
#: What says so in a docstring.
OVERFLOWS = (
    "Where a step overflows, the outputs and gradients that depend on it can be "
    "infinite or NaN, although the exact value may fit."
)


class Limits(Facts):
    """Results are finite, or overflow only if the exact ones do."""

    @pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
    def test_initial_outputs_and_gradients_are_finite(self, policy):
        low, high = self.finite
        sizes = [
            size
            for size in SIZES
            if size <= high and (size >= low if size else self.bears_zero)
        ]
        signs = (1, -1) if self.bears_negative else (1,)
        x = np.float32(
            [
                row
                for size in sizes
                for sign in signs
                for row in ([sign * size] * 3, [sign * size, 1, 2 * signs[-1]])
            ]
        )
        layer = self.layer(2, dtype=policy)
        layer.build((None, 3))
        y, gradients = differentiate(layer, x, np.ones((len(x), 2), "float32"))
        assert np.isfinite(numpy(y)).all()
        for name, gradient in gradients.items():
            assert np.isfinite(np.float32(gradient)).all(), name

    def test_outputs_and_gradients_of_a_trained_layer_are_finite(self, operation):
        # Without a logarithm, a small divisor divides.
        sizes = [1e-7, 1, 1e9] + ([0, 1e-30] if self.bears_zero else [])
        signs = (1, -1) if self.bears_negative else (1,)
        x = [[s * v, w] for v in sizes for s in signs for w in (v, 1, 2 * signs[-1])]
        layer = self.built(self.ideal[operation])
        y, gradients = differentiate(
            layer, np.float32(x), np.ones((len(x), 1), "float32")
        )
        assert np.isfinite(numpy(y)).all()
        for name, gradient in gradients.items():
            assert np.isfinite(gradient).all(), name

    def test_what_it_cannot_bear_is_documented(self):
        if self.bears_zero:
            return
        rows = [[0, 2], [2, 0]] + [[-1, 2]] * (not self.bears_negative)
        for weights, row in itertools.product(self.ideal.values(), rows):
            x, c = np.array([row], "float32"), np.ones((1, 1), "float32")
            y, gradients = differentiate(self.built(weights), x, c)
            if np.isinf(numpy(y)).any():
                assert "infinity" in self.layer.__doc__
            if any(np.isnan(v).any() for v in (numpy(y), *gradients.values())):
                assert "NaN" in self.layer.__doc__
        assert self.layer.domain in ("all reals but 0", "positive reals")

    @SLOW
    def test_numbers_end_where_the_exact_ones_do(self, form):
        """And the docstring says where results differ from that."""
        all_finite = True
        for layer in self.layers():
            features = layer.input_spec.axes[-1]
            x = self.rows(MANY if features == 2 else FEWER, features)
            all_finite &= self.assert_right(layer, x, form, every=5)
        assert self.says_so() != self.bounded
        if BACKEND != "jax":  # Where the NMRU's in training are finite, all of them.
            assert not (self.says_so() and all_finite)

    @SLOW
    @pytest.mark.only("tensorflow", reason="the others compute float64 in float32")
    def test_in_float64_nothing_overflows(self, form):
        for layer in self.layers("float64"):
            features = layer.input_spec.axes[-1]
            x = np.float64(self.rows(MANY if features == 2 else FEWER, features))
            c = np.ones((len(x), 1))
            y, found = differentiate(Trained(layer, form), x, c)
            for values in (y, *found.values()):
                assert np.isfinite(values).all()
            for row, *got in zip(x, np.array(y), found["x"], strict=True):
                if isinstance(layer, keras_nalu.NSR) and len({*row}) == 1:
                    continue  # Rounding decides the sign of their difference.
                right = self.ends(layer, row, form)
                pairs = zip(np.hstack(got), right["y"] + right["x"], strict=True)
                for one, n in pairs:
                    # The exact results are float64 and have errors, too.
                    assert abs(one - n.value) <= 4 * np.finfo("float64").eps * n.error

    @classmethod
    def says_so(cls):
        return OVERFLOWS in " ".join(cls.layer.__doc__.split())

    def layers(self, dtype="float32"):
        """Layers with the ideal weights, with initial ones, and with ones."""
        for weights in self.ideal.values():
            yield self.built(weights, dtype=dtype)
        for features in (2, 3):
            layer = self.layer(1, dtype=dtype)
            layer.build((None, features))
            if features == 3:
                layer.set_weights([np.ones(w.shape) for w in layer.weights])
            yield layer

    def rows(self, sizes, features):
        """All combinations of sizes and signs in the layer's domain."""
        if not self.bears_zero:
            # Reciprocals must be finite, too.
            sizes = [size for size in sizes if LEAST <= size <= self.largest]
        signs = (1, -1) if self.bears_negative else (1,)
        values = {sign * size for size in sizes for sign in signs}
        return np.float32([*itertools.product(sorted(values), repeat=features)])

    #: The largest input whose reciprocal is a normal number, where that matters.
    largest = MOST

    def ends(self, layer, row, training):
        """The output of a row and its gradients, as `Number`s."""
        x = exact.numbers(row)[None]
        weights = {
            v.name: exact.numbers(keras.ops.convert_to_numpy(v))
            for v in layer.trainable_variables
        }
        options = self.options_of(layer, training)
        with np.errstate(all="ignore"):
            (y,) = self.equation(exact, x, **weights, **options)[0]
            slopes = exact.gradients([y], [exact.number(1)])
        leaves = {"x": x, **weights}
        return {"y": [y]} | {
            name: [slopes.get(leaf, exact.number(0)) for leaf in leaves[name].flat]
            for name in leaves
        }

    def may_be_nan(self, name, row, training):
        """Whether the docstring allows NaN for this row."""
        return False

    def assert_right(self, layer, x, training, every):
        """Returns whether all is finite. The gradients of weights, which are sums over
        rows, are checked for one row of `every`."""
        trained, one = Trained(layer, training), np.ones((1, 1), "float32")
        y, found = differentiate(trained, x, np.ones((len(x), 1), "float32"))
        seen = [{"y": a, "x": b} for a, b in zip(numpy(y), found["x"], strict=True)]
        for i in range(0, len(x), every):
            _, seen[i] = differentiate(trained, x[i : i + 1], one)
            seen[i]["y"] = numpy(y)[i]
        for row, values in zip(x, seen, strict=True):
            # Denormal numbers may count as 0.
            flushed = np.where(np.abs(row) < LEAST, 0, row)
            twins = [row] if (flushed == row).all() else [row, flushed]
            twins = [self.ends(layer, twin, training) for twin in twins]
            for name, got in values.items():
                for i, value in enumerate(np.ravel(got)):
                    if np.isnan(value) and self.may_be_nan(name, row, training):
                        continue
                    assert any(
                        self.is_right(value, twin[name][i], twin["y"][0].peak)
                        for twin in twins
                    ), (name, i, row, value)
        return all(np.isfinite(got).all() for values in seen for got in values.values())

    def is_right(self, got, n, peak):
        """Whether float32 may give this result for a number with such a peak."""
        error = float(EPS32) * n.error
        low, high = n.value - error, n.value + error
        surely = low > MOST or high < -MOST
        if np.isfinite(got):
            return not surely
        if np.isinf(got) and (surely or not self.says_so()):
            return high > MOST if got > 0 else low < -MOST
        return self.says_so() and not max(n.peak, peak) < MOST * (1 - 1e-6)
