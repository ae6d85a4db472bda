"""Scores of regions, and thresholds of regions under a softmax, to probabilities and classes."""

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from pixelnet_tf.config import GuidedFilterConfig, LatticeConfig, PredictionConfig, StudyConfig
from pixelnet_tf.inference.adaptive import _fill_decided
from pixelnet_tf.inference.decoding import Decoding
from pixelnet_tf.inference.dense import DenseScorer
from pixelnet_tf.inference.guided_filter import guided_filter, refine_scores
from pixelnet_tf.inference.slice_segmenter import Ensemble, SliceSegmenter
from pixelnet_tf.model.pixelnet import PixelNet
from pixelnet_tf.volumes.lesions import entropy

from .conftest import slices

#: Labels 0, 1, 2, 4; regions ET (4), WT (1, 2, 4), TC (1, 4).
STUDY = StudyConfig()


def decoding(region_based, **thresholds) -> Decoding:
    return Decoding.of(STUDY, PredictionConfig(region_thresholds=thresholds), region_based)


@pytest.mark.parametrize(("probabilities", "label"), [
    # ET, WT, TC: each region over its half, one inside the other.
    ((0.1, 0.2, 0.1), 0), ((0.1, 0.6, 0.2), 2), ((0.1, 0.9, 0.6), 1), ((0.6, 0.9, 0.8), 4),
    # The smaller region alone: its label says that it is in the larger ones, too.
    ((0.6, 0.2, 0.1), 4), ((0.1, 0.2, 0.7), 1), ((0.6, 0.2, 0.7), 4),
])
def test_regions_become_labels_one_after_the_other(probabilities, label):
    scores = np.log(np.array(probabilities) / (1 - np.array(probabilities))).astype(np.float32)
    own = decoding(True)
    assert STUDY.label_values[own.class_numbers(scores[None])[0]] == label
    np.testing.assert_allclose(own.shares(scores), probabilities, rtol=1e-6)


def test_a_threshold_is_the_probability_above_which_a_voxel_is_in_the_region():
    scores = np.log(np.array([[0.1, 0.3, 0.1]]) / (1 - np.array([[0.1, 0.3, 0.1]]))
                    ).astype(np.float32)
    assert decoding(True, WT=0.29).class_numbers(scores)[0] == 2
    assert decoding(True, WT=0.31).class_numbers(scores)[0] == 0


def test_of_a_softmax_a_regions_probability_is_the_sum_of_its_classes():
    # Background, necrosis, edema, enhancing: the arg max is background, the whole tumour has 0.6.
    scores = np.log(np.array([[0.4, 0.3, 0.25, 0.05]], np.float32))
    assert decoding(False).class_numbers(scores)[0] == 0
    margins = decoding(False, WT=0.5).margins(tf.constant(scores)).numpy()[0]
    np.testing.assert_allclose(1 / (1 + np.exp(-margins)), [0.05, 0.6, 0.35], rtol=1e-5)
    assert decoding(False, WT=0.5).class_numbers(scores)[0] == 2
    assert decoding(False, WT=0.61).class_numbers(scores)[0] == 0
    assert decoding(False, TC=0.34).class_numbers(scores)[0] == 1
    assert decoding(False, ET=0.04).class_numbers(scores)[0] == 3
    # Probabilities stay those of the classes.
    np.testing.assert_allclose(decoding(False, WT=0.5).shares(scores), np.exp(scores), rtol=1e-5)


@pytest.mark.parametrize("region_based", [True, False])
def test_other_thresholds_cut_the_same_log_odds(region_based):
    cuts = [decoding(region_based, **each) for each in (
        {"WT": 0.3}, {"WT": 0.3, "ET": 0.9}, {"TC": 0.1})]
    scores = np.random.default_rng(2).normal(0, 2, (500, cuts[0].scores)).astype(np.float32)
    odds = np.asarray(cuts[0].odds(tf.constant(scores)))
    found = [each.cut_out(odds) for each in cuts]
    for each, classes in zip(cuts, found, strict=True):
        np.testing.assert_array_equal(classes, each.class_numbers(scores))
    assert (found[0] != found[1]).any()
    assert (found[0] != found[2]).any()


@pytest.mark.parametrize("own", [decoding(True), decoding(False), decoding(False, WT=0.4)])
def test_pixels_are_decided_each_for_itself_however_many_at_a_time(own, monkeypatch):
    scores = np.random.default_rng(3).normal(0, 2, (5, 3, 4, own.scores)).astype(np.float32)
    whole = own.class_numbers(scores)
    monkeypatch.setattr("pixelnet_tf.inference.decoding._PART", 7)
    np.testing.assert_array_equal(own.class_numbers(scores), whole)
    np.testing.assert_array_equal(own.class_numbers(scores.swapaxes(0, 1)), whole.swapaxes(0, 1))
    assert (whole.dtype, whole.shape) == (np.uint8, (5, 3, 4))
    assert len(np.unique(whole)) > 2


@pytest.mark.parametrize("region_based", [True, False])
def test_background_by_definition_is_in_no_region(region_based):
    own = decoding(region_based, WT=0.001)
    assert own.class_numbers(own.background[None])[0] == 0


