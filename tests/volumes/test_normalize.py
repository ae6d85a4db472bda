"""Brain mask and z-score, by hand."""

import numpy as np
import pytest

from pixelnet_tf.errors import DataError
from pixelnet_tf.volumes.normalize import brain_mask, core_of, otsu_threshold, z_score


def test_skull_stripped_mask_unites_channels_and_fills_holes():
    channels = np.zeros((7, 7, 2, 2), np.float32)
    channels[1:6, 1:6, 0, 0] = 5
    channels[3, 3, 0, 0] = 0
    channels[0, 0, 1, 1] = -2
    mask = brain_mask(channels, skull_stripped=True)
    expected = np.zeros((7, 7, 2), bool)
    expected[1:6, 1:6, 0] = True
    expected[0, 0, 1] = True
    np.testing.assert_array_equal(mask, expected)


def test_mask_of_a_head_in_noise(ball):
    rng = np.random.default_rng(1)
    noise = np.abs(rng.normal(0, 6, (*ball.shape, 2)))
    channels = np.stack([ball, 0.01 * ball], axis=-1) + noise * [1, 0.01]
    channels[0, 0, 0] = [500, 0]
    mask = brain_mask(channels.astype(np.float32), skull_stripped=False)
    assert mask[ball > 0].all()
    assert not mask[0, 0, 0]
    assert mask.sum() < 1.6 * (ball > 0).sum()


@pytest.mark.parametrize("slices", [1, 4, 9])
def test_a_head_goes_on_beyond_the_outermost_slices_and_a_cut_field_of_view(slices):
    head = np.zeros((30, 24, slices), bool)
    head[6:26, 9:] = True
    gaps = head.copy()
    gaps[12:15, 14, :] = False
    channels = np.float32(100 * gaps)[..., None]
    grown = head.copy()
    grown[5:27, 9:] = grown[6:26, 8:] = True
    np.testing.assert_array_equal(brain_mask(channels, skull_stripped=False), grown)


def test_a_volume_without_any_patient_is_refused():
    with pytest.raises(DataError, match=r"no voxel belongs to the patient.*study\.files"):
        brain_mask(np.zeros((6, 6, 3, 2), np.float32), skull_stripped=True)


def test_otsu_parts_two_heaps():
    assert 3 < otsu_threshold(np.array([1, 2, 3] * 10 + [10, 11, 12] * 5, float)) <= 10


def test_z_score_over_the_brain_by_hand():
    array = np.array([2, 4, 0, 9], np.float32).reshape(2, 2, 1)
    mask = np.array([True, True, False, False]).reshape(2, 2, 1)
    scaled, mean, std = z_score(array, mask, "brain")
    assert (mean, std) == (3.0, 1.0)
    np.testing.assert_array_equal(scaled.ravel(), [-1, 1, 0, 0])


def test_z_score_over_the_volume_is_the_papers_literal_reading(ball):
    scaled, mean, std = z_score(ball, ball > 0, "volume")
    assert mean == pytest.approx(ball.mean(), rel=1e-6)
    assert std == pytest.approx(ball.std(), rel=1e-5)
    assert scaled.mean() == pytest.approx(0, abs=1e-5)
    assert scaled.std() == pytest.approx(1, rel=1e-5)
    assert (scaled[ball == 0] < 0).all()


def test_bright_fat_does_not_touch_the_z_score_over_the_core():
    rng = np.random.default_rng(0)
    head = np.zeros((60, 50, 2), bool)
    head[5:55, 4:46] = True
    array = rng.normal(100, 10, head.shape).astype(np.float32)
    fat = head.copy()
    fat[9:51, 8:42] = False
    deep = np.zeros_like(head)
    deep[15:45, 14:36] = True
    np.testing.assert_array_equal(core_of(head), deep)
    array[fat] = 900
    scaled, mean, std = z_score(array, head, "core")
    assert mean == pytest.approx(array[deep].mean(), rel=1e-6)
    assert std == pytest.approx(array[deep].std(), rel=1e-5)
    assert scaled[deep].std() == pytest.approx(1, rel=1e-5)
    assert (scaled[fat] > 50).all()
    assert (scaled[~head] == 0).all()


def test_a_head_too_small_for_a_core_is_its_own():
    head = np.zeros((20, 30, 2), bool)
    head[:, 5:] = True
    np.testing.assert_array_equal(core_of(head), head)


def test_a_constant_channel_becomes_zero():
    array = np.full((2, 2, 2), 7, np.float32)
    for mask in (np.ones((2, 2, 2), bool), np.zeros((2, 2, 2), bool)):
        scaled, _, std = z_score(array, mask)
        assert std == 0
        assert not scaled.any()
