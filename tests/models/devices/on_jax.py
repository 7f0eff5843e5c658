"""On eight devices of JAX: run by test_devices.py in a process of its own."""

import jax
import keras
import numpy as np
import pytest
from keras import layers, optimizers
from oracles.devices import BATCH, assert_alike, draw, made

import keras_nalu
from keras_nalu.layers import NMU
from keras_nalu.models.backends import jax as on_jax
from keras_nalu.models.run import Run

distribution = keras.distribution
DEVICES = 8
SIZE = 24
#: What JAX says of a batch that it cannot cut.
UNEVEN = "partitioned 8 times, but the dimension"

_rng = np.random.default_rng(0)
X = _rng.uniform(1, 2, (320, 2)).astype("float32")
Y = X.sum(1, keepdims=True) * np.arange(1, 5, dtype="float32")
PRODUCT = X.prod(1, keepdims=True)
OWN = _rng.uniform(1, 2, (SIZE, 64, 2)).astype("float32")


@pytest.fixture(autouse=True)
def _on_one_device():
    assert len(distribution.list_devices()) == DEVICES
    yield
    distribution.set_distribution(None)


def data_parallel():
    return distribution.DataParallel()


def model_parallel():
    """The batch in two parts; of the weights, four."""
    names = "batch", "model"
    mesh = distribution.DeviceMesh((2, 4), names, distribution.list_devices())
    layout = distribution.LayoutMap(mesh)
    layout[".*sum.*W"] = (None, "model")
    layout[".*last.*kernel"] = ("model", None)
    return distribution.ModelParallel(layout_map=layout, batch_dim_name="batch")


WAYS = data_parallel, model_parallel
ways = pytest.mark.parametrize("way", WAYS)


def dataset(rows):
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices((X[:rows], Y[:rows])).batch(BATCH)


#: What is fitted, by name. The rest of 312 rows are 8.
DATA = {
    "arrays": lambda: {"x": X, "y": Y, "shuffle": False},
    "shuffled": lambda: {"x": X, "y": Y, "validation_split": 0.2},
    "with a rest": lambda: {"x": X[:312], "y": Y[:312], "validation_data": (X, Y)},
    "on the device": lambda: {"x": jax.numpy.array(X), "y": jax.numpy.array(Y)},
    "drawn": lambda: {
        "x": draw,
        "steps_per_epoch": 20,
        "validation_data": draw,
        "validation_steps": 2,
    },
    "a data set": lambda: {
        "x": dataset(312),
        "shuffle": False,
        "validation_data": dataset(320),
    },
}


FUSED = [data for data in DATA if data != "a data set"]


def asked(cls):
    """The loop, however short the training is."""
    return {"steps_per_execution": 100} if cls is keras_nalu.Sequential else {}


def left_to_keras():
    return pytest.warns(UserWarning, match="^Training step by step, as Keras does: the")


def train(cls, data, way=None, **compiled):
    distribution.set_distribution(way and way())
    model = made(cls, **asked(cls) | compiled)
    # None is 32, where arrays are batched.
    size = BATCH if data in ("arrays", "shuffled", "with a rest") else None
    history = model.fit(**DATA[data](), batch_size=size, epochs=3, verbose=0).history
    return model, history


@pytest.mark.parametrize("data", ["arrays", "a data set"])
@ways
def test_keras_fit_ends_as_on_one_device(data, way):
    alone = train(keras.Sequential, data)
    assert_alike(alone, train(keras.Sequential, data, way))
    assert_alike(alone, train(keras_nalu.Sequential, data, way, steps_per_execution=1))


def test_a_data_set_is_left_to_keras():
    alone = train(keras.Sequential, "a data set")
    with left_to_keras():
        spread = train(keras_nalu.Sequential, "a data set", data_parallel)
    assert_alike(alone, spread)
    assert not spread[0].train_function.loops
    assert not spread[0].test_function.loops