@pytest.mark.parametrize("cut", [decoding(True, TC=0.9), decoding(False, TC=0.9)])
def test_a_cell_is_filled_only_where_each_region_is_clear_of_its_threshold(cut):
    """The smallest distance of any region from its threshold decides, on a lattice of two cells."""
    rng = np.random.default_rng(0)
    for _ in range(12):
        scores = rng.normal(0, 6, (1, 5, 9, cut.scores)).astype(np.float32)
        # Corners that often agree.
        scores[:, ::4, ::4] = scores[:, :1, :1] + rng.normal(0, 1, (1, 2, 3, cut.scores))
        seen = np.zeros((1, 5, 9), bool)
        seen[:, ::4, ::4] = True
        _, undecided = _fill_decided(tf.constant(scores), tf.ones(seen.shape, bool),
                                     tf.constant(seen), tf.ones(seen.shape, bool), 4, cut,
                                     LatticeConfig.margin)
        margins = cut.margins(tf.constant(scores[:, ::4, ::4])).numpy()[0]
        for cell in (0, 1):
            corners = margins[:, cell:cell + 2].reshape(4, -1)
            clear = (np.abs(corners) >= LatticeConfig.margin).all() and (
                (corners > 0) == (corners > 0)[0]).all()
            assert bool(undecided[0, 1, 4 * cell + 1]) != clear


def region_net(narrow_net, image, domain) -> PixelNet:
    """A network whose regions' scores in a domain are of either sign."""
    plain = narrow_net(fc7="none", border=16)
    model = PixelNet(replace(plain.config, region_based=True), 2, 3, seed=4)
    model.set_weights(plain.get_weights())
    scores = DenseScorer(model).reference(tf.constant(image)).numpy()[domain]
    last, scale = model.parts["cls_score_new"], 3 / scores.std(axis=0)
    last.kernel.assign(scale * last.kernel)
    last.bias.assign(scale * (last.bias - scores.mean(axis=0)))
    return model


def test_every_mode_gives_the_labels_of_the_reference(narrow_net):
    """With the guided filter on top of each."""
    image, domain = slices("inner", 24, 28), np.zeros((1, 24, 28), bool)
    domain[:, 2:22, 3:25] = True
    model, own = region_net(narrow_net, image, domain), decoding(True, WT=0.3)
    shift = np.float32([0.4, -0.3, 0.2])
    found = {mode: SliceSegmenter(
        model, shift, mode, decoding=own, smoothing=GuidedFilterConfig(3, 0.1)).scores(
        image, domain).numpy() for mode in ("reference", "exact", "adaptive")}
    reference = found["reference"]
    scale = np.abs(reference[domain]).max()
    np.testing.assert_allclose(found["exact"], reference, rtol=0, atol=1e-5 * scale)
    labels = {mode: own.class_numbers(scores) for mode, scores in found.items()}
    np.testing.assert_array_equal(labels["exact"], labels["reference"])
    assert len(np.unique(labels["reference"])) > 2
    assert (labels["reference"][~domain] == 0).all()
    assert (labels["adaptive"] == labels["reference"]).mean() > 0.97


def test_the_guided_filter_smooths_each_region_for_itself():
    rng = np.random.default_rng(0)
    scores = tf.constant(rng.normal(0, 2, (1, 12, 12, 2)), tf.float32)
    image = tf.constant(rng.normal(size=(1, 12, 12, 2)), tf.float32)
    domain = tf.ones((1, 12, 12), bool)
    together = refine_scores(scores, image, domain, 2, 0.1, sigmoid=True)
    for region in (0, 1):
        expected = guided_filter(image, tf.sigmoid(scores[..., region:region + 1]), domain, 2, 0.1)
        np.testing.assert_allclose(tf.sigmoid(together)[..., region], expected[..., 0], atol=1e-5)


class Fixed:
    """A network that says the same of each pixel."""

    reach, sigmoid, planes, every = 0, True, ("axial",), 1

    def __init__(self, *shares):
        self.answer = np.log(np.array(shares) / (1 - np.array(shares))).astype(np.float32)
        self.classes, self.background = len(shares), tf.constant([-1e4] * len(shares))

    def scores(self, image, domain, read_out=None):
        return tf.broadcast_to(self.answer, (*image.shape[:3], self.classes))


def test_uncertainty_of_regions_is_the_mean_over_them_worked_out_by_hand():
    image, domain = tf.zeros((1, 1, 1, 1)), tf.ones((1, 1, 1), bool)
    _, total, information = (float(tf.reshape(part, [-1])[0]) for part in Ensemble(
        [Fixed(0.5, 0.9), Fixed(0.5, 0.1)]).uncertain_scores(image, domain))
    sure = -(0.9 * np.log(0.9) + 0.1 * np.log(0.1))
    # Both networks hold the first region for undecided; about the second they disagree.
    assert total == pytest.approx(np.log(2), rel=1e-5)
    assert information == pytest.approx((np.log(2) - sure) / 2, rel=1e-4)
    np.testing.assert_allclose(entropy(np.array([[0.5, 1.0], [0.9, 0.9]]), by_region=True),
                               [np.log(2) / 2, sure], rtol=1e-5)
