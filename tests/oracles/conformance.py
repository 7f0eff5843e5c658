"""What every arithmetic layer promises, as a suite to inherit from.

class TestSquareNMU(Conformance):
    layer = SquareNMU
    ideal = {"multiply": [np.ones((2, 1))]}
    answers = {"multiply": lambda a, b: (a * b) ** 2}

    @staticmethod
    def equation(ops, x, W):
        return ops.prod(W * ops.expand_dims(ops.square(x), -1) + (1 - W), axis=-2)
"""

import inspect
import itertools
import json
import re

import keras
import numpy as np
import pytest
from keras import initializers
from oracles import exact
from oracles.exact import EPS32
from oracles.gradients import Trained, differentiate
from oracles.vectors import CLIPPED, SCRAMBLED, files_of, vectors

import keras_nalu

BACKEND = keras.backend.backend()
SLOW = pytest.mark.slow
only_tensorflow = pytest.mark.only("tensorflow", reason="keeps no float64")

#: A second value of the constructor arguments that all layers have.
SECOND = {
    "units": 5,
    "kernel_initializer": initializers.Constant(0.3),
    "gate_initializer": initializers.Constant(0.3),
    "kernel_regularizer": keras.regularizers.L2(1.0),
    "gate_regularizer": keras.regularizers.L2(1.0),
    "kernel_constraint": keras.constraints.MaxNorm(1e-3),
    "gate_constraint": keras.constraints.MaxNorm(1e-3),
}
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
SHAPES = [(4, 3), (4, 5, 3), (2, 4, 5, 3)]
#: Magnitudes of inputs; two denormal numbers among them.
SIZES = [0.0, 1e-45, 1e-38, 1e-20, 1e-7, 1.0, 1e4, 1e19, 1e30, 1e38]
FEWER, MANY = [0.0, 1e-45, 8e37], [0.0, 1e-45, 1e-38, 1e-20, 1.0, 1e19, 1e38]
MOST, LEAST = float(np.finfo("float32").max), float(np.finfo("float32").tiny)
RANGES = {"small": (1, 10), "trained on": (10, 100), "far outside": (10**3, 10**6)}
SUMS = {"add", "subtract"}
ROWS = {
    "positive": np.array([[1, 2], [3, 4], [5, 0.5], [8, 8]]),
    "signed": np.array([[1.0, -2.0], [-3.0, 4.0], [5.0, 0.5], [-8.0, -8.0]]),
    "compared": np.array([[-5, 3], [4, 4], [5, -5]]),
}
#: What says so in a docstring.
OVERFLOWS = (
    "Where a step overflows, the outputs and gradients that depend on it can be "
    "infinite or NaN, although the exact value may fit."
)


def numpy(y):
    return keras.ops.convert_to_numpy(keras.ops.cast(y, "float32"))


def same(first, second):
    return all(
        np.shape(a) == np.shape(b) and np.array_equal(a, b)
        for a, b in zip(first, second, strict=True)
    )


def penalty(layer):
    return float(np.sum([numpy(loss) for loss in layer.losses]))


def step(layer, gradients):
    optimizer = keras.optimizers.SGD(0.1)
    gradients = [keras.ops.convert_to_tensor(g) for g in gradients]
    optimizer.apply(gradients, layer.trainable_variables)


def stepped(layer, value):
    """The weights of this value after a step that changes none of them."""
    layer.build((None, 3))
    layer.set_weights([np.full(w.shape, value) for w in layer.weights])
    step(layer, [np.zeros(w.shape, w.dtype) for w in layer.trainable_variables])
    return layer.weights


def integers(low, high, signed=False):
    """Pairs; a tenth of them equal."""
    rng = np.random.default_rng(0)
    X = rng.integers(low, high, size=(1000, 2))
    X[::10, 1] = X[::10, 0]
    return X * rng.choice([-1, 1], X.shape) if signed else X


