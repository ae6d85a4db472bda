"""A training on slices of several planes, from preparing to its decisions."""

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from pixelnet_tf.config import PLANES, GuidedFilterConfig
from pixelnet_tf.dataset import pipeline
from pixelnet_tf.dataset.pipeline import training_batches
from pixelnet_tf.dataset.schedule import SliceSchedule
from pixelnet_tf.errors import DataError
from pixelnet_tf.inference.slice_segmenter import SliceSegmenter
from pixelnet_tf.inference.volume import score_voxels
from pixelnet_tf.model.pixelnet import PixelNet
from pixelnet_tf.training.decisions import Judged, ScoredCases, _Candidate
from pixelnet_tf.training.loop import Trainer
from pixelnet_tf.training.validation import confusion
from tests.training.test_decisions import LEVEL


def test_slices_of_each_plane_are_prepared_and_drawn(planes_study):
    study, config = planes_study, planes_study.config
    case, planes = study.cases[0], config.model.planes
    assert [len(study.index.rows_of([case], [plane])) for plane in PLANES] == [8, 0, 16]
    volume = study.read_volume(case)
    assert volume.images.shape == (8, 14, 16, 3)
    schedule = SliceSchedule(study, [case], config.sampling, 0, planes=planes)
    seen = set()
    settings = replace(config.sampling, flips=False)
    batches = training_batches(study, schedule, settings, batch_slices=2)
    for batch in batches.take(20).as_numpy_iterator():
        for image, row in zip(batch["image"], batch["row"], strict=True):
            plane = PLANES[study.index.plane[row]]
            expected = volume.in_plane(plane).images[study.index.slice[row]]
            np.testing.assert_array_equal(image[:expected.shape[0], :expected.shape[1]], expected)
            seen.add(plane)
    assert seen == set(planes)
    # Neighbours lie in the same plane.
    offsets = (0, -1, 1)
    rows = study.index.rows_of([case], planes)
    beside = study.index.beside(rows, offsets)
    assert (study.index.plane[beside] == study.index.plane[rows][:, None]).all()


def test_lesions_come_from_slices_of_the_same_plane(planes_study, monkeypatch):
    study, config = planes_study, planes_study.config
    schedule = SliceSchedule(study, study.cases, config.sampling, 0, planes=config.model.planes)
    heard, training_slice = [], pipeline.training_slice

    def note(row, donors):
        heard.append((int(row), donors))
        return np.int32(0)

    def listening(varied, row, own, donors, *more):
        with tf.control_dependencies([tf.numpy_function(note, [row, donors], tf.int32)]):
            return training_slice(varied, tf.identity(row), own, donors, *more)

    monkeypatch.setattr(pipeline, "training_slice", listening)
    sampling = replace(config.sampling, lesion_mixing=1.0)
    assert len(list(training_batches(study, schedule, sampling, batch_slices=2).take(10))) == 10
    planes = study.index.plane
    for row, donors in heard:
        assert (planes[donors] == planes[row]).all()
        assert len(donors) == (planes[schedule.with_lesion] == planes[row]).sum() > 0
    assert len({planes[row] for row, _ in heard}) == 2


def test_decisions_are_made_on_the_labels_that_the_mean_over_planes_gives(planes_study, tmp_path,
                                                                          eagerly):
    study, config = planes_study, planes_study.config
    model = PixelNet(config.model, 3, 4, seed=0)
    head = model.parts["cls_score_new"]
    head.kernel.assign(20 * head.kernel)
    case, smoothing = study.cases[0], GuidedFilterConfig(2)
    volume = study.read_volume(case)
    scores = score_voxels(SliceSegmenter(model), volume, config.study, config.prediction)
    added = -scores[scores[..., 1] > -1000].mean(axis=0)
    labels = score_voxels(SliceSegmenter(model, added, smoothing=smoothing, flips=True), volume,
                          config.study, config.prediction).argmax(-1)
    expected = confusion(labels, volume.plan.read_voxels(volume.labels), 4)
    scored = ScoredCases([Judged(lambda: model, [case], LEVEL)], study, config.prediction,
                         "float32", tmp_path)
    found, = scored.confusions([_Candidate(added, smoothing, True)])[0]
    assert (expected.sum(axis=0) > 0).sum() > 2
    assert np.abs(found - expected).sum() <= 4


def test_a_study_without_a_planes_slices_is_refused(tiny_study, planes_study, tmp_path):
    config = planes_study.config
    with pytest.raises(DataError, match=r"holds no sagittal slices of the training cases.*; run"):
        Trainer(config, tiny_study, tiny_study.split, str(tmp_path / "run"))
