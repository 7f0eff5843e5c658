"""The penalties against the authors' values, and schedules against a loop by hand."""

import json

import keras
import numpy as np
import pytest
from keras.optimizers import schedules
from oracles.vectors import FILES, vectors

import keras_nalu
from keras_nalu import NALU, NAU, NMU, NPU, Population
from keras_nalu.regularizers import (
    L1,
    Discretization,
    INALUPenalty,
    LinearRamp,
    NegativeSquare,
    OutOfRange,
    Sparsity,
    StepwiseGrowth,
)

BACKEND = keras.backend.backend()
numpy = keras.ops.convert_to_numpy
ours = pytest.mark.skipif(BACKEND == "torch", reason="no loop on the device there")

#: The authors' modules -> the lowest value that their weights are drawn to.
LOW = {"nau": -1, "nru": -1, "nmu": 0, "snmu_eval": 0, "nmru": 0}
INALUS = "inalu_torch", "inalu_tf_indep", "inalu_tf_shared"
NPUS, MASS = ("npu", "real_npu"), ("mcfc", "mulmcfc")
#: Off by default in the authors' scripts, and of the inputs, not of a weight alone.
LEFT_OUT = {(module, "reg_z") for module in LOW} | {
    ("nalu_tied", "reg_g"),
    ("nalu_two_nac", "reg_g"),
}


def penalties(meta, key):
    """`{weight: penalty}`, whose sum is what the authors' code gave under `key`."""
    module, params = meta["module"], meta["params"]
    squared = key.endswith("_squared")
    if module in LOW and key.startswith("reg_W_"):
        return {"W": Sparsity(low=LOW[module], squared=squared)}
    if module in LOW and key.startswith("reg_oob_"):
        return {"W": OutOfRange(low=LOW[module], high=1, squared=squared)}
    if module in INALUS:
        penalty = INALUPenalty(1.0) if key == "reg_inalu" else INALUPenalty()
        return dict.fromkeys(params, penalty)
    if module in NPUS:
        return {
            "reg_l1": dict.fromkeys(params, L1()),
            "reg_g": {"g": Sparsity(low=0)},
            "reg_W_re": {"W_re": Discretization()},
            "reg_W_type_W": {"W_re": Discretization()},
            "reg_W_type_bias": {"W_re": Sparsity(low=-1)},
            "reg_W_re_im": {"W_re": Discretization(), "W_im": L1()},
        }[key]
    assert module in MASS
    return dict.fromkeys(("r", "gate_w", "gate_b"), NegativeSquare())


def keys_of(file):
    return [key for key in vectors(file)[0] if key.startswith("reg_")]


VALUES = [
    (file, key)
    for file in FILES
    for key in keys_of(file)
    if (vectors(file)[1]["module"], key) not in LEFT_OUT
]


def test_every_value_is_used():
    found = {(vectors(f)[1]["module"], key) for f in FILES for key in keys_of(f)}
    assert found > LEFT_OUT
    assert len(VALUES) == 158
    assert {module for module, _ in found - LEFT_OUT} == {*LOW, *INALUS, *NPUS, *MASS}


@pytest.mark.parametrize(("file", "key"), VALUES)
def test_values_are_the_authors(file, key):
    data, meta = vectors(file)
    dtype = "float64" if BACKEND == "tensorflow" else "float32"
    value = sum(
        float(penalty(keras.ops.convert_to_tensor(data[name], dtype)))
        for name, penalty in penalties(meta, key).items()
    )
    bound = {"rel": 1e-10, "abs": 1e-12} if dtype == "float64" else {"rel": 1e-5}
    assert value == pytest.approx(float(data[key]), **bound)


@pytest.mark.parametrize("low", [-1, 0])
@pytest.mark.parametrize("squared", [False, True])
def test_no_slope_where_the_weights_are_discrete(low, squared, differentiate):
    """Of `abs` it is 1 at 0 on JAX: the penalty would draw solved weights away."""
    penalty = Sparsity(low=low, squared=squared)
    W = np.array([range(low, 2)], "float32")
    _, gradients = differentiate(Penalised(penalty), W, np.ones(1, "float32"))
    np.testing.assert_array_equal(gradients["x"], 0)
    _, gradients = differentiate(Penalised(penalty), W + 0.25, np.ones(1, "float32"))
    assert (gradients["x"] != 0).all()


