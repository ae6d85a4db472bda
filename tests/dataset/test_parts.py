"""Mini-batches in parts, one for each replica: what one reads, no other does, and all is there."""

import numpy as np
import pytest

from pixelnet_tf.config import SamplingConfig
from pixelnet_tf.dataset.pipeline import parts_of, training_batches
from pixelnet_tf.dataset.prepared import PreparedStudy
from pixelnet_tf.dataset.schedule import SliceSchedule


@pytest.fixture(scope="module")
def study(small_prepared) -> PreparedStudy:
    return PreparedStudy.open(small_prepared)


def test_parts_are_even():
    assert [len(part) for part in parts_of(7, 3)] == [3, 2, 2]
    assert [place for part in parts_of(7, 3) for place in part] == list(range(7))


@pytest.mark.parametrize("offsets", [(0,), (0, -1, 1)], ids=["slices", "slabs"])
def test_the_parts_of_a_mini_batch_are_the_whole_one(study, offsets):
    sampling = SamplingConfig(pixels=30, slab_slices=2, noise=0.1, rotation=10.0)
    schedule = SliceSchedule(study, study.index.cases, sampling, 3, offsets)

    def batch(part=None):
        batches = training_batches(study, schedule, sampling, batch_slices=5, seed=5, part=part)
        return next(batches.skip(1).take(1).as_numpy_iterator())

    def drawn_images(found):
        """The numbers in the whole mini-batch of the images that the drawn slices are."""
        own = found.get("places", np.arange(len(found["image"])))
        return own[found["neighbours"][:, 0]] if "neighbours" in found else own

    whole = batch()
    parts = [batch(part) for part in parts_of(5, 2)]
    for part in parts:
        assert part["images"] == len(whole["image"])
        np.testing.assert_array_equal(part["image"], whole["image"][part["places"]])
    for found, expected in (
            (np.concatenate([part["row"] for part in parts]), whole["row"]),
            (np.concatenate([drawn_images(part) for part in parts]), drawn_images(whole))):
        np.testing.assert_array_equal(found, expected)
    if len(offsets) > 1:
        np.testing.assert_array_equal(np.concatenate(
            [part["places"][part["neighbours"]] for part in parts]), whole["neighbours"])

    def pixels_of(found):
        """Image, row, column and class of each pixel."""
        n, y, x = found["pixels"].astype(int).T
        return np.stack([drawn_images(found)[n], y, x, found["classes"]], 1)

    each = np.concatenate([pixels_of(part) for part in parts])
    # In the order of the images, as replicas count them.
    np.testing.assert_array_equal(each[np.argsort(each[:, 0], kind="stable")], pixels_of(whole))
