"""Scores of a voxel averaged over axial, coronal and sagittal slices of its volume."""

from dataclasses import replace

import numpy as np
import pytest

from pixelnet_tf.config import PLANES, ModelConfig, load_config
from pixelnet_tf.errors import ConfigError, ModelError
from pixelnet_tf.inference.decoding import Decoding
from pixelnet_tf.inference.slice_segmenter import Ensemble, SliceSegmenter
from pixelnet_tf.inference.volume import score_voxels, segment_remotely, segment_volume
from pixelnet_tf.model.pixelnet import PixelNet
from pixelnet_tf.volumes.case_volume import PreparedVolume
from pixelnet_tf.volumes.geometry import VolumeGeometry
from pixelnet_tf.volumes.slicing import SlicePlan

SMALL = {"fc7": "none", "border": 16, "widths": (3, 4, 5, 6, 6), "head_widths": (12,)}
CONFIG = load_config("phantom", ["study.modalities=[flair, t2]",
                                 "study.labels={0: background, 2: edema, 4: rim}",
                                 "study.regions={WT: [2, 4]}"])
SECTIONS = CONFIG.study, CONFIG.prediction


@pytest.fixture(scope="module")
def volume() -> PreparedVolume:
    """12 columns, 14 rows and 8 slices of 1 x 1 x 2 mm, with air around the brain."""
    geometry = VolumeGeometry.of((12, 14, 8), np.diag([-1.0, -1.0, 2.0, 1.0]))
    images = np.random.default_rng(3).normal(size=(8, 14, 12, 2)).astype(np.float32)
    brain = np.zeros((8, 14, 12), bool)
    brain[1:7, 2:12, 3:11] = True
    images[~brain] = 0
    return PreparedVolume("A", images, None, brain, SlicePlan(geometry), geometry, {})


def level(model, volume) -> np.ndarray:
    """What brings all classes to one level, so that each wins somewhere, (class,) float32."""
    return -score_voxels(SliceSegmenter(model), volume, *SECTIONS)[volume.brain].mean(axis=0)


def test_slices_of_another_plane_have_square_pixels_and_zeros_outside_the_brain(volume):
    coronal = volume.in_plane("coronal")
    # The six slices of brain are twelve rows, the highest first, after those of the one above.
    assert coronal.images.shape == (14, 16, 12, 2)
    np.testing.assert_array_equal(coronal.brain[5], np.repeat(volume.brain[::-1, 5], 2, axis=0))
    assert not coronal.images[~coronal.brain].any()
    # A quarter of the way from slice 4 to slice 3.
    np.testing.assert_allclose(coronal.images[5, 7], 0.75 * volume.images[4, 5]
                               + 0.25 * volume.images[3, 5], atol=1e-6)
    assert volume.in_plane("axial") is volume


def test_exact_and_adaptive_scores_are_the_mean_of_those_of_each_plane(narrow_net, volume,
                                                                       eagerly):
    """With hypercolumns that reach into the slices beside, which are those of the plane."""
    fields = {**SMALL, "context_slices": 3}
    alone, several = narrow_net(**fields), narrow_net(**fields, planes=PLANES)
    added, expected = level(alone, volume), 0
    for plane in PLANES:
        cut = volume.in_plane(plane)
        scores = SliceSegmenter(alone, added, "reference").scores(cut.images, cut.brain).numpy()
        expected = expected + cut.plan.to_axial(cut.plan.read_voxels(scores)) / 3
    found = {mode: score_voxels(SliceSegmenter(several, added, mode), volume, *SECTIONS)
             for mode in ("exact", "adaptive")}
    inside = volume.brain
    np.testing.assert_allclose(found["exact"][inside], expected[inside], rtol=0,
                               atol=1e-5 * np.abs(expected[inside]).max())
    np.testing.assert_array_equal(found["exact"].argmax(-1), expected.argmax(-1))
    assert (found["adaptive"].argmax(-1) == expected.argmax(-1)).mean() > 0.95
    # Not what the axial slices alone give.
    axial = SliceSegmenter(alone, added, "reference").scores(volume.images, volume.brain).numpy()
    assert (axial.argmax(-1) != expected.argmax(-1))[inside].mean() > 0.02


