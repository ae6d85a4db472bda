"""Brain masks that come with the cases: `study.files.mask`."""

from __future__ import annotations

import gzip
import io
from dataclasses import replace
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest

from pixelnet_tf.api.segmenter import Segmenter, adapted
from pixelnet_tf.cases.layouts import find_cases
from pixelnet_tf.config import Config, config_from_dict, load_config
from pixelnet_tf.dataset.fingerprint import inputs_of, preparation_of
from pixelnet_tf.errors import ConfigError, DataError
from pixelnet_tf.evaluation.case_images import image_reader
from pixelnet_tf.inference.volume import PredictionGrid, SegmentedVolume
from pixelnet_tf.serving.limits import ServerLimits
from pixelnet_tf.serving.segment_upload import segment_upload
from pixelnet_tf.volumes.bias_field import correct_bias_field
from pixelnet_tf.volumes.case_volume import prepare_case
from pixelnet_tf.volumes.checks import check_case
from pixelnet_tf.volumes.phantom_study import write_phantom

ON = "study.files={mask: '*_mask'}"
PLAIN = ["prepare.bias_field.enabled=false", "study.skull_stripped=false"]


def save_mask(folder, mask, affine=None, name="phantom_001"):
    like = nib.load(folder / name / f"{name}_flair.nii.gz")
    nib.save(nib.Nifti1Image(mask, like.affine if affine is None else affine),
             folder / name / f"{name}_mask.nii.gz")


@pytest.fixture
def study(tmp_path):
    """A phantom of 24x20x8 voxels whose mask is a box of 12x10x8."""
    write_phantom(tmp_path, 1, 0, size=(24, 20, 8))
    mask = np.zeros((24, 20, 8), np.uint8)
    mask[6:18, 5:15] = 255
    save_mask(tmp_path, mask)
    return tmp_path


@pytest.fixture
def config() -> Config:
    return load_config("phantom", [*PLAIN, ON])


def only_case(folder, config):
    case, = find_cases(folder, config.study)
    return case


def test_the_mask_is_the_brain_of_normalisation_and_prediction(study, config):
    case = only_case(study, config)
    assert list(case.volumes) == ["flair", "t1ce", "t2", "mask"]
    volume = prepare_case(case, config.study, config.prepare)
    assert volume.images.shape[-1] == 3
    brain = volume.plan.from_slices(volume.brain)
    inside = np.zeros((24, 20, 8), bool)
    inside[6:18, 5:15] = True
    np.testing.assert_array_equal(brain, inside)
    raw = nib.load(case.volumes["t2"]).get_fdata()[inside]
    assert volume.normalization["t2"]["mean"] == pytest.approx(raw.mean(), rel=1e-5)
    assert volume.normalization["t2"]["std"] == pytest.approx(raw.std(), rel=1e-5)
    images = volume.plan.from_slices(volume.images)
    assert (images[~inside] == 0).all()
    # With skull, too, `auto` keeps the prediction inside a mask that is given.
    assert config.prediction.inside_brain(config.study)
    domain = PredictionGrid.of(volume, True).domain
    np.testing.assert_array_equal(volume.plan.from_slices(domain), inside)
    shown = image_reader(study, config.study)("phantom_001", volume.geometry)
    np.testing.assert_array_equal(shown.brain, inside)


def test_the_bias_field_is_fitted_in_the_mask(study):
    config = load_config("phantom", [ON, "prepare.bias_field.iterations=[5]"])
    case = only_case(study, config)
    volume = prepare_case(case, config.study, config.prepare)
    geometry = volume.geometry
    view = geometry.to_view(nib.load(case.volumes["flair"]).get_fdata().astype(np.float32))
    mask = geometry.to_view(volume.plan.from_slices(volume.brain))
    corrected = correct_bias_field(view, geometry.view_spacing_mm, mask, config.prepare.bias_field)
    assert volume.normalization["flair"]["mean"] == pytest.approx(
        float(corrected[mask].mean()), rel=1e-5)


