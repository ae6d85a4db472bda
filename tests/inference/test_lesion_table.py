"""`lesions.tsv` and the maps of uncertainty: right after every call, whatever came before."""

import csv
import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from pixelnet_tf.api.check import check_folder
from pixelnet_tf.config import load_config
from pixelnet_tf.inference.predict import CaseSource, write_cases
from pixelnet_tf.inference.volume import SegmentedVolume, Uncertainty
from pixelnet_tf.volumes.lesions import LesionVoxels, list_lesions
from pixelnet_tf.volumes.phantom_study import write_phantom
from tests.dicom_study import OBLIQUE, orthogonal

CONFIG = load_config("phantom", ["prepare.bias_field.enabled=false"])
COLUMNS = ["case", "region", "lesion", "volume_ml", "x_mm", "y_mm", "z_mm", "touches_border",
           "mean_probability", "mean_entropy"]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    write_phantom(folder, 3, 0, size=(16, 16, 6))
    return folder


def segment_with_maps(volume):
    """Two lesions of edema, and of the third case none, and every map."""
    labels = np.zeros(volume.geometry.shape, np.uint8)
    if volume.name != "phantom_003":
        labels[4:6, 4:6, 2], labels[9, 9, 0] = 2, 2
    shares = np.zeros((*labels.shape, 4), np.float32)
    shares[..., 0], shares[..., 2] = 0.25, 0.75
    entropies = np.full(labels.shape, 0.5, np.float32)
    return SegmentedVolume(labels, shares, Uncertainty(entropies, entropies / 2),
                           LesionVoxels.of(labels, shares, entropies))


def segment(volume):
    return replace(segment_with_maps(volume), probabilities=None, uncertainty=None)


def write(study, out, names=None, config=CONFIG, segment=segment, **options):
    write_cases(segment, {"networks": [{"model": "m", "weights": "w", "correction": [0.0]}]},
                CaseSource.open(str(study), config, names), config, out, **options)


