"""Whole volumes: what is computed, and labels on the input's own grid."""

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from pixelnet_tf.cases.layouts import find_cases
from pixelnet_tf.config import (
    GuidedFilterConfig,
    LatticeConfig,
    PredictionConfig,
    load_config,
)
from pixelnet_tf.inference.decoding import Decoding
from pixelnet_tf.inference.dense import slices_together
from pixelnet_tf.inference.slice_segmenter import Ensemble, SliceSegmenter
from pixelnet_tf.inference.volume import (
    PredictionGrid,
    finish_volume,
    score_voxels,
    segment_remotely,
    segment_volume,
)
from pixelnet_tf.volumes.case_volume import prepare_case
from pixelnet_tf.volumes.lesions import entropy
from pixelnet_tf.volumes.phantom_study import write_phantom

CONFIG = load_config("phantom", ["prepare.bias_field.enabled=false", "study.modalities=[flair, t2]",
                                 "study.labels={0: background, 2: edema, 4: rim}",
                                 "study.regions={WT: [2, 4]}"])


def prepared(case, config):
    return prepare_case(case, config.study, config.prepare)


def sections(config):
    return config.study, config.prediction


def cleaning(config):
    return config.study, config.prediction.postprocess


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    write_phantom(folder, 1, 0, size=(30, 26, 10))
    return find_cases(folder, CONFIG.study, require_segmentation=False)[0]


@pytest.fixture(scope="module")
def volume(case):
    return replace(prepared(replace(case, segmentation=None), CONFIG), labels=None)


def with_prediction(**fields):
    return replace(CONFIG, prediction=PredictionConfig(**fields))


def test_brain_only_where_the_study_is_skull_stripped(volume):
    def domain(config):
        return PredictionGrid.of(volume, config.prediction.inside_brain(config.study)).domain

    np.testing.assert_array_equal(domain(CONFIG), volume.brain)
    assert domain(with_prediction(brain_only="no")).all()
    headed = replace(CONFIG, study=replace(CONFIG.study, skull_stripped=False))
    assert domain(headed).all()
    headed = replace(headed, prediction=PredictionConfig(brain_only="yes"))
    np.testing.assert_array_equal(domain(headed), volume.brain)


def test_without_scaling_the_whole_domain_is_read(case, volume):
    padded = replace(CONFIG, prepare=replace(CONFIG.prepare, slice_size=30),
                     prediction=PredictionConfig(brain_only="no"))
    framed = prepared(replace(case, segmentation=None), padded)
    for shown, config in ((volume, CONFIG), (framed, padded)):
        grid = PredictionGrid.of(shown, config.prediction.inside_brain(config.study))
        np.testing.assert_array_equal(grid.domain, grid.read_out)


@pytest.mark.parametrize("brain_only", ["yes", "no"])
def test_the_domain_of_scaled_slices_is_all_that_is_image(case, brain_only):
    config = replace(CONFIG, prepare=replace(CONFIG.prepare, slice_size=64),
                     prediction=PredictionConfig(brain_only=brain_only))
    padded = prepared(replace(case, segmentation=None), config)
    assert padded.images.shape[1:3] == (64, 64)
    grid = PredictionGrid.of(padded, config.prediction.inside_brain(config.study))
    # 26 rows of 30 pixels, scaled up by 64 / 30: 55 rows in the middle of 64.
    picture = np.zeros((64, 64), bool)
    picture[4:59] = True
    expected = padded.brain if brain_only == "yes" else np.broadcast_to(picture, (10, 64, 64))
    np.testing.assert_array_equal(grid.domain, expected)
    # At most one pixel for each voxel, and every voxel of the domain has its own.
    voxels = padded.plan.read_voxels(grid.read_out)
    np.testing.assert_array_equal(voxels, padded.plan.read_voxels(grid.domain))
    assert grid.read_out.sum() == voxels.sum() < grid.domain.sum()
    assert not (grid.read_out & ~grid.domain).any()


class Counted:
    """A segmenter that notes the sizes of its batches."""

    def __init__(self, segmenter):
        self.segmenter, self.seen = segmenter, []
        self.classes, self.background = segmenter.classes, segmenter.background
        self.reach, self.planes = segmenter.reach, segmenter.planes
        self.sigmoid, self.every = segmenter.sigmoid, segmenter.every
        self.lattice, self.decoding = segmenter.lattice, segmenter.decoding

    def scores(self, image, domain, read_out, beside=None):
        self.seen.append(len(image))
        return self.segmenter.scores(image, domain, read_out, beside)