def test_a_pattern_names_the_mask(study):
    files = {m: f"{{case}}_{m}.nii.gz" for m in ("flair", "t1ce", "t2", "seg")}
    config = load_config("phantom", [*PLAIN, "study.layout=pattern", "study.files=" + str(
        files | {"mask": "*_mask.nii.gz"}).replace("'", '"')])
    assert only_case(study, config).volumes["mask"].name == "phantom_001_mask.nii.gz"


def test_a_mask_is_asked_for_only_where_the_configuration_names_one(study, config):
    (study / "phantom_001" / "phantom_001_mask.nii.gz").unlink()
    assert "brain mask is missing: looked for" in only_case(study, config).faults[0].text
    assert not only_case(study, load_config("phantom")).faults


def test_a_mask_is_part_of_what_a_case_is_made_from(study, config):
    before = inputs_of([only_case(study, config)])
    mask = np.ones((24, 20, 8), np.uint8)
    save_mask(study, mask)
    assert inputs_of([only_case(study, config)]) != before
    without = load_config("phantom", PLAIN)
    assert (preparation_of(config.study, config.prepare)
            != preparation_of(without.study, without.prepare))


@pytest.mark.parametrize(("mask", "affine", "message"), [
    (np.zeros((24, 20, 8), np.uint8), None, "no voxel of the brain mask is above 0.5"),
    (np.ones((24, 20, 7), np.uint8), None, "not on the grid of the first modality"),
    (np.ones((24, 20, 8), np.uint8), np.diag([1, 1, 1, 1.0]), "not on the grid"),
])
def test_a_mask_that_does_not_fit_is_named(study, config, mask, affine, message):
    save_mask(study, mask, affine)
    case = only_case(study, config)
    problem, = check_case(case, config.study).problems
    assert message in problem.message
    assert "phantom_001_mask.nii.gz" in problem.message
    with pytest.raises(DataError, match=message):
        prepare_case(case, config.study, config.prepare)


def test_a_mask_of_another_order_of_storage_is_brought(study, config):
    case = only_case(study, config)
    expected = prepare_case(case, config.study, config.prepare)
    path = study / "phantom_001" / "phantom_001_mask.nii.gz"
    turned = nib.load(path).as_reoriented(np.array([[0, -1], [1, 1], [2, 1]]))
    nib.save(nib.Nifti1Image(np.asarray(turned.dataobj), turned.affine), path)
    resampled = replace(config.study, resample=True)
    found = prepare_case(case, resampled, config.prepare)
    np.testing.assert_array_equal(found.images, expected.images)


def test_scans_in_memory_and_uploads_bring_the_mask(study, config):
    case = only_case(study, config)

    def segment(volume, *maps):
        labels = volume.plan.from_slices(volume.brain).astype(np.uint8)
        return SegmentedVolume(labels, None)

    segmenter = Segmenter(config, lambda: (segment, {}))
    assert segmenter.modalities == ("flair", "t1ce", "t2", "mask")
    found = segmenter.predict(case.volumes, probabilities=False).labels
    assert np.count_nonzero(found) == 12 * 10 * 8
    with pytest.raises(DataError, match="'mask' is missing"):
        segmenter.predict({m: case.volumes[m] for m in config.study.modalities})

    model = SimpleNamespace(
        config=config, about={}, name="m",
        segment_slices=lambda images, domain, **_: (domain.astype(np.uint8), None))
    files = {name: io.BytesIO(path.read_bytes()) for name, path in case.volumes.items()}
    answer = segment_upload(model, files, ServerLimits())
    labels = nib.Nifti1Image.from_bytes(gzip.decompress(answer))
    np.testing.assert_array_equal(np.asarray(labels.dataobj), found)


def test_a_model_takes_masks_as_it_was_trained_or_none(config):
    other = config_from_dict({"study": {"labels": dict(config.study.labels)}})
    with pytest.raises(ConfigError, match="the study is without brain masks, but the model was "
                                          "trained with a brain mask for each case"):
        adapted(config, other, ())