class Penalised(keras.Layer):
    def __init__(self, penalty):
        super().__init__()
        self.penalty, self.built = penalty, True

    def call(self, x):
        return self.penalty(x)[None]


def test_slopes_at_the_bounds(differentiate):
    c = np.ones(1, "float32")
    W = np.array([[-3, -2, 0, 1, 4]], "float32")
    _, gradients = differentiate(Penalised(OutOfRange(5, low=-2)), W, c)
    np.testing.assert_array_equal(gradients["x"], [[-1, 0, 0, 0, 1]])
    _, gradients = differentiate(Penalised(Discretization(5)), W, c)
    np.testing.assert_array_equal(gradients["x"][0, [0, 1, 3, 4]], [-1, -1, 0, 1])
    _, gradients = differentiate(Penalised(L1(2)), W, c)
    np.testing.assert_array_equal(gradients["x"], [[-2, -2, 0, 2, 2]])


# Schedules.


ALL = [
    Sparsity(2, low=0, squared=True),
    Sparsity(LinearRamp(10, 2, 3)),
    OutOfRange(3, low=-2, high=0.5, squared=True),
    INALUPenalty(0.5, limit=7),
    L1(StepwiseGrowth(1e-3, 2, factor=3, every=5)),
    Discretization(schedules.ExponentialDecay(0.1, 3, 0.5)),
    NegativeSquare(4),
    L1(2) + Sparsity(LinearRamp(10, 2, 3)) + keras.regularizers.L2(3),
]
each_penalty = pytest.mark.parametrize(
    "penalty", ALL, ids=lambda penalty: type(penalty).__name__
)
W = np.random.default_rng(0).normal(0, 1.5, (3, 2)).astype("float32")


def at(penalty, step):
    tensor = keras.ops.convert_to_tensor(W)
    return float(penalty.at(tensor, keras.ops.convert_to_tensor(step)))


@each_penalty
def test_json_round_trip(penalty):
    config = json.loads(json.dumps(keras.regularizers.serialize(penalty)))
    again = keras.regularizers.get(config)
    assert type(again) is type(penalty)
    assert json.loads(json.dumps(keras.regularizers.serialize(again))) == config
    for step in (0, 3, 20):
        assert at(again, step) == pytest.approx(at(penalty, step), rel=1e-6)
    assert at(again, 3) != 0


def test_defaults():
    defaults = {
        Sparsity: {"coefficient": 1, "low": -1, "squared": False},
        OutOfRange: {"coefficient": 1, "low": -1, "high": 1, "squared": False},
        INALUPenalty: {"coefficient": 0.05, "limit": 20},
        L1: {"coefficient": 1},
        Discretization: {"coefficient": 1},
        NegativeSquare: {"coefficient": 1},
    }
    for cls, config in defaults.items():
        assert cls().get_config() == config
    config = {"first": 1, "last": 9, "factor": 10, "every": 10_000}
    assert StepwiseGrowth(1, 9).get_config() == config


