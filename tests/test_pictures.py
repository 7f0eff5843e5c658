"""The pictures of the Images tab, pixel by pixel where that says something."""

import numpy as np
import pytest

from keras_nalu.pictures import CELL, TEXT, fan, heat_map


def corner(picture, row, column, gap=0):
    """The colour of a cell near its corner, where no digit is."""
    y, x = 2 * TEXT + CELL * row + gap + 4, 4 * TEXT + CELL * column + 4
    return picture[y, x].tolist()


def test_minus_one_is_blue_zero_white_one_red_and_not_a_number_black():
    picture = heat_map(np.array([[-1.0, 0], [1, np.nan]]))
    colors = [corner(picture, i, j) for i in (0, 1) for j in (0, 1)]
    assert colors == [[0, 0, 255], [255, 255, 255], [255, 0, 0], [0, 0, 0]]


def test_the_scale_does_not_follow_the_kernel():
    picture = heat_map(np.array([[-0.5, 0.25], [3, -4]]))
    colors = [corner(picture, i, j) for i in (0, 1) for j in (0, 1)]
    assert colors == [[128, 128, 255], [255, 191, 191], [255, 0, 0], [0, 0, 255]]


def test_the_gate_is_a_row_of_its_own():
    kernel = np.array([[1.0, 0]])
    without, picture = heat_map(kernel), heat_map(kernel, np.array([0.0, 1.0]))
    assert len(picture) == len(without) + CELL + TEXT
    shown = [corner(picture, 1, column, gap=TEXT) for column in (0, 1)]
    assert shown == [[255, 255, 255], [255, 0, 0]]


def test_values_and_labels_are_written():
    plain = heat_map(np.array([[0.25]]))
    other = heat_map(np.array([[0.2501]]))
    np.testing.assert_array_equal(plain, other)  # two decimals
    assert (plain != heat_map(np.array([[0.26]]))).any()
    label = plain[2 * TEXT + CELL // 4 : 2 * TEXT + 3 * CELL // 4, : 4 * TEXT - 4]
    assert (label < 100).any()


@pytest.mark.parametrize("shape", [(600, 20), (13, 1), (1, 5000)])
def test_a_large_kernel_is_bounded(shape):
    picture = heat_map(np.ones(shape))
    assert max(picture.shape) <= 512
    assert (picture == [255, 0, 0]).all()


def test_the_fan_has_the_median_within_the_middle_half_within_all():
    losses = np.outer(np.ones(50), 10.0 ** np.arange(-4, 1))
    column = fan(losses)[:, 200].tolist()
    colors = [[222, 233, 243], [166, 198, 224], [33, 102, 172]]
    places = [[y for y, pixel in enumerate(column) if pixel == c] for c in colors]
    assert all(places)
    all_, middle, median = places
    assert min(all_) < min(middle) < min(median)
    assert max(median) < max(middle) < max(all_)


@pytest.mark.parametrize(
    "losses", [np.full((3, 2), np.nan), np.zeros((3, 2)), np.ones((1, 2))]
)
def test_a_fan_of_few_or_no_losses_is_a_picture(losses):
    assert fan(losses).shape == (240, 340, 3)


def test_a_member_that_diverged_is_left_out():
    losses = np.ones((4, 3))
    diverged = np.c_[losses, [1, np.inf, np.nan, np.nan]]
    assert (fan(losses)[40:] == fan(diverged)[40:]).all()