@pytest.mark.parametrize(
    ("way", "data"),
    [
        *((data_parallel, data) for data in FUSED),
        *((model_parallel, data) for data in ("with a rest", "drawn")),
    ],
)
def test_fused_fit_ends_as_on_one_device(data, way, monkeypatch):
    alone = train(keras_nalu.Sequential, data)
    chunks = count_chunks(monkeypatch)
    spread = train(keras_nalu.Sequential, data, way)
    # One an epoch, of the training and of the validation.
    assert len(chunks) == (3 if data in ("arrays", "on the device") else 6)
    assert_alike(alone, spread)
    model, _ = spread
    cut = [not w.value.sharding.is_fully_replicated for w in model.trainable_weights]
    assert cut == [way is model_parallel, way is model_parallel, False]
    first, kernel, bias = model.get_weights()
    answers = model.predict(X, BATCH, verbose=0)
    np.testing.assert_allclose(answers, X @ first @ kernel + bias, rtol=1e-5)
    error = model.evaluate(X, Y, BATCH, verbose=0)[1]
    np.testing.assert_allclose(error, np.abs(answers - Y).mean(), rtol=1e-5)
    loops = {**model.test_function.loops}
    model.evaluate(X, Y, BATCH, verbose=0)
    assert model.test_function.loops == loops


def count_chunks(monkeypatch):
    advance, chunks = Run.advance, []

    def counted(self, *args):
        results = advance(self, *args)
        chunks.append(1)
        return results

    monkeypatch.setattr(Run, "advance", counted)
    return chunks


