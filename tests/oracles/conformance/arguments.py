"""The constructor's arguments, and configs."""

import inspect
import json
import re

import keras
import numpy as np
import pytest
from oracles.conformance.facts import (
    SECOND,
    Facts,
    numpy,
    penalty,
    same,
    step,
)
from oracles.gradients import differentiate


class Arguments(Facts):
    """Each argument has an effect, is checked, and is in the config."""

    @classmethod
    def observe(cls, make):
        """All results of a training step of a layer."""
        keras.utils.set_random_seed(1)
        layer, x = make(), cls.sample()
        layer.build(x.shape)
        c = np.random.default_rng(1).uniform(1, 2, (4, layer.units)).astype("float32")
        y, gradients = differentiate(layer, x, c)
        shown = [numpy(y), penalty(layer), numpy(layer(x, training=True))]
        step(layer, list(gradients.values())[1:])
        return [*shown, *layer.get_weights()]

    @pytest.fixture(scope="class")
    @classmethod
    def plain(cls):
        return cls.observe(lambda: cls.layer(4))

    def test_a_step_can_be_repeated(self, plain):
        assert all(np.isfinite(shown).all() for shown in plain)
        assert same(plain, self.observe(lambda: self.layer(4)))

    def test_every_argument_is_alive(self, argument, plain):
        given = {"units": 4, argument: self.second_of(argument)}
        assert not same(plain, self.observe(lambda: self.layer(**given)))
        config = self.layer(**given).get_config()
        assert config[argument] != self.layer(4).get_config()[argument]

    def test_a_config_restores_the_layer(self):
        layer = self.varied()
        config = json.loads(json.dumps(layer.get_config()))
        assert {*self.arguments()} <= {*config}
        again = self.layer.from_config(config)
        assert again.get_config() == layer.get_config()
        observed = self.observe(lambda: self.layer.from_config(config))
        assert same(observed, self.observe(self.varied))
        whole = keras.saving.serialize_keras_object(layer)
        with keras.saving.custom_object_scope({self.layer.__name__: self.layer}):
            copied = keras.saving.deserialize_keras_object(
                json.loads(json.dumps(whole))
            )
        assert type(copied) is self.layer
        assert copied.get_config() == layer.get_config()

    def test_only_units_is_positional(self):
        kinds = [p.kind for p in inspect.signature(self.layer).parameters.values()]
        kind = inspect.Parameter
        assert kinds[0] is kind.POSITIONAL_OR_KEYWORD
        assert {*kinds[1:-1]} == {kind.KEYWORD_ONLY}
        assert kinds[-1] is kind.VAR_KEYWORD
        given = self.arguments()
        known = [name for name in SECOND if name in given]
        assert given[: len(known)] == known

    def test_hyper_parameters_of_the_paper(self):
        layer = self.layer(2)
        given = {name: getattr(layer, name) for name in self.arguments()[1:]}
        changed = {name: value for name, value in given.items() if value is not None}
        assert changed == self.defaults

    def test_wrong_arguments(self):
        text = "invalid value for `units`, expected a positive integer. Received: unit"
        for units in [0, -1, 2.5, "4", None, np.float64(2), [2]]:
            with pytest.raises(ValueError, match=text):
                self.layer(units)
        with pytest.raises(ValueError, match=r"Unrecognized keyword.*use_bias"):
            self.layer(1, use_bias=True)
        with pytest.raises(ValueError, match=r"`kernel_initializer`.*'no_such'\. Try"):
            self.layer(1, kernel_initializer="no_such")
        with pytest.raises(TypeError, match="units"):
            self.layer()

    def test_wrong_numbers(self, number):
        for value in [0, -1, 1e-50, float("nan"), float("inf"), "x", None, 1j, [1]]:
            text = f"invalid value for `{number}`, expected a positive number. Received"
            with pytest.raises(ValueError, match=re.escape(text)):
                self.layer(1, **{number: value})
        given = self.layer(1, **{number: np.float32(0.5)}).get_config()[number]
        assert json.dumps(given) == "0.5"

    def test_wrong_inputs(self):
        layer = self.layer(2)
        with pytest.raises(ValueError, match="expected min_ndim=2, found ndim=1"):
            layer(np.ones(3))
        with pytest.raises(ValueError, match=r"last axis .* known size. Received: inp"):
            layer(keras.Input((None,)))
        layer(self.sample())
        with pytest.raises(ValueError, match="expected axis -1 of input shape to have"):
            layer(np.ones((4, 2)))
