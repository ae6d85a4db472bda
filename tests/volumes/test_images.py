"""One volume in every form of files: the same voxels at the same place, or a word on what is
wrong."""

import gzip
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from pixelnet_tf.cases.case import Case, Channel
from pixelnet_tf.cases.names import IMAGE_ENDINGS, image_files
from pixelnet_tf.config import BiasFieldConfig, PrepareConfig, StudyConfig
from pixelnet_tf.dataset.fingerprint import inputs_of
from pixelnet_tf.errors import DataError
from pixelnet_tf.volumes.case_volume import prepare_case
from pixelnet_tf.volumes.checks import check_case
from pixelnet_tf.volumes.images import parts_of, read_geometry, read_volume
from pixelnet_tf.volumes.nifti import write_labels
from pixelnet_tf.volumes.raw_volume import RawVolume, geometry_of
from tests.mutations import flipped_bits
from tests.study_forms import FORMS, write_image

AFFINE = nib.affines.from_matvec(
    nib.eulerangles.euler2mat(0.1, -0.2, 0.3) @ np.diag([-0.9375, 1.25, 5.5]), [41.5, -17.25, 3])
ARRAY = np.random.default_rng(0).integers(0, 300, (7, 6, 5)).astype(np.int16)


def test_every_form_has_a_test():
    assert set(FORMS) == set(IMAGE_ENDINGS)


@pytest.mark.parametrize("ending", FORMS)
@pytest.mark.parametrize("kind", ["int16", "float32", "uint8"])
def test_one_volume_in_every_form_is_the_same(tmp_path, ending, kind):
    array = ARRAY.astype(kind)
    if kind == "float32":
        array += np.float32(0.25)
    path = write_image(tmp_path / f"v{ending}", array, AFFINE)
    read, geometry = read_volume(path)
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, array)
    reference = read_geometry(write_image(tmp_path / "reference.nii.gz", array, AFFINE))
    np.testing.assert_allclose(geometry.affine, AFFINE, atol=2e-6)
    assert geometry.difference(reference) is None
    assert geometry.is_placed
    assert geometry.spacing_doubt is None
    assert geometry.nifti_header().get_data_dtype() == array.dtype
    assert read_geometry(path).affine.tobytes() == geometry.affine.tobytes()
    # A prediction has the geometry, and is NIfTI in one piece.
    write_labels(tmp_path / "p.nii.gz", array % 4, geometry)
    assert type(nib.load(tmp_path / "p.nii.gz")) is nib.Nifti1Image
    assert read_geometry(tmp_path / "p.nii.gz").difference(geometry) is None


@pytest.mark.parametrize("ending", FORMS)
def test_a_case_in_every_form_gives_the_same_slices_and_labels(tmp_path, ending, ball):
    study = StudyConfig(modalities=("flair",), labels={0: "background", 1: "lesion"}, regions={})
    labels = (ball > 130).astype(np.uint8)

    def prepared(form: str):
        case = Case("p", {"flair": write_image(tmp_path / f"f{form}", ball, AFFINE)},
                    write_image(tmp_path / f"s{form}", labels, AFFINE))
        assert check_case(case, study).problems == ()
        return prepare_case(case, study, PrepareConfig(BiasFieldConfig(enabled=False)))

    one, other = prepared(".nii.gz"), prepared(ending)
    np.testing.assert_array_equal(one.images, other.images)
    np.testing.assert_array_equal(one.labels, other.labels)
    assert one.labels.any()


@pytest.mark.parametrize(("ending", "packed"), [
    *((ending, True) for ending in FORMS), (".nrrd", False), (".mha", False), (".mhd", False)])
