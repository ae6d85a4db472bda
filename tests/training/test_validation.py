"""Validation by whole volumes, and the fit of the prior's strength."""

import tempfile
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from pixelnet_tf.cases.class_priors import ClassPriors
from pixelnet_tf.config import Config, StudyConfig
from pixelnet_tf.errors import DataError
from pixelnet_tf.inference.slice_segmenter import SliceSegmenter
from pixelnet_tf.inference.volume import score_voxels
from pixelnet_tf.model.pixelnet import PixelNet
from pixelnet_tf.training.decisions import Judged, ScoredCases, fit_prior_strength
from pixelnet_tf.training.validation import (
    STRENGTHS,
    case_validator,
    confusion,
    dice_of,
    region_dice,
)
from pixelnet_tf.volumes.case_volume import PreparedVolume
from pixelnet_tf.volumes.geometry import VolumeGeometry
from pixelnet_tf.volumes.slicing import SlicePlan
from tests.pixel_network import pixel_network, set_head


def test_dice_by_hand():
    labels = np.array([0, 0, 1, 1, 1, 2])
    predicted = np.array([0, 1, 1, 1, 0, 2])
    pairs = confusion(predicted, labels, 4)
    np.testing.assert_array_equal(pairs[:3, :3], [[1, 1, 0], [1, 2, 0], [0, 0, 1]])
    dice = dice_of(pairs)
    np.testing.assert_allclose(dice[:2], [2 * 2 / 6, 1.0])
    assert np.isnan(dice[2])
    # Labels 0, 1, 2, 4: ET is nowhere, WT has 4 true, 4 predicted, 3 common voxels, TC 3, 3, 2.
    assert region_dice(pairs, StudyConfig()) == pytest.approx((1 + 3 / 4 + 2 / 3) / 3)


@pytest.fixture
def model(tiny_config) -> PixelNet:
    return PixelNet(tiny_config.model, 3, 4, seed=0)


@pytest.fixture
def priors() -> ClassPriors:
    names = ("background", "necrosis", "edema", "enhancing")
    return ClassPriors(names, (0.97, 0.01, 0.01, 0.01), (0.25,) * 4)


def asked(config, **fields):
    fields = {"decisions": "ignore", **fields}
    return replace(config.prediction, **fields), config.training.precision


def test_the_validator_gives_the_dice_of_whole_volumes(tiny_study, tiny_config, model, priors):
    cases = tiny_study.cases[:2]
    found = case_validator(tiny_study, cases, *asked(tiny_config), priors)(model)
    segmenter = SliceSegmenter(model, priors.correction("corrected"))
    expected = []
    for case in cases:
        volume = tiny_study.read_volume(case)
        scores = score_voxels(segmenter, volume, tiny_config.study, tiny_config.prediction)
        expected.append(dice_of(confusion(
            scores.argmax(-1), volume.plan.read_voxels(volume.labels), 4)))
    means = np.nanmean(expected, axis=0)
    assert found == {f"dice_{name}": pytest.approx(value) for name, value in
                     zip(("necrosis", "edema", "enhancing"), means, strict=True)}
    assert 0 < max(found.values()) < 1


def fit(model, study, cases, config, priors):
    with tempfile.TemporaryDirectory() as folder:
        strengths = fit_prior_strength(ScoredCases(
            [Judged(lambda: model, tuple(cases), priors)], study, *asked(config), Path(folder)))
    best = max(strengths, key=lambda strength: strengths[strength])
    return replace(priors, strength=best), strengths