@each_penalty
def test_keras_file(penalty, tmp_path):
    model = keras.Sequential([keras.Input((3,)), NAU(2, kernel_regularizer=penalty)])
    model.layers[0].W.assign(W)
    model.save(tmp_path / "model.keras")
    loaded = keras_nalu.load_model(tmp_path / "model.keras")
    assert sum(map(numpy, loaded.losses)) == pytest.approx(at(penalty, 0), rel=1e-6)
    assert loaded.layers[0].get_config() == model.layers[0].get_config()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LinearRamp(10, 5, 5), r"0 <= start < end.*start=5, end=5"),
        (lambda: LinearRamp(10, -1, 5), r"`start`, expected .* 0 or more.*start=-1"),
        (lambda: StepwiseGrowth(0, 1), r"`first`, expected a positive.*first=0"),
        (lambda: StepwiseGrowth(2, 1), r"0 < first <= last.*first=2, last=1"),
        (
            lambda: StepwiseGrowth(1, 2, factor=1),
            r"`factor`, expected a number above 1.*factor=1",
        ),
        (
            lambda: StepwiseGrowth(1, 2, every=0),
            r"`every`, expected a number of steps.*every=0",
        ),
        (lambda: Sparsity(low=1), r"`low`, expected -1 or 0. Received: low=1"),
        (lambda: L1("big"), r"a number or a schedule.*coefficient='big'.*LinearRamp"),
        (lambda: Sparsity(-1), r"`coefficient`, expected a number of 0 or more.*=-1"),
        (lambda: Sparsity(None), r"a number or a schedule.*coefficient=None"),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_layers_that_do_not_count_are_told():
    layer = keras.layers.Dense(1, kernel_regularizer=L1(LinearRamp(1, 2, 3)))
    layer.build((None, 2))
    message = r"the layers of keras_nalu keep.*L1 with a schedule.*Give it a number"
    with pytest.raises(ValueError, match=message):
        print(layer.losses)
    plain = keras.layers.Dense(1, kernel_regularizer=L1(3))
    plain.build((None, 2))
    assert numpy(plain.losses[0]) == pytest.approx(
        3 * np.abs(plain.get_weights()[0]).sum(), rel=1e-6
    )


# The coefficient follows the steps of the training.

ROWS, BATCH, RATE, EPOCHS = 24, 6, 0.05, 3
STEPS = EPOCHS * ROWS // BATCH
_rng = np.random.default_rng(0)
X = _rng.normal(size=(ROWS, 2)).astype("float32")
Y = (X @ [[0.6], [-0.3]]).astype("float32")
START = np.array([[0.35], [0.8]], "float32")
RAMP = LinearRamp(3.0, 2, 9)
FIT = {"batch_size": BATCH, "shuffle": False, "verbose": 0}


def by_hand(steps=STEPS, W=START, ahead=0):
    """A NAU with mean squared error, `Sparsity(RAMP)` and gradient descent.

    `ahead` is how far the count of the steps is off.
    """
    W = W.astype("float64")
    for step in range(steps):
        at = step * BATCH % ROWS
        x, y = X[at : at + BATCH], Y[at : at + BATCH]
        coefficient = 3.0 * min(max((step + ahead - 2) / (9 - 2), 0), 1)
        gradient = 2 * x.T @ (x @ W - y) / BATCH
        gradient += coefficient * np.sign(W - np.clip(np.round(W), -1, 1)) / W.size
        W = np.clip(W - RATE * gradient, -1, 1)
    return W


def nau(**options):
    return NAU(1, kernel_regularizer=Sparsity(RAMP), name="nau", **options)


def started(model, **compiled):
    model.get_layer("nau").W.assign(START)
    model.compile(keras.optimizers.SGD(RATE), "mse", **compiled)
    return model


def line(cls=keras.Sequential, **compiled):
    return started(cls([keras.Input((2,)), nau()]), **compiled)


def steps_of(layer):
    return {
        variable.name: int(variable)
        for variable in layer.non_trainable_variables
        if variable.name.endswith("_steps")
    }


def assert_trained(model, steps=STEPS, W=None):
    layer = model.get_layer("nau")
    assert steps_of(layer) == {"W_steps": steps}
    got = numpy(layer.W)
    expected = by_hand(steps) if W is None else W
    np.testing.assert_allclose(got, expected, atol=2e-6)


@pytest.mark.parametrize("ahead", [-1, 1])
def test_a_count_that_is_off_by_one_is_seen(ahead):
    assert np.abs(by_hand(ahead=ahead) - by_hand()).max() > 1e-3


COMPILED = {
    "eager": {"run_eagerly": True},
    "default": {},
    "traced": {"jit_compile": False},
}
if BACKEND != "torch":  # Where Keras has no such thing.
    COMPILED["three"] = {"steps_per_execution": 3, "jit_compile": False}


