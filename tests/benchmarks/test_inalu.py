"""The published training, stated dumbly for one model, says what is right."""

import functools

import keras
import numpy as np
import pytest

from keras_nalu import Population
from keras_nalu.benchmarks import inalu
from keras_nalu.benchmarks.recipes import adam
from keras_nalu.benchmarks.reinitialize import INALUReinitialize
from keras_nalu.regularizers import INALUPenalty

pytestmark = pytest.mark.skipif(
    keras.backend.backend() == "torch", reason="trains no populations"
)
slow = pytest.mark.slow
BATCH, STEPS, MEMBERS = 8, 7, 4


def template(layers):
    return keras.Sequential([keras.Input((2,)), *layers])


def numpy(variables):
    return [keras.ops.convert_to_numpy(v) for v in variables]


def members(variables):
    """Of every member, the arrays."""
    return [[np.float64(a[i]) for a in numpy(variables)] for i in range(MEMBERS)]


@functools.cache
def data():
    """Sums of each member's own inputs; the first's are small, the last's none."""
    rng = np.random.default_rng(0)
    scale = np.array([0.3, 1.3, 30.0, np.nan])[:, None, None]
    x = rng.uniform(-1, 1, (MEMBERS, STEPS * BATCH, 2)) * scale
    return x.astype("float32"), x.sum(-1, keepdims=True).astype("float32")


def batches(member):
    x, y = data()
    return zip(np.split(x[member], STEPS), np.split(y[member], STEPS), strict=True)


def loss_and_gradients(layer, weights, x, y, differentiate):
    for variable, value in zip(layer.trainable_variables, weights, strict=True):
        variable.assign(value)
    error = keras.ops.convert_to_numpy(layer(x)) - y
    _, gradients = differentiate(layer, x, 2 * error / len(x))
    gradients = [gradients[v.name] for v in layer.trainable_variables]
    return np.mean(error**2), [np.float64(g) for g in gradients]


def train_alone(layer, weights, member, epochs, begin, differentiate):
    """Their scripts' loop, of one model."""
    means, squares = ([np.zeros_like(w) for w in weights] for _ in range(2))
    names = [v.name for v in layer.trainable_variables]
    turns = ([name not in "gG" for name in names], [name in "gG" for name in names])
    t = 0

    def apply(due, gradients):
        nonlocal t
        t += 1
        rate = 1e-3 * np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        for i in np.flatnonzero(due):
            g = np.clip(gradients[i], -0.1, 0.1)
            means[i] = 0.9 * means[i] + 0.1 * g
            squares[i] = 0.999 * squares[i] + 0.001 * g**2
            weights[i] = weights[i] - rate * means[i] / (np.sqrt(squares[i]) + 1e-8)

    losses, penalized = [], []
    for _ in range(epochs):
        for x, y in batches(member):
            loss, gradients = loss_and_gradients(layer, weights, x, y, differentiate)
            apply(turns[len(losses) % 10 >= 8], gradients)
            penalized.append(len(losses) >= begin and loss < 1)
            if penalized[-1]:
                for due in turns:
                    slopes = [np.where(np.abs(w) < 20, -np.sign(w), 0) for w in weights]
                    apply(due, [0.05 * g / g.size for g in slopes])
            losses.append(loss)
    return weights, squares, losses, penalized


def recipe(module, begin=11_000):
    crowd = inalu.PenalizedPopulation(template([inalu.MODULES[module](1)]), MEMBERS)
    crowd.compile(inalu.INALUAdam(begin=begin), "mse")
    crowd.optimizer.build(crowd.trainable_variables)
    return start(crowd)


def start(crowd):
    """With weights that are the same on every backend."""
    rng = np.random.default_rng(1)
    for variable in crowd.trainable_variables:
        variable.assign(rng.normal(0.5, 0.5, variable.shape))
    return crowd


def fit(crowd, *callbacks, epochs=1, steps=STEPS):
    x, y = (a[:, : steps * BATCH] for a in data())
    options = {"shuffle": False, "verbose": 0, "callbacks": [*callbacks]}
    return crowd.fit(x, y, batch_size=BATCH, epochs=epochs, **options)


@slow
@pytest.mark.parametrize("module", ["INALU", "SharedINALU", "NALU"])
def test_members_train_as_the_published_loop(module, differentiate):
    crowd = recipe(module, begin=4)
    # A weight beyond 20 is not penalized, and one that steps over it stays there.
    stacked = numpy(crowd.trainable_variables)[0]
    stacked[0] = [[25], [19.9995]]
    crowd.trainable_variables[0].assign(stacked)
    before = members(crowd.trainable_variables)
    logs = fit(crowd, epochs=2).members
    trained = members(crowd.trainable_variables)
    squares = members(crowd.optimizer.squares)
    layer = inalu.MODULES[module](1)
    layer.build((None, 2))
    seen = []
    for i in range(MEMBERS - 1):
        weights, slots, losses, penalized = train_alone(
            layer, before[i], i, 2, 4, differentiate
        )
        found = [*trained[i], *squares[i]]
        for a, b in zip(found, [*weights, *slots], strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)
        epochs = np.reshape(losses, (2, STEPS))
        for name, expected in {
            "loss": epochs.mean(1),
            "last_batch_loss": epochs[:, -1],
            "batch_loss_deviation": epochs.std(1),
        }.items():
            np.testing.assert_allclose(logs[name][:, i], expected, rtol=1e-3)
        seen.append(sum(penalized))
    # Each by its own losses: from then on always, at times, and never.
    assert seen[0] == 2 * STEPS - 4
    assert 0 < seen[1] < seen[0]
    assert seen[2] == 0
    assert np.isnan(trained[3][0]).all()


