"""The tasks of the papers' benchmarks: samples, what is right, what is solved."""

import keras
import numpy as np
import pytest
from scipy import stats

from keras_nalu.benchmarks.tasks import (
    DISTRIBUTIONS,
    MIXED_SIGNS,
    RANGES,
    Arithmetic,
    Benford,
    Comparison,
    Exponential,
    FourFunctions,
    Halves,
    InaluArithmetic,
    Normal,
    Running,
    RunningImages,
    Simple,
    SingleModule,
    Uniform,
    Variant,
)

pytestmark = pytest.mark.skipif(
    keras.backend.backend() == "torch", reason="streams are TensorFlow's and JAX'"
)
SEEDS = 3
RUNS = range(SEEDS)
TASKS = [
    *(SingleModule(name) for name in ("add", "subtract", "multiply", "divide")),
    SingleModule("divide", inputs=10),
    SingleModule("divide", variants=MIXED_SIGNS),
    SingleModule("divide", variants=DISTRIBUTIONS),
    *(Arithmetic(name) for name in ("add", "divide", "square", "root")),
    Simple("multiply"),
    InaluArithmetic("multiply"),
    InaluArithmetic("multiply", inputs=10),
    Comparison("less"),
    Comparison("equal"),
    FourFunctions(),
    Running("add"),
    Running("multiply"),
]


def stream(members, seed=0):
    from keras_nalu.models.feeds.sampled import Stream

    return Stream(keras.ops.convert_to_tensor([seed, 0], "int32"), members)


def sample(task, part, seed=0):
    members = SEEDS * len(task.variants)
    x, y = task.sample(stream(members, seed), RUNS, part)
    shape = (len(task.variants), SEEDS)
    x, y = keras.ops.convert_to_numpy(x), keras.ops.convert_to_numpy(y)
    assert len(x) == len(y) == members
    return x.reshape(*shape, *x.shape[1:]), y.reshape(*shape, *y.shape[1:])


@pytest.mark.parametrize("task", TASKS, ids=str)
def test_every_seed_has_its_own_batches_and_all_the_same_held_out_rows(task):
    fixed = isinstance(task, Comparison)
    x, _ = sample(task, "training")
    assert x.shape[2] == task.batch_size
    assert np.array_equal(x[:, 0], x[:, 1]) == fixed
    for part in ("validation", "test"):
        x, y = sample(task, part)
        assert np.array_equal(x[:, 0], x[:, 1])
        assert np.isfinite(y).all()
        x, _ = sample(task, part, seed=1)
        again, _ = sample(task, part, seed=1)
        np.testing.assert_array_equal(x, again)


@pytest.mark.parametrize("variant", RANGES, ids=lambda variant: variant.name)
def test_the_ranges(variant):
    task = SingleModule("add", variants=(variant,))
    for part in ("training", "validation", "test"):
        x, _ = sample(task, part)
        intervals = variant.of(part).intervals
        inside = [(low <= x) & (x <= high) for low, high in intervals]
        assert np.all(sum(inside) == 1)
        for where, (low, high) in zip(inside, intervals, strict=True):
            assert where.mean() == pytest.approx(1 / len(intervals), abs=0.1)
            assert np.ptp(x[where]) > 0.9 * (high - low)


class Zeros:
    """Random numbers at their worst."""

    def uniform(self, shape, low=0.0, high=1.0, members=None):
        return keras.ops.concatenate(
            [keras.ops.full((members, *shape[:-1], 1), u) for u in (0.0, 0.5)], -1
        )


def test_no_divisor_is_zero():
    x, y = SingleModule("divide", variants=RANGES[4:5]).sample(Zeros(), RUNS)
    assert np.isfinite(keras.ops.convert_to_numpy(y)).all()
    assert (keras.ops.convert_to_numpy(x)[..., 1] == 2**-22).all()