def test_a_file_of_any_form_is_read_to_its_end(tmp_path, ending, packed):
    """What is cut short is refused, and so is what goes on; MGH files may have tags there."""
    path = write_image(tmp_path / f"v{ending}", ARRAY, AFFINE, packed)
    voxels = parts_of(path)[-1]
    data = voxels.read_bytes()
    # 20 bytes behind an MGH file's voxels say how it was scanned.
    behind = 20 if ending == ".mgh" else 0
    for cut in (data[:-1 - behind], data[:len(data) // 2], data[:1], b""):
        voxels.write_bytes(cut)
        with pytest.raises(DataError) as refused:
            read_volume(path)
        assert str(tmp_path / "v") in str(refused.value)
        assert refused.value.hint
    voxels.write_bytes(data + b"more")
    if ending not in (".mgh", ".mgz"):
        with pytest.raises(DataError):
            read_volume(path)


@pytest.mark.parametrize("ending", [".mgz", ".nrrd", ".mha"])
def test_no_flipped_bit_of_compressed_voxels_changes_them(tmp_path, ending, capfd):
    path = write_image(tmp_path / f"v{ending}", ARRAY, AFFINE)
    data = path.read_bytes()
    for _, broken in flipped_bits(data, range(8 * (len(data) - 250), 8 * len(data), 29)):
        path.write_bytes(broken)
        try:
            np.testing.assert_array_equal(read_volume(path)[0], ARRAY)
        except DataError:
            pass
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("ending", [".mgh", ".nrrd", ".mha", ".hdr"])
def test_no_flipped_bit_of_a_header_is_more_than_an_error(tmp_path, ending):
    path = write_image(tmp_path / f"v{ending}", ARRAY, AFFINE, packed=False)
    data = path.read_bytes()
    refused = 0
    for _, broken in flipped_bits(data, range(0, 8 * min(len(data), 500), 37)):
        path.write_bytes(broken)
        try:
            array, geometry = read_volume(path)
        except DataError:
            refused += 1
        else:
            assert array.size == ARRAY.size
            assert np.isfinite(geometry.affine).all()
    assert refused > 3


def four_dimensions(folder: Path) -> Path:
    return write_image(folder / "v.mgz", np.stack([ARRAY, ARRAY], -1), AFFINE)


def colours(folder: Path) -> Path:
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((3, 4, 5, 3), np.uint8), isVector=True),
                    str(folder / "v.mha"))
    return folder / "v.mha"


def flat_image(folder: Path) -> Path:
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((3, 4), np.uint8)), str(folder / "v.nrrd"))
    return folder / "v.nrrd"


def analyze(folder: Path) -> Path:
    nib.save(nib.AnalyzeImage(ARRAY, np.eye(4)), folder / "v.img")
    return folder / "v.img"


def half_of_a_pair(folder: Path) -> Path:
    path = write_image(folder / "v.hdr", ARRAY, AFFINE)
    path.with_suffix(".img").unlink()
    return path


def header_without_voxels(folder: Path) -> Path:
    path = write_image(folder / "v.mhd", ARRAY, AFFINE, packed=False)
    path.with_suffix(".raw").unlink()
    return path


def list_of_slices(folder: Path) -> Path:
    path = write_image(folder / "v.mhd", ARRAY, AFFINE, packed=False)
    path.write_text(path.read_text().replace("v.raw", "LIST"))
    return path


def voxels_apart(folder: Path) -> Path:
    path = write_image(folder / "v.nrrd", ARRAY, AFFINE)
    path.write_bytes(path.read_bytes().replace(b"encoding: gzip", b"encoding: gzip\ndata file: x"))
    return path


def text_voxels(folder: Path) -> Path:
    path = write_image(folder / "v.nrrd", ARRAY, AFFINE)
    path.write_bytes(path.read_bytes().replace(b"encoding: gzip", b"encoding: ascii"))
    return path


def no_place(folder: Path) -> Path:
    path = write_image(folder / "v.mgh", ARRAY, AFFINE)
    data = bytearray(path.read_bytes())
    data[28:30] = b"\0\0"
    path.write_bytes(data)
    return path