def test_kernels_and_gates_take_turns():
    optimizer = inalu.INALUAdam(0.01)
    variables = [
        keras.Variable(np.ones(3), dtype="float32", name=name)
        for name in ("M_hat", "g", "G")
    ]
    gradients = [np.array([3, -0.05, 0], "float32")] * 3
    trained = []
    for _ in range(20):
        before = numpy(variables)
        optimizer.apply(gradients, variables)
        trained.append([np.any(a != b) for a, b in moves(before, variables)])
    kernels, gates = [True, False, False], [False, True, True]
    assert trained == ([kernels] * 8 + [gates] * 2) * 2
    # What was not trained has kept its moments; all count all steps.
    slots = optimizer.means, optimizer.squares, optimizer.counts
    for mean, square, count, steps in zip(*map(numpy, slots), [16, 4, 4], strict=True):
        g = np.array([0.1, -0.05, 0])
        np.testing.assert_allclose(mean, (1 - 0.9**steps) * g, rtol=1e-5)
        np.testing.assert_allclose(square, (1 - 0.999**steps) * g**2, rtol=1e-4)
        assert (count == 20).all()


def moves(before, variables):
    return zip(before, numpy(variables), strict=True)


def test_steps_along_the_penalty():
    """The gradient of the penalty that the package has, by differences."""
    crowd = recipe("INALU", begin=-1)
    penalty, h = INALUPenalty(0.05), 0.25
    before = numpy(crowd.trainable_variables)
    crowd.optimizer.penalize(crowd.trainable_variables, np.array([0.9, 1.0, 0, np.nan]))
    for old, new in moves(before, crowd.trainable_variables):
        for member, due in enumerate([True, False, True, False]):
            w = old[member]
            slope = np.zeros_like(w)
            for i in np.ndindex(w.shape):
                step = np.zeros_like(w)
                step[i] = h * np.sign(w[i]) if abs(w[i]) > h else w[i]
                ends = [float(penalty(w + sign * step)) for sign in (1, -1)]
                slope[i] = (ends[0] - ends[1]) / (2 * step[i])
            # The first steps of Adam are as long for any slope; the gates' is a second.
            t = 2 if w.shape == (1,) else 1
            rate = 1e-3 * np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
            step = rate * 0.1 * slope / np.sqrt(0.001 * slope**2)
            np.testing.assert_allclose(new[member], w - due * step, atol=2e-6)


def test_what_is_kept_and_refused():
    given = inalu.INALUAdam(0.02, clipvalue=0.3, begin=7)
    config = keras.saving.serialize_keras_object(given)
    again = keras.saving.deserialize_keras_object(config)
    assert again.get_config() == given.get_config()
    assert (again.clipvalue, again.begin) == (0.3, 7)
    crowd = recipe("NALU")
    member = crowd.member(1)
    x, y = (a[1, :BATCH] for a in data())
    member.fit(x, y, verbose=0)
    assert int(member.optimizer.iterations) == 1
    assert len(member.optimizer.variables) == 2 + 9


@slow
def test_a_population_that_was_saved_goes_on(tmp_path):
    crowd = recipe("INALU", begin=0)
    fit(crowd, steps=1)
    crowd.save(tmp_path / "crowd.keras")
    again = keras.saving.load_model(tmp_path / "crowd.keras")
    for each in (crowd, again):
        fit(each, steps=1)
        assert int(each.optimizer.iterations) == 2
    pairs = moves(numpy(crowd.trainable_variables), again.trainable_variables)
    for a, b in pairs:
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_a_custom_optimizer_says_that_it_is_elementwise():
    class Mine(keras.optimizers.SGD):
        pass

    crowd = Population(template([keras.layers.Dense(1)]), 2)
    with pytest.raises(ValueError, match=r"Mine.*set `elementwise = True`"):
        crowd.compile(Mine(), "mse")
    Mine.elementwise = True
    crowd.compile(Mine(), "mse")


NORMALS = {
    "INALU": (inalu.MODULES["INALU"], (1, -1, 1, -1, 0), 0.1),
    "SharedINALU": (inalu.MODULES["SharedINALU"], (1, -1, 0), 0.1),
    "NALU": (inalu.MODULES["NALU"], (1, -1, 0), 0.1),
    "port": (inalu.PortedINALU, (0.88, 0.5, 0.88, 0.5, 0), 0.2),
}