class ScaledStudy:
    """Prepared cases whose slices were scaled up: from 128, 192 and odd numbers of voxels."""

    sizes = {"128": (128, 96, 2), "192": (192, 170, 2), "odd": (75, 61, 3)}  # noqa: RUF012

    def __init__(self, slice_size: int, config: Config):
        self.slice_size, self.config = slice_size, config

    def read_volume(self, case: str) -> PreparedVolume:
        """Each class shines in a channel of its own, so that a network can be perfect."""
        size = self.sizes[case]
        header = nib.Nifti1Header()
        header.set_data_shape(size)
        header.set_sform(np.diag([-1, 1, 2, 1]), code=1)
        plan = SlicePlan(VolumeGeometry.from_header(header), self.slice_size)
        # Single voxels, not smooth regions: an error of the grid shows in all of them.
        classes = np.random.default_rng(0).integers(0, 4, size).astype(np.uint8)
        labels = plan.to_slices(classes, "nearest")
        brain = plan.to_slices(np.ones(size, bool), "nearest")
        return PreparedVolume(case, np.float32(labels[..., None] == [1, 2, 3]), labels, brain, plan,
                              plan.geometry, {})


@pytest.mark.parametrize("slice_size", [256, 0])
def test_a_perfect_network_scores_one_whatever_the_slices_were_scaled_by(tiny_config, priors,
                                                                        slice_size):
    perfect = pixel_network(channels=3, classes=4)
    set_head(perfect, 40 * np.eye(4)[1:], np.array([20, 0, 0, 0]))
    study, cases = ScaledStudy(slice_size, tiny_config), tuple(ScaledStudy.sizes)
    found = case_validator(study, cases, *asked(tiny_config), priors)(perfect)
    assert found == {"dice_necrosis": 1.0, "dice_edema": 1.0, "dice_enhancing": 1.0}
    _, dice = fit(perfect, study, cases, tiny_config, priors)
    assert dice[0.0] == dice[1.0] == 1.0


def test_a_case_without_segmentation_cannot_validate(tiny_config, model, priors):
    class Unlabelled(ScaledStudy):
        path = "prepared"

        def read_volume(self, case):
            return replace(super().read_volume(case), labels=None)

    with pytest.raises(DataError, match="prepared: validation case odd has no segmentation"):
        case_validator(Unlabelled(0, tiny_config), ("odd",), *asked(tiny_config), priors)(model)


def test_a_later_validation_sees_the_later_weights(tiny_study, tiny_config, model, priors):
    validate = case_validator(tiny_study, tiny_study.cases[:1], *asked(tiny_config), priors)
    first = validate(model)
    head = model.parts["cls_score_new"]
    head.bias.assign([0.0, 0.0, 100.0, 0.0])
    later = validate(model)
    assert later != first
    assert later == case_validator(tiny_study, tiny_study.cases[:1], *asked(tiny_config),
                                   priors)(model)


def test_the_strength_with_the_best_dice_is_taken(tiny_study, tiny_config, model, priors):
    # A bias that over-segments: the correction that takes it back is the one to be found.
    head = model.parts["cls_score_new"]
    head.kernel.assign(np.zeros_like(head.kernel))
    fitted, dice = fit(model, tiny_study, tiny_study.cases[:1], tiny_config, priors)
    assert tuple(dice) == STRENGTHS
    assert dice[fitted.strength] == max(dice.values())
    assert replace(fitted, strength=1.0) == priors


def test_the_fit_says_what_a_validation_with_that_strength_says(tiny_study, tiny_config, model,
                                                               priors):
    cases = tiny_study.cases[:2]
    fitted, dice = fit(model, tiny_study, cases, tiny_config, priors)
    for prior, strength in (("sampled", 0.0), ("corrected", 1.0), ("fitted", fitted.strength)):
        found = case_validator(tiny_study, cases, *asked(tiny_config, prior=prior), priors)(model)
        assert dice[strength] == pytest.approx(np.mean(list(found.values())))


def test_a_checkpoint_is_validated_under_the_prior_that_will_be_decided(tiny_config, priors):
    """A network that is right only without the correction; three cases, each of which gains."""
    study, cases = ScaledStudy(0, tiny_config), tuple(ScaledStudy.sizes)
    network = pixel_network(channels=3, classes=4)
    set_head(network, 2 * np.eye(4)[1:], np.array([1, 0, 0, 0]))
    ignored, applied = (
        case_validator(study, cases, *asked(tiny_config, decisions=decisions), priors)(network)
        for decisions in ("ignore", "apply"))
    assert set(ignored.values()) == {0.0}
    assert set(applied.values()) == {1.0}