def test_a_seed_sees_the_same_numbers_in_all_ranges():
    x, _ = sample(SingleModule("add"), "training")
    shares = []
    for variant, numbers in zip(RANGES, x, strict=True):
        ((low, high),) = variant.training.intervals
        shares.append((numbers - low) / (high - low))
    np.testing.assert_allclose(shares, shares[:1] * len(RANGES), atol=2e-5)


def test_the_two_that_matter_are_neighbours_and_their_place_is_the_seeds():
    task = SingleModule("divide", inputs=10)
    masks = task.masks(range(25))
    firsts = masks[..., 0].argmax(1)
    np.testing.assert_array_equal(masks.sum(1), 1)
    np.testing.assert_array_equal(masks[..., 1].argmax(1), firsts + 1)
    wanted = [np.random.RandomState(seed).randint(0, 9) for seed in range(25)]
    np.testing.assert_array_equal(firsts, wanted)
    x, y = sample(task, "test")
    for seed in range(SEEDS):
        right = x[:, seed, :, firsts[seed]] / x[:, seed, :, firsts[seed] + 1]
        np.testing.assert_allclose(y[:, seed, :, 0], right, rtol=1e-6)


def test_the_subsets_of_a_hundred_inputs():
    masks = Arithmetic("add").masks(range(20))
    np.testing.assert_array_equal(masks.sum(1), 25)
    np.testing.assert_array_equal(masks.prod(2).sum(1), 12)
    starts = [np.random.RandomState(seed).randint(0, 63) for seed in range(20)]
    np.testing.assert_array_equal(masks[..., 0].argmax(1), starts)
    np.testing.assert_array_equal(masks[..., 1].argmax(1), np.add(starts, 13))


@pytest.mark.parametrize(
    ("operation", "function"),
    {
        "add": np.add,
        "subtract": np.subtract,
        "multiply": np.multiply,
        "divide": np.divide,
        "square": lambda a, b: a**2,
        "root": lambda a, b: a**0.5,
    }.items(),
)
def test_answers(operation, function):
    task = Arithmetic(operation)
    x, y = sample(task, "test")
    masks = np.float64(task.masks(RUNS))
    for seed in range(SEEDS):
        sums = np.float64(x[0, seed]) @ masks[seed]
        right = function(*sums.T)
        np.testing.assert_allclose(y[0, seed, :, 0], right, rtol=2e-5, atol=1e-4)


def test_the_simple_task():
    x, y = sample(Simple("multiply"), "test")
    right = (x[..., 0] + x[..., 1]) * x.sum(-1)
    np.testing.assert_allclose(y[..., 0], right, rtol=1e-6)


def test_four_functions():
    x, y = sample(FourFunctions(), "test")
    assert x.shape == (1, SEEDS, 41**2 + 40**2, 2)
    wide, roots = x[0, 0, : 41**2], x[0, 0, 41**2 :]
    np.testing.assert_allclose([wide.min(), wide.max()], [-4.1, 3.9], rtol=1e-5)
    np.testing.assert_allclose([roots.min(), roots.max()], [0.1, 4.0], rtol=1e-5)
    a, b = np.float64(wide).T
    expected = np.stack([a + b, a * b, a / b], -1)
    np.testing.assert_allclose(y[0, 0, : 41**2, :3], expected, rtol=1e-5)
    np.testing.assert_allclose(y[0, 0, 41**2 :, 3], roots[:, 0] ** 0.5, rtol=1e-5)


def test_the_error_of_an_output_is_that_of_its_own_rows():
    y_true = sample(FourFunctions(), "test")[1][0, 0]
    y_pred = y_true.copy()
    y_pred[41**2 :, :3] += 7
    y_pred[: 41**2, 3] += 7
    y_pred[:41, 0] += 1
    for name, metric in FourFunctions().measures().items():
        metric.update_state(y_true, y_pred)
        expected = 1 / 41 if name == "add" else 0
        assert float(metric.result()) == pytest.approx(expected, abs=1e-6)