def test_a_model_that_answers_for_slices_gives_what_a_network_here_gives(narrow_net, volume,
                                                                         eagerly):
    planes = PLANES[::2]
    model = narrow_net(**SMALL, planes=planes)
    segmenter = SliceSegmenter(model, level(model, volume))

    def answer(images, domain):
        scores = segmenter.scores(images, domain).numpy()
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        labels = np.array([0, 2, 4], np.uint8)[scores.argmax(-1)]
        return labels, shares / shares.sum(-1, keepdims=True)

    here = segment_volume(segmenter, volume, *SECTIONS, True, True)
    remote = segment_remotely(answer, volume, *SECTIONS, True, True, planes=planes)
    np.testing.assert_array_equal(remote.labels, here.labels)
    np.testing.assert_allclose(remote.probabilities, here.probabilities, atol=1e-5)
    np.testing.assert_allclose(remote.uncertainty.entropy, here.uncertainty.entropy, atol=1e-4)
    np.testing.assert_array_equal(
        segment_remotely(answer, volume, *SECTIONS, planes=planes).labels, here.labels)
    several = Ensemble([segmenter, segmenter])
    both = segment_volume(several, volume, *SECTIONS, True, True)
    np.testing.assert_array_equal(both.labels, here.labels)
    np.testing.assert_allclose(both.uncertainty.mutual_information, 0, atol=1e-5)


def test_of_regions_the_log_odds_are_averaged_here_and_by_an_answering_model(narrow_net, volume,
                                                                            eagerly):
    """With hypercolumns that reach into the slices beside."""
    study = replace(CONFIG.study, regions={"WT": (2, 4), "rim": (4,)})
    sections, planes = (study, CONFIG.prediction), PLANES[:2]
    decoding = Decoding.of(*sections, True)
    alone, several = (PixelNet(replace(narrow_net(**SMALL).config, context_slices=3,
                                       region_based=True, planes=some), 2, 2, seed=4)
                      for some in (planes[:1], planes))
    added = -score_voxels(SliceSegmenter(alone, decoding=decoding), volume, *sections)[
        volume.brain].mean(axis=0)
    segmenter = SliceSegmenter(several, added, decoding=decoding)
    expected = 0
    for plane in planes:
        cut = volume.in_plane(plane)
        scores = SliceSegmenter(alone, added, "reference", decoding=decoding).scores(
            cut.images, cut.brain).numpy()
        expected = expected + cut.plan.to_axial(cut.plan.read_voxels(scores)) / 2
    here = segment_volume(segmenter, volume, *sections, True, True)
    shares = volume.plan.to_slices(here.probabilities)
    inside = volume.brain
    np.testing.assert_allclose(shares[inside], 1 / (1 + np.exp(-expected[inside])), atol=1e-5)
    assert set(np.unique(here.labels)) == {0, 2, 4}

    def answer(images, domain):
        scores = segmenter.scores(images, domain).numpy()
        return np.array([0, 2, 4], np.uint8)[decoding.class_numbers(scores)], decoding.shares(
            scores)

    there = segment_remotely(answer, volume, *sections, True, True, reach=1, planes=planes,
                             by_region=True)
    np.testing.assert_array_equal(there.labels, here.labels)
    np.testing.assert_allclose(there.probabilities, here.probabilities, atol=1e-5)
    np.testing.assert_allclose(there.uncertainty.entropy, here.uncertainty.entropy, atol=1e-4)


def test_planes_that_cannot_be_averaged_are_refused(narrow_net):
    with pytest.raises(ModelError, match=r"same model\.planes, got \[\['axial'\], \['axial', 'cor"):
        Ensemble([SliceSegmenter(narrow_net(**SMALL, **more))
                  for more in ({}, {"planes": ("axial", "coronal")})])
    for planes in ((), ("coronal",), ("axial", "axial"), ("axial", "oblique")):
        with pytest.raises(ConfigError, match=r"model\.planes must be axial, and may name some of"):
            ModelConfig(planes=planes)
    with pytest.raises(ConfigError, match=r"prepare\.slice_size=224 scales the axial slices; set"):
        load_config("phantom", ["prepare.slice_size=224", "model.planes=[axial, coronal]"])
