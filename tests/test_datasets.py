import keras
import numpy as np
import pytest

from keras_nalu.datasets import EXTRAPOLATION, OPERATIONS, generate_dataset


@pytest.mark.parametrize("seed", [0, 1, 2018])
@pytest.mark.parametrize("size", [1, 10, 10000])
def test_default_is_the_notebook_bit_for_bit(seed, size):
    np.random.seed(seed)  # noqa: NPY002
    X = np.random.randint(9, size=(size, 2))  # noqa: NPY002
    Y = np.prod(X, axis=1, keepdims=True)
    ours = generate_dataset(size, seed)
    np.testing.assert_array_equal(ours[0], X, strict=True)
    np.testing.assert_array_equal(ours[1], Y, strict=True)


def test_size_is_the_notebooks():
    X, Y = generate_dataset()
    assert X.shape == (10000, 2)
    assert Y.shape == (10000, 1)


def test_without_a_seed_keras_sets_it():
    def draw():
        keras.utils.set_random_seed(7)
        return generate_dataset(100)[0]

    np.testing.assert_array_equal(draw(), draw())
    assert (generate_dataset(100)[0] != generate_dataset(100)[0]).any()
    keras.utils.set_random_seed(7)
    np.testing.assert_array_equal(draw(), generate_dataset(100, seed=7)[0])


def test_a_seed_leaves_the_global_generator_alone():
    keras.utils.set_random_seed(7)
    before = generate_dataset(100)[0]
    keras.utils.set_random_seed(7)
    generate_dataset(100, seed=3)
    np.testing.assert_array_equal(generate_dataset(100)[0], before)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(
    "span", [(0, 9), (100, 1000), (-5, 6), (-9, -1), (0, 2), (-1, 1), (-(2**31), 2**31)]
)
def test_labels_and_ranges(operation, span):
    low, high = span
    X, Y = generate_dataset(2000, 0, operation=operation, low=low, high=high)
    compute = {
        "add": lambda a, b: a + b,
        "subtract": lambda a, b: a - b,
        "multiply": lambda a, b: a * b,
        "divide": lambda a, b: a / b,
    }[operation]
    expected = [[compute(a, b)] for a, b in X.tolist()]
    assert Y.tolist() == expected
    assert X.min() >= low
    assert X.max() < high
    values = set(range(low, high)) if high - low < 2000 else set()
    divisors = values - {0} if operation == "divide" else values
    if high - low < 20:
        assert set(X[:, 0].tolist()) == values
        assert set(X[:, 1].tolist()) == divisors
    if operation == "divide":
        assert np.isfinite(Y).all()
        assert (X[:, 1] != 0).all()
        assert Y.dtype == np.float64
    else:
        assert Y.dtype == X.dtype


def test_every_divisor_is_as_likely_as_another():
    X, _ = generate_dataset(40000, 0, operation="divide", low=-2, high=3)
    counts = np.unique(X[:, 1], return_counts=True)[1]
    assert counts.min() > 9600


def test_extrapolation():
    X, Y = generate_dataset(1000, 0, **EXTRAPOLATION)
    assert 100 <= X.min() < 110
    assert 990 < X.max() < 1000
    np.testing.assert_array_equal(Y, X.prod(axis=1, keepdims=True))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            {"operation": "mod"},
            r"one of 'add'.* Received: operation='mod'\. Try",
        ),
        ({"operation": None}, r"one of 'add'.* Received: operation=None"),
        ({"operation": ["add"]}, r"one of 'add'.* Received: operation=\['add'\]"),
        ({"low": 0.5}, r"`low`, expected an integer. Received: low=0.5"),
        ({"high": "9"}, r"`high`, expected an integer. Received: high='9'"),
        ({"low": 9}, r"Expected low < high.* Received: low=9, high=9. Try low=0"),
        ({"low": 3, "high": 1}, r"Expected low < high.* Received: low=3, high=1"),
        ({"low": -(2**31) - 1}, r"between -2\*\*31 and 2\*\*31"),
        ({"high": 2**31 + 1}, r"between -2\*\*31 and 2\*\*31"),
        (
            {"operation": "divide", "low": 0, "high": 1},
            r"Received: low=0, high=1",
        ),
    ],
)
def test_errors(arguments, text):
    with pytest.raises(ValueError, match=text):
        generate_dataset(10, 0, **arguments)


@pytest.mark.parametrize("size", [2.5, "3", None, True, (3, 4)])
def test_a_size_is_an_integer(size):
    with pytest.raises(
        ValueError, match=r"expected an integer of 0 or more\. Received: size="
    ):
        generate_dataset(size)


def test_a_size_is_not_negative():
    with pytest.raises(
        ValueError, match=r"expected an integer of 0 or more\. Received: size=-1"
    ):
        generate_dataset(-1)
    assert generate_dataset(0)[1].shape == (0, 1)


def test_one_integer_other_than_zero_is_a_range():
    X, Y = generate_dataset(5, 0, operation="divide", low=3, high=4)
    assert set(X.ravel().tolist()) == {3}
    assert set(Y.ravel().tolist()) == {1.0}