def table(out):
    with open(out / "lesions.tsv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def test_a_row_for_each_lesion_and_one_where_there_is_none(study, tmp_path):
    write(study, tmp_path / "out")
    rows = table(tmp_path / "out")
    assert list(rows[0]) == COLUMNS
    affine = nib.load(tmp_path / "out" / "phantom_001.nii.gz").affine
    place = affine @ [4.5, 4.5, 2, 1]
    voxel_ml = abs(np.linalg.det(affine[:3, :3])) / 1000
    edema = [row for row in rows if row["case"] == "phantom_001" and row["region"] == "WT"]
    assert [row["lesion"] for row in edema] == ["1", "2"]
    assert [float(edema[0][axis]) for axis in ("x_mm", "y_mm", "z_mm")] == pytest.approx(
        place[:3], rel=1e-5)
    assert [float(row["volume_ml"]) for row in edema] == pytest.approx([4 * voxel_ml, voxel_ml])
    assert [row["touches_border"] for row in edema] == ["no", "yes"]
    assert {(row["mean_probability"], row["mean_entropy"]) for row in edema} == {("0.75", "0.5")}
    nothing = [list(row.values()) for row in rows if row["case"] == "phantom_003"]
    assert nothing == [["phantom_003", region, "0", "0", *["n/a"] * 6]
                       for region in ("ET", "WT", "TC")]


def test_calls_for_other_cases_and_a_call_that_was_stopped_give_one_table(study, tmp_path):
    write(study, tmp_path / "whole")
    out = tmp_path / "parts"
    write(study, out, ["phantom_003"])
    assert {row["case"] for row in table(out)} == {"phantom_003"}

    def stops(volume):
        if volume.name == "phantom_002":
            raise KeyboardInterrupt
        return segment(volume)

    with pytest.raises(KeyboardInterrupt):
        write(study, out, ["phantom_001", "phantom_002"], segment=stops)
    # What is there is whole: no table of a part of the cases.
    assert not (out / "lesions.tsv").exists()
    write(study, out, ["phantom_002"])
    write(study, out, ["phantom_001"])
    assert (out / "lesions.tsv").read_bytes() == (tmp_path / "whole" / "lesions.tsv").read_bytes()
    assert check_folder(out).whole


def test_what_is_made_anew_or_corrected_by_hand_is_listed_anew(study, tmp_path):
    out = tmp_path / "out"
    write(study, out, ["phantom_001", "phantom_003"])
    path = out / "phantom_001.nii.gz"
    image = nib.load(path)
    labels = np.asarray(image.dataobj).copy()
    labels[9, 9, 0] = 0
    nib.save(nib.Nifti1Image(labels, None, image.header), path)
    check_folder(out, accept=["phantom_001.nii.gz"])
    write(study, out, ["phantom_003"])
    rows = [row for row in table(out) if row["case"] == "phantom_001" and row["region"] == "WT"]
    # The network's word on it went with the segmentation that it was of.
    assert [(row["lesion"], row["mean_probability"]) for row in rows] == [("1", "n/a")]
    other = replace(CONFIG, prediction=replace(CONFIG.prediction, flips=True))
    write(study, out, ["phantom_003"], other, overwrite=True)
    assert {row["case"] for row in table(out)} == {"phantom_003"}
    assert not (out / "lesions" / "phantom_001.json").exists()


def test_maps_that_are_there_say_what_is_known_of_a_corrected_segmentation(study, tmp_path):
    maps = replace(CONFIG, prediction=replace(CONFIG.prediction, probability_maps=True,
                                              uncertainty_maps=True))
    out = tmp_path / "out"
    write(study, out, ["phantom_001"], maps, segment_with_maps)
    before = table(out)
    (out / "lesions" / "phantom_001.json").unlink()
    write(study, out, ["phantom_001"], maps)
    assert table(out) == before
    assert before[1]["mean_probability"] == "0.75"


def test_maps_of_uncertainty_complete_a_case(study, tmp_path):
    asked = replace(CONFIG, prediction=replace(CONFIG.prediction, uncertainty_maps=True))
    out = tmp_path / "out"
    write(study, out, ["phantom_001"])

    def one_network(volume):
        found = segment_with_maps(volume)
        return replace(found, probabilities=None,
                       uncertainty=replace(found.uncertainty, mutual_information=None))

    write(study, out, ["phantom_001"], asked, one_network)
    assert [path.name for path in (out / "uncertainty").iterdir()] == [
        "phantom_001_entropy.nii.gz"]
    image = nib.load(out / "uncertainty" / "phantom_001_entropy.nii.gz")
    assert image.get_data_dtype() == np.float32
    np.testing.assert_array_equal(np.asarray(image.dataobj), np.float32(0.5))
    write(study, out, ["phantom_002"], asked, segment_with_maps)
    image = nib.load(out / "uncertainty" / "phantom_002_mutual_information.nii.gz")
    np.testing.assert_array_equal(np.asarray(image.dataobj), np.float32(0.25))
    # The labels are the same with them and without: the case of before stays.
    about = json.loads((out / "prediction.json").read_text())
    assert about["cases"] == ["phantom_001", "phantom_002"]
    assert check_folder(out).whole


def test_simpleitk_finds_the_same_lesions_sizes_and_centroids():
    """On an oblique grid of unequal sides; in its own connected components and shape statistics."""
    rng = np.random.default_rng(1)
    field = ndimage.gaussian_filter(rng.normal(size=(22, 18, 14)), 1.5)
    labels = np.where(field > np.quantile(field, 0.85), 2, 0).astype(np.uint8)
    labels[field > np.quantile(field, 0.95)] = 4
    affine = nib.affines.from_matvec(orthogonal(OBLIQUE) * [0.9, 1.1, 2.5], [31.25, -40.5, 12.125])
    lps = np.diag([-1, -1, 1, 1]) @ affine
    study = CONFIG.study
    for region, values in study.regions.items():
        image = sitk.GetImageFromArray(np.isin(labels, values).astype(np.uint8).T)
        image.SetSpacing(np.linalg.norm(lps[:3, :3], axis=0).tolist())
        image.SetDirection((lps[:3, :3] / image.GetSpacing()).ravel().tolist())
        image.SetOrigin(lps[:3, 3].tolist())
        shapes = sitk.LabelShapeStatisticsImageFilter()
        shapes.Execute(sitk.ConnectedComponent(image, True))
        theirs = sorted((shapes.GetPhysicalSize(number) / 1000, *(
            np.array([-1, -1, 1]) * shapes.GetCentroid(number))) for number in shapes.GetLabels())
        mine = sorted((one.volume_ml, *one.centroid_mm)
                      for one in list_lesions(labels, affine, study) if one.region == region)
        assert len(mine) == len(theirs) > (region == "WT")
        np.testing.assert_allclose(mine, theirs, rtol=1e-6, atol=1e-6)
