"""Whole volumes: what is computed, and labels on the input's own grid."""

from dataclasses import replace

import numpy as np
import pytest

from pixelnet_tf.cases.layouts import find_cases
from pixelnet_tf.config import PredictionConfig, load_config
from pixelnet_tf.inference.segmenter import Segmenter
from pixelnet_tf.inference.volume import (
    finish_volume,
    segment_slices,
    segment_volume,
    wanted_pixels,
)
from pixelnet_tf.volumes.phantom_study import write_phantom
from pixelnet_tf.volumes.prepare import prepare_case

CONFIG = load_config("phantom", ["prepare.bias_field.enabled=false", "study.modalities=[flair, t2]",
                                 "study.labels={0: background, 2: edema, 4: rim}",
                                 "study.regions={WT: [2, 4]}"])


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    write_phantom(folder, 1, 0, size=(30, 26, 10))
    return find_cases(folder, CONFIG.study, require_segmentation=False)[0]


@pytest.fixture(scope="module")
def volume(case):
    return replace(prepare_case(replace(case, segmentation=None), CONFIG), labels=None)


def with_prediction(**fields):
    return replace(CONFIG, prediction=PredictionConfig(**fields))


def test_brain_only_where_the_study_is_skull_stripped(volume):
    np.testing.assert_array_equal(wanted_pixels(volume, CONFIG), volume.brain)
    assert wanted_pixels(volume, with_prediction(brain_only="no")).all()
    headed = replace(CONFIG, study=replace(CONFIG.study, skull_stripped=False))
    assert wanted_pixels(volume, headed).all()
    headed = replace(headed, prediction=PredictionConfig(brain_only="yes"))
    np.testing.assert_array_equal(wanted_pixels(volume, headed), volume.brain)


def test_padding_is_never_wanted(case):
    config = replace(CONFIG, prepare=replace(CONFIG.prepare, slice_size=64),
                     prediction=PredictionConfig(brain_only="no"))
    padded = prepare_case(replace(case, segmentation=None), config)
    assert padded.images.shape[1:3] == (64, 64)
    wanted = wanted_pixels(padded, config)
    # 26 of 30 rows, scaled up by 64 / 30; at most one pixel for each voxel of a slice.
    assert 0 < wanted[0].sum() <= 30 * 26
    assert (wanted == wanted[0]).all()
    rows = np.flatnonzero(wanted[0].any(axis=1))
    assert rows[0] > 1
    assert rows[-1] < 62


def test_batches_change_nothing_and_empty_slices_never_reach_the_network(narrow_net, volume):
    segmenter = Segmenter(narrow_net(fc7="none"))
    wanted = wanted_pixels(volume, CONFIG)
    wanted[3] = False
    seen = []
    by_one = segment_slices(segmenter, volume.images, wanted, 1, lambda *n: seen.append(n))
    by_four = segment_slices(segmenter, volume.images, wanted, 4)
    np.testing.assert_allclose(by_one, by_four, rtol=0, atol=1e-4)
    busy = int(wanted.any(axis=(1, 2)).sum())
    assert busy < len(wanted)
    assert seen == [(i, busy) for i in range(1, busy + 1)]
    assert (by_four[3].argmax(-1) == 0).all()


def test_labels_lie_on_the_inputs_grid(narrow_net, volume):
    segmenter = Segmenter(narrow_net(fc7="none"))
    result = segment_volume(segmenter, volume, CONFIG)
    assert result.labels.shape == volume.geometry.shape
    assert result.labels.dtype == np.uint8
    assert set(np.unique(result.labels)) <= {0, 2, 4}
    assert len(np.unique(result.labels)) > 1
    assert result.probabilities is None
    assert not result.labels[volume.plan.from_slices(volume.brain.astype(np.uint8)) == 0].any()


def test_probabilities_sum_to_one_and_agree_with_the_labels(narrow_net, volume):
    scores = segment_slices(Segmenter(narrow_net(fc7="none")), volume.images,
                            wanted_pixels(volume, CONFIG), 4)
    result = finish_volume(scores, volume, CONFIG, probabilities=True)
    assert result.probabilities.shape == (*volume.geometry.shape, 3)
    assert result.probabilities.dtype == np.float32
    np.testing.assert_allclose(result.probabilities.sum(-1), 1, atol=1e-5)
    values = np.array([0, 2, 4], np.uint8)
    np.testing.assert_array_equal(values[result.probabilities.argmax(-1)], result.labels)


def test_postprocessing_touches_the_labels_only(volume):
    scores = np.zeros((*volume.brain.shape, 3), np.float32)
    # One voxel of edema, and nothing else.
    scores[..., 0] = 1
    scores[4, 10, 10, 1] = 5
    cleaned = load_config("phantom", ["prediction.postprocess.minimum_component={WT: 5}"])
    config = replace(CONFIG, prediction=cleaned.prediction)
    assert (finish_volume(scores, volume, CONFIG).labels == 2).sum() == 1
    result = finish_volume(scores, volume, config, probabilities=True)
    assert not result.labels.any()
    assert result.probabilities[..., 1].max() > 0.9