@pytest.mark.parametrize("steps", [7, 19])
def test_several_chunks_an_epoch_end_as_on_one_device(steps, monkeypatch):
    chunks = count_chunks(monkeypatch)
    ends = [
        train(keras_nalu.Sequential, "with a rest", way, steps_per_execution=steps)
        for way in (None, data_parallel)
    ]
    # 20 batches of the training and of the validation; the rest is the 20th.
    in_each = -(-20 // steps)
    assert len(chunks) == 2 * 3 * 2 * in_each
    assert_alike(*ends)


def test_blocks_of_a_large_file_go_to_all_devices(monkeypatch):
    alone = train(keras_nalu.Sequential, "shuffled")
    monkeypatch.setattr("keras_nalu.models.feeds.arrays.RESIDENT_BYTES", 0)
    monkeypatch.setattr("keras_nalu.models.feeds.arrays.BLOCK_BYTES", 2000)
    assert_alike(alone, train(keras_nalu.Sequential, "shuffled", data_parallel))


def small(**compiled):
    distribution.set_distribution(data_parallel())
    model = keras_nalu.Sequential([keras.Input((2,)), layers.Dense(4)])
    model.compile("sgd", "mse", metrics=["mae"], **asked(type(model)) | compiled)
    model.fit(X, Y, BATCH, verbose=0)
    return model


def assert_still(model, weights):
    for a, b in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_uneven_batches_of_arrays_are_refused_before_anything_is_trained():
    model = small()
    before = model.get_weights()

    def fails(what, call, *args, **options):
        said = rf"cut into 8 equal parts, .*Received: {what}\. Try .* multiples of 8"
        with pytest.raises(ValueError, match=said):
            call(*args, verbose=0, **options)

    fails("320 rows, in batches of 20", model.fit, X, Y, 20)
    fails("319 rows, in batches of 16", model.fit, X[1:], Y[1:], BATCH)
    fails("307 rows, .*", model.fit, X, Y, BATCH, validation_split=0.04)
    fails("33 rows, .*", model.fit, X, Y, BATCH, validation_data=(X[:33], Y[:33]))
    of_40 = {"validation_data": (X[:40], Y[:40]), "validation_batch_size": 20}
    fails("40 rows, in batches of 20", model.fit, X, Y, BATCH, **of_40)
    fails("33 rows, .*", model.evaluate, X[:33], Y[:33])
    assert_still(model, before)


@pytest.mark.filterwarnings("ignore:Training step by step")
@pytest.mark.parametrize("steps", ["auto", 1])
def test_an_error_of_jax_leaves_the_weights(steps):
    """Keras takes them out of the variables while it works."""
    model, other = small(steps_per_execution=steps), small(steps_per_execution=steps)
    before = model.get_weights()
    other.set_weights(before)

    def fails(call, *args, **options):
        with pytest.raises(ValueError, match=UNEVEN):
            call(*args, verbose=0, **options)

    def fails_at_once(*args, **options):
        fails(*args, **options)
        assert_still(model, before)

    fails_at_once(model.fit, dataset(15), shuffle=False)
    fails_at_once(model.evaluate, dataset(33))
    for rows in (15, 33):
        fails_at_once(model.predict, X[:rows])
    odd = X[:15], Y[:15]
    if steps == "auto":
        fails_at_once(model.fit, lambda stream: odd, steps_per_epoch=2)
    # What it has trained stays, and it goes on.
    fails(model.fit, dataset(319), shuffle=False)
    other.fit(dataset(304), shuffle=False, verbose=0)
    assert_still(model, other.get_weights())
    for each in (model, other):
        each.fit(X, Y, BATCH, shuffle=False, verbose=0)
    assert_still(model, other.get_weights())


def members_draw(stream):
    x = stream.uniform((BATCH, 2), 1, 2)
    return x, x[..., :1] * x[..., 1:]


def batches():
    while True:
        yield X[:BATCH], PRODUCT[:BATCH]


#: What a population is fitted to; batches need not be even.
MEMBERS_DATA = {
    "shared": lambda: {"x": X, "y": PRODUCT, "validation_data": (X[:33], PRODUCT[:33])},
    "with a rest": lambda: {"x": X[:309], "y": PRODUCT[:309], "validation_split": 0.1},
    "own": lambda: {
        "x": OWN,
        "y": OWN.prod(2, keepdims=True),
        "sample_weight": OWN[..., 0],
        "shuffle": False,
    },
    "drawn": lambda: {"x": members_draw, "steps_per_epoch": 20},
    "a generator": lambda: {"x": batches(), "steps_per_epoch": 20, "shuffle": False},
}


def populate(data, way=None, callbacks=()):
    distribution.set_distribution(way and way())
    keras.utils.set_random_seed(1)
    template = [keras.Input((2,)), layers.Dropout(0.1), NMU(4), layers.Dense(1)]
    population = keras_nalu.Population(keras.Sequential(template), SIZE, seed=0)
    adam = optimizers.Adam(0.01, clipnorm=1.0)
    population.compile(adam, "mse", metrics=["mae", keras_nalu.SparsityError()])
    history = population.fit(
        **MEMBERS_DATA[data](), epochs=3, verbose=0, callbacks=[*callbacks]
    )
    return population, history


def assert_same_members(one, other):
    (population, history), (spread, seen) = one, other
    variables = [*population.variables, *population.optimizer.variables]
    others = [*spread.variables, *spread.optimizer.variables]
    for a, b in zip(variables, others, strict=True):
        a, b = map(keras.ops.convert_to_numpy, (a, b))
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    assert [*history.members] == [*seen.members]
    for name, values in history.members.items():
        np.testing.assert_allclose(seen.members[name], values, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("data", MEMBERS_DATA)
def test_a_population_is_the_same_spread_over_devices(data):
    alone = populate(data)
    told = answers(alone[0])
    population, _ = spread = populate(data, data_parallel)
    assert_same_members(alone, spread)
    of_members = [
        *population.weights,
        *population.optimizer.variables[2:],
        *population.metrics[-1].variables,
    ]
    for variable in of_members:
        shards = variable.value.addressable_shards
        assert len({shard.device for shard in shards}) == DEVICES
        assert {shard.data.shape[0] for shard in shards} == {SIZE // DEVICES}
    for a, b in zip(told, answers(population), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4)
    assert population.best(X, PRODUCT).evaluate(X, PRODUCT, 32, 0)[0] < 1


def test_each_device_has_the_data_of_its_members_alone(monkeypatch):
    seen = []
    put = jax.make_array_from_process_local_data

    def spy(*args):
        seen.append(put(*args))
        return seen[-1]

    monkeypatch.setattr(jax, "make_array_from_process_local_data", spy)
    populate("own", data_parallel)
    assert {array.ndim for array in seen} == {3, 4}
    for array in seen:
        shards = array.addressable_shards
        assert {shard.data.shape[2] for shard in shards} == {SIZE // DEVICES}


def answers(population):
    inputs = X[:5], OWN[:, :5]
    predictions = [population.predict(x, verbose=0) for x in inputs]
    return [*predictions, *population.evaluate(X, PRODUCT, verbose=0)]


@pytest.mark.parametrize("data", ["shared", "own", "drawn"])
def test_members_do_not_wait_for_each_other(data, monkeypatch):
    """The compiled loop has no exchange between devices."""
    compiled = []
    own = on_jax.compiled

    def spy(text, compile):
        program = own(text, compile)
        compiled.append(program.as_text())
        return program

    monkeypatch.setattr(on_jax, "compiled", spy)
    populate(data, data_parallel)
    assert any("while" in text for text in compiled)
    for exchange in "all-reduce all-gather all-to-all collective-permute".split():
        assert exchange not in "".join(compiled), exchange


def test_population_under_a_layout_of_the_models_weights():
    """Its members are spread over all devices of that, too."""
    assert_same_members(populate("shared"), populate("shared", model_parallel))


def test_a_population_is_saved_and_goes_on_alone(tmp_path):
    population, _ = populate("shared", data_parallel)
    population.save(tmp_path / "model.keras")
    told = population.evaluate(X, PRODUCT, verbose=0)
    distribution.set_distribution(None)
    loaded = keras_nalu.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.evaluate(X, PRODUCT, verbose=0), told)
    loaded.fit(X, PRODUCT, verbose=0)


def test_callbacks_change_a_spread_population(tmp_path):
    def callbacks():
        stop = keras_nalu.StopWhenSolved("loss", threshold=0.05)
        backup = keras_nalu.BackupAndRestore(tmp_path / "backup", [stop], delete=False)
        return [stop, backup]

    alone = populate("shared", callbacks=callbacks())
    (tmp_path / "backup").unlink()
    spread = populate("shared", data_parallel, callbacks())
    assert_same_members(alone, spread)
    # From the backup of its end, there is nothing left to train.
    assert_same_members(alone, populate("shared", data_parallel, callbacks()))


def test_members_that_do_not_fit_the_devices():
    distribution.set_distribution(data_parallel())
    template = keras.Sequential([keras.Input((2,)), layers.Dense(1)])
    with pytest.raises(
        ValueError,
        match=r"on each of 8 devices\. Received: size=25\. Try size=32, or "
        r"`keras.distribution.DataParallel\(devices=keras.distribution.list_devices\(\)"
        r"\[:5\]\)`",
    ):
        keras_nalu.Population(template, 25)
    five = distribution.DataParallel(devices=distribution.list_devices()[:5])
    distribution.set_distribution(five)
    template = keras.Sequential([keras.Input((2,)), layers.Dense(1)])
    population = keras_nalu.Population(template, 25)
    population.compile("sgd", "mse")
    population.fit(X, PRODUCT, verbose=0)
    assert len(population.weights[0].value.sharding.device_set) == 5


def test_a_population_made_before_the_distribution():
    population, _ = populate("shared")
    distribution.set_distribution(data_parallel())
    with pytest.raises(ValueError, match=r"made for one device.*set_distribution"):
        population.fit(X, PRODUCT, verbose=0)