def pointer(folder: Path) -> Path:
    (folder / "v.mgz").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    return folder / "v.mgz"


@pytest.mark.parametrize(("make", "words"), [
    (four_dimensions, r"has shape \(7, 6, 5, 2\).*split a series"),
    (colours, "holds 3 numbers a voxel"), (flat_image, r"has shape \(4, 3\)"),
    (analyze, "Analyze 7.5.*left"), (half_of_a_pair, "v.img is not there; fetch both"),
    (header_without_voxels, "names 'v.raw' as the file"), (list_of_slices, "names 'LIST'"),
    (voxels_apart, "another file.*save both as one"), (text_voxels, "encoding 'ascii'"),
    (no_place, "goodRASFlag"), (pointer, "git lfs pull")])
def test_what_no_form_allows_is_named(tmp_path, make, words):
    path = make(tmp_path)
    with pytest.raises(DataError, match=words) as refused:
        read_volume(path)
    assert refused.value.file == str(path) or make is analyze
    assert refused.value.hint


def test_a_volume_of_a_file_of_four_dimensions(tmp_path):
    both = np.stack([ARRAY, ARRAY[::-1] + 1], axis=-1)
    for ending in (".nii", ".nii.gz", ".hdr"):
        path = write_image(tmp_path / f"v{ending}", both, AFFINE)
        single = geometry_of(write_image(tmp_path / f"single{ending}", ARRAY, AFFINE))
        for number in (0, 1):
            volume = RawVolume.read(Channel(path, number, 2))
            np.testing.assert_array_equal(volume.array, both[..., number])
            assert volume.geometry.difference(single) is None
            assert volume.geometry.nifti_header().get_data_shape() == ARRAY.shape
        with pytest.raises(DataError, match=r"v\..*holds 2 volumes where dataset.json names 3"):
            RawVolume.read(Channel(path, 0, 3))
    with pytest.raises(DataError, match=r"holds 1 volume where dataset.json names 2"):
        RawVolume.read(Channel(write_image(tmp_path / "v.mgz", ARRAY, AFFINE), 0, 2))


def test_a_digest_is_of_every_part_of_an_image(tmp_path):
    path = write_image(tmp_path / "v.hdr", ARRAY, AFFINE)
    case = Case("p", {"flair": path}, write_image(tmp_path / "s.mhd", ARRAY, AFFINE, packed=False))
    before = inputs_of([case])["p"]
    for changed, key in ((tmp_path / "v.img", "images"), (tmp_path / "s.raw", "segmentation")):
        data = changed.read_bytes()
        changed.write_bytes(bytes(2) + data[2:])
        assert inputs_of([case])["p"][key] != before[key]
        changed.write_bytes(data)
    assert inputs_of([case])["p"] == before
    both = write_image(tmp_path / "both.nii", np.stack([ARRAY, ARRAY], -1), AFFINE)
    digests = inputs_of([Case("p", {str(n): Channel(both, n, 2) for n in (0, 1)})])["p"]["images"]
    assert digests["0"] != digests["1"]
    (tmp_path / "v.img").unlink()
    assert inputs_of([replace(case, segmentation=None)])["p"] is None


def test_a_pair_is_one_image(tmp_path):
    write_image(tmp_path / "v.img", ARRAY, AFFINE)
    assert image_files(tmp_path) == [tmp_path / "v.hdr"]
    np.testing.assert_array_equal(read_volume(tmp_path / "v.img")[0], ARRAY)
    shutil.move(tmp_path / "v.hdr", tmp_path / "V.HDR")
    shutil.move(tmp_path / "v.img", tmp_path / "V.IMG")
    np.testing.assert_array_equal(read_volume(tmp_path / "V.HDR")[0], ARRAY)
    (tmp_path / "V.IMG").write_bytes(gzip.compress((tmp_path / "V.IMG").read_bytes()))
    np.testing.assert_array_equal(read_volume(tmp_path / "V.HDR")[0], ARRAY)
