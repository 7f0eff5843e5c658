"""Stored and effective weights."""

import itertools

import keras
import numpy as np
import pytest
from keras import initializers
from oracles import beginnings
from oracles.conformance.facts import BACKEND, Facts, numpy, penalty, same, step

import keras_nalu

INITIALIZERS = {
    "default": lambda: None,
    "string": lambda: "random_normal",
    "class": lambda: initializers.GlorotUniform,
    "config": lambda: {"class_name": "RandomNormal", "config": {"seed": 3}},
    "unseeded": lambda: initializers.RandomUniform(),
    "seeded": lambda: initializers.TruncatedNormal(seed=7),
    "generator": lambda: initializers.HeNormal(seed=keras.random.SeedGenerator(7)),
    "function": lambda: keras.random.normal,
}


def stepped(layer, value):
    """The weights of this value after a step that changes none of them."""
    layer.build((None, 3))
    layer.set_weights([np.full(w.shape, value) for w in layer.weights])
    step(layer, [np.zeros(w.shape, w.dtype) for w in layer.trainable_variables])
    return layer.weights


class Weights(Facts):
    """Initializers, regularizers, constraints, and effective weights."""

    def test_initializers_reach_their_own_weights(self):
        gate = {"gate_initializer": "zeros"} if self.gates else {}
        layer = self.layer(2, kernel_initializer="ones", **gate)
        layer.build((None, 3))
        for w in layer.weights:
            assert (numpy(w) == (1 if self.part(w) == "kernel" else 0)).all(), w.name
        parts = {self.part(w) for w in layer.weights}
        assert "kernel" in parts
        assert ("gate" in parts) == bool(self.gates)

    def test_they_begin_as_in_the_paper(self):
        layer = self.layer(beginnings.UNITS)
        layer.build((None, beginnings.FEATURES))
        weights = {v.name: numpy(v) for v in layer.trainable_variables}
        if self.begins:
            assert weights.keys() == self.begins.keys()
        for name, (kind, *given) in self.begins.items():
            beginnings.KINDS[kind](weights[name].astype("float64"), *given)

    def initial(self, initializer, seed=None):
        """The initial weights of kernels and gates, except constant ones."""
        if seed is not None:
            keras.utils.set_random_seed(seed)
        gate = {"gate_initializer": initializer} if self.gates else {}
        layer = self.layer(3, kernel_initializer=initializer, **gate)
        layer.build((None, 2))
        weights = [numpy(w) for w in layer.weights if self.part(w) != "free"]
        return [w for w in weights if np.ptp(w)]

    def test_draws_are_independent_and_can_be_repeated(self, kind):
        weights = self.initial(INITIALIZERS[kind]())
        assert weights
        # The same sample may have been shifted and scaled.
        unit = [((w - w.mean()) / w.std()).ravel() for w in weights]
        for a, b in itertools.combinations(unit, 2):
            size = min(len(a), len(b))
            assert not np.allclose(a[:size], b[:size], atol=1e-3)
        # Two layers differ unless seeded.
        initializer = INITIALIZERS[kind]()
        equal = same(self.initial(initializer), self.initial(initializer))
        assert equal == (kind in ("seeded", "config"))
        first, again = (self.initial(INITIALIZERS[kind](), seed=5) for _ in range(2))
        assert same(first, again)
        third = self.initial(INITIALIZERS[kind](), seed=6)
        assert same(first, third) == (kind in ("seeded", "config", "generator"))

    def test_regularizers_act_on_the_stored_weights(self, which):
        name = f"{which}_regularizer"
        layer = self.layer(2, **{name: keras.regularizers.L2(0.5)})
        layer(self.sample())
        chosen = [w for w in layer.weights if self.part(w) == which]
        assert len(layer.losses) == len(chosen) > 0
        expected = sum((numpy(w) ** 2).sum() / 2 for w in chosen)
        assert penalty(layer) == pytest.approx(expected, rel=1e-5)

    def test_constraints_hold_after_a_step(self, which):
        given = {f"{which}_constraint": keras.constraints.MaxNorm(1e-3)}
        for w in stepped(self.layer(2, **given), 0.5):
            held = np.linalg.norm(numpy(w), axis=0).max() < 1.001e-3
            assert held == (self.part(w) == which), w.name

    def test_the_constraint_of_the_paper(self):
        for value in (-5, 5):
            for w in stepped(self.layer(2), value):
                paper = self.layer.constraint if self.part(w) == "kernel" else None
                expected = np.clip(value, paper.low, paper.high) if paper else value
                assert (numpy(w) == expected).all(), w.name
        none = keras.constraints.Constraint()
        for w in stepped(self.layer(2, kernel_constraint=none), 5):
            assert (numpy(w) == 5).all(), w.name

    def test_a_call_is_no_training_step_nor_is_reading_the_penalty(self):
        ramp = keras_nalu.regularizers.LinearRamp(1, 0, 9)
        layer = self.layer(2, kernel_regularizer=keras_nalu.regularizers.L1(ramp))

        def counted():
            assert len(layer.losses) == len(layer.scheduled) > 0
            return {int(each.steps) for each in layer.scheduled}

        layer.build((None, 3))
        for options in ({}, {"training": True}, {}):
            layer(self.sample(), **options)
            assert counted() == counted() == {0}
        W, *_ = layer.trainable_variables
        keras.optimizers.SGD().apply([keras.ops.zeros(W.shape)], [W])
        assert counted() == ({0, 1} if len(layer.scheduled) > 1 else {1})

    def test_not_trainable(self):
        layer = self.layer(2, trainable=False)
        layer.build((None, 3))
        assert layer.trainable_weights == []
        assert len(layer.non_trainable_weights) == len(layer.weights) > 0
        layer.trainable = True
        assert len(layer.trainable_weights) == len(layer.weights)

    def test_effective_weights(self):
        layer = self.layer(2, kernel_initializer="random_uniform")
        for name in layer.targets:
            text = rf"no `{name}` before it is built. Call it on data"
            if BACKEND == "torch":  # whose modules answer for a property that raises
                text = f"has no attribute '{name}'"
            with pytest.raises(AttributeError, match=text):
                getattr(layer, name)
        layer.build((None, 3))
        assert list(layer.kernels) == list(layer.targets)
        for name, value in layer.kernels.items():
            np.testing.assert_array_equal(numpy(value), numpy(getattr(layer, name)))
            assert value.shape == self.shapes.get(name, (3, 2))
        expected = max(
            np.min([np.abs(numpy(w) - t) for t in layer.targets[name]], axis=0).max()
            for name, w in layer.kernels.items()
        )
        error = float(numpy(layer.sparsity_error()))
        assert error == pytest.approx(expected, rel=1e-6)
        assert error > 1e-3
        assert layer.is_discrete(error * 1.01) is True
        assert layer.is_discrete(error * 0.99) is layer.is_discrete() is False
