"""Mini-batches of slices in memory: those of the pipeline."""


import numpy as np
import pytest
import tensorflow as tf

from pixelnet_tf.config import SamplingConfig
from pixelnet_tf.dataset.pipeline import training_batches
from pixelnet_tf.dataset.prepared import PreparedStudy
from pixelnet_tf.dataset.resident import check_compiles, read_resident, resident_batch
from pixelnet_tf.dataset.schedule import SliceSchedule
from pixelnet_tf.errors import ConfigError

VARIED = SamplingConfig(pixels=50, background_in_brain=True, flips=True, rotation=20, scaling=0.2,
                        blur=1.0, noise=0.1, intensity_jitter=0.2, lesion_mixing=0.7)


@pytest.fixture(scope="module")
def study(small_prepared) -> PreparedStudy:
    return PreparedStudy.open(small_prepared)


def sorted_pixels(batch) -> np.ndarray:
    """Rows of n, y, x and class in one order."""
    rows = np.column_stack([batch["pixels"], batch["classes"]]).astype(int)
    return rows[np.lexsort(rows.T[::-1])]


def pairs(study, sampling, count):
    """Batches of both, one after the other."""
    schedule = SliceSchedule(study, study.index.cases, sampling, seed=3)
    slices, rows = read_resident(study, schedule)
    slices = slices._replace(**{key: tf.constant(value) for key, value in
                                slices._asdict().items()})
    classes = len(study.config.study.labels)

    @tf.function(autograph=False)
    def resident(places, first):
        return resident_batch(slices, places, first, sampling, classes, 5)

    batches = training_batches(study, schedule, sampling, batch_slices=2, seed=5)
    for number, batch in enumerate(batches.take(count)):
        places = np.searchsorted(rows, batch["row"]).astype(np.int32)
        yield batch, resident(tf.constant(places), tf.constant(2 * number))


def test_a_batch_is_the_pipelines(study):
    for batch, resident in pairs(study, VARIED, 3):
        np.testing.assert_allclose(resident["image"], batch["image"], rtol=0, atol=1e-4)
        np.testing.assert_array_equal(sorted_pixels(resident), sorted_pixels(batch))


def test_a_slice_of_fewer_pixels_than_are_drawn_gives_them_all_again(study):
    sampling = SamplingConfig(strategy="uniform", pixels=3000, background_in_brain=True)
    for batch, resident in pairs(study, sampling, 2):
        found, counts = np.unique(sorted_pixels(resident), axis=0, return_counts=True)
        np.testing.assert_array_equal(found, np.unique(sorted_pixels(batch), axis=0))
        assert counts.sum() == 6000
        for n in (0, 1):
            assert np.ptp(counts[found[:, 0] == n]) <= 1


@pytest.mark.parametrize(("sampling", "offsets"), [
    (SamplingConfig(strategy="all"), (0,)), (SamplingConfig(modality_dropout=0.1), (0,)),
    (SamplingConfig(), (0, -1, 1))], ids=["all pixels", "modality dropout", "slices beside"])
def test_what_has_no_static_shape_is_refused(sampling, offsets):
    with pytest.raises(ConfigError, match="known number of pixels"):
        check_compiles(sampling, offsets)