def test_comparisons_train_on_all_pairs_of_digits():
    x, y = sample(Comparison("less"), "training")
    pairs = {(int(a), int(b)) for a, b in x[0, 0]}
    assert pairs == {(a, b) for a in range(1, 10) for b in range(1, 10)}
    np.testing.assert_array_equal(y[0, 0, :, 0], x[0, 0, :, 0] < x[0, 0, :, 1])


def test_comparisons_test_whole_numbers_of_every_size():
    task = Comparison("equal")
    x, y = sample(task, "test")
    for numbers, digits in zip(x, task.digits, strict=True):
        assert numbers[..., 0].min() >= 10 ** (digits - 1)
        assert numbers[..., 0].max() < 10**digits
        np.testing.assert_array_equal(numbers, np.floor(numbers))
    apart = x[..., 1] - x[..., 0]
    assert {*np.unique(apart[:5])} == {*range(-5, 6)}
    np.testing.assert_array_equal(y[..., 0], apart == 0)


@pytest.mark.parametrize(("name", "length"), [("add", 1000), ("multiply", 20)])
def test_running_totals(name, length):
    x, y = sample(Running(name), "test")
    assert x.shape == y.shape == (1, SEEDS, 100, length, 1)
    total = np.cumsum if name == "add" else np.cumprod
    np.testing.assert_allclose(y, total(np.float64(x), axis=-2), rtol=1e-5)
    assert {*np.unique(x)} == {*range(0 if name == "add" else 1, 10)}


@pytest.mark.parametrize(("name", "length"), [("add", 100), ("multiply", 20)])
def test_running_totals_of_images(name, length):
    digits = pytest.importorskip("sklearn.datasets").load_digits()
    seen = {
        image.tobytes(): digit for image, digit in zip(*digits_of(digits), strict=True)
    }
    held_out = {image.tobytes() for image in digits_of(digits)[0][1200:]}
    x, y = sample(RunningImages(name), "test")
    assert x.shape == (1, SEEDS, 100, length, 64)
    images = x[0, 0].reshape(-1, 64)
    assert all(image.tobytes() in held_out for image in images)
    numbers = np.reshape([seen[image.tobytes()] for image in images], (100, length))
    total = np.cumsum if name == "add" else np.cumprod
    np.testing.assert_allclose(
        y[0, 0, ..., 0], total(np.float64(numbers), 1), rtol=1e-5
    )
    assert (numbers.min() == 0) == (name == "add")
    x, _ = sample(RunningImages(name), "training")
    assert not np.array_equal(x[0, 0], x[0, 1])
    assert not any(image.tobytes() in held_out for image in x[0, 0].reshape(-1, 64))


def digits_of(digits):
    return (digits.data / 16).astype("float32"), digits.target


@pytest.mark.parametrize(
    ("distribution", "law"),
    [
        (Uniform(((1, 3),)), stats.uniform(1, 2)),
        (Normal(-1, 3, -5, 10), stats.truncnorm(-4 / 3, 11 / 3, -1, 3)),
        (Normal(10, 3, 5, 15), stats.truncnorm(-5 / 3, 5 / 3, 10, 3)),
        (Exponential(0.5), stats.expon(scale=0.5)),
        (Benford(10, 100), stats.loguniform(10, 100)),
    ],
    ids=["uniform", "normal", "far normal", "exponential", "benford"],
)
def test_distributions(distribution, law):
    u = np.linspace(0, 1, 1001, endpoint=False, dtype="float32")
    x = keras.ops.convert_to_numpy(distribution.sample(u))
    np.testing.assert_allclose(x, law.ppf(u), rtol=1e-4, atol=1e-4)


