"""Variation of training slices, against numpy and by its own rules."""

import numpy as np
import pytest
import tensorflow as tf

from pixelnet_tf.config import SamplingConfig
from pixelnet_tf.dataset.augment import (
    add_noise,
    augment,
    blur,
    drop_modalities,
    jitter,
    turn,
)

HEIGHT, WIDTH = 40, 52


@pytest.fixture
def disc():
    """A bright disc off the centre in an ellipse of brain; labels are the disc."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    brain = ((y - 19.5) / 16) ** 2 + ((x - 25.5) / 20) ** 2 < 1
    lesion = (y - 15) ** 2 + (x - 33) ** 2 < 25
    image = np.where(brain, 1.0 + lesion, 0.0)
    return {"image": tf.constant(np.stack([image, -image], -1), tf.float32),
            "labels": tf.constant(lesion, tf.int32), "brain": tf.constant(brain)}


def centre(mask):
    return np.argwhere(mask).mean(axis=0) - (HEIGHT / 2 - 0.5, WIDTH / 2 - 0.5)


@pytest.mark.parametrize("seed", range(6))
def test_turned_image_labels_and_mask_move_together(disc, seed):
    moved = turn(disc, 30.0, 0.25, tf.constant([seed, 7]))
    image, labels, brain = (moved[key].numpy() for key in ("image", "labels", "brain"))
    assert (image[~brain] == 0).all()
    assert labels.dtype == np.int32
    assert set(np.unique(labels)) == {0, 1}
    # The disc is where the image is brighter than half way, but for its outline.
    assert ((image[..., 0] > 1.5) != (labels > 0)).sum() <= 0.2 * labels.sum()
    np.testing.assert_allclose(image[..., 1], -image[..., 0], atol=1e-6)


@pytest.mark.parametrize(("rotation", "scaling"), [(30.0, 0.0), (0.0, 0.25), (20.0, 0.2)])
def test_angle_and_factor_stay_in_their_range_and_fill_it(disc, rotation, scaling):
    before, angles, factors = centre(disc["labels"].numpy()), [], []
    for seed in range(60):
        after = centre(turn(disc, rotation, scaling, tf.constant([seed, 1]))["labels"].numpy())
        factors.append(np.linalg.norm(after) / np.linalg.norm(before))
        angles.append(np.degrees(np.arctan2(*after) - np.arctan2(*before)))
    # A disc's centre is known to a tenth of a pixel or so, at nine pixels from the middle.
    assert np.abs(angles).max() == pytest.approx(rotation, abs=0.05 * rotation + 2)
    assert max(factors) == pytest.approx(1 + scaling, abs=0.04)
    assert min(factors) == pytest.approx(1 / (1 + scaling), abs=0.04)
    if rotation:
        assert min(angles) < 0 < max(angles)


def test_blur_smooths_inside_and_leaves_the_outside_at_zero(disc):
    image, inside = disc["image"].numpy(), disc["brain"].numpy()
    roughness = []
    for seed in range(20):
        smooth = blur(disc["image"], 1.5, tf.constant([seed, 3])).numpy()
        assert (smooth[~inside] == 0).all()
        roughness.append(np.abs(np.diff(smooth[15, 15:38, 0])).max())
        np.testing.assert_allclose(smooth[15, 33], image[15, 33], atol=0.15)
    # From next to none to the slope of a Gaussian of 1.5 pixels, 1 / (1.5 * sqrt(2 pi)).
    assert max(roughness) > 0.9
    assert 0.2 < min(roughness) < 0.4


def test_noise_has_the_strengths_asked_for(disc):
    image, inside = disc["image"].numpy(), disc["brain"].numpy()
    strengths = []
    for seed in range(60):
        noise = add_noise(disc["image"], 0.3, tf.constant([seed, 3])).numpy() - image
        assert (noise[~inside] == 0).all()
        assert abs(noise[inside].mean()) < 0.03
        strengths.append(noise[inside].std())
    assert min(strengths) < 0.05
    assert 0.25 < max(strengths) < 0.31


def test_nothing_asked_for_changes_nothing(disc):
    same = augment(disc, SamplingConfig(flips=False), tf.constant([0, 0]))
    still = turn(disc, 0.0, 0.0, tf.constant([3, 4]))
    for key, value in disc.items():
        np.testing.assert_array_equal(same[key], value)
        np.testing.assert_allclose(np.float32(still[key]), np.float32(value), atol=1e-4)


def test_same_seed_varies_alike_and_another_differently(disc):
    config = SamplingConfig(intensity_jitter=0.3, rotation=15.0, scaling=0.2, blur=1.0,
                            noise=0.1)
    one, again, other = (augment(disc, config, tf.constant([9, k]))["image"].numpy()
                         for k in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()


def test_jitter_scales_and_shifts_channels_and_leaves_the_outside_at_zero():
    image = np.zeros((6, 5, 2), np.float32)
    image[1:4, 1:4] = np.random.default_rng(0).normal(size=(3, 3, 2))
    drawn = jitter(tf.constant(image), 0.3, tf.constant([1, 2])).numpy()
    inside = (image != 0).any(-1)
    assert (drawn[~inside] == 0).all()
    for channel in range(2):
        factor, shift = np.polyfit(image[inside][:, channel], drawn[inside][:, channel], 1)
        assert 0.7 <= factor <= 1.3
        assert -0.3 <= shift <= 0.3
    np.testing.assert_array_equal(drawn, jitter(tf.constant(image), 0.3, tf.constant([1, 2])))
    assert (drawn != jitter(tf.constant(image), 0.3, tf.constant([1, 3])).numpy()).any()


def test_dropped_modalities_are_a_random_proper_subset():
    image = tf.ones((2, 3, 3))
    seen = {}
    for number in range(600):
        found = drop_modalities(image, 0.5, tf.constant([3, number])).numpy()
        assert (found == found[:1, :1]).all()
        key = tuple(found[0, 0])
        seen[key] = seen.get(key, 0) + 1
    assert (0, 0, 0) not in seen
    assert 250 < seen.pop((1, 1, 1)) < 350
    assert len(seen) == 6
    assert min(seen.values()) > 25
    same = [drop_modalities(image, 1.0, tf.constant([1, 2])).numpy() for _ in range(2)]
    np.testing.assert_array_equal(*same)
    assert not same[0].all()