@pytest.mark.parametrize("compiled", COMPILED.values(), ids=COMPILED)
def test_compiled_steps(compiled):
    model = line(**compiled)
    model.fit(X, Y, epochs=EPOCHS, **FIT)
    assert_trained(model)


@ours
@pytest.mark.parametrize(
    "steps", [100, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 4))]
)
def test_fused_steps(steps):
    model = line(keras_nalu.Sequential, steps_per_execution=steps)
    model.fit(X, Y, epochs=EPOCHS, **FIT)
    assert model.train_function.loops
    assert_trained(model)


@ours
def test_one_fused_chunk():
    model = line(keras_nalu.Sequential, steps_per_execution=1000)
    times = EPOCHS
    model.fit(np.tile(X, (times, 1)), np.tile(Y, (times, 1)), **FIT)
    assert model.train_function.loops
    assert_trained(model)


def test_single_batches():
    model = line()
    for step in range(STEPS):
        at = step * BATCH % ROWS
        model.train_on_batch(X[at : at + BATCH], Y[at : at + BATCH])
        model.test_on_batch(X, Y)
        model.predict_on_batch(X)
    assert_trained(model)


@pytest.mark.slow
@pytest.mark.parametrize("cls", [keras.Sequential, keras_nalu.Sequential])
@pytest.mark.filterwarnings("ignore:Training step by step")
def test_what_does_not_train_does_not_count(cls):
    model = line(cls)
    seen = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: print(model.losses))
    fit = {**FIT, "validation_data": (X, Y), "callbacks": [seen]}
    for _ in range(EPOCHS):
        model.evaluate(X, Y, verbose=0)
        model.predict(X, verbose=0)
        model.fit(X, Y, **fit)
        print(model.losses, model.losses)
        model(X)
        print(model.losses)
        model(X, training=True)
        print(model.losses, model.losses)
    assert_trained(model)


@pytest.mark.slow
@ours
def test_members_of_a_population():
    population = Population(line(), 3, seed=0)
    starts = np.stack([START, -START, START / 2])
    for variable in population.trainable_variables:
        variable.assign(starts)
    population.compile(keras.optimizers.SGD(RATE), "mse")
    population.fit(X, Y, epochs=EPOCHS, validation_data=(X, Y), **FIT)
    population.evaluate(X, Y, verbose=0)
    for index, start in enumerate(starts):
        member = population.member(index)
        assert_trained(member, STEPS, by_hand(W=start))
        member.fit(X, Y, **FIT)  # Goes on from there.
        more = ROWS // BATCH
        assert_trained(member, STEPS + more, by_hand(STEPS + more, W=start))


