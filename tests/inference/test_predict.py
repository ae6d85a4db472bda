"""Predictions of many cases: files, geometry, and what is kept."""

import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from pixelnet_tf.config import config_to_dict, load_config
from pixelnet_tf.dataset.prepare import prepare_study
from pixelnet_tf.errors import DataError
from pixelnet_tf.inference.predict import CaseSource, predict_cases
from pixelnet_tf.model.pixelnet import PixelNet
from pixelnet_tf.runs.network import TrainedNetwork
from pixelnet_tf.volumes.phantom_study import write_phantom

CONFIG = load_config("phantom", [
    "prepare.bias_field.enabled=false", "model.widths=[3, 4, 4, 5, 5]", "model.head_widths=[8]",
    "model.border=16", "prediction.prior=sampled"])
NO_CORRECTION = np.zeros(4, np.float32)

#: A scan that was tilted, flipped and anisotropic, with different qform and sform codes.
TILTED = np.array([[-1.9, 0.3, 0.1, 91.25], [0.31, 1.88, -0.2, -70.5], [0.05, 0.22, 2.9, 13.125],
                   [0, 0, 0, 1]])


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    write_phantom(folder, 3, 0, size=(30, 26, 8))
    for path in (folder / "phantom_002").iterdir():
        image = nib.load(path)
        array = np.asarray(image.dataobj)
        tilted = nib.Nifti1Image(array, None, header=image.header)
        tilted.header.set_qform(TILTED, code=1, strip_shears=True)
        tilted.header.set_sform(tilted.header.get_qform(), code=2)
        tilted.header["descrip"] = b"tilted"
        nib.save(tilted, path)
    return folder


@pytest.fixture(scope="module")
def prepared(study, tmp_path_factory):
    out = tmp_path_factory.mktemp("prepared")
    prepare_study(CONFIG, study, str(out), workers=1)
    return out


@pytest.fixture(scope="module")
def model():
    return PixelNet(CONFIG.model, 3, 4, seed=2)


def predict(model, data, out, config=CONFIG, names=None, model_name="", **options):
    source = CaseSource.open(str(data), config, names)
    said = []
    predict_cases([TrainedNetwork(model, NO_CORRECTION, model_name)], source, config, out,
                  say=said.append, **options)
    return said


def test_one_file_a_case_with_the_geometry_of_the_input(model, study, prepared, tmp_path):
    said = predict(model, prepared, tmp_path / "out", model_name="run")
    assert [line.split()[1] for line in said] == ["phantom_001:", "phantom_002:", "phantom_003:"]
    for case in ("phantom_001", "phantom_002", "phantom_003"):
        given = nib.load(study / case / f"{case}_flair.nii.gz")
        written = nib.load(tmp_path / "out" / f"{case}.nii.gz")
        assert written.get_data_dtype() == np.uint8
        for field in ("dim", "pixdim", "qform_code", "sform_code", "quatern_b", "quatern_c",
                      "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y",
                      "srow_z", "xyzt_units"):
            assert given.header[field].tobytes() == written.header[field].tobytes(), field
        np.testing.assert_array_equal(given.affine, written.affine)
        labels = np.asarray(written.dataobj)
        assert set(np.unique(labels)) <= {0, 1, 2, 4}
        assert labels.any()
        # Outside the brain a skull-stripped volume is zero, and there is no lesion there.
        assert not labels[np.asarray(given.dataobj) == 0].any()
    about = json.loads((tmp_path / "out" / "prediction.json").read_text())
    assert about["cases"] == ["phantom_001", "phantom_002", "phantom_003"]
    network, = about["networks"]
    assert network["model"] == "run"
    assert network["correction"] == [0.0] * 4
    assert about["config"] == json.loads(json.dumps(config_to_dict(CONFIG)))


def test_raw_images_are_prepared_as_for_the_training(model, study, prepared, tmp_path):
    predict(model, prepared, tmp_path / "a")
    predict(model, study, tmp_path / "b")
    for path in (tmp_path / "a").glob("*.nii.gz"):
        np.testing.assert_array_equal(np.asarray(nib.load(path).dataobj),
                                      np.asarray(nib.load(tmp_path / "b" / path.name).dataobj))


def test_probabilities(model, prepared, tmp_path):
    config = replace(CONFIG, prediction=replace(CONFIG.prediction, probability_maps=True))
    predict(model, prepared, tmp_path / "out", config, ["phantom_001"])
    maps = nib.load(tmp_path / "out" / "probabilities" / "phantom_001.nii.gz")
    assert maps.shape == (30, 26, 8, 4)
    labels = np.asarray(nib.load(tmp_path / "out" / "phantom_001.nii.gz").dataobj)
    best = np.array([0, 1, 2, 4])[np.asarray(maps.dataobj).argmax(-1)]
    assert (best == labels).mean() > 0.999


def test_finished_cases_are_kept(model, prepared, tmp_path):
    out = tmp_path / "out"
    predict(model, prepared, out)
    kept = out / "phantom_001.nii.gz"
    before = kept.stat().st_mtime_ns
    (out / "phantom_003.nii.gz").unlink()
    said = predict(model, prepared, out)
    assert said[0] == "2 finished cases are kept"
    assert [line.split()[1] for line in said[1:]] == ["phantom_003:"]
    assert kept.stat().st_mtime_ns == before
    assert (out / "phantom_003.nii.gz").is_file()


def test_a_failure_keeps_what_is_finished(model, prepared, tmp_path):
    def draw(volume, labels):
        if volume.name == "phantom_002":
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        predict(model, prepared, tmp_path / "out", draw=draw)
    assert (tmp_path / "out" / "phantom_001.nii.gz").is_file()
    assert not (tmp_path / "out" / "phantom_002.nii.gz").exists()
    said = predict(model, prepared, tmp_path / "out")
    assert said[0] == "1 finished cases are kept"


def test_results_of_another_model_or_setting_are_refused(model, prepared, tmp_path):
    predict(model, prepared, tmp_path / "out", names=["phantom_001"])
    other_prior = replace(CONFIG, prediction=replace(CONFIG.prediction, mode="reference"))
    with pytest.raises(DataError, match="another model or with other settings"):
        predict(model, prepared, tmp_path / "out", other_prior)
    # The same path and settings, other weights: the run was trained anew.
    with pytest.raises(DataError, match="another model or with other settings"):
        predict(PixelNet(CONFIG.model, 3, 4, seed=3), prepared, tmp_path / "out")
    # More cases of the same model complete the folder.
    predict(model, prepared, tmp_path / "out")
    assert len(list((tmp_path / "out").glob("*.nii.gz"))) == 3


def test_names_that_are_not_there(study, prepared, tmp_path):
    for data in (study, prepared):
        with pytest.raises(DataError, match=r"no case 'phantom_004' .did you mean 'phantom_00"):
            CaseSource.open(str(data), CONFIG, None, ["phantom_004"])
    with pytest.raises(DataError, match="the chosen part of the split has no case"):
        CaseSource.open(str(prepared), CONFIG, [])
    with pytest.raises(DataError):
        CaseSource.open(str(tmp_path / "nowhere"), CONFIG, None)