def test_batches_change_nothing_and_empty_slices_never_reach_the_network(narrow_net, volume):
    segmenter = Counted(SliceSegmenter(narrow_net(fc7="none")))
    brain = volume.brain.copy()
    brain[3] = False
    volume = replace(volume, brain=brain)
    by_one = score_voxels(segmenter, volume, *sections(with_prediction(batch_slices=1)))
    busy = int(brain.any(axis=(1, 2)).sum())
    assert busy < len(brain)
    assert segmenter.seen == [1] * busy
    by_four = score_voxels(segmenter, volume, *sections(with_prediction(batch_slices=4)))
    assert sum(segmenter.seen) == 2 * busy
    np.testing.assert_allclose(by_one, by_four, rtol=0, atol=1e-4)
    assert (by_four[3].argmax(-1) == 0).all()


def test_labels_lie_on_the_inputs_grid(narrow_net, volume):
    segmenter = SliceSegmenter(narrow_net(fc7="none"))
    result = segment_volume(segmenter, volume, *sections(CONFIG))
    assert result.labels.shape == volume.geometry.shape
    assert result.labels.dtype == np.uint8
    assert set(np.unique(result.labels)) <= {0, 2, 4}
    assert len(np.unique(result.labels)) > 1
    assert result.probabilities is None
    assert not result.labels[volume.plan.from_slices(volume.brain.astype(np.uint8)) == 0].any()


def test_probabilities_sum_to_one_and_agree_with_the_labels(narrow_net, volume):
    scores = score_voxels(SliceSegmenter(narrow_net(fc7="none")), volume, *sections(CONFIG))
    result = finish_volume(scores, volume, *cleaning(CONFIG), probabilities=True)
    assert result.probabilities.shape == (*volume.geometry.shape, 3)
    assert result.probabilities.dtype == np.float32
    np.testing.assert_allclose(result.probabilities.sum(-1), 1, atol=1e-5)
    values = np.array([0, 2, 4], np.uint8)
    np.testing.assert_array_equal(values[result.probabilities.argmax(-1)], result.labels)


class Guess:
    """A member of an ensemble without a network: scores are made of the image alone."""

    classes, background, reach, every = 3, tf.constant(Decoding(3).background), 0, 1
    planes, sigmoid = ("axial",), False

    def __init__(self, factor):
        self.factor = factor

    def scores(self, image, domain, read_out=None):
        found = tf.sin(self.factor * image[..., :1] * tf.constant([1.0, 2.0, 3.0]))
        return tf.where(domain[..., None], found, self.background)


def test_uncertainty_and_lesion_voxels_lie_where_the_labels_do(volume):
    one, other = Guess(5.0), Guess(3.0)
    plain = segment_volume(one, volume, *sections(CONFIG))
    assert plain.uncertainty is None
    whole = segment_volume(one, volume, *sections(CONFIG), True, True)
    np.testing.assert_array_equal(plain.labels, whole.labels)
    np.testing.assert_allclose(whole.uncertainty.entropy, entropy(whole.probabilities), atol=1e-6)
    assert whole.uncertainty.mutual_information is None
    several = segment_volume(Ensemble([one, other]), volume, *sections(CONFIG), True, True)
    shares = [segment_volume(member, volume, *sections(CONFIG), True).probabilities
              for member in (one, other)]
    mean = entropy(np.mean(shares, axis=0))
    np.testing.assert_allclose(several.uncertainty.entropy, mean, atol=1e-5)
    np.testing.assert_allclose(several.uncertainty.mutual_information,
                               mean - np.mean([entropy(each) for each in shares], axis=0),
                               atol=1e-5)
    for result in (plain, whole, several):
        inside = result.labels > 0
        assert len(result.voxels.entropy) == inside.sum() > 0
    for result in (whole, several):
        inside = result.labels > 0
        np.testing.assert_allclose(result.voxels.probabilities, result.probabilities[inside],
                                   atol=1e-6)
        np.testing.assert_allclose(result.voxels.entropy, result.uncertainty.entropy[inside],
                                   atol=1e-6)
    np.testing.assert_allclose(plain.voxels.entropy, whole.voxels.entropy, atol=1e-6)