def test_the_distributions_of_inalu():
    x, _ = sample(InaluArithmetic("add"), "test")
    names = [variant.name for variant in InaluArithmetic("add").variants]
    assert names == "U(-1,1) U(-5,5) N(-3,3) N(-2,4) N(-4,2) Exp(0.2) Exp(0.8)".split()
    near, _ = sample(InaluArithmetic("add"), "validation")
    means = [0, 0, 0, 1, -1, 0.2, 0.8]
    np.testing.assert_allclose(near.mean((1, 2, 3)), means, atol=0.3)
    np.testing.assert_allclose(near[2:5].std((1, 2, 3)), 1, atol=0.05)
    means = [-7.5, -7.5, 9, 9, 9, 0.5, 0.5]
    np.testing.assert_allclose(x.mean((1, 2, 3)), means, atol=0.15)


def test_several_intervals_and_halves():
    u = np.array([0, 0.25, 0.5, 0.75], "float32")
    x = Uniform(((-6, -2), (2, 6))).sample(u)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(x), [-6, -4, 2, 4])
    x = Halves(Uniform(((0, 1),)), Uniform(((-2, 0),))).sample(u)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(x), [0, 0.25, -1, -0.5])


def test_mixed_signs_are_of_the_dividend_and_the_divisor():
    x, _ = sample(SingleModule("divide", variants=MIXED_SIGNS), "training")
    signs = [np.sign(np.mean(numbers, axis=(0, 1))).tolist() for numbers in x[1:]]
    assert signs == [[-1, 1], [1, -1], [-1, 1], [1, -1]]


# Thresholds: the published numbers, and closed forms.


@pytest.mark.parametrize("operation", Arithmetic.PUBLISHED)
def test_published_thresholds_and_the_rule_that_made_them(operation):
    task = Arithmetic(operation)
    assert task.thresholds() == [Arithmetic.PUBLISHED[operation]]
    simulated = task._perturbed(task.variants[0], rows=100_000)
    # A tenth of the published rows, hence the tolerance.
    assert simulated == pytest.approx(task.PUBLISHED[operation], rel=0.02)


def test_thresholds_of_another_range():
    task = Arithmetic("multiply", variants=(RANGES[5],))
    assert task._perturbed(RANGES[5], rows=100_000) == pytest.approx(
        9.20448e-4, rel=0.02
    )


def test_thresholds_count_an_input_more_where_nothing_overlaps_too():
    task = Arithmetic("multiply", inputs=4)
    (variant,) = task.variants
    assert task._perturbed(variant, rows=100_000) == pytest.approx(7.104e-8, rel=0.02)


@pytest.mark.parametrize("task", [Simple("divide"), Arithmetic("add", threshold="x")])
def test_thresholds_that_nobody_has(task):
    with pytest.raises(ValueError, match="threshold"):
        task.thresholds()


def test_a_threshold_of_ones_own():
    assert Simple("divide", threshold=1.0).thresholds() == [1.0]


@pytest.mark.parametrize(
    ("operation", "inputs", "published"),
    [
        ("add", 2, [3.667e-5, 6.667e-7, 5.729e-7, 5.380e-8, 6.667e-7]),
        ("multiply", 2, [3.484e-2, 1.202e-5, 9.391e-6, 8.761e-8, 1.202e-5]),
        ("divide", 2, [4.666e-8, 5.777e-8, 8.372e-8, 1.480e-7, 5.777e-8]),
        ("add", 10, [9.033e-4, 1.613e-5, 1.352e-5, 1.237e-6, 1.613e-5]),
    ],
)
def test_perturbed_thresholds_of_single_modules(operation, inputs, published):
    task = SingleModule(operation, inputs=inputs, threshold="perturbed")
    found = [task._perturbed(variant, rows=100_000) for variant in RANGES[:5]]
    np.testing.assert_allclose(found, published, rtol=0.02)


def test_the_published_rule_of_single_modules_is_one_number():
    assert SingleModule("add").thresholds() == [1e-5] * 9


def test_a_variant_has_a_test_of_its_own():
    variant = Variant("mine", Uniform(((0, 1),)), Uniform(((5, 6),)))
    assert variant.of("training") == variant.of("validation") == variant.training
    assert variant.of("test") == variant.test