def assert_near(value, expected, bound, name):
    error = np.abs(value - expected) / (1 + np.abs(expected))
    assert error.max() < bound, f"{name}: {error.max()}"


class Facts:
    """What a layer's test file says of it."""

    #: The class.
    layer: type = keras_nalu.NAU
    #: By operation the stored weights, in the layer's order, with which it computes it
    #: of two inputs; and the constructor's arguments for these.
    ideal = {}
    given = {}
    #: By operation the right answer, where that is no function of NumPy's.
    answers = {}
    #: Whether products are multiplied out, and not through exp(log).
    multiplies = False
    #: Second values of the constructor's own arguments, and its own defaults.
    second = {}
    defaults = {}
    #: The stored weights that `gate_*` act on, and those that nothing acts on; all
    #: others are kernels.
    gates = ()
    free = ()
    #: Effective weights that are not of shape (in, units), for 3 inputs and 2 units.
    shapes = {}
    #: What it is not for.
    bears_zero = True
    bears_negative = True
    #: The magnitudes, beside 0, between which a fresh layer and its gradients are
    #: finite whatever the seed.
    finite = 0, np.inf
    #: Whether they end where the exact ones do: sums and bounded products.
    bounded = False
    #: Whether `training` changes the equation.
    trains = False
    #: The modules of the authors of which there are vectors.
    modules = ()
    #: Weights of one unit, rows and the text that is read: exactly, and rounded.
    exactly = ()
    rounded = ()
    #: Weights that are near to an answer, and the text of that.
    near = None

    @staticmethod
    def equation(ops, x, **weights):
        """The layer's, as one would write it down for rows of inputs."""
        raise NotImplementedError

    # What follows from these.

    @classmethod
    def arguments(cls):
        parameters = inspect.signature(cls.layer).parameters.values()
        return [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]

    @classmethod
    def second_of(cls, name):
        return (SECOND | cls.second)[name]

    @classmethod
    def varied(cls):
        """A layer in which every argument has its second value."""
        return cls.layer(**{name: cls.second_of(name) for name in cls.arguments()})

    @classmethod
    def part(cls, weight):
        name = weight.name
        return "gate" if name in cls.gates else "free" if name in cls.free else "kernel"

    @classmethod
    def sample(cls, shape=(4, 3)):
        """Inputs that the layer is for."""
        x = np.random.default_rng(0).uniform(-3, 3, shape).astype("float32")
        return x if cls.bears_negative else np.abs(x)

    @classmethod
    def made(cls, *weights, **given):
        """A layer of one unit and two inputs with these weights, of any shape."""
        layer = cls.layer(1, **given)
        layer.build((None, 2))
        pairs = zip(weights, layer.weights, strict=True)
        layer.set_weights([np.reshape(w, v.shape) for w, v in pairs])
        return layer

    @classmethod
    def built(cls, *columns, **given):
        """A layer with a unit for each of these lists of weights."""
        layer = cls.layer(len(columns), **cls.given | given)
        layer.build((None, 2))
        pairs = zip(layer.weights, zip(*columns, strict=True), strict=True)
        for stored, parts in pairs:
            joined = np.concatenate(parts, axis=-1)
            # The relevance gate of an NPU is for all its units.
            stored.assign(joined if joined.shape == stored.shape else parts[0])
        return layer

    @classmethod
    def drawn(cls, seed=0, rows=12, **given):
        """A layer of three units with weights, and inputs from its domain."""
        rng = np.random.default_rng(seed)
        x = rng.choice([-1, 1], (rows, 4)) * 10 ** rng.uniform(-3, 1, (rows, 4))
        if not cls.bears_negative:
            x = np.abs(x)
        elif cls.bears_zero:
            x[0], x[1, 2:] = 0, 0
        layer = cls.layer(3, **given)
        layer.build(x.shape)
        for variable in layer.trainable_variables:
            variable.assign(rng.normal(size=variable.shape))
        return layer, x

    @classmethod
    def options_of(cls, layer, training=False):
        """What the equation takes beside the weights."""
        named = inspect.signature(cls.equation).parameters
        options = {
            name: getattr(layer, name) for name in cls.arguments() if name in named
        }
        return options | ({"training": training} if "training" in named else {})

    @classmethod
    def exact(cls, layer, x, c, training=False):
        """By name the outputs and gradients, as pairs of values and errors."""
        weights = {v.name: np.array(v) for v in layer.trainable_variables}
        options = cls.options_of(layer, training)
        return exact.evaluate(cls.equation, x, c, weights, **options)

    @classmethod
    def answer(cls, operation, X):
        a, b = np.float64(X.T[..., None])
        return np.float64((cls.answers.get(operation) or getattr(np, operation))(a, b))


