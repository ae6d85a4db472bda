"""Voxels of `study.ignore_label` all the way: read, prepared, drawn, lost, validated, scored."""

from __future__ import annotations

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import tensorflow as tf

import pixelnet_tf as px
from pixelnet_tf.cases.labels import IGNORED, classes_to_values, values_to_classes
from pixelnet_tf.cases.layouts import find_cases
from pixelnet_tf.config import StudyConfig, load_config
from pixelnet_tf.dataset.measure_priors import measure_priors
from pixelnet_tf.dataset.pipeline import training_batches
from pixelnet_tf.dataset.prepare_study import prepare_study
from pixelnet_tf.dataset.prepared import PreparedStudy
from pixelnet_tf.dataset.sampler import sample_pixels
from pixelnet_tf.dataset.schedule import SliceSchedule
from pixelnet_tf.errors import ConfigError, DataError
from pixelnet_tf.evaluation.protocols import BratsProtocol, IslesProtocol
from pixelnet_tf.evaluation.score_cases import Pair, score_pair
from pixelnet_tf.evaluation.tuning import mean_dice
from pixelnet_tf.training.loss import make_loss
from pixelnet_tf.training.validation import confusion, dice_of, region_dice
from pixelnet_tf.volumes.checks import check_case
from pixelnet_tf.volumes.phantom_study import write_phantom
from tests.training.conftest import TINY

STUDY = StudyConfig(labels={0: "background", 1: "lesion"}, regions={"lesion": (1,)},
                    ignore_label=255)


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> PreparedStudy:
    """Three phantoms; of the first nobody judged the right half, of the second the upper slices."""
    folder = tmp_path_factory.mktemp("ignored")
    write_phantom(folder / "study", 3, 0, size=(32, 28, 10))
    for case, where in (("phantom_001", np.s_[:16]), ("phantom_002", np.s_[:, :, 6:])):
        path = folder / "study" / case / f"{case}_seg.nii.gz"
        image = nib.load(path)
        labels = np.asarray(image.dataobj)
        labels[where] = 255
        nib.save(nib.Nifti1Image(labels, image.affine, image.header), path)
    config = load_config("phantom", [*TINY, "study.ignore_label=255"])
    prepare_study(config, folder / "study", str(folder / "prepared"), workers=1)
    return PreparedStudy.open(folder / "prepared")


def test_label_values_to_indices_and_back():
    values = np.array([[0, 1], [255, 1]], np.float32)
    classes = values_to_classes(values, STUDY)
    assert classes.tolist() == [[0, 1], [IGNORED, 1]]
    assert classes_to_values(classes, STUDY).tolist() == values.tolist()
    moved = replace(STUDY, ignore_label=7)
    assert values_to_classes(np.array([7, 1]), moved).tolist() == [IGNORED, 1]
    assert classes_to_values(np.array([IGNORED]), moved).tolist() == [7]
    with pytest.raises(DataError, match=r"unknown label 255.*name it as study.ignore_label"):
        values_to_classes(values, replace(STUDY, ignore_label=None))


@pytest.mark.parametrize(("value", "message"), [
    (1, "study.ignore_label is 1, which study.labels names as the class 'lesion'"),
    (256, r"study.ignore_label must lie in \[0, 255\]"),
])
def test_a_label_that_cannot_be_ignored_is_refused(value, message):
    with pytest.raises(ConfigError, match=message):
        replace(STUDY, ignore_label=value)


def test_a_prepared_slice_counts_what_was_judged_alone(study):
    volume, index = study.read_volume("phantom_001"), study.index
    # The file's right half is the picture's left half.
    assert (volume.labels[:, :, :16] == IGNORED).all()
    assert (volume.labels[:, :, 16:] < 4).all()
    rows = index.rows_of(["phantom_001"])
    for row in rows:
        labels, brain = volume.labels[index.slice[row]], volume.brain[index.slice[row]]
        assert index.class_counts[row].tolist() == np.bincount(
            labels[:, 16:].ravel(), minlength=4).tolist()
        assert index.brain_fraction[row] == pytest.approx(brain[:, 16:].sum() / brain.size)


@pytest.mark.parametrize("changes", [
    {"strategy": "all", "background_in_brain": True},
    {"strategy": "balanced", "lesion_mixing": 1.0},
    {"strategy": "uniform", "rotation": 20.0, "scaling": 0.5},
])
def test_no_ignored_pixel_is_trained_on(study, changes):
    sampling = replace(study.config.sampling, flips=False, lesion_free_slices=1.0, **changes)
    schedule = SliceSchedule(study, study.cases, sampling, seed=0)
    # Slices of which nothing is judged are not drawn at all.
    index = study.index
    names = np.array(index.cases)[index.case[schedule.rows()]]
    assert index.slice[schedule.rows()][names == "phantom_002"].max() == 5
    labels = {row: study.read_volume(index.cases[index.case[row]]).labels[index.slice[row]]
              for row in schedule.rows()}
    seen = 0
    for batch in training_batches(study, schedule, sampling, batch_slices=2, seed=3).take(8):
        classes = batch["classes"].numpy()
        assert len(classes)
        assert 0 <= classes.min() <= classes.max() < 4
        if "rotation" in changes:
            continue
        n, y, x = batch["pixels"].numpy().astype(int).T
        true = np.array([labels[row] for row in batch["row"].numpy()])[n, y, x]
        seen += (true == IGNORED).sum()
        # A mixed lesion is known, wherever it lies; everything else is as the experts have it.
        assert ((true == classes) | (classes > 0) & ("lesion_mixing" in changes)).all()
    assert seen == 0 or "lesion_mixing" in changes