def test_file_keeps_the_count(tmp_path):
    model = line()
    model.fit(X, Y, **FIT)
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    loaded = keras_nalu.load_model(tmp_path / "model.keras")
    weights = line()
    weights.load_weights(tmp_path / "model.weights.h5")
    for again in (loaded, weights):
        assert steps_of(again.get_layer("nau")) == {"W_steps": ROWS // BATCH}
        again.fit(X, Y, epochs=EPOCHS - 1, **FIT)
        assert_trained(again)


def test_clone_starts_anew():
    model = line()
    model.fit(X, Y, **FIT)
    clone = started(keras.models.clone_model(model))
    clone.fit(X, Y, epochs=EPOCHS, **FIT)
    assert_trained(clone)


def test_compiling_anew_goes_on():
    model = line()
    model.fit(X, Y, **FIT)
    model.compile(keras.optimizers.SGD(RATE), "mse")
    model.fit(X, Y, epochs=EPOCHS - 1, **FIT)
    assert_trained(model)


def shared(x):
    layer = nau()
    return layer(keras.ops.concatenate([layer(x), x[:, :1]], axis=-1))


def in_time(x):
    steps = keras.ops.reshape(x, (-1, 1, 2))
    wrapped = keras.layers.TimeDistributed(nau(), name="time")
    return keras.ops.reshape(wrapped(steps), (-1, 1))


def nested(x):
    inputs = keras.Input((2,))
    return keras.Model(inputs, nau()(inputs), name="inner")(x)


class Inner(keras.Layer):
    """A layer that holds one, as a user writes it."""

    def __init__(self):
        super().__init__(name="inner")
        self.nau = nau()

    def call(self, x):
        return self.nau(x)


def find(model):
    (layer,) = [layer for layer in model._flatten_layers() if isinstance(layer, NAU)]
    return layer


@pytest.mark.parametrize(
    ("cls", "wrap"),
    [
        (keras.Model, shared),
        (keras.Model, nested),
        pytest.param(keras_nalu.Model, shared, marks=ours),
        pytest.param(keras_nalu.Model, in_time, marks=ours),
        pytest.param(keras_nalu.Model, lambda x: Inner()(x), marks=ours),
    ],
)
@pytest.mark.slow
def test_layers_within_others(cls, wrap):
    inputs = keras.Input((2,))
    model = cls(inputs, wrap(inputs))
    layer = find(model)
    layer.W.assign(START)
    model.compile(keras.optimizers.SGD(RATE), "mse")
    model.fit(X, Y, epochs=EPOCHS, validation_data=(X, Y), **FIT)
    assert steps_of(layer) == {"W_steps": STEPS}
    if wrap is not shared:
        np.testing.assert_allclose(numpy(layer.W), by_hand(), atol=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("cls", [keras.Sequential, keras_nalu.Sequential])
@pytest.mark.filterwarnings("ignore:Training step by step")
def test_every_weight_counts_for_itself(cls):
    ramp = LinearRamp(1, 2, 9)
    model = cls(
        [
            keras.Input((2,)),
            NALU(2, kernel_regularizer=Sparsity(ramp), gate_regularizer=L1(ramp)),
            NPU(
                2,
                kernel_regularizer=L1(StepwiseGrowth(1e-3, 1, every=2))
                + Discretization(ramp),
                gate_regularizer=Sparsity(0.1, low=0),
            ),
            NMU(1, kernel_regularizer=Sparsity(ramp, low=0)),
        ]
    )
    model.compile(keras.optimizers.SGD(1e-3), "mse")
    model.fit(np.abs(X) + 0.5, Y, epochs=EPOCHS, **FIT)
    assert [steps_of(layer) for layer in model.layers] == [
        dict.fromkeys(("W_hat_steps", "M_hat_steps", "G_steps"), STEPS),
        dict.fromkeys(("W_re_steps", "W_im_steps"), STEPS),
        {"W_steps": STEPS},
    ]
    # At this step's coefficients: of W_hat, M_hat and G; W_re, W_im and g; W.
    expected = []
    for layer in model.layers:
        for variable in layer.trainable_variables:
            w = keras.ops.convert_to_tensor(variable)
            regularizer = (
                layer.gate_regularizer
                if variable.name in ("G", "g")
                else layer.kernel_regularizer
            )
            expected.append(numpy(regularizer.at(w, STEPS)))
    np.testing.assert_allclose([numpy(loss) for loss in model.losses], expected, 1e-6)


@pytest.mark.skipif(BACKEND == "torch", reason="trains no populations")
def test_population_of_a_trained_template_counts_anew():
    model = line()
    model.fit(X, Y, **FIT)
    assert steps_of(model.get_layer("nau")) == {"W_steps": ROWS // BATCH}
    population = Population(model, 2, seed=0)
    (counts,) = population.non_trainable_variables
    assert numpy(counts).tolist() == [0, 0]


@pytest.mark.filterwarnings("ignore:The model does not have any trainable weights")
def test_frozen_layer_waits():
    model = line()
    model.fit(X, Y, **FIT)
    layer = model.get_layer("nau")
    layer.trainable = False
    model.compile(keras.optimizers.SGD(RATE), "mse")
    model.fit(X, Y, **FIT)
    assert_trained(model, ROWS // BATCH)
    layer.trainable = True
    model.compile(keras.optimizers.SGD(RATE), "mse")
    model.fit(X, Y, epochs=EPOCHS - 1, **FIT)
    assert_trained(model)


def test_frozen_layer_beside_one_that_trains():
    frozen = NAU(2, kernel_regularizer=Sparsity(RAMP), name="frozen", trainable=False)
    model = started(keras.Sequential([keras.Input((2,)), frozen, nau()]))
    model.fit(X, Y, epochs=EPOCHS, **FIT)
    assert steps_of(frozen) == {"W_steps": 0}
    assert steps_of(model.get_layer("nau")) == {"W_steps": STEPS}


def test_own_loop():
    """By hand, a step is what an optimizer applies; reading the penalty changes
    nothing."""
    layer = nau()
    layer.build((None, 2))
    layer.W.assign(START)
    optimizer = keras.optimizers.SGD(RATE)
    for step in range(12):
        for _ in range(3):
            layer(X[:BATCH], training=True)
            (value,) = layer.losses
            assert steps_of(layer) == {"W_steps": step}
            assert numpy(value) == pytest.approx(
                float(Sparsity(RAMP).at(keras.ops.convert_to_tensor(START), step)),
                rel=1e-6,
            )
        optimizer.apply([keras.ops.zeros((2, 1))], [layer.W])


def test_own_loop_without_side_effects():
    """The count goes in and out with the rest of the state."""
    layer = nau()
    layer.build((None, 2))
    trainable, state = [START], [np.int32(4)]
    for training, step in ((False, 4), (True, 5), (True, 6), (False, 6)):
        _, state, _ = layer.stateless_call(
            trainable, state, X, training=training, return_losses=True
        )
        assert int(state[0]) == step
    assert steps_of(layer) == {"W_steps": 0}


@pytest.mark.parametrize(
    "schedule",
    [
        schedules.ExponentialDecay(0.5, 3, 0.5),
        schedules.PolynomialDecay(0.5, 8),
        schedules.PiecewiseConstantDecay([3, 6], [0.1, 0.9, 0.3]),
        schedules.CosineDecay(0.5, 8),
        StepwiseGrowth(0.01, 1, every=3),
    ],
    ids=lambda schedule: type(schedule).__name__,
)
@pytest.mark.filterwarnings("ignore:Training step by step")
@pytest.mark.slow
def test_other_schedules(schedule):
    """Without labels' pull: a step moves each weight by the slope of the penalty."""
    layer = NAU(1, kernel_regularizer=L1(schedule), name="nau")
    model = keras_nalu.Sequential([keras.Input((2,)), layer])
    layer.W.assign([[0.9], [0.7]])
    model.compile(keras.optimizers.SGD(0.01), lambda y, y_pred: 0 * y_pred)
    model.fit(X, Y, epochs=EPOCHS, **FIT)
    total = sum(float(schedule(step)) for step in range(STEPS))
    got = numpy(layer.W)[:, 0]
    np.testing.assert_allclose(got, np.array([0.9, 0.7]) - 0.01 * total, atol=1e-5)


@pytest.mark.only("tensorflow", reason="keeps no float64")
def test_schedule_in_float64():
    """Keras adds no loss of float64 to one of float32, not of its own L2 either."""
    layer = NMU(1, dtype="float64", kernel_regularizer=Sparsity(RAMP, low=0))
    layer(X, training=True)
    assert layer.losses[0].dtype == "float64"


def test_schedule_leaves_the_initial_weights_alone():
    drawn = []
    for penalty in (Sparsity(1.0), Sparsity(RAMP)):
        keras.utils.set_random_seed(0)
        initializer = keras.initializers.RandomUniform(seed=3)
        layer = NPU(
            1,
            kernel_initializer=initializer,
            gate_initializer=initializer,
            kernel_regularizer=penalty,
            gate_regularizer=penalty,
        )
        layer.build((None, 2))
        drawn.append([numpy(w) for w in layer.trainable_weights])
    assert all(map(np.array_equal, *drawn))


def test_sum_takes_what_can_be_added():
    both = keras.regularizers.L2(1.0) + Sparsity(1.0)
    w = np.array([[0.5], [2.0]], "float32")
    assert float(both(w)) == pytest.approx(0.25 + 4 + (0.5 + 1) / 2)
    with pytest.raises(ValueError, match="`terms`, expected penalties to add"):
        Sparsity(1.0) + None