class Conformance(Facts):
    """The suite: `class TestX(Conformance)` states the facts above of its layer."""

    def pytest_generate_tests(self, metafunc):
        cls = metafunc.cls
        forms = (False, True) if cls.trains else (False,)
        sane = [f for f in files_of(cls.modules) if f not in CLIPPED | SCRAMBLED]
        values = {
            "argument": cls.arguments(),
            "which": ["kernel", "gate"] if cls.gates else ["kernel"],
            "form": forms,
            "file": sane,
            "operation": list(cls.ideal),
            "number": [n for n in ("epsilon", "omega", "scale") if n in cls.second],
            "kind": [
                kind
                if kind in ("default", "seeded")
                else pytest.param(kind, marks=SLOW)
                for kind in INITIALIZERS
            ],
        }
        for name in {*values} & {*metafunc.fixturenames}:
            metafunc.parametrize(name, values[name])
        for name in {"exactly", "rounded"} & {*metafunc.fixturenames}:
            cases = getattr(cls, name)
            metafunc.parametrize(name, cases, ids=[text for *_, text in cases])

    # Shapes and modes.

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

    # Arguments and configs.

    @classmethod
    def observe(cls, make):
        """All that a training step shows of a layer."""
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
        own = {name: value for name, value in given.items() if value is not None}
        assert own == self.defaults

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

    # Weights.

    def test_initializers_reach_their_own_weights(self):
        gate = {"gate_initializer": "zeros"} if self.gates else {}
        layer = self.layer(2, kernel_initializer="ones", **gate)
        layer.build((None, 3))
        for w in layer.weights:
            assert (numpy(w) == (1 if self.part(w) == "kernel" else 0)).all(), w.name
        parts = {self.part(w) for w in layer.weights}
        assert "kernel" in parts
        assert ("gate" in parts) == bool(self.gates)

    def draws(self, initializer, seed=None):
        """The kernels' and the gates' weights, but for the constants among them."""
        if seed is not None:
            keras.utils.set_random_seed(seed)
        gate = {"gate_initializer": initializer} if self.gates else {}
        layer = self.layer(3, kernel_initializer=initializer, **gate)
        layer.build((None, 2))
        weights = [numpy(w) for w in layer.weights if self.part(w) != "free"]
        return [w for w in weights if np.ptp(w)]

    def test_draws_are_independent_and_can_be_repeated(self, kind):
        weights = self.draws(INITIALIZERS[kind]())
        assert weights
        # The same draw may be shifted, and scaled.
        unit = [((w - w.mean()) / w.std()).ravel() for w in weights]
        for a, b in itertools.combinations(unit, 2):
            size = min(len(a), len(b))
            assert not np.allclose(a[:size], b[:size], atol=1e-3)
        # Two layers differ unless seeded.
        initializer = INITIALIZERS[kind]()
        equal = same(self.draws(initializer), self.draws(initializer))
        assert equal == (kind in ("seeded", "config"))
        first, again = (self.draws(INITIALIZERS[kind](), seed=5) for _ in range(2))
        assert same(first, again)
        third = self.draws(INITIALIZERS[kind](), seed=6)
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

    def test_a_call_is_no_training_step_unless_it_says_so(self):
        ramp = keras_nalu.regularizers.LinearRamp(1, 0, 9)
        layer = self.layer(2, kernel_regularizer=keras_nalu.regularizers.L1(ramp))

        def counted():
            assert len(layer.losses) == len(layer.scheduled) > 0
            return {int(each.steps) for each in layer.scheduled}

        layer.build((None, 3))
        assert counted() == {0}
        for training, count in (({}, 0), ({"training": True}, 1), ({}, 1)):
            layer(self.sample(), **training)
            # The penalty may be read twice.
            assert counted() == counted() == {count}

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

    # Dtypes.

    @pytest.mark.parametrize("dtype", ["int32", "int64", "uint8", "bool", "float64"])
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
            return  # Keras has none there.
        np.testing.assert_array_equal(numpy(layer(sparse)), expected)
        inputs = keras.Input((3,), sparse=True)
        model = keras.Model(inputs, layer(inputs))
        np.testing.assert_allclose(numpy(model(sparse)), expected, rtol=1e-6)

    @pytest.mark.filterwarnings("ignore:The dtype policy .* half precision")
    @pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float16"])
    def test_dtype_policies(self, policy):
        x = np.float32([[0, 0, 0], [1e-7, 0, 3], [100, -200, 150], [3e4, 3e4, 3e4]])
        if self.finite != (0, np.inf):  # products and quotients that float16 can hold
            x = np.float32([[1, 1, 1], [0.5, 1, 3], [10, -20, 15], [30, 30, 30]])
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

    # The equation.

    def test_against_the_equation(self, form):
        layer, x = self.drawn()
        c = np.random.default_rng(1).normal(size=(len(x), 3))
        expected = self.exact(layer, x, c, form)
        y, gradients = differentiate(Trained(layer, form), np.float32(x), np.float32(c))
        for name, got in {"y": numpy(y), **gradients}.items():
            value, error = expected[name]
            assert (np.abs(got - value) <= EPS32 * error).all(), name

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
        """Most is done in float32: the worst measured is an eighth of it."""
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

    # What the authors' code computed.

    @classmethod
    def of_the_authors(cls, file, dtype="float32"):
        """The layer with the weights of a file, as it is called there."""
        data, meta = vectors(file)
        given = {"epsilon": meta["eps"]} if "epsilon" in cls.arguments() else {}
        layer = cls.layer(data["y"].shape[-1], dtype=dtype, **given)
        layer.build(data["x"].shape)
        for variable in layer.trainable_variables:
            variable.assign(data[variable.name])
        if "noise" in data:
            layer.noise = lambda x: layer.cast(data["noise"])
        return Trained(layer, meta.get("training", True))

    @classmethod
    def exact_of(cls, file, **more):
        """The equation on what is in a file."""
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
        for name, (value, _) in self.exact_of(file).items():
            assert_near(value, data["y" if name == "y" else f"d_{name}"], bound, name)

    def test_the_layer_is_what_the_authors_compute(self, file):
        """Within the error of float32 arithmetic; the worst measured is half of it."""
        data, _ = vectors(file)
        x, c = np.float32(data["x"]), np.float32(data["c"])
        y, gradients = differentiate(self.of_the_authors(file), x, c)
        expected = self.exact_of(file)
        for name, value in {"y": numpy(y), **gradients}.items():
            difference = np.abs(value - data["y" if name == "y" else f"d_{name}"])
            assert (difference <= EPS32 * expected[name][1]).all(), name

    @only_tensorflow
    def test_the_layer_is_what_the_authors_compute_in_float64(self, file):
        data, meta = vectors(file)
        if meta["dtype"] != "float64":
            return
        layer = self.of_the_authors(file, "float64")
        y, gradients = differentiate(layer, data["x"], data["c"])
        for name, value in {"y": np.array(y), **gradients}.items():
            assert_near(value, data["y" if name == "y" else f"d_{name}"], 1e-10, name)

    # With the ideal weights written in, it computes its operations exactly.

    def bounds(self, operation, high):
        """Relative and absolute. Sums of integers below 2**24 are exact in float32;
        what the exponential returns is off by eps32 times its logarithm, if not by
        more; a sigmoid of -20 stands in the place of 0."""
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
                # The sign of NALU's gate is that of the inputs.
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

    # As a formula.

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
        # NSR's 0 is a small probability, of which 0 is far in relation to itself.
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
        layer, X = self.read((weights, "positive", text))
        before = layer.get_weights()
        assert not keras_nalu.formula(layer, X).exact
        snapped = keras_nalu.discretize(layer, X)
        read = keras_nalu.formula(snapped, X, tolerance=1e-6)
        assert (str(read), read.exact) == (f"y = {text}", True)
        assert read.error < 1e-5
        assert same(before, layer.get_weights())
        if not self.layer.exponents:
            assert snapped.is_discrete(1e-6)

    # Where numbers end.

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

    def test_numbers_end_where_the_exact_ones_do(self, form):
        first, *_, fresh, _ = self.layers()
        for layer in (first, fresh):
            self.assert_right(layer, self.rows(FEWER, 2), form, every=4)

    @SLOW
    def test_all_numbers_end_where_the_exact_ones_do(self, form):
        """And the docstring says where it is otherwise."""
        all_finite = True
        for layer in self.layers():
            features = layer.input_spec.axes[-1]
            x = self.rows(MANY if features == 2 else FEWER, features)
            all_finite &= self.assert_right(layer, x, form, every=5)
        assert self.says_so() != self.bounded
        if BACKEND != "jax":  # Where the NMRU's in training are finite, all of them.
            assert not (self.says_so() and all_finite)

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
                    continue  # Its sign of their difference is that of a rounding.
                right = self.ends(layer, row, form)
                pairs = zip(np.hstack(got), right["y"] + right["x"], strict=True)
                for one, n in pairs:
                    # What is exact here is float64, too.
                    assert abs(one - n.value) <= 4 * np.finfo("float64").eps * n.error

    @classmethod
    def says_so(cls):
        return OVERFLOWS in " ".join(cls.layer.__doc__.split())

    def layers(self, dtype="float32"):
        """With the ideal weights, fresh ones, and ones, for three inputs."""
        for weights in self.ideal.values():
            yield self.built(weights, dtype=dtype)
        for features in (2, 3):
            layer = self.layer(1, dtype=dtype)
            layer.build((None, features))
            if features == 3:
                layer.set_weights([np.ones(w.shape) for w in layer.weights])
            yield layer

    def rows(self, sizes, features):
        """All combinations, of both signs, but for what it is not for."""
        if not self.bears_zero:
            # A reciprocal is a number, too.
            sizes = [size for size in sizes if LEAST <= size <= self.largest]
        signs = (1, -1) if self.bears_negative else (1,)
        values = {sign * size for size in sizes for sign in signs}
        return np.float32([*itertools.product(sorted(values), repeat=features)])

    #: The largest input whose reciprocal is a normal number, where that matters.
    largest = MOST

    def ends(self, layer, row, training):
        """The output of a row, and its gradients, with all the steps that led there."""
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
        """What the docstring says beside that."""
        return False

    def assert_right(self, layer, x, training, every):
        """Returns whether all is finite. The gradients of weights, which add up over
        the rows, are looked at for every so many of them."""
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
        """Whether float32 may have it for a number, with such a peak on the way."""
        error = float(EPS32) * n.error
        low, high = n.value - error, n.value + error
        surely = low > MOST or high < -MOST
        if np.isfinite(got):
            return not surely
        if np.isinf(got) and (surely or not self.says_so()):
            return high > MOST if got > 0 else low < -MOST
        return self.says_so() and not max(n.peak, peak) < MOST * (1 - 1e-6)


def hats(*w, size=20):
    """`W_hat` and `M_hat` of these effective weights."""
    return np.arctanh(np.clip(w, -1 + 1e-9, 1 - 1e-9)), np.full(len(w), size)
