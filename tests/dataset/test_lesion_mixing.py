"""Lesions of one slice in another: where they lie and what stays as it was."""

import numpy as np
import pytest
import tensorflow as tf

from pixelnet_tf.dataset.augment import mix_lesions
from pixelnet_tf.volumes.normalize import CORE_DEPTH, core_of


def ellipse(height, width, lesion_at, value):
    y, x = np.mgrid[:height, :width]
    brain = np.hypot((y - height / 2) / (height / 2 - 4), (x - width / 2) / (width / 2 - 4)) < 1
    labels = np.zeros((height, width), np.int32)
    if lesion_at:
        from_centre = np.hypot(y - lesion_at[0], x - lesion_at[1])
        labels = (from_centre < 6).astype(np.int32) + (from_centre < 3)
    image = np.where(brain, value + labels, 0.0)
    return {"image": tf.constant(np.stack([image, -image], -1), tf.float32),
            "labels": tf.constant(labels), "brain": tf.constant(brain)}


@pytest.fixture
def plain():
    return ellipse(72, 80, None, 1.0)


@pytest.fixture
def donor():
    # Another size, and its own level of gray.
    return ellipse(66, 88, (33, 44), 5.0)


def mixed(record, donor, number, share=1.0):
    return {key: value.numpy()
            for key, value in mix_lesions(record, donor, share, tf.constant([number, 2])).items()}


@pytest.mark.parametrize("number", range(8))
def test_image_and_labels_come_from_the_donor_together(plain, donor, number):
    result, before = mixed(plain, donor, number), plain["image"].numpy()
    labels = result["labels"]
    assert set(np.unique(labels)) == {0, 1, 2}
    assert labels.dtype == np.int32
    # Deep inside the lesion the donor's own intensities, far outside the slice's own.
    assert (result["image"][labels == 2] == [7, -7]).all()
    away = np.ones(labels.shape, bool)
    for y, x in np.argwhere(labels > 0):
        away[max(y - 5, 0):y + 6, max(x - 5, 0):x + 6] = False
    np.testing.assert_array_equal(result["image"][away], before[away])
    np.testing.assert_array_equal(result["brain"], plain["brain"])
    assert (result["image"][~result["brain"]] == 0).all()


def test_lesions_land_in_many_places_but_never_near_the_outline(plain, donor):
    core = core_of(plain["brain"].numpy()[..., None])[..., 0]
    places = []
    for number in range(40):
        labels = mixed(plain, donor, number)["labels"]
        assert not (labels[~core] > 0).any()
        if labels.any():
            places.append(np.argwhere(labels > 0).mean(axis=0))
    spread = np.ptp(places, axis=0)
    assert (spread > (72 / 6, 80 / 6)).all()
    assert CORE_DEPTH == 10


def test_the_share_and_the_seed(plain, donor):
    hit = [mixed(plain, donor, number, 0.3)["labels"].any() for number in range(200)]
    assert np.mean(hit) == pytest.approx(0.3, abs=0.1)
    for key, value in mixed(plain, donor, 5).items():
        np.testing.assert_array_equal(value, mixed(plain, donor, 5)[key])
    untouched = mixed(plain, donor, 1, 0.0)
    for key, value in plain.items():
        np.testing.assert_array_equal(untouched[key], value)


def test_its_own_lesion_stays_where_none_is_laid_over_it(donor):
    own = ellipse(72, 80, (20, 26), 1.0)
    for number in range(10):
        result = mixed(own, donor, number)
        before = {key: value.numpy() for key, value in own.items()}
        lost = result["labels"] != before["labels"]
        # A pixel whose class changed shows the donor.
        assert (result["image"][lost] >= 5).any(axis=1).all()
        assert result["labels"].any()