@pytest.mark.parametrize(
    "name",
    ["INALU", "port", *(pytest.param(n, marks=slow) for n in ("NALU", "SharedINALU"))],
)
def test_initial_normals(name):
    layer, means, deviation = NORMALS[name]
    crowd = Population(template([layer(1)]), 2000, seed=0)
    drawn = numpy(crowd.trainable_variables)
    for w, mean in zip(drawn, means, strict=True):
        assert w.mean() == pytest.approx(mean, abs=0.03)
        assert w.std() == pytest.approx(deviation, rel=0.1)
    assert np.all(drawn[0] != drawn[1])


@slow
def test_reinitializes_by_the_losses_without_the_penalty():
    crowd = recipe("INALU", begin=-1)
    reinitialize = INALUReinitialize(every=1, losses=STEPS, threshold=2.0)
    fit(crowd, reinitialize, epochs=2)
    assert [*reinitialize.reinitialized] == [0, 0, 1, 0]


def port_population():
    crowd = Population(template([inalu.PortedINALU(1)]), MEMBERS)
    crowd.compile(adam(clipvalue=0.1), "mse")
    return start(crowd)


@slow
def test_port_penalizes_by_the_last_measured_error(differentiate):
    crowd = port_population()
    before = members(crowd.trainable_variables)
    # Epoch by epoch; the first of them is too early.
    errors = np.array([[0, 0, 2, 0], [0.5, 1, 2, 0], [1, 0.9, np.nan, 0]], float)
    measured = iter(errors)
    steps = 3
    fit(
        crowd,
        inalu.PenalizeByError(lambda: next(measured), begin=1),
        epochs=3,
        steps=steps,
    )
    trained = members(crowd.trainable_variables)
    layer = inalu.PortedINALU(1)
    layer.build((None, 2))
    for i in range(MEMBERS - 1):
        weights = before[i]
        m = v = [np.zeros_like(w) for w in weights]
        for t in range(3 * steps):
            x, y = [*batches(i)][t % steps]
            _, gradients = loss_and_gradients(layer, weights, x, y, differentiate)
            epoch = t // steps
            on = epoch >= 1 and errors[epoch, i] < 1
            g = [
                np.clip(g - on * 0.05 * np.sign(w) / w.size, -0.1, 0.1)
                for g, w in zip(gradients, weights, strict=True)
            ]
            m = [0.9 * a + 0.1 * b for a, b in zip(m, g, strict=True)]
            v = [0.999 * a + 0.001 * b**2 for a, b in zip(v, g, strict=True)]
            rate = 1e-3 / (1 - 0.9 ** (t + 1))
            root = [np.sqrt(a / (1 - 0.999 ** (t + 1))) for a in v]
            weights = [
                w - rate * a / (b + 1e-8)
                for w, a, b in zip(weights, m, root, strict=True)
            ]
        for a, b in zip(trained[i], weights, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)
    (layer,) = crowd.template.layers
    (on,) = numpy([crowd.stacked(layer.is_penalized)])
    assert [*on] == [0, 1, 0, 1]


def test_port_reinitializes_by_its_list_of_errors():
    """Their rule, on a list with the stale error of every step."""
    rng = np.random.default_rng(0)
    errors = rng.gamma(0.3, 4, (12, MEMBERS)) + np.linspace(3, 0, 12)[:, None]
    errors[:, 1] = np.linspace(100, 0.1, 12)
    errors[:, 2] = 0.7
    errors[2:, 3] = np.nan
    measured = iter(errors)
    penalize, reinitialize = inalu.port_callbacks(lambda: next(measured))
    assert isinstance(penalize, inalu.PenalizeByError)
    assert (reinitialize.losses, reinitialize.threshold) == (5000, 1)
    reinitialize = inalu.ReinitializeByError(reinitialize.errors, losses=3 * 2)
    crowd, counts = port_population(), []
    before = numpy(crowd.trainable_variables)
    reinitialize.set_model(crowd)
    reinitialize.set_params({"steps": 2})
    reinitialize.on_train_begin()
    for epoch in range(12):
        reinitialize.on_epoch_begin(epoch)
        counts.append(reinitialize.reinitialized)
        reinitialize.on_epoch_end(epoch)
    for i in range(MEMBERS):
        said, stored = [], []
        for error in errors[:, i]:
            half = len(stored) // 2
            first, second = stored[:half], stored[half:]
            stuck = (
                len(stored) >= 6
                and np.mean(first) <= np.mean(second) + np.std(second)
                and np.mean(second) > 1
            )
            said.append(stuck)
            stored = [*([] if stuck else stored), error, error]
        assert [*np.cumsum(said)] == [count[i] for count in counts]
    assert counts[-1][0] >= 2
    assert [*counts[-1][1:]] == [0, 0, 0]
    for old, new in moves(before, crowd.trainable_variables):
        assert np.all(old[0] != new[0])