@pytest.mark.parametrize("strategy", ["balanced", "uniform", "all"])
def test_a_slice_of_ignored_pixels_alone_gives_none_that_counts(study, strategy):
    sampling = replace(study.config.sampling, strategy=strategy, pixels=20, lattice=1)
    labels = np.full((6, 7), IGNORED, np.int32)
    _, drawn = sample_pixels(tf.constant(labels), tf.ones((6, 7), tf.bool), [0, 1], classes=4,
                             config=sampling)
    assert set(drawn.numpy().tolist()) == {-1}
    # Where background lies outside the brain alone, it is drawn, and not what is ignored.
    labels[0, :3] = 0
    _, drawn = sample_pixels(tf.constant(labels), tf.zeros((6, 7), tf.bool), [0, 1], classes=4,
                             config=sampling)
    assert set(drawn.numpy().tolist()) == {0}


@pytest.mark.parametrize("kind", ["cross_entropy", "dice", "cross_entropy_dice"])
@pytest.mark.parametrize("weights", [(), (1.0, 2.0)])
def test_a_mini_batch_without_pixels_costs_nothing(kind, weights):
    scores = tf.Variable(tf.zeros((0, 2)))
    kernel = tf.Variable(1.0)
    with tf.GradientTape() as tape:
        loss = make_loss(kind, weights)(scores * kernel, tf.zeros((0,), tf.int32))
    assert loss.numpy() == 0
    assert tape.gradient(loss, kernel).numpy() == 0


def test_priors_are_those_of_the_judged_pixels(study):
    for strategy, inside in (("uniform", False), ("all", True)):
        sampling = replace(study.config.sampling, strategy=strategy, lattice=1, flips=False,
                           background_in_brain=inside, lesion_free_slices=1.0)
        schedule = SliceSchedule(study, study.cases, sampling, seed=0)
        priors = measure_priors(study, schedule, sampling)
        counts = np.zeros(4)
        for row in schedule.rows():
            volume = study.read_volume(study.index.cases[study.index.case[row]])
            labels = volume.labels[study.index.slice[row]]
            where = volume.brain[study.index.slice[row]] | (labels > 0) if inside else labels >= 0
            counts += np.bincount(labels[where & (labels < 4)], minlength=4)
        np.testing.assert_allclose(priors.real, counts / counts.sum(), rtol=1e-5)


def test_validation_and_decisions_leave_ignored_voxels_out():
    truth = np.array([0, 0, 1, 1, IGNORED, IGNORED], np.uint8)
    predicted = np.array([0, 1, 1, 0, 1, 0])
    pairs = confusion(predicted, truth, 2)
    assert pairs.tolist() == [[1, 1], [1, 1]]
    assert dice_of(pairs).tolist() == [0.5]
    assert region_dice(pairs, STUDY) == 0.5
    values = classes_to_values(truth, STUDY)
    assert mean_dice(values, predicted.astype(np.uint8), STUDY) == 0.5


@pytest.fixture
def scored(tmp_path):
    """Files of 4 x 4 x 4 voxels: 8 of the lesion, 4 found; 16 ignored, 4 of these predicted."""
    truth, found = np.zeros((2, 4, 4, 4), np.uint8)
    truth[0, :2], found[0, 0], found[1, 0] = 1, 1, 1
    truth[3], found[3, 0] = 255, 1
    for name, labels in (("truth", truth), ("found", found)):
        nib.save(nib.Nifti1Image(labels, np.eye(4)), tmp_path / f"{name}.nii.gz")
    return tmp_path / "truth.nii.gz", tmp_path / "found.nii.gz"


@pytest.mark.parametrize("protocol", [BratsProtocol(), IslesProtocol()])
def test_every_protocol_scores_the_judged_voxels_alone(scored, protocol):
    score = score_pair(Pair("one", *scored), STUDY, protocol)["lesion"]
    assert score.values["Dice"] == pytest.approx(2 * 4 / (8 + 8))
    assert score.values["Precision"] == pytest.approx(0.5)
    # Of 48 judged voxels 8 are lesion; 4 of the 40 others were predicted.
    assert score.values.get("Specificity", 0.9) == pytest.approx(36 / 40)
    assert score.lesions.values["FalsePositives"] == 0
    whole = px.evaluate({"one": scored[1]}, {"one": scored[0]}, protocol.name, overrides=[
        "study.labels={0: background, 1: lesion}", "study.regions={lesion: [1]}",
        "study.ignore_label=255"])
    assert whole[0]["Dice"] == pytest.approx(0.5)


def test_a_prediction_may_not_hold_the_ignored_label(scored):
    with pytest.raises(DataError, match="unknown label 255"):
        score_pair(Pair("one", scored[0], scored[0]), STUDY, BratsProtocol())


def test_ignored_voxels_are_no_lesion(tmp_path):
    write_phantom(tmp_path, 1, 0, size=(24, 20, 8))
    path = tmp_path / "phantom_001" / "phantom_001_seg.nii.gz"
    image = nib.load(path)
    labels = np.where(np.asarray(image.dataobj) > 0, 255, 0).astype(np.uint8)
    nib.save(nib.Nifti1Image(labels, image.affine, image.header), path)
    config = load_config("phantom", ["study.ignore_label=255"])
    case, = find_cases(tmp_path, config.study)
    found = check_case(case, config.study)
    assert not found.problems
    assert not found.has_lesion