def test_an_export_says_of_voxels_what_it_is_asked_for(volume):
    member = Guess(5.0)

    def slices(images, domain, with_shares):
        scores = member.scores(tf.constant(images), tf.constant(domain)).numpy()
        values = np.array([0, 2, 4], np.uint8)[scores.argmax(-1)]
        return values, tf.nn.softmax(scores).numpy() if with_shares else None

    def answer(*asked):
        return segment_remotely(lambda images, domain: slices(images, domain, any(asked)), volume,
                                *sections(CONFIG), *asked)

    own = segment_volume(member, volume, *sections(CONFIG), True, True)
    for asked in ((False, False), (True, False), (False, True), (True, True)):
        found = answer(*asked)
        np.testing.assert_array_equal(found.labels, own.labels)
        assert (found.probabilities is not None, found.uncertainty is not None) == asked
        # Labels alone say nothing of their voxels.
        assert (found.voxels is not None) == any(asked)
    np.testing.assert_allclose(found.uncertainty.entropy, own.uncertainty.entropy, atol=1e-5)
    np.testing.assert_allclose(found.voxels.entropy, own.voxels.entropy, atol=1e-5)
    np.testing.assert_allclose(found.voxels.probabilities, own.voxels.probabilities, atol=1e-5)


def test_postprocessing_touches_the_labels_only(volume):
    scores = np.zeros((*volume.brain.shape, 3), np.float32)
    # One voxel of edema, and nothing else.
    scores[..., 0] = 1
    scores[4, 10, 10, 1] = 5
    cleaned = load_config("phantom", ["prediction.postprocess.minimum_component={WT: 5}"])
    config = replace(CONFIG, prediction=cleaned.prediction)
    assert (finish_volume(scores, volume, *cleaning(CONFIG)).labels == 2).sum() == 1
    result = finish_volume(scores, volume, *cleaning(config), probabilities=True)
    assert not result.labels.any()
    assert result.probabilities[..., 1].max() > 0.9


def test_slices_between_that_others_decide_never_reach_the_network(narrow_net, volume):
    """Those that are background all over; where a class is in doubt, all of them do, and the scores
    are those of every slice for itself."""
    every, brain = 4, np.zeros_like(volume.brain)
    brain[1:-1, 4:-4, 4:-4] = True
    volume = replace(volume, brain=brain)
    for added, margin in ((50.0, 2.0), (0.0, 99.0)):
        seen, found = {}, {}
        for slices in (1, every):
            segmenter = Counted(SliceSegmenter(
                narrow_net(fc7="none"), np.float32([added, 0, 0]), "adaptive",
                lattice=LatticeConfig(4, slices, margin)))
            found[slices] = score_voxels(segmenter, volume, *sections(
                with_prediction(batch_slices=3)))
            seen[slices] = sum(segmenter.seen)
        assert seen[1] == len(brain) - 2
        if added:
            assert seen[every] == len(range(every, len(brain) - 1, every))
        else:
            assert seen[every] == seen[1]
            assert len(np.unique(found[1][found[1][..., 1] > -1000].argmax(-1))) > 1
            np.testing.assert_allclose(found[every], found[1], rtol=0, atol=1e-4)
        np.testing.assert_array_equal(found[every].argmax(-1), found[1].argmax(-1))


def test_lattices_of_slices_are_left_alone_where_they_cannot_be(narrow_net, volume):
    """The filter reads all scores, and exact mode is exact."""
    lattice = LatticeConfig(slices=4)
    for every, options in ((4, {"mode": "adaptive"}), (1, {"mode": "exact"}),
                           (1, {"mode": "adaptive", "smoothing": GuidedFilterConfig(2)})):
        assert SliceSegmenter(narrow_net(fc7="none"), lattice=lattice, **options).every == every


def test_every_scaled_slice_is_looked_at_for_not_all_of_it_is_read(narrow_net, case):
    config = replace(CONFIG, prepare=replace(CONFIG.prepare, slice_size=64))
    scaled = prepared(replace(case, segmentation=None), config)
    # Sure everywhere, so that others would decide most slices.
    segmenter = Counted(SliceSegmenter(narrow_net(fc7="none"), np.float32([50, 0, 0]), "adaptive",
                                       lattice=LatticeConfig(4, 4, 2.0)))
    score_voxels(segmenter, scaled, *sections(config))
    assert sum(segmenter.seen) == scaled.brain.any(axis=(1, 2)).sum() > 4


@pytest.mark.parametrize(("setting", "size", "slices"), [
    ("auto", (240, 240), 8), ("auto", (96, 96), 8), ("auto", (512, 512), 2),
    ("auto", (2048, 2048), 1), (5, (512, 512), 5)])
def test_fewer_of_larger_slices_are_computed_together(setting, size, slices):
    grid = PredictionGrid(*np.ones((2, 9, *size), bool))
    assert grid.together(setting) == slices
    assert next(grid.batches(setting)).tolist() == list(range(slices))
    # Within a graph as well, where a size is no number yet.
    together = tf.function(lambda image: slices_together(setting, *tf.unstack(tf.shape(image))))
    assert int(together(tf.zeros(size))) == slices
